//! The routes and their handlers.
//!
//! Each handler receives the whole body before it reports an error. Otherwise hyper would close the connection, and a
//! client that wants to use it again would fail.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::FutureExt;
use lenet5_core::recognizer::{LayerOutput, Pattern, Reading};
use lenet5_core::{Error, Network, Weights};
use serde::Serialize;
use serde_json::json;
use tokio::time;
use tower_http::cors::CorsLayer;

use super::ServiceOptions;
use super::body::Received;
use super::corrections;
use super::failure::Failure;
use super::form::BodyForm;
use super::guard::Guard;
use super::kept::{self, Kept};
use super::metrics::{self, ServiceMetrics};
use super::page::{self, OwnWeights};
use super::reader::{NetworkReader, RequestLimits};

const OPENAPI: &str = include_str!("openapi.json");
const JSON: &str = "application/json";

/// The state that all requests share.
pub struct App {
    pub networks: RwLock<Networks>,
    pub default: Network,
    pub limits: RequestLimits,
    pub timeout: Duration,
    pub metrics: Arc<ServiceMetrics>,
    pub guard: Guard,
    pub cors: Option<CorsLayer>,
    /// The routes of the page's files.
    pub page: Router<Arc<App>>,
    /// The weights that the page reads with, if they are not the shipped ones.
    pub own: Option<OwnWeights>,
    /// The folder of corrections, if the service keeps them.
    pub kept: Option<Kept>,
}

/// The networks that read pictures. A request holds the one that it began with, even if another takes its place.
pub struct Networks {
    pub modern: Arc<NetworkReader>,
    pub original: Arc<NetworkReader>,
}

/// The parameters in the query of a URL.
#[derive(Default)]
pub struct QueryParameters {
    model: Option<Network>,
    pub label: Option<usize>,
    pub name: Option<String>,
    digit: Option<usize>,
    digits: Option<Pattern>,
    pattern: Option<Pattern>,
}

/// The response of `/v1/predict`.
#[derive(Serialize)]
struct Prediction {
    model: Network,
    #[serde(flatten)]
    reading: Reading,
}

/// The response of `/v1/activations`.
#[derive(Serialize)]
struct Activations<'a> {
    model: Network,
    reading: &'a Reading,
    digit: usize,
    layers: Vec<LayerOutput>,
    pixels: &'a [u8],
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<&'a [Vec<f32>]>,
}

/// The router with all routes.
pub fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .merge(app.page.clone())
        .route("/v1/predict", post(predict))
        .route("/v1/activations", post(activations))
        .route("/v1/corrections", post(corrections::keep).delete(corrections::take_back))
        .route("/healthz", get(|| async { json(&json!({"status": "ok"})) }))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, JSON)], OPENAPI) }))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    let routes = match app.cors.clone() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes
        .layer(from_fn_with_state(Arc::clone(&app), guard))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

async fn predict(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = app.limits.bodies.receive(body).await?;
    let query = query_parameters(&uri, &["model", "digits", "pattern"])?;
    let reader = app.reader(query.model);
    let reading = app.read(&reader, &headers, body, query.form()).await?;
    if prefers_text(&headers) {
        return Ok(reading.accepted.into_response());
    }
    Ok(json(&Prediction { model: reader.network, reading }))
}

async fn activations(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = app.limits.bodies.receive(body).await?;
    let query = query_parameters(&uri, &["model", "digit", "digits", "pattern"])?;
    let digit = query.digit.unwrap_or(0);
    let reader = app.reader(query.model);
    let reading = app.read(&reader, &headers, body, query.form()).await?;
    let Some(found) = reading.digits.get(digit) else {
        let (last, text) = (reading.digits.len().saturating_sub(1), &reading.text);
        let message = format!("digit: expected 0 to {last} of the digits {text:?}, found {digit}");
        return Err(Failure::bad("bad_digit", message));
    };
    let layers = app.within(reader.layers(&app.limits, found.pixels)).await?;
    let codes = reader.recognizer.codes();
    let (model, reading, pixels) = (reader.network, &reading, &found.pixels);
    Ok(json(&Activations { model, reading, digit, layers, pixels, codes }))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    for network in [Network::Modern, Network::Original] {
        let reader = app.reader(Some(network));
        app.metrics.queue(reader.network, reader.batcher.depth());
    }
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text()).into_response()
}

async fn not_found(State(app): State<Arc<App>>, uri: Uri, body: Body) -> Result<(), Failure> {
    app.limits.bodies.receive(body).await?;
    let message = format!("there is no {}; /openapi.json lists what there is", uri.path());
    Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message))
}

async fn method_not_allowed(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    body: Body,
) -> Result<Response, Failure> {
    app.limits.bodies.receive(body).await?;
    let allowed = match uri.path() {
        "/v1/corrections" => "POST, DELETE, OPTIONS",
        path if path.starts_with("/v1/") => "POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    };
    let mut response = if method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let message = format!("{} takes {allowed}, found {method}", uri.path());
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Failure::new(status, "method_not_allowed", message).into_response()
    };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Ok(response)
}

/// Checks the host and the origin of each request, before its handler runs.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => match app.limits.bodies.receive(request.into_body()).await {
            Ok(_) => refused.into_response(),
            Err(failure) => failure.into_response(),
        },
    }
}

impl App {
    fn reader(&self, network: Option<Network>) -> Arc<NetworkReader> {
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        match network.unwrap_or(self.default) {
            Network::Modern => Arc::clone(&networks.modern),
            Network::Original => Arc::clone(&networks.original),
        }
    }

    /// Replaces the service's own weights. Requests that have begun keep the old ones.
    ///
    /// # Errors
    /// If the service has no weights of its own, or if these are those of another network; then nothing changes.
    pub fn replace(&self, weights: &Weights, options: &ServiceOptions) -> lenet5_core::Result<()> {
        let Some(own) = &self.own else {
            return Err(Error::Config("the service reads with the shipped weights".to_owned()));
        };
        let (network, old) = (weights.config.network, self.reader(None));
        let (expected, found) = (old.recognizer.config().classes, weights.config.classes);
        if network != self.default || found != expected {
            let default = self.default;
            return Err(Error::Config(format!(
                "expected the {default} network with {expected} classes, found the {network} \
                 network with {found}"
            )));
        }
        let new = Arc::new(NetworkReader::start(network, Some(weights), options, &self.metrics)?);
        let mut networks = self.networks.write().unwrap_or_else(PoisonError::into_inner);
        match network {
            Network::Modern => networks.modern = new,
            Network::Original => networks.original = new,
        }
        drop(networks);
        own.replace(weights);
        Ok(())
    }

    async fn read(
        &self,
        reader: &NetworkReader,
        headers: &HeaderMap,
        body: Received,
        pattern: Pattern,
    ) -> Result<Reading, Failure> {
        let form = BodyForm::of(headers, &body.bytes)?;
        let reading = self.within(reader.read(&self.limits, form, body, pattern)).await?;
        self.metrics.digits(reader.network, reading.digits.len());
        Ok(reading)
    }

    /// Waits for work, at most until the timeout.
    pub async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            let message =
                format!("expected a result within {} s, found none", self.timeout.as_secs_f64());
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", message))
        })
    }
}

impl QueryParameters {
    /// The form of the picture's lines.
    fn form(self) -> Pattern {
        self.digits.or(self.pattern).unwrap_or_default()
    }
}

/// Parses the query of a URL, in which the names in `known` are allowed.
pub fn query_parameters(uri: &Uri, known: &[&str]) -> Result<QueryParameters, Failure> {
    let bad = |message: String| Failure::bad("bad_query", message);
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| bad("expected name=value pairs after the question mark".to_owned()))?;
    let mut parameters = QueryParameters::default();
    for (name, value) in pairs.0 {
        let twice = match name.as_str() {
            name if !known.contains(&name) => {
                return Err(bad(format!(
                    "expected {} in the query, found {name}",
                    known.join(", ")
                )));
            }
            "model" => {
                let model: Network = value.parse().map_err(|_| {
                    bad(format!("model: expected modern or original, found {value}"))
                })?;
                parameters.model.replace(model).is_some()
            }
            "digits" => {
                let digits = Pattern::parse_digits(&value)
                    .map_err(|error| bad(format!("digits: {error}")))?;
                parameters.digits.replace(digits).is_some()
            }
            "pattern" => {
                let pattern = value.parse().map_err(|error| {
                    bad(format!("pattern: {error}; in a URL # is written as %23"))
                })?;
                parameters.pattern.replace(pattern).is_some()
            }
            "label" => {
                let label = value.parse().map_err(|_| {
                    bad(format!("label: expected the number of a class from 0, found {value}"))
                })?;
                parameters.label.replace(label).is_some()
            }
            "name" => {
                if !kept::is_name(&value) {
                    return Err(bad(format!(
                        "name: expected 16 hexadecimal digits, found {value}"
                    )));
                }
                parameters.name.replace(value).is_some()
            }
            _ => {
                let digit = value.parse().map_err(|_| {
                    bad(format!("digit: expected the number of a digit from 0, found {value}"))
                })?;
                parameters.digit.replace(digit).is_some()
            }
        };
        if twice {
            return Err(bad(format!("{name}: expected one value, found more")));
        }
    }
    if parameters.digits.is_some() && parameters.pattern.is_some() {
        return Err(bad("expected digits or pattern in the query, found both".to_owned()));
    }
    Ok(parameters)
}

/// Whether the Accept header prefers text to JSON. The quality of a type is the quality of the most specific range that
/// includes it: the type itself, then text/* or application/*, then */*.
fn prefers_text(headers: &HeaderMap) -> bool {
    let ranges: Vec<(String, f32)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let name = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            (name, quality.unwrap_or(1.0))
        })
        .collect();
    let quality = |names: [&str; 3]| {
        let of = |name: &str| ranges.iter().find(|(range, _)| range == name).map(|(_, q)| *q);
        names.into_iter().find_map(of).unwrap_or(0.0)
    };
    quality(["text/plain", "text/*", "*/*"]) > quality(["application/json", "application/*", "*/*"])
}

pub fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("the data can be written as JSON");
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// Counts and logs each request, and sends a response even if its handler panics.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let _in_flight = app.metrics.enter();
    let matched = request.extensions().get::<MatchedPath>();
    let route = route(matched.map(MatchedPath::as_str));
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = response.unwrap_or_else(|_| Failure::internal().into_response());
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let time = start.elapsed();
    app.metrics.request(route, response.status(), time);
    tracing::info!(
        %method,
        path = uri.path(),
        status = response.status().as_u16(),
        milliseconds = time.as_micros() as f64 / 1e3,
        bytes = response.body().size_hint().exact(),
        "request"
    );
    response
}

/// The route's name in the metrics. Unknown paths have one name, so that clients cannot add metrics without limit.
fn route(path: Option<&str>) -> &'static str {
    const ROUTES: [&str; 7] = [
        "/v1/predict",
        "/v1/activations",
        "/v1/corrections",
        "/",
        "/healthz",
        "/metrics",
        "/openapi.json",
    ];
    match path {
        Some(path) if page::is_file(path) => "page files",
        _ => ROUTES.into_iter().find(|route| Some(*route) == path).unwrap_or("other"),
    }
}
