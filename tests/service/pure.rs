//! Which requests for kernels ask for the same.

use std::sync::Arc;

use bytes::Bytes;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::layers::CacheLayer;
use tower_kernels::middleware::cache::{Cache, Store};
use tower_kernels::middleware::cache_key::CacheKey;
use tower_kernels::service::{
    Cost, DType, InvalidInput, Kernel, KernelCacheKey, KernelError, KernelInfo, KernelRegistry, KernelRequest,
    KernelResponse, KernelService, OwnedKernelKey, Payload, RunContext, Tensor, Tensors,
};

/// Doubles a number.
struct Double {
    id: &'static str,
    pure: bool,
}

impl Kernel for Double {
    type Input = Vec<f64>;
    type Output = Vec<f64>;

    fn info(&self) -> KernelInfo {
        let mut info = KernelInfo::new(self.id, "1.0.0", "Doubles numbers").alias(format!("{}-too", self.id));
        info.pure = self.pure;
        info
    }
    fn validate(&self, _: &Vec<f64>) -> Result<(), InvalidInput> {
        Ok(())
    }
    fn cost(&self, input: &Vec<f64>) -> Cost {
        Cost { bytes: 8 * input.len() as u64, ..Cost::default() }
    }
    fn run_cpu(&self, input: &Vec<f64>, _: &RunContext<'_>) -> Result<Vec<f64>, KernelError> {
        Ok(input.iter().map(|x| 2.0 * x).collect())
    }
}

fn registry() -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    registry.register(Double { id: "test/pure", pure: true }).unwrap();
    registry.register(Double { id: "test/pure-as-well", pure: true }).unwrap();
    registry.register(Double { id: "test/impure", pure: false }).unwrap();
    tower_kernels::kernels::register_all(&registry).unwrap();
    Arc::new(registry)
}

type Kernels = Cache<KernelService<CpuBackend>, KernelCacheKey, Store<OwnedKernelKey, KernelResponse>>;
type Layered = CacheLayer<KernelCacheKey, Store<OwnedKernelKey, KernelResponse>>;

fn cached(pure: impl FnOnce(KernelCacheKey) -> KernelCacheKey) -> (Kernels, Layered) {
    let registry = registry();
    let cache = CacheLayer::new(1 << 20, pure(KernelCacheKey::new(Arc::clone(&registry))));
    let backend = CpuBackend::new();
    (cache.layer(KernelService::with_backend(registry, backend)), cache)
}

async fn run(service: &mut Kernels, request: KernelRequest) -> KernelResponse {
    service.ready().await.unwrap().call(request).await.unwrap()
}

fn json(kernel: &'static str, input: &'static str) -> KernelRequest {
    KernelRequest::new(kernel, Payload::json(input))
}

#[tokio::test]
async fn an_answer_is_given_again_for_the_same_bytes_under_any_name_of_the_kernel() {
    let (mut service, cache) = cached(|pure| pure);
    assert_eq!(run(&mut service, json("test/pure", "[1.0]")).await.execution.backend, "CPU");
    let again = run(&mut service, json("test/pure-too", "[1.0]")).await;
    assert_eq!((again.execution.backend, again.execution.executed.as_nanos()), ("cache", 0));
    let Payload::Json(output) = again.payload else { panic!("JSON in, JSON out") };
    assert_eq!(output, "[2.0]");
    for other in [json("test/pure", "[1.0 ]"), json("test/pure-as-well", "[1.0]"), json("test/pure", "[1.5]")] {
        assert_eq!(run(&mut service, other).await.execution.backend, "CPU");
    }
    assert_eq!((cache.snapshot().hits, cache.snapshot().misses, cache.snapshot().entries), (1, 4, 4));
    cache.invalidate(|question| question.kernel_id() == "test/pure" && question.version() == "1.0.0");
    assert_eq!(cache.snapshot().entries, 1);
}

#[tokio::test]
async fn what_is_not_pure_and_what_has_no_bytes_is_run_each_time() {
    let (mut service, cache) = cached(|pure| pure);
    for _ in 0..2 {
        let typed = KernelRequest::new("test/pure", Payload::typed(vec![1.0_f64]));
        for request in [json("test/impure", "[1.0]"), typed] {
            assert_eq!(run(&mut service, request).await.execution.backend, "CPU");
        }
        service.ready().await.unwrap().call(json("test/unknown", "[1.0]")).await.unwrap_err();
    }
    assert_eq!((cache.snapshot().hits, cache.snapshot().misses, cache.snapshot().entries), (0, 0, 0));
}

#[tokio::test]
async fn errors_of_kernels_are_not_kept() {
    let (mut service, cache) = cached(|pure| pure);
    for _ in 0..2 {
        service.ready().await.unwrap().call(json("test/pure", "[true]")).await.unwrap_err();
    }
    assert_eq!((cache.snapshot().misses, cache.snapshot().entries), (2, 0));
}

#[tokio::test]
async fn tenants_share_answers_only_where_it_is_said() {
    let of = |tenant: &str| {
        let mut request = json("test/pure", "[1.0]");
        request.tenant = Some(tenant.into());
        request
    };
    for (across, hits) in [(false, 0), (true, 2)] {
        let (mut service, cache) = cached(|pure| if across { pure.share_across_tenants() } else { pure });
        for request in [of("acme"), of("umbrella"), json("test/pure", "[1.0]")] {
            run(&mut service, request).await;
        }
        assert_eq!((cache.snapshot().hits, cache.snapshot().entries), (hits, 3 - hits as usize));
        run(&mut service, of("acme")).await;
        assert_eq!(cache.snapshot().hits, hits + 1);
    }
}

fn tensors(names: [&str; 2], data: &[u8]) -> Payload {
    let mut tensors = Tensors::new();
    for name in names {
        let tensor = Tensor::new(DType::U8, vec![data.len()], Bytes::copy_from_slice(data)).unwrap();
        tensors.insert(name, tensor).unwrap();
    }
    tensors.into()
}

#[test]
fn questions_are_compared_in_full() {
    let pure = KernelCacheKey::new(registry());
    let same = |a: Payload, b: Payload| {
        let (a, b) = (KernelRequest::new("test/pure", a), KernelRequest::new("test/pure", b));
        let (a, b) = (pure.key(&a).unwrap(), pure.key(&b).unwrap());
        let digests = pure.digest(&a) == pure.digest(&b);
        let same = CacheKey::<KernelRequest>::is_equal(&pure, &pure.to_owned_key(a), &b);
        assert_eq!(digests, same);
        same
    };
    assert!(same(Payload::json("[1]"), Payload::json("[1]")));
    assert!(!same(Payload::json("[1]"), Payload::json("[2]")));
    assert!(same(tensors(["a", "b"], &[1, 2]), tensors(["a", "b"], &[1, 2])));
    assert!(!same(tensors(["a", "b"], &[1, 2]), tensors(["a", "c"], &[1, 2])));
    assert!(!same(tensors(["a", "b"], &[1, 2]), tensors(["a", "b"], &[1, 3])));
    assert!(!same(tensors(["a", "b"], &[1, 2]), tensors(["a", "b"], &[1])));
}

#[tokio::test]
async fn what_is_kept_has_memory_of_its_own() {
    let (mut service, cache) = cached(|pure| pure);
    // A small input in a large body.
    let body = Bytes::from(vec![b' '; 1 << 19]);
    let mut whole = body.to_vec();
    whole[..5].copy_from_slice(b"[1.0]");
    let whole = Bytes::from(whole);
    let input = whole.slice(..5);
    run(&mut service, KernelRequest::new("test/pure", Payload::Json(input))).await;
    assert_eq!(cache.snapshot().entries, 1);
    assert!(cache.snapshot().bytes < 1000, "{} bytes", cache.snapshot().bytes);
    assert!(whole.is_unique(), "the whole body stays in use");
}
