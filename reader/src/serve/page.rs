//! The page to draw on. It reads in the browser, and asks this service where the browser cannot.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use lenet5_core::Weights;
use lenet5_web::{PAGE, PageFile};

use super::ServiceOptions;
use super::routes::App;

/// The path of the weights that the service was started with, without the slash at its start.
const OWN_WEIGHTS: &str = "weights.safetensors";
/// The page may load scripts and styles from this service alone, and send requests to it alone. It may compile
/// WebAssembly. Pictures may also come from the page itself.
const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the page's files, and of the service's own weights, if it has any.
pub fn routes(options: &ServiceOptions, own: Option<&Weights>) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for file in PAGE {
        let bytes = match file.path {
            "" => Bytes::from(index(file, options, own)),
            _ => Bytes::from_static(file.bytes),
        };
        let path = format!("/{}", file.path);
        routes = routes.route(&path, get(|| async move { response(file.media_type, bytes) }));
    }
    if let Some(own) = own {
        let bytes = Bytes::from(own.to_safetensors());
        let send = || async move { response("application/octet-stream", bytes) };
        routes = routes.route(&format!("/{OWN_WEIGHTS}"), get(send));
    }
    routes
}

/// Whether this is the path of a file of the page, other than the page itself.
pub fn is_file(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    !path.is_empty() && (path == OWN_WEIGHTS || PAGE.iter().any(|file| file.path == path))
}

/// The page with the settings of this service, as the data attributes that `app.js` reads.
fn index(file: PageFile, options: &ServiceOptions, own: Option<&Weights>) -> String {
    let page = str::from_utf8(file.bytes).expect("the page is UTF-8");
    let mut settings = r#"data-service="v1/""#.to_owned();
    if let Some(confidence) = options.reject_below {
        settings += &format!(r#" data-reject-below="{confidence}""#);
    }
    if let Some(own) = own {
        settings += &format!(r#" data-own="{}""#, own.config.network);
    }
    page.replacen("<html ", &format!("<html {settings} "), 1)
}

/// A response with a file. Browsers have to check for a new version each time (`no-cache`), as the files change with the
/// program.
fn response(media_type: &'static str, bytes: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, bytes).into_response()
}
