//! Checks which hosts and origins may send requests.
//!
//! A service on a loopback address is for this machine alone. But a web page from another site can reach it too: it can
//! send a request to the address, or use a host name that its owner points to 127.0.0.1 (DNS rebinding). For this reason
//! the `Host` header has to name this machine, and the `Origin` has to be allowed.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use lenet5_core::{Error, Result};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::ServiceOptions;
use super::failure::Failure;

/// The hosts and origins that are allowed.
pub struct Guard {
    /// Whether hosts and origins are checked.
    checks: bool,
    /// Names that are allowed in addition to those of a loopback address.
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    pub fn new(options: &ServiceOptions, address: SocketAddr) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut hosts: Vec<String> = lower(&options.allow_host);
        let checks = address.ip().to_canonical().is_loopback() || !hosts.is_empty();
        // The service may listen on a name of this machine.
        hosts.extend(options.addr.rsplit_once(':').map(|(name, _)| name.to_ascii_lowercase()));
        Self { checks, hosts, origins: lower(&options.allow_origin) }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// If the host or the origin is not allowed.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        if !self.checks {
            return Ok(());
        }
        let authority = request.uri().authority().map(Authority::as_str);
        let host = text(request.headers(), header::HOST).or(authority);
        if let Some(host) = host.filter(|host| !self.is_ours(host)) {
            let message = format!(
                "expected a Host header that names this machine, such as localhost, found {host}; \
                 --allow-host lets others in"
            );
            return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden_host", message));
        }
        let origin = text(request.headers(), header::ORIGIN);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        match origin.filter(|origin| !reads && !self.is_allowed(origin)) {
            Some(origin) => Err(forbidden(origin)),
            None => Ok(()),
        }
    }

    /// Checks a request that changes files, also where [`Guard::check`] checks nothing: if a page sends it, the page has
    /// to be the service's own, or of an allowed origin.
    ///
    /// # Errors
    /// If the origin is not allowed.
    pub fn check_change(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(origin) = text(headers, header::ORIGIN).filter(|_| !self.checks) else {
            return Ok(());
        };
        let host = text(headers, header::HOST).map(str::to_ascii_lowercase);
        let page = origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase());
        match page.is_some() && page == host || self.is_listed(origin) {
            true => Ok(()),
            false => Err(forbidden(origin)),
        }
    }

    /// Whether a host, with or without a port, is this machine or an allowed name.
    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.to_ascii_lowercase().parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).trim_end_matches('.');
        name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            || self.hosts.iter().any(|allowed| allowed == name)
    }

    fn is_allowed(&self, origin: &str) -> bool {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| self.is_ours(host)) || self.is_listed(origin)
    }

    /// Whether `--allow-origin` names an origin.
    fn is_listed(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|allowed| *allowed == origin || allowed == "*")
    }
}

fn forbidden(origin: &str) -> Failure {
    let message = format!(
        "expected a request from the service's own page, found the origin {origin}; \
         --allow-origin lets others in, and \
         --allow-host the name of a proxy before the service"
    );
    Failure::new(StatusCode::FORBIDDEN, "forbidden_origin", message)
}

/// A header as text. Other bytes become a text that is never an allowed name.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("bytes that are no text"))
}

/// The layer that adds the headers of CORS, with which browsers let pages of other origins read the responses. None if
/// `--allow-origin` is not given.
///
/// # Errors
/// If an origin is malformed.
pub fn cors(options: &ServiceOptions) -> Result<Option<CorsLayer>> {
    if options.allow_origin.is_empty() {
        return Ok(None);
    }
    let origins = if options.allow_origin.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let value = |origin: &String| {
            let is_origin = origin == "null" || origin.contains("://") && !origin.ends_with('/');
            HeaderValue::from_str(&origin.to_ascii_lowercase()).ok().filter(|_| is_origin).ok_or_else(|| {
                Error::Config(format!(
                    "allow-origin: expected an origin such as https://example.org, found {origin}"
                ))
            })
        };
        let origins = options.allow_origin.iter().map(value);
        AllowOrigin::list(origins.collect::<Result<Vec<_>>>()?)
    };
    let methods = [Method::GET, Method::POST, Method::DELETE];
    Ok(Some(CorsLayer::new().allow_origin(origins).allow_methods(methods).allow_headers(Any)))
}
