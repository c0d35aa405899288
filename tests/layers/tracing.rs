use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::{TimeoutLayer, TracingLayer};
use tower_kernels::request::{DeviceTimes, Execution};
use tower_kernels::service::{
    KernelError, KernelRequest, KernelResponse, KernelService, Payload, PutOptions, RunContext,
};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::catalogue;
use crate::support::logs::capture;
use crate::support::probe::{Act, Request, probe};

/// What a subscriber saw: the fields of each span, and its events as `LEVEL fields`.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    level: Level,
    next: Arc<AtomicU64>,
    pub(crate) spans: Arc<Mutex<BTreeMap<u64, Fields>>>,
    events: Arc<Mutex<Vec<String>>>,
    /// Spans that were entered and exited, in order.
    depth: Arc<Mutex<Vec<u64>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Fields {
    values: BTreeMap<&'static str, String>,
    closed: bool,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.values.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Notes {
    pub(crate) fn new(level: Level) -> Self {
        let (next, spans) = (Arc::new(AtomicU64::new(1)), Arc::default());
        Self { level, next, spans, events: Arc::default(), depth: Arc::default() }
    }

    /// Of the only span that there was.
    #[track_caller]
    fn field(&self, name: &str) -> Option<String> {
        let spans = self.spans.lock().unwrap();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.values().next().unwrap().values.get(name).cloned()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("tower_kernels")
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        fields.values.insert("name", attributes.metadata().name().to_owned());
        fields.values.insert("level", attributes.metadata().level().to_string());
        self.spans.lock().unwrap().insert(id, fields);
        Id::from_u64(id)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(self.spans.lock().unwrap().get_mut(&span.into_u64()).unwrap());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = event.metadata().level().to_string();
        for (name, value) in &fields.values {
            write!(line, " {name}={value}").unwrap();
        }
        let inside = !self.depth.lock().unwrap().is_empty();
        self.events.lock().unwrap().push(if inside { line } else { format!("outside: {line}") });
    }
    fn enter(&self, span: &Id) {
        self.depth.lock().unwrap().push(span.into_u64());
    }
    fn exit(&self, span: &Id) {
        assert_eq!(self.depth.lock().unwrap().pop(), Some(span.into_u64()));
    }
    fn try_close(&self, span: Id) -> bool {
        self.spans.lock().unwrap().get_mut(&span.into_u64()).unwrap().closed = true;
        true
    }
}

/// Runs one call under a subscriber of that level, and returns what it saw.
async fn observed(level: Level, layer: TracingLayer, request: Request) -> Notes {
    let notes = Notes::new(level);
    let guard = capture(notes.clone());
    let mut service = layer.layer(TimeoutLayer::new(Duration::from_secs(1)).layer(probe(1).0));
    let _result = service.ready().await.unwrap().call(request).await;
    drop(guard);
    notes
}

#[tokio::test]
async fn spans_have_operands_versions_residency_and_time_to_build() {
    let notes = Notes::new(Level::INFO);
    let guard = tracing::subscriber::set_default(notes.clone());
    let registry = catalogue();
    let operands = registry.operands();
    let put = |name: &str, json: &str| {
        let mut options = PutOptions::default();
        options.tenant = Some("acme-secret".into());
        operands.put_payload(name, "tensors", Payload::json(json), &options, &RunContext::detached())
    };
    put("x", r#"{"x": {"dtype": "float32", "data": [1, 2]}}"#).unwrap();
    put(&"long".repeat(1000), "{}").unwrap_err();
    let service = KernelService::with_backend(Arc::clone(&registry), CpuBackend::new());
    for (input, resident) in [
        (r#"{"a": 2, "x": {"operand": "x"}, "y": {"operand": "x@1/x"}}"#, Some("true")),
        (r#"{"a": 2, "x": {"operand": "x"}, "y": [1]}"#, None),
        (r#"{"a": 2, "x": [1], "y": [1]}"#, None),
    ] {
        let mut request = KernelRequest::new("linalg/saxpy", Payload::json(input));
        request.tenant = Some("acme-secret".into());
        request.resolve_operands(&registry);
        let succeeds = resident.is_some() || !input.contains("operand");
        let result = TracingLayer::new().layer(service.clone()).oneshot(request).await;
        assert_eq!(result.is_ok(), succeeds, "{input}");
        let spans = notes.spans.lock().unwrap();
        let span = &spans.last_key_value().unwrap().1.values;
        assert_eq!(span["name"], "request");
        let of = |field: &str| span.get(field).map(String::as_str);
        let named = input.contains("operand").then_some("x@1");
        assert_eq!((of("request.operands"), of("execution.operands_resident")), (named, resident), "{input}");
        assert_eq!(of("execution.operands"), resident.and(named), "{input}");
    }
    drop(guard);

    let spans = notes.spans.lock().unwrap();
    let of_name = |name: &str| spans.values().filter(|span| span.values["name"] == name).collect::<Vec<_>>();
    let [stored, rejected] = of_name("put_operand")[..] else { panic!("{spans:?}") };
    for (field, value) in [
        ("operand.name", "x"),
        ("operand.type", "tensors"),
        ("operand.placement", "on_demand"),
        ("operand.version", "1"),
        ("operand.bytes", "8"),
        ("operand.devices", "[]"),
    ] {
        assert_eq!(stored.values[field], value, "{field}");
    }
    assert!(stored.values["operand.build_duration"].parse::<f64>().unwrap() > 0.0, "{stored:?}");
    assert_eq!((rejected.values["operand.name"].len(), &*rejected.values["error.type"]), (128, "invalid_argument"));
    assert_eq!(of_name("build_operand").len(), 1, "the name is checked before anything is built");
    let texts = of_name("put_operand").into_iter().flat_map(|span| span.values.values());
    assert!(texts.chain(notes.events().iter()).all(|text| !text.contains("acme-secret")), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_span_says_what_request_and_response_say() {
    let request = Request {
        tenant: Some("acme".into()),
        trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
        bytes: Some(99),
        ..Request::new(Act::Answer)
    };
    let notes = observed(Level::INFO, TracingLayer::new(), request).await;
    for (name, value) in [
        ("level", "INFO"),
        ("otel.name", "linalg/saxpy"),
        ("otel.kind", "server"),
        ("priority", "high"),
        ("tenant", "acme"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("parent_span_id", "00f067aa0ba902b7"),
        ("request.size", "99"),
        ("response.size", "12"),
        ("execution.backend", "CPU"),
        ("execution.device", "3"),
        ("execution.queued", "5e-6"),
        ("execution.duration", "8e-5"),
        ("execution.batch_size", "4"),
    ] {
        assert_eq!(notes.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(notes.field("error.type"), None);
    assert_eq!(notes.field("otel.status_code"), None);
    assert!(notes.spans.lock().unwrap().values().all(|span| span.closed));
    assert_eq!(notes.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_the_request_does_not_say_is_left_out() {
    let notes = observed(Level::INFO, TracingLayer::new().internal(), Request::new(Act::Answer)).await;
    assert_eq!(notes.field("otel.kind").as_deref(), Some("internal"));
    for name in ["tenant", "trace_id", "parent_span_id", "request.size"] {
        assert_eq!(notes.field(name), None, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_recorded_and_told_inside_the_span() {
    for (act, kind, status, level) in [
        (Act::Fail(ErrorKind::Internal), "internal", Some("ERROR"), "ERROR"),
        (Act::Fail(ErrorKind::Overloaded), "overloaded", Some("ERROR"), "WARN"),
        (Act::Never, "deadline_exceeded", Some("ERROR"), "WARN"),
        (Act::Fail(ErrorKind::InvalidArgument), "invalid_argument", None, "DEBUG"),
        (Act::Refuse(ErrorKind::Unavailable), "unavailable", Some("ERROR"), "ERROR"),
    ] {
        let notes = observed(Level::DEBUG, TracingLayer::new(), Request::new(act)).await;
        assert_eq!(notes.field("error.type").as_deref(), Some(kind));
        assert_eq!(notes.field("otel.status_code").as_deref(), status, "{kind}");
        let [event] = &notes.events()[..] else { panic!("{:?}", notes.events()) };
        assert!(event.starts_with(&format!("{level} error.type={kind} exception.message=")), "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_end_is_cancelled() {
    let notes = Notes::new(Level::DEBUG);
    let _guard = capture(notes.clone());
    let mut service = TracingLayer::new().layer(probe(1).0);
    drop(service.ready().await.unwrap().call(Request::new(Act::Never)));
    assert_eq!(notes.field("error.type").as_deref(), Some("cancelled"));
    assert_eq!(
        notes.events(),
        ["DEBUG error.type=cancelled exception.message=dropped before completion message=request failed"]
    );
    assert!(notes.spans.lock().unwrap().values().all(|span| span.closed));
}

#[tokio::test(start_paused = true)]
async fn a_span_below_the_level_is_not_made() {
    let notes = observed(Level::WARN, TracingLayer::new(), Request::new(Act::Fail(ErrorKind::Internal))).await;
    assert!(notes.spans.lock().unwrap().is_empty());
    assert_eq!(notes.events(), [""; 0]);
    for level in [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR] {
        let notes = observed(Level::TRACE, TracingLayer::new().level(level), Request::new(Act::Answer)).await;
        assert_eq!(notes.field("level"), Some(level.to_string()));
    }
}

#[tokio::test]
async fn what_a_device_has_timed_is_in_the_span() {
    let notes = Notes::new(Level::INFO);
    let guard = capture(notes.clone());
    let timed = service_fn(|_: Request| async {
        let mut times = DeviceTimes::default();
        (times.upload, times.kernel) = (Duration::from_micros(40), Duration::from_micros(4));
        times.bound = Some(Duration::from_micros(3));
        let mut execution = Execution::new("CUDA");
        execution.set_device_times(times);
        Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), execution))
    });
    TracingLayer::new().layer(timed).oneshot(Request::new(Act::Answer)).await.unwrap();
    drop(guard);
    for (name, value) in [
        ("execution.device_upload", "4e-5"),
        ("execution.device_kernel", "4e-6"),
        ("execution.device_download", "0.0"),
        ("execution.device_roofline", "0.75"),
    ] {
        assert_eq!(notes.field(name).as_deref(), Some(value), "{name}");
    }
}

/// What `capture` is for.
#[test]
fn a_thread_without_a_subscriber_turns_no_callsite_off() {
    fn log() {
        tracing::info!(target: "tower_kernels::tests", "logged");
    }

    let notes = Notes::new(Level::INFO);
    let guard = capture(notes.clone());
    std::thread::spawn(log).join().unwrap();
    log();
    drop(guard);
    assert_eq!(notes.events(), ["outside: INFO message=logged"]);
}
