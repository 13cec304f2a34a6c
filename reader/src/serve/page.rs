//! The page to draw on. It reads in the browser, and asks this service where the browser cannot.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
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

/// A file that the page loads, and the tag of its version.
#[derive(Clone)]
struct Content {
    bytes: Bytes,
    tag: String,
}

/// The file of the service's own weights, which another may replace.
#[derive(Clone)]
pub struct OwnWeights(Arc<RwLock<Content>>);

impl OwnWeights {
    pub fn new(weights: &Weights) -> Self {
        Self(Arc::new(RwLock::new(Content::new(weights.to_safetensors().into()))))
    }

    /// Replaces the file. Its tag changes, so that browsers load it anew.
    pub fn replace(&self, weights: &Weights) {
        let content = Content::new(weights.to_safetensors().into());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = content;
    }

    fn content(&self) -> Content {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The routes of the page's files, and of the service's own weights, if it has any.
pub fn routes(
    options: &ServiceOptions,
    own: Option<&Weights>,
    own_file: Option<OwnWeights>,
) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for file in PAGE {
        let content = Content::new(match file.path {
            "" => Bytes::from(index(file, options, own)),
            _ => Bytes::from_static(file.bytes),
        });
        let send = async move |request: HeaderMap| content.response(&request, file.media_type);
        routes = routes.route(&format!("/{}", file.path), get(send));
    }
    match own_file {
        Some(file) => {
            let send = async move |request: HeaderMap| {
                file.content().response(&request, "application/octet-stream")
            };
            routes.route(&format!("/{OWN_WEIGHTS}"), get(send))
        }
        None => routes,
    }
}

impl Content {
    fn new(bytes: Bytes) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self { bytes, tag: format!("\"{:016x}\"", hasher.finish()) }
    }

    /// The response with the file. Browsers have to ask for a new version each time (`no-cache`), as the files change with
    /// the program; the tag tells them that they have it already.
    fn response(self, request: &HeaderMap, media_type: &'static str) -> Response {
        let Self { bytes, tag } = self;
        let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
        let headers = [
            (header::CONTENT_TYPE, media_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-cache"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        let content = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => bytes.into_response(),
        };
        ([(header::ETAG, tag)], headers, content).into_response()
    }
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
    if options.keep.is_some() {
        settings += " data-keep";
    }
    page.replacen("<html ", &format!("<html {settings} "), 1)
}
