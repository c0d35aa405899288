//! The layers that an http service takes from the ecosystem.

use std::time::Duration;

use axum::body::Body;
use axum_prometheus::PrometheusMetricLayer;
use tower::timeout::TimeoutLayer;
use tower::{Layer, ServiceBuilder};
use tower_governor::GovernorLayer;
use tower_governor::governor::{GovernorConfig, GovernorConfigBuilder};
use tower_governor::key_extractor::GlobalKeyExtractor;
use tower_http::trace::TraceLayer;

use crate::inner::{HTTP, Http, http_request};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case { name: "tower-http Trace, no subscriber", over: Some(HTTP), build: trace },
    Case { name: "tower Timeout, http", over: Some(HTTP), build: timeout },
    Case { name: "tower_governor", over: Some(HTTP), build: governor },
    Case { name: "axum-prometheus", over: Some(HTTP), build: prometheus },
    Case { name: "four http peers", over: Some(HTTP), build: stack },
];

/// One bucket for all callers, which never runs dry.
fn quota() -> GovernorConfig<GlobalKeyExtractor, governor::middleware::NoOpMiddleware> {
    GovernorConfigBuilder::default()
        .const_per_nanosecond(1)
        .const_burst_size(u32::MAX)
        .key_extractor(GlobalKeyExtractor)
        .finish()
        .expect("a quota above zero")
}

fn trace() -> Calls {
    drive(TraceLayer::new_for_http().layer(Http), http_request())
}

fn timeout() -> Calls {
    in_runtime(|| {
        let layer = TimeoutLayer::new(Duration::from_secs(30));
        drive(layer.layer(Http), http_request())
    })
}

fn governor() -> Calls {
    let layer = GovernorLayer::<_, _, Body>::new(quota());
    drive(layer.layer(Http), http_request())
}

/// Its recorder's upkeep is a tokio task, which does not run here: what it costs is not in the row.
fn prometheus() -> Calls {
    in_runtime(|| {
        let (layer, _recorder) = PrometheusMetricLayer::pair();
        drive(layer.layer(Http), http_request())
    })
}

/// tower_governor's refusals are of axum's body type, so it stands inside the two layers that change the body.
fn stack() -> Calls {
    in_runtime(|| {
        let (metrics, _recorder) = PrometheusMetricLayer::pair();
        let service = ServiceBuilder::new()
            .layer(metrics)
            .layer(TraceLayer::new_for_http())
            .layer(GovernorLayer::<_, _, Body>::new(quota()))
            .layer(TimeoutLayer::new(Duration::from_secs(30)))
            .service(Http);
        drive(service, http_request())
    })
}
