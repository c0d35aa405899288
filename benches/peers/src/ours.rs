//! The layers of `tower-kernels`: around a request for a kernel, around a small request of the reader's own, and around
//! http, where the peers are at home.

use std::fmt::Debug;
use std::time::Duration;

use tower::{Layer, Service, ServiceBuilder};
use tower_kernels::layers::{
    ConcurrencyLayer, ErrorResponseLayer, LoadShedLayer, MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer,
};
use tower_kernels::middleware::concurrency::{Aimd, Gradient};

use crate::inner::{HTTP, Http, KERNEL, Kernel, PLAIN, Plain, http_request, job, kernel_request};
use crate::{Calls, Case, drive};

/// The rows of one kind of inner service: each layer alone, and the four as a server stacks them.
macro_rules! rows {
    ($what:literal, $over:expr, $inner:expr, $request:expr) => {
        [
            Case {
                name: concat!("TimeoutLayer, ", $what),
                over: Some($over),
                build: || around($inner, $request, timeout()),
            },
            Case {
                name: concat!("RateLimiterLayer, ", $what),
                over: Some($over),
                build: || around($inner, $request, rate_limit()),
            },
            Case {
                name: concat!("TracingLayer, no subscriber, ", $what),
                over: Some($over),
                build: || around($inner, $request, TracingLayer::new()),
            },
            Case {
                name: concat!("MetricsLayer, ", $what),
                over: Some($over),
                build: || around($inner, $request, MetricsLayer::new()),
            },
            Case {
                name: concat!("our four, ", $what),
                over: Some($over),
                build: || {
                    let four = ServiceBuilder::new()
                        .layer(MetricsLayer::new())
                        .layer(TracingLayer::new())
                        .layer(rate_limit())
                        .layer(timeout());
                    around($inner, $request, four)
                },
            },
        ]
    };
}

pub(crate) const AROUND_KERNELS: &[Case] = &rows!("kernel request", KERNEL, Kernel, kernel_request);
pub(crate) const AROUND_JOBS: &[Case] = &rows!("plain request", PLAIN, Plain, job);
pub(crate) const AROUND_HTTP: &[Case] = &rows!("http request", HTTP, Http, http_request());
/// What makes the refusals of the others answers takes http only.
pub(crate) const ANSWER: &[Case] = &[
    Case {
        name: "ErrorResponseLayer::http, http request",
        over: Some(HTTP),
        build: || around(Http, http_request(), ErrorResponseLayer::http()),
    },
    Case {
        name: "ErrorResponseLayer::new, http request",
        over: Some(HTTP),
        build: || around(Http, http_request(), ErrorResponseLayer::new()),
    },
    Case {
        name: "ErrorResponseLayer::new and our four, http request",
        over: Some(HTTP),
        build: || {
            let five = ServiceBuilder::new()
                .layer(ErrorResponseLayer::new())
                .layer(MetricsLayer::new())
                .layer(TracingLayer::new())
                .layer(rate_limit())
                .layer(timeout());
            around(Http, http_request(), five)
        },
    },
];

/// How many at a time, and what is refused: none of these calls waits, and none is.
pub(crate) const OVERLOAD: &[Case] = &[
    Case {
        name: "ConcurrencyLayer, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, ConcurrencyLayer::new(64)),
    },
    Case {
        name: "ConcurrencyLayer by AIMD, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, ConcurrencyLayer::adaptive(Aimd::new(64))),
    },
    Case {
        name: "ConcurrencyLayer by gradient, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, ConcurrencyLayer::adaptive(Gradient::new(64))),
    },
    Case {
        name: "ConcurrencyLayer::per_tenant, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, ConcurrencyLayer::new(64).per_tenant(Duration::from_secs(1), 64)),
    },
    Case {
        name: "LoadShedLayer, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, LoadShedLayer::new()),
    },
    Case {
        name: "LoadShedLayer by estimate, plain request",
        over: Some(PLAIN),
        build: || {
            let layer = LoadShedLayer::predicting(Duration::from_secs(1)).parallelism(2);
            around(Plain, job, layer.estimate(|job: &crate::inner::Job| Duration::from_nanos(job.size)))
        },
    },
    Case {
        name: "LoadShedLayer, learned, plain request",
        over: Some(PLAIN),
        build: || around(Plain, job, LoadShedLayer::predicting(Duration::from_secs(1))),
    },
];

fn around<L, S, R>(inner: S, request: impl Fn() -> R + 'static, layer: L) -> Calls
where
    L: Layer<S, Service: Service<R, Error: Debug> + 'static>,
    R: 'static,
{
    drive(layer.layer(inner), request)
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::new(Duration::from_secs(30))
}

/// A quota that never runs out.
fn rate_limit() -> RateLimiterLayer {
    RateLimiterLayer::new(u32::MAX, Duration::from_secs(1))
}
