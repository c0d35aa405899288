use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http_body::Body;
use tokio::sync::Mutex;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthReporter;
use tower_service::Service;

use super::MAX_NAME_MESSAGE_BYTES;
use super::proto::SERVICE_NAME;
use crate::pipeline::KernelSource;
use crate::servers::devices::{not_ready, operands_not_ready};

/// The standard health service [`grpc.health.v1.Health`](https://grpc.io/docs/guides/health-checking/), for the server (the
/// empty name) and for `tower_kernels.v1.Kernel`.
///
/// The initial status is serving. That of [`KernelGrpcServer::health`](super::KernelGrpcServer::health) depends on the
/// devices. Clones share their status, so keep one to remove the server from load balancing before it stops:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use tower_kernels::grpc::HealthService;
///
/// let health = HealthService::new();
/// let router = tonic::transport::Server::builder().add_service(health.clone());
/// // At shutdown:
/// health.set_serving(false).await;
/// // When no new calls arrive, end the watch streams:
/// health.close().await;
/// # drop(router);
/// # }
/// ```
#[derive(Clone)]
pub struct HealthService {
    inner: HealthServer<tonic_health::server::HealthService>,
    state: Arc<State>,
}

type DevicesUp = Box<dyn Fn() -> bool + Send + Sync>;

/// State that clones share.
struct State {
    reporter: HealthReporter,
    /// Set by the owner of the server.
    serving: AtomicBool,
    /// Whether the devices can run the kernels, if it is known.
    devices_up: Option<DevicesUp>,
    /// Whether a task polls the devices.
    followed: AtomicBool,
    /// Last status given to the reporter; `None` once it is closed.
    reported: Mutex<Option<bool>>,
}

/// Interval at which the devices are polled for watching clients.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl State {
    fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed) && self.devices_up.as_ref().is_none_or(|up| up())
    }

    /// Updates the reporter if the status has changed.
    async fn refresh(&self) {
        let mut reported = self.reported.lock().await;
        let serving_now = self.is_serving();
        if reported.is_some_and(|reported| reported != serving_now) {
            self.report(serving_now).await;
            *reported = Some(serving_now);
        }
    }

    async fn report(&self, serves: bool) {
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
        self.reporter.set_service_status(SERVICE_NAME, status).await;
    }

    /// Spawns a task that polls the devices as long as the service exists. It is for watch streams; a check polls by
    /// itself.
    fn follow(self: &Arc<Self>) {
        if self.devices_up.is_none() || self.followed.swap(true, Ordering::Relaxed) {
            return;
        }
        let state = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(state) = state.upgrade() {
                state.refresh().await;
                drop(state);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
    }
}

impl HealthService {
    /// Returns whether the status is serving.
    pub(super) fn is_serving(&self) -> bool {
        self.state.is_serving()
    }

    /// Creates a service that reports serving, whatever the state of the devices.
    pub fn new() -> Self {
        Self::following(None)
    }

    /// Creates a service that reports serving while the devices of these kernels can run them, once the operands are
    /// [loaded](crate::service::Operands::load).
    pub fn of(kernels: &impl KernelSource) -> Self {
        let (local, registry) = (kernels.devices().cloned(), Arc::clone(kernels.registry()));
        if local.is_none() && !registry.operands().is_persistent() {
            return Self::new();
        }
        Self::following(Some(Box::new(move || {
            let devices = local.as_ref().and_then(|local| not_ready(&local.status(), &registry));
            devices.or_else(|| operands_not_ready(&registry)).is_none()
        })))
    }

    fn following(devices_up: Option<DevicesUp>) -> Self {
        let reporter = HealthReporter::new();
        // The lock inside is not shared yet, so this completes at once, unless Tokio's coop budget is used up.
        tokio::task::unconstrained(reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving))
            .now_or_never()
            .expect("the lock is not shared yet");
        let inner = HealthServer::new(tonic_health::server::HealthService::from_health_reporter(reporter.clone()))
            .max_decoding_message_size(MAX_NAME_MESSAGE_BYTES);
        let (serving, followed) = (AtomicBool::new(true), AtomicBool::new(false));
        let state = State { reporter, serving, devices_up, followed, reported: Mutex::new(Some(true)) };
        Self { inner, state: Arc::new(state) }
    }

    /// Sets the status, and updates watch streams. While the devices cannot run the kernels it stays not serving.
    pub async fn set_serving(&self, serving: bool) {
        let mut reported = self.state.reported.lock().await;
        self.state.serving.store(serving, Ordering::Relaxed);
        let serving_now = self.state.is_serving();
        self.state.report(serving_now).await;
        *reported = Some(serving_now);
    }

    /// Ends all watch streams, as a graceful shutdown of their connections would wait for them forever. Further checks
    /// fail with `NOT_FOUND`.
    pub async fn close(&self) {
        let mut reported = self.state.reported.lock().await;
        let mut reporter = self.state.reporter.clone();
        reporter.clear_service_status("").await;
        reporter.clear_service_status(SERVICE_NAME).await;
        *reported = None;
    }
}

impl Default for HealthService {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Service<http::Request<B>> for HealthService
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<B>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if self.state.devices_up.is_none() {
            return self.inner.call(request);
        }
        self.state.follow();
        let (mut inner, state) = (self.inner.clone(), Arc::clone(&self.state));
        Box::pin(async move {
            state.refresh().await;
            drop(state);
            inner.call(request).await
        })
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = tonic_health::pb::health_server::SERVICE_NAME;
}

impl fmt::Debug for HealthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthService").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    struct Devices(Arc<AtomicBool>);

    impl Devices {
        fn start() -> (Self, HealthService) {
            let up = Arc::new(AtomicBool::new(true));
            let read = Arc::clone(&up);
            (Self(up), HealthService::following(Some(Box::new(move || read.load(Ordering::SeqCst)))))
        }

        fn set_up(&self, up: bool) {
            self.0.store(up, Ordering::SeqCst);
        }
    }

    async fn check(health: &HealthService, service: &str) -> i32 {
        let request = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(health.clone()).check(request).await.unwrap().into_inner().status
    }

    const SERVING: i32 = ServingStatus::Serving as i32;
    const NOT_SERVING: i32 = ServingStatus::NotServing as i32;

    #[tokio::test(start_paused = true)]
    async fn a_check_says_how_the_devices_are_and_what_the_owner_says() {
        let (devices, health) = Devices::start();
        for service in ["", SERVICE_NAME] {
            devices.set_up(true);
            assert_eq!(check(&health, service).await, SERVING);
            devices.set_up(false);
            assert_eq!(check(&health, service).await, NOT_SERVING);
            health.set_serving(true).await;
            assert_eq!(check(&health, service).await, NOT_SERVING, "no word of the owner's makes devices whole");
            devices.set_up(true);
            assert_eq!(check(&health, service).await, SERVING);
            health.set_serving(false).await;
            assert_eq!(check(&health, service).await, NOT_SERVING);
            health.set_serving(true).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_are_notified_and_released_when_it_closes() {
        let (devices, health) = Devices::start();
        let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
        let mut watch = HealthClient::new(health.clone()).watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, SERVING);
        devices.set_up(false);
        assert_eq!(watch.message().await.unwrap().unwrap().status, NOT_SERVING);
        devices.set_up(true);
        assert_eq!(watch.message().await.unwrap().unwrap().status, SERVING);
        health.close().await;
        devices.set_up(false);
        tokio::time::sleep(10 * POLL_INTERVAL).await;
        assert!(watch.message().await.unwrap().is_none(), "what is closed is not opened again");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_looks_at_the_devices_once_the_service_is_gone() {
        let (devices, health) = Devices::start();
        check(&health, "").await;
        drop(health);
        tokio::time::sleep(10 * POLL_INTERVAL).await;
        assert_eq!(Arc::strong_count(&devices.0), 1);
    }
}
