use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_test::assert_pending;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::{CacheLayer, CoalesceLayer};
use tower_kernels::middleware::cache::Store;
use tower_kernels::middleware::cache_key::{CacheKey, Cacheable};
use tower_kernels::request::ResponseContext;

use crate::support::probe::{Act, ProbeError, Request, Response, probe};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

type Key = fn(&Request) -> Option<String>;

fn key(request: &Request) -> Option<String> {
    (request.operation != "impure").then(|| request.operation.clone())
}

fn layer() -> CacheLayer<Key, Store<String, Response>> {
    CacheLayer::new(MIB, key as Key)
}

async fn ask<S>(service: &mut S, request: Request) -> Result<Response, ProbeError>
where
    S: Service<Request, Response = Response, Error = ProbeError>,
{
    service.ready().await?.call(request).await
}

fn backend(response: &Response) -> &'static str {
    response.execution().unwrap().backend
}

#[tokio::test(start_paused = true)]
async fn a_cached_response_is_returned_and_says_that_nothing_ran() {
    let ((probe, watch), cache) = (probe(1), layer());
    let mut service = cache.layer(probe);
    assert_eq!(backend(&ask(&mut service, Request::of("a", Act::Answer)).await.unwrap()), "CPU");
    for _ in 0..3 {
        let again = ask(&mut service, Request::of("a", Act::Never)).await.unwrap();
        assert_eq!(backend(&again), "cache");
        assert_eq!(again.execution().unwrap().executed, Duration::ZERO);
    }
    assert_eq!(backend(&ask(&mut service, Request::of("b", Act::Answer)).await.unwrap()), "CPU");
    assert_eq!((watch.calls(), cache.snapshot().hits, cache.snapshot().misses, cache.snapshot().entries), (2, 3, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_hit_leaves_the_readiness_for_the_next_call() {
    let ((probe, watch), cache) = (probe(1), layer());
    let mut service = cache.layer(probe);
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    assert_eq!((watch.in_use(), watch.calls()), (1, 1));
    ask(&mut service, Request::of("b", Act::Answer)).await.unwrap();
    assert_eq!((watch.in_use(), watch.calls()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_key_run_each_time_and_are_not_counted() {
    let ((probe, watch), cache) = (probe(1), layer());
    let mut service = cache.layer(probe);
    for _ in 0..3 {
        ask(&mut service, Request::of("impure", Act::Answer)).await.unwrap();
    }
    assert_eq!(
        (
            watch.calls(),
            cache.snapshot().hits,
            cache.snapshot().misses,
            cache.snapshot().entries,
            cache.snapshot().bytes
        ),
        (3, 0, 0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn errors_and_rejections_are_not_cached() {
    let ((probe, watch), cache) = (probe(1), layer());
    let mut service = cache.layer(probe);
    for kind in ErrorKind::ALL {
        assert_eq!(ask(&mut service, Request::of("a", Act::Fail(kind))).await.unwrap_err(), ProbeError(kind));
        assert_eq!(ask(&mut service, Request::of("a", Act::Refuse(kind))).await.unwrap().failure(), Some(kind));
    }
    assert_eq!((watch.calls(), cache.snapshot().entries), (2 * ErrorKind::ALL.len(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_response_expires() {
    let ((probe, watch), cache) = (probe(1), layer().ttl(SECOND));
    let mut service = cache.layer(probe);
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    tokio::time::advance(SECOND - Duration::from_millis(1)).await;
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    assert_eq!(watch.calls(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    ask(&mut service, Request::of("a", Act::Fail(ErrorKind::Internal))).await.unwrap_err();
    assert_eq!((watch.calls(), cache.snapshot().entries, cache.snapshot().bytes), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_time_to_live_that_overflows_is_none() {
    let ((probe, watch), cache) = (probe(1), layer().ttl(Duration::MAX));
    let mut service = cache.layer(probe);
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    tokio::time::advance(SECOND * 1_000_000).await;
    ask(&mut service, Request::of("a", Act::Answer)).await.unwrap();
    assert_eq!(watch.calls(), 1);
}

/// All keys have one digest.
struct Colliding;

impl CacheKey<Request> for Colliding {
    type Key<'r> = &'r str;
    type OwnedKey = String;

    fn key<'r>(&'r self, request: &'r Request) -> Option<&'r str> {
        Some(&request.operation)
    }
    fn is_equal(&self, owned: &String, key: &&str) -> bool {
        owned == key
    }
    fn to_owned_key(&self, key: &str) -> String {
        key.to_owned()
    }
    fn weight(&self, owned: &String) -> usize {
        owned.capacity()
    }
    fn digest(&self, _: &&str) -> u128 {
        42
    }
}

#[tokio::test(start_paused = true)]
async fn another_key_with_the_same_digest_is_a_miss() {
    let ((probe, watch), cache) = (probe(1), CacheLayer::new(MIB, Colliding));
    let mut service = cache.layer(probe);
    for operation in ["a", "b", "a"] {
        let response = service.ready().await.unwrap().call(Request::of(operation, Act::Answer)).await.unwrap();
        assert_eq!(backend(&response), "CPU");
    }
    // They replace each other.
    assert_eq!((watch.calls(), cache.snapshot().hits, cache.snapshot().misses, cache.snapshot().entries), (3, 0, 3, 1));
    let again = service.ready().await.unwrap().call(Request::of("a", Act::Never)).await.unwrap();
    assert_eq!(backend(&again), "cache");
}

#[tokio::test(start_paused = true)]
async fn two_keys_with_the_same_digest_do_not_share_a_run() {
    let ((probe, watch), coalesce) = (probe(2), CoalesceLayer::new(Colliding));
    let mut service = coalesce.layer(probe);
    let first = service.ready().await.unwrap().call(Request::of("a", Act::Take(SECOND)));
    let second = service.ready().await.unwrap().call(Request::of("b", Act::Take(SECOND)));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!((watch.calls(), coalesce.snapshot().joined, coalesce.snapshot().in_flight), (2, 0, 0));
}

/// A response of a number of bytes.
#[derive(Debug)]
struct Sized(Vec<u8>);

impl Cacheable for Sized {
    fn to_cached(&self) -> Option<Self> {
        Some(Self(self.0.clone()))
    }
    fn to_response(&self) -> Self {
        Self(self.0.clone())
    }
    fn weight(&self) -> usize {
        self.0.capacity()
    }
}

#[tokio::test]
async fn it_is_bounded_by_bytes_and_reports_them() {
    let cache = CacheLayer::new(MIB, |length: &usize| Some(*length));
    let mut service = cache.layer(tower::service_fn(|length: usize| async move {
        Ok::<_, std::convert::Infallible>(Sized(vec![0; length]))
    }));
    for length in 10_000..10_020 {
        service.ready().await.unwrap().call(length).await.unwrap();
    }
    let all: u64 = (10_000..10_020).sum();
    assert_eq!(cache.snapshot().entries, 20);
    assert!((all..all + 20 * 400).contains(&cache.snapshot().bytes), "{} bytes for {all}", cache.snapshot().bytes);
    for length in 10_000..11_000 {
        service.ready().await.unwrap().call(length).await.unwrap();
        assert!(cache.snapshot().bytes <= MIB, "{} bytes are taken", cache.snapshot().bytes);
    }
    assert!(cache.snapshot().bytes > MIB / 2, "{} bytes are taken", cache.snapshot().bytes);
    // A response that is larger than the cache changes nothing.
    let before = (cache.snapshot().entries, cache.snapshot().bytes);
    service.ready().await.unwrap().call(2 * MIB as usize).await.unwrap();
    assert_eq!((cache.snapshot().entries, cache.snapshot().bytes), before);
}

#[tokio::test(start_paused = true)]
async fn responses_of_calls_from_before_an_invalidation_are_not_cached() {
    let ((probe, watch), cache) = (probe(2), layer());
    let mut service = cache.layer(probe);
    for forget in
        [CacheLayer::clear as fn(&CacheLayer<Key, Store<String, Response>>), |cache| cache.invalidate(|_| false)]
    {
        let slow = service.ready().await.unwrap().call(Request::of("slow", Act::Take(SECOND)));
        let slow = tokio::spawn(slow);
        tokio::task::yield_now().await;
        forget(&cache);
        slow.await.unwrap().unwrap();
        assert_eq!(cache.snapshot().entries, 0);
    }
    ask(&mut service, Request::of("slow", Act::Answer)).await.unwrap();
    assert_eq!((watch.calls(), cache.snapshot().entries), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn responses_are_invalidated_by_their_key() {
    let ((probe, watch), cache) = (probe(1), layer());
    let mut service = cache.layer(probe);
    for operation in ["a/1", "a/2", "b/1"] {
        ask(&mut service, Request::of(operation, Act::Answer)).await.unwrap();
    }
    cache.invalidate(|operation| operation.starts_with("a/"));
    assert_eq!(cache.snapshot().entries, 1);
    for (operation, calls) in [("b/1", 3), ("a/1", 4), ("a/2", 5)] {
        ask(&mut service, Request::of(operation, Act::Answer)).await.unwrap();
        assert_eq!(watch.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_layer_and_all_its_services_share_the_cache() {
    let ((first, first_watch), (second, second_watch), cache) = (probe(1), probe(1), layer());
    ask(&mut cache.layer(first), Request::of("a", Act::Answer)).await.unwrap();
    ask(&mut cache.clone().layer(second.clone()).clone(), Request::of("a", Act::Answer)).await.unwrap();
    assert_eq!((first_watch.calls(), second_watch.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_caches_nothing_unless_another_completes_its_run() {
    let ((probe, watch), cache) = (probe(2), layer());
    let mut service = cache.layer(probe.clone());
    let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call(Request::of("a", Act::Take(SECOND))));
    assert_pending!(call.poll());
    drop(call);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!((cache.snapshot().entries, watch.in_use()), (0, 0));

    let mut service = cache.layer(CoalesceLayer::new(key as Key).layer(probe));
    let mut leader = tokio_test::task::spawn(service.ready().await.unwrap().call(Request::of("a", Act::Take(SECOND))));
    let follower = service.clone().oneshot(Request::of("a", Act::Never));
    assert_pending!(leader.poll());
    let follower = tokio::spawn(follower);
    tokio::task::yield_now().await;
    drop(leader);
    follower.await.unwrap().unwrap();
    assert_eq!((cache.snapshot().entries, watch.calls()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_find_the_responses_of_each_other() {
    let runs = Arc::new(AtomicUsize::new(0));
    let cache = CacheLayer::new(64 * MIB, |number: &u64| Some(*number));
    let counted = Arc::clone(&runs);
    let service = cache.layer(tower::service_fn(move |number: u64| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, std::convert::Infallible>(Sized(number.to_le_bytes().to_vec())) }
    }));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move {
                for round in 0..20_000_u64 {
                    let number = round * 7919 % 1000;
                    let answer = service.ready().await.unwrap().call(number).await.unwrap();
                    assert_eq!(answer.0, number.to_le_bytes());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(cache.snapshot().entries, 1000);
    assert_eq!(cache.snapshot().hits + cache.snapshot().misses, 160_000);
    assert_eq!(cache.snapshot().misses, runs.load(Ordering::Relaxed) as u64);
    assert!(cache.snapshot().misses <= 8000);
}
