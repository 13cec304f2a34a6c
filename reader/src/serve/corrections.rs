//! The routes that keep corrections, and take them back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

use super::failure::Failure;
use super::form::BodyForm;
use super::kept::{self, Kept};
use super::routes::{App, json, query_parameters};

/// Maximum bytes of a request's body.
const MAX_BODY: usize = 16 << 10;

/// Keeps the picture of a digit with its right label.
pub async fn keep(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = app.limits.bodies.receive_at_most(body, MAX_BODY).await?;
    let kept = allowed(&app, &headers)?;
    let label = query_parameters(&uri, &["label"])?.label;
    let most = kept.classes() - 1;
    let Some(label) = label.filter(|label| *label <= most) else {
        let found = label.map_or("none".to_owned(), |label| label.to_string());
        let message = format!("label: expected 0 to {most}, found {found}");
        return Err(Failure::bad("bad_query", message));
    };
    let file = BodyForm::of(&headers, &body.bytes)?.file(&body.bytes)?;
    let stored = app.within(kept.store(label, kept::pixels(&file)?)).await?;
    app.metrics.kept(stored.count);
    Ok(json(&stored))
}

/// Takes a correction back, by the name that [`keep`] returned.
pub async fn take_back(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    app.limits.bodies.receive_at_most(body, MAX_BODY).await?;
    let kept = allowed(&app, &headers)?;
    let Some(name) = query_parameters(&uri, &["name"])?.name else {
        return Err(Failure::bad(
            "bad_query",
            "name: expected the name of a correction, found none",
        ));
    };
    let missing = format!("there is no correction {name}");
    let Some(stored) = app.within(kept.remove(name)).await? else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "no_such_correction", missing));
    };
    app.metrics.kept(stored.count);
    Ok(json(&stored))
}

/// The folder of corrections, if the service keeps them and accepts them from this client.
fn allowed<'a>(app: &'a App, headers: &HeaderMap) -> Result<&'a Kept, Failure> {
    app.guard.check_change(headers)?;
    app.kept.as_ref().ok_or_else(|| {
        let message = "this service keeps no corrections; its option --keep DIR turns that on";
        Failure::new(StatusCode::NOT_FOUND, "not_kept_here", message)
    })
}
