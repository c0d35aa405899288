use std::time::Duration;

use tokio::time::Instant;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::TimeoutLayer;
use tower_kernels::middleware::timeout::{TimeoutError, oneshot};
use tower_kernels::request::{Deadline, RequestContext};

use crate::support::probe::{Act, ProbeError, Request, probe};

const SECOND: Duration = Duration::from_secs(1);
const ELAPSED: TimeoutError<ProbeError> = TimeoutError::Elapsed { called: true };
const REFUSED: TimeoutError<ProbeError> = TimeoutError::Elapsed { called: false };

#[tokio::test(start_paused = true)]
async fn it_fires_at_the_deadline_and_not_before() {
    let (probe, watch) = probe(1);
    let mut service = TimeoutLayer::new(SECOND).layer(probe);
    let begun = Instant::now();
    let error = service.ready().await.unwrap().call(Request::new(Act::Never)).await.unwrap_err();
    assert_eq!(error, ELAPSED);
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(begun.elapsed().as_millis(), 1000);
    assert_eq!(watch.in_use(), 0);

    service.ready().await.unwrap().call(Request::new(Act::Take(SECOND / 2))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_time_counts_from_the_call_and_not_from_the_first_poll() {
    let (probe, _) = probe(1);
    let mut service = TimeoutLayer::new(SECOND).layer(probe);
    let begun = Instant::now();
    let future = service.ready().await.unwrap().call(Request::new(Act::Never));
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(future.await.unwrap_err(), ELAPSED);
    assert_eq!(begun.elapsed().as_millis(), 1000);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_told_the_earlier_deadline() {
    let (probe, _) = probe(1);
    let mut service = TimeoutLayer::new(SECOND).layer(probe);
    let now = Instant::now().into_std();
    for (theirs, expected) in [(None, SECOND), (Some(SECOND * 9), SECOND), (Some(SECOND / 4), SECOND / 4)] {
        let request = Request { deadline: theirs.map(|theirs| now + theirs), ..Request::new(Act::Answer) };
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.deadline, Some(now + expected));
    }
    let request = Request { deadline: Some(now + SECOND / 4), ..Request::new(Act::Never) };
    service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(Instant::now().into_std() - now, SECOND / 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_late_is_not_called() {
    let (probe, watch) = probe(1);
    let mut service = TimeoutLayer::new(SECOND).layer(probe);
    let now = Instant::now().into_std();
    let request = Request { deadline: Some(now), ..Request::new(Act::Answer) };
    assert_eq!(service.ready().await.unwrap().call(request).await.unwrap_err(), REFUSED);
    assert_eq!(watch.calls(), 0);
    // The place stays reserved, is not reserved again, and serves the next call.
    assert_eq!(watch.in_use(), 1);
    service.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap();
    assert_eq!((watch.calls(), watch.in_use()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_wins_over_a_deadline_that_has_passed() {
    let (probe, _) = probe(1);
    let mut service = TimeoutLayer::new(Duration::ZERO).layer(probe);
    let future = service.ready().await.unwrap().call(Request::new(Act::Answer));
    tokio::time::advance(SECOND).await;
    future.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_past_the_end_of_time_is_none() {
    let (probe, _) = probe(1);
    let mut service = TimeoutLayer::new(Duration::MAX).layer(probe);
    let response = service.ready().await.unwrap().call(Request::new(Act::Take(SECOND * 1000))).await.unwrap();
    assert_eq!(response.deadline, None);
}

/// On real time: a task that is always runnable does not let paused time advance.
#[tokio::test]
async fn it_fires_over_a_future_that_eats_the_whole_budget() {
    let (probe, watch) = probe(1);
    let mut service = TimeoutLayer::new(Duration::from_millis(20)).layer(probe);
    let call = service.ready().await.unwrap().call(Request::new(Act::EatBudget));
    // tower's own never ends here, so another thread must be the judge.
    let (done, judge) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let fired = judge.recv_timeout(Duration::from_secs(60)).is_ok();
        if !fired {
            eprintln!("the timeout has not fired within 60 s");
            std::process::abort();
        }
    });
    assert_eq!(call.await.unwrap_err(), ELAPSED);
    done.send(()).unwrap();
    assert_eq!(watch.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_inner_future_is_dropped_when_the_deadline_passes() {
    let (probe, watch) = probe(1);
    let mut service = TimeoutLayer::new(SECOND).layer(probe);
    let mut call = Box::pin(service.ready().await.unwrap().call(Request::new(Act::Never)));
    assert_eq!(call.as_mut().await.unwrap_err(), ELAPSED);
    assert_eq!(watch.in_use(), 0, "the work goes on for as long as the future is kept");
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn oneshot_counts_the_wait_for_readiness() {
    let (mut full, watch) = probe(1);
    let waiting = full.clone();
    full.ready().await.unwrap();
    let begun = Instant::now();
    let request = Request { deadline: Some(begun.into_std() + SECOND), ..Request::new(Act::Answer) };
    assert_eq!(oneshot(waiting, request).await.unwrap_err(), REFUSED);
    assert_eq!(begun.elapsed().as_millis(), 1000);
    assert_eq!((watch.calls(), watch.in_use()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn oneshot_gives_the_rest_of_the_time_to_the_call() {
    let (full, watch) = probe(1);
    let busy = tokio::spawn(full.clone().oneshot(Request::new(Act::Take(SECOND * 3))));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let request = |act| Request { deadline: Some(begun.into_std() + SECOND * 5), ..Request::new(act) };
    let late = oneshot(full.clone(), request(Act::Take(SECOND * 4))).await.unwrap_err();
    assert_eq!(late, ELAPSED);
    assert_eq!(begun.elapsed().as_millis(), 5000);
    assert_eq!(watch.in_use(), 0);
    busy.await.unwrap().unwrap();

    let late = oneshot(full.clone(), request(Act::Answer)).await.unwrap_err();
    assert_eq!(late, REFUSED, "there is room, and it is too late");
    oneshot(full, Request::new(Act::Answer)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn http_requests_carry_the_deadline_as_an_extension() {
    let told = tower::service_fn(|request: http::Request<()>| async move {
        Ok::<_, std::convert::Infallible>(request.extensions().get::<Deadline>().copied())
    });
    let mut service = TimeoutLayer::new(SECOND).layer(ConcurrencyLimit::new(told, 1));
    let now = Instant::now().into_std();
    let mut request = http::Request::new(());
    assert_eq!(service.ready().await.unwrap().call(request.clone()).await.unwrap(), Some(Deadline(now + SECOND)));
    request.set_deadline(now + SECOND / 2);
    assert_eq!(service.ready().await.unwrap().call(request).await.unwrap(), Some(Deadline(now + SECOND / 2)));
}
