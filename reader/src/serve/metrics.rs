//! Metrics of the service, for Prometheus.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use lenet5_core::Network;

/// The content type of [`ServiceMetrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics.
pub struct ServiceMetrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram>,
    in_flight: Gauge,
    batch_size: Family<Model, Histogram>,
    digits: Family<Model, Counter>,
    queue: Family<Model, Gauge>,
    kept: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: &'static str,
}

/// Counts a request as in flight until it is dropped.
pub struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for ServiceMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lenet5");
        let requests = Family::default();
        registry.register("requests", "Requests with a response", requests.clone());
        // The buckets range from 0.5 ms to 4 s.
        let seconds: Family<Route, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14)));
        let help = "Time from the head of a request to its response";
        registry.register_with_unit("request_duration", help, Unit::Seconds, seconds.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests in progress", in_flight.clone());
        let batch_size: Family<Model, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 9)));
        registry.register("batch_size", "Pictures in a batch", batch_size.clone());
        let digits = Family::default();
        registry.register("digits", "Digits read", digits.clone());
        let queue = Family::default();
        registry.register("queue_depth", "Pictures that wait or are being read", queue.clone());
        let kept = Gauge::default();
        registry.register("corrections", "Corrections in the folder of --keep", kept.clone());
        Self { registry, requests, seconds, in_flight, batch_size, digits, queue, kept }
    }
}

impl ServiceMetrics {
    /// Counts a request as in flight.
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// Counts a request with a response.
    pub fn request(&self, route: &'static str, status: StatusCode, time: Duration) {
        self.refused(route, status);
        self.seconds.get_or_create(&Route { route }).observe(time.as_secs_f64());
    }

    /// Counts a request without its time: one that was refused before it was complete.
    pub fn refused(&self, route: &'static str, status: StatusCode) {
        let status = status.as_u16().into();
        self.requests.get_or_create(&Request { route, status }).inc();
    }

    /// Counts a batch of pictures.
    pub fn batch(&self, network: Network, size: usize) {
        self.batch_size.get_or_create(&Model::of(network)).observe(size as f64);
    }

    /// Counts digits that were read.
    pub fn digits(&self, network: Network, count: usize) {
        self.digits.get_or_create(&Model::of(network)).inc_by(count as u64);
    }

    /// Sets the number of pictures in the queue.
    pub fn queue(&self, network: Network, depth: usize) {
        self.queue.get_or_create(&Model::of(network)).set(depth as i64);
    }

    /// Sets the number of corrections in the folder.
    pub fn kept(&self, count: usize) {
        self.kept.set(count as i64);
    }

    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Model {
    fn of(network: Network) -> Self {
        let model = match network {
            Network::Modern => "modern",
            Network::Original => "original",
        };
        Self { model }
    }
}
