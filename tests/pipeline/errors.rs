//! What a failed call of a pipeline says: which layer rejected it, or what the kernels said.

use std::error::Error;

use futures::future::join_all;
use tower_kernels::error::chain;
use tower_kernels::pipeline::PipelineError;
use tower_kernels::service::InvalidInput;

use super::*;

/// Nothing but the layers that `change` turns on.
fn with(change: impl FnOnce(&mut PipelineConfig)) -> Pipeline<Told> {
    let mut config = PipelineConfig { load_shed: None, circuit_breaker: None, queue: None, ..Default::default() };
    change(&mut config);
    told(config, 1).0
}

/// The first of these calls, made at the same time, that fails.
async fn first_error(pipeline: Pipeline<Told>, calls: &[&'static str]) -> PipelineError {
    let calls = calls.iter().map(|input| pipeline.clone().oneshot(saxpy(input)));
    join_all(calls).await.into_iter().find_map(Result::err).expect("one of them fails")
}

#[track_caller]
fn assert_rejected(error: &PipelineError, setting: &str, kind: ErrorKind, has_retry_after: bool) {
    let text = error.to_string();
    assert!(text.starts_with(&format!("{setting}: ")), "{text}");
    assert_eq!((error.setting(), error.kind()), (Some(setting), kind), "{text}");
    assert_eq!(error.retry_after().is_some(), has_retry_after, "{text}");
    assert!(error.source().is_none(), "{text}");
    assert_eq!((Classify::kind(error), Classify::retry_after(error)), (kind, error.retry_after()));
    assert_eq!(chain(error).to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_names_the_setting_of_its_layer() {
    let pipeline = with(|config| {
        let default = QuotaConfig { burst: 1, period: 3600 * SECOND };
        config.rate_limit = Some(RateLimitConfig { default, ..Default::default() });
    });
    let error = first_error(pipeline, &["1", "1"]).await;
    assert_rejected(&error, "rate_limit", ErrorKind::RateLimited, true);

    let error = first_error(with(|config| config.timeout = SECOND), &["never"]).await;
    assert_rejected(&error, "timeout", ErrorKind::DeadlineExceeded, false);

    let pipeline = with(|config| config.queue = Some(QueueConfig { capacity: 1, ..Default::default() }));
    let error = first_error(pipeline, &["1", "1", "1", "1"]).await;
    assert_rejected(&error, "queue", ErrorKind::Overloaded, false);

    let pipeline = with(|config| {
        config.timeout = SECOND;
        config.load_shed = Some(Default::default());
        config.concurrency = NonZeroUsize::new(1);
        config.queue = Some(QueueConfig::default());
    });
    pipeline.clone().oneshot(saxpy("0.4")).await.unwrap();
    let error = first_error(pipeline, &["0.4"; 60]).await;
    assert_rejected(&error, "load_shed", ErrorKind::Overloaded, true);

    let pipeline = with(|config| {
        config.circuit_breaker = Some(BreakerConfig { consecutive_failures: 2, ..Default::default() });
    });
    first_error(pipeline.clone(), &["fail", "fail"]).await;
    let error = first_error(pipeline, &["1"]).await;
    assert_rejected(&error, "circuit_breaker", ErrorKind::Unavailable, true);

    let pipeline = with(|config| {
        config.coalesce = Some(CoalesceConfig::default());
        config.queue = Some(QueueConfig::default());
    });
    let hurried = saxpy("10").with_timeout(SECOND);
    let (patient, hurried) = tokio::join!(pipeline.clone().oneshot(saxpy("10")), pipeline.oneshot(hurried));
    patient.unwrap();
    assert_rejected(&hurried.unwrap_err(), "coalesce", ErrorKind::DeadlineExceeded, false);
}

#[tokio::test]
async fn an_error_of_the_kernels_is_the_source_and_its_field_is_in_the_text() {
    fn source(error: &PipelineError) -> &KernelError {
        error.source().and_then(|source| source.downcast_ref()).expect("a KernelError")
    }
    let error = first_error(with(|_| ()), &["fail"]).await;
    assert!(matches!(source(&error), KernelError::Stopped { .. }));
    assert_eq!((error.setting(), error.kind()), (None, ErrorKind::Unavailable));
    assert_eq!(error.to_string(), "the test backend has stopped");

    // With runs that requests share, and without.
    for batch in [None, Some(BatchConfig { on_cpu: true, ..Default::default() })] {
        let layer = PipelineLayer::new(registry(), PipelineConfig { batch, ..Default::default() }).unwrap();
        let pipeline = layer.over(tower_kernels::backends::Local::detect());
        let error = pipeline.oneshot(saxpy(r#"{"a": 2.0, "x": [1.0, "2"], "y": [1.0]}"#)).await.unwrap_err();
        let KernelError::InvalidInput(InvalidInput { field, .. }) = source(&error) else { panic!("{error:?}") };
        assert_eq!((field.as_str(), error.kind()), ("x[1]", ErrorKind::InvalidArgument));
        assert!(error.to_string().starts_with("the input is invalid: x[1]: invalid type"), "{error}");
        assert_eq!(chain(&error).to_string(), error.to_string(), "nothing is said twice");
        assert_eq!(chain(&error.clone()).to_string(), error.to_string());
    }
}

#[test]
fn it_is_small() {
    assert!(size_of::<PipelineError>() <= 32, "{}", size_of::<PipelineError>());
}
