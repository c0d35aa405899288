//! Operands: names and versions, who may use them, what they count, and what requests see of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::csr::CsrGraph;
use tower_kernels::kernels::graph::operand::GraphDocument;
use tower_kernels::layers::CoalesceLayer;
use tower_kernels::service::{
    DType, KernelCacheKey, KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, OperandBudget,
    OperandDevices, OperandError, OperandLimits, OperandMemory, OperandVersion, Operands, Payload, Placement,
    PutCondition, PutOptions, RemoveOptions, RunContext, Tensor, TensorSet, Tensors,
};

use crate::support::catalogue;

fn numbers(values: &[f64]) -> TensorSet {
    TensorSet::of("x", values.to_vec())
}

fn limited(change: impl FnOnce(&mut OperandLimits)) -> Operands {
    let mut limits = OperandLimits::default();
    change(&mut limits);
    Operands::new(limits)
}

fn by(tenant: &str) -> PutOptions {
    let mut options = PutOptions::default();
    options.tenant = Some(tenant.into());
    options
}

fn when(condition: PutCondition) -> PutOptions {
    let mut options = PutOptions::default();
    options.condition = condition;
    options
}

fn remove(operands: &Operands, reference: &str) -> Result<(), OperandError> {
    operands.remove(reference, &RemoveOptions::default()).map(drop)
}

#[test]
fn a_put_replaces_and_a_version_is_found_only_while_it_is_the_newest() {
    let operands = Operands::default();
    assert!(operands.is_empty() && operands.get(None, "a").is_none());
    let first = operands.put("a", numbers(&[1.0])).unwrap();
    let first = first.version().unwrap();
    operands.put("b", numbers(&[2.0])).unwrap();
    operands.put("a", numbers(&[3.0])).unwrap();
    assert_eq!(operands.get(None, "a").unwrap().version(), 3, "versions count for the tenant");
    assert_eq!(operands.get(None, "a@3").unwrap().version(), 3);
    assert!(operands.get(None, "a@1").is_none() && operands.get(None, "a@4").is_none());
    assert_eq!(first.version(), 1, "whoever holds it has it");
    remove(&operands, "a").unwrap();
    assert!(operands.get(None, "a").is_none());
    assert_eq!(remove(&operands, "a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(operands.put("a", numbers(&[1.0])).unwrap().version().unwrap().version(), 4, "no version comes twice");
    assert_eq!(operands.list(None).iter().map(|info| &*info.name).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn conditions_hold_or_nothing_changes() {
    let operands = Operands::default();
    let failed =
        |result: Result<_, OperandError>| assert_eq!(result.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    failed(operands.put_with("a", numbers(&[1.0]), &when(PutCondition::IfPresent)).map(drop));
    failed(operands.put_with("a", numbers(&[1.0]), &when(PutCondition::IfMatch(vec!["\"1-0\"".into()]))).map(drop));
    assert!(operands.is_empty());
    operands.put_with("a", numbers(&[1.0]), &when(PutCondition::IfAbsent)).unwrap();
    failed(operands.put_with("a", numbers(&[2.0]), &when(PutCondition::IfAbsent)).map(drop));
    let tag = operands.get(None, "a").unwrap().tag().to_owned();
    let matching = PutCondition::IfMatch(vec!["\"x\"".into(), tag.clone()]);
    operands.put_with("a", numbers(&[2.0]), &when(matching.clone())).unwrap();
    failed(operands.put_with("a", numbers(&[3.0]), &when(matching.clone())).map(drop));
    let mut options = RemoveOptions::default();
    options.condition = matching;
    failed(operands.remove("a", &options).map(drop));
    assert_eq!(operands.get(None, "a").unwrap().version(), 2);
    // The content is in the tag, and the version: equal content of another version is another tag.
    operands.put("b", numbers(&[2.0])).unwrap();
    assert_ne!(operands.get(None, "b").unwrap().tag(), operands.get(None, "a").unwrap().tag());
}

#[test]
fn tenants_see_their_own_operands_and_public_ones() {
    let operands = Operands::default();
    operands.put_with("a", numbers(&[1.0]), &by("acme")).unwrap();
    operands.put_with("a", numbers(&[2.0]), &by("globex")).unwrap();
    assert!(operands.get(None, "a").is_none() && operands.get(Some("initech"), "a").is_none());
    let ids = ["acme", "globex"].map(|tenant| operands.get(Some(tenant), "a").unwrap().id());
    assert_ne!(ids[0], ids[1]);
    // A stranger's removal says no more than that of a name that nobody has.
    let mut stranger = RemoveOptions::default();
    stranger.tenant = Some("initech".into());
    assert_eq!(
        operands.remove("a", &stranger).unwrap_err().to_string().replace('a', "b"),
        operands.remove("b", &stranger).unwrap_err().to_string().replace('a', "b")
    );

    let public = |tenant| {
        let mut options = by(tenant);
        options.public = true;
        options
    };
    operands.put_with("shared", numbers(&[3.0]), &public("acme")).unwrap();
    assert_eq!(operands.get(None, "shared").unwrap().id(), operands.get(Some("acme"), "shared").unwrap().id());
    let taken = operands.put_with("shared", numbers(&[4.0]), &public("globex")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    // A private one of the same name is in front of it, for its tenant.
    operands.put_with("shared", numbers(&[5.0]), &by("globex")).unwrap();
    assert_ne!(operands.get(Some("globex"), "shared").unwrap().id(), operands.get(None, "shared").unwrap().id());
    assert_eq!(operands.remove("shared", &stranger).unwrap_err().kind(), ErrorKind::NotFound);
    let names = |tenant| operands.list(tenant).into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!((names(Some("globex")), names(None)), (vec!["a".into(), "shared".into()], vec!["shared".to_owned()]));
    // Replaced by a private version, it is public no longer.
    operands.put_with("shared", numbers(&[6.0]), &by("acme")).unwrap();
    assert!(operands.get(None, "shared").is_none());
    operands.put_with("shared", numbers(&[7.0]), &public("globex")).unwrap();
}

#[test]
fn what_exceeds_a_budget_is_rejected_with_what_is_free_and_nothing_is_lost() {
    let operands = limited(|limits| {
        limits.max_bytes = 100;
        limits.max_bytes_per_tenant = 60;
        limits.max_operands = 4;
        limits.max_operands_per_tenant = 2;
    });
    operands.put_with("a", numbers(&[0.0; 5]), &by("acme")).unwrap();
    let over = operands.put_with("b", numbers(&[0.0; 3]), &by("acme")).unwrap_err();
    assert!(matches!(over, OperandError::OverBudget { budget: OperandBudget::Tenant, need: 24, free: 20 }), "{over:?}");
    assert_eq!(over.kind(), ErrorKind::InsufficientStorage);
    operands.put_with("a", numbers(&[0.0; 6]), &by("globex")).unwrap();
    let over = operands.put_with("a", numbers(&[0.0; 2]), &by("initech")).unwrap_err();
    assert!(matches!(over, OperandError::OverBudget { budget: OperandBudget::Host, need: 16, free: 12 }), "{over:?}");
    assert_eq!(operands.get(Some("acme"), "a").unwrap().bytes(), 40);
    assert_eq!(operands.usage().bytes, 88);

    // A version counts until nobody holds it, so that the memory that there is never exceeds the budget.
    let held = operands.get(Some("globex"), "a").unwrap();
    let mut options = RemoveOptions::default();
    options.tenant = Some("globex".into());
    operands.remove("a", &options).unwrap();
    assert_eq!((operands.usage().bytes, operands.usage().operands, operands.usage().versions), (88, 1, 2));
    drop(held);
    assert_eq!((operands.usage().bytes, operands.usage().versions), (40, 1));

    operands.put_with("b", numbers(&[0.0]), &by("acme")).unwrap();
    let many = operands.put_with("c", numbers(&[0.0]), &by("acme")).unwrap_err();
    assert!(matches!(many, OperandError::TooMany { max: 2 }), "{many:?}");
    // Both versions are there for a moment.
    let over = operands.put_with("b", numbers(&[0.0; 2]), &by("acme")).unwrap_err();
    assert!(matches!(over, OperandError::OverBudget { need: 16, free: 12, .. }), "{over:?}");
    operands.put_with("b", numbers(&[1.0]), &by("acme")).unwrap();
    for (tenant, fits) in [("x", true), ("y", true), ("z", false)] {
        assert_eq!(operands.put_with("a", numbers(&[0.0]), &by(tenant)).is_ok(), fits, "{tenant}");
    }
}

#[test]
fn uploads_are_checked_in_full_and_a_bad_one_leaves_the_old_version() {
    let registry = catalogue();
    let operands = registry.operands();
    let put = |kind: &str, json: &str| {
        operands.put_payload("g", kind, Payload::json(json), &PutOptions::default(), &RunContext::detached())
    };
    let graph = put("graph", r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2], [2, 2], [1, 0]]}"#).unwrap();
    assert_eq!(graph.info().summary, json!({"nodes": 3, "edges": 2, "directed": false, "weighted": false}));
    let oriented = 4 * (3 + 4 + 2);
    assert_eq!(
        graph.bytes(),
        4 * (4 + 4) + oriented,
        "the CSR arrays, and the degrees and arrays of the oriented form"
    );
    for (kind, json, field) in [
        ("graph", r#"{"num_nodes": 3, "edges": [[0, 3]]}"#, "edges[0][1]"),
        ("graph", r#"{"num_nodes": 3, "edges": [[0, 1]"#, "edges"),
        ("graph", r#"{"num_nodes": 3}"#, "edges"),
        ("graph", r#"{"num_nodes": 3, "edges": [], "extra": 1}"#, "extra"),
        ("graph", r#"{"row_offsets": [0, 9], "column_indices": [0]}"#, "row_offsets[1]"),
        ("tensors", "{}", "input"),
    ] {
        let OperandError::Invalid(invalid) = put(kind, json).unwrap_err() else { panic!("{json}: another error") };
        assert_eq!(invalid.field, field, "{json}");
    }
    let unknown = put("matrix", "{}").unwrap_err();
    assert!(unknown.kind() == ErrorKind::InvalidArgument && unknown.to_string().contains("graph"), "{unknown}");
    assert_eq!(operands.get(None, "g").unwrap().id(), graph.id());
    assert_eq!((operands.usage().versions, operands.usage().bytes), (1, 68));
}

async fn run(registry: &Arc<KernelRegistry>, request: KernelRequest) -> Result<KernelResponse, KernelError> {
    KernelService::with_backend(Arc::clone(registry), CpuBackend::new()).oneshot(request).await
}

async fn ask(
    registry: &Arc<KernelRegistry>,
    id: &'static str,
    input: serde_json::Value,
) -> Result<serde_json::Value, String> {
    let response = run(registry, KernelRequest::new(id, Payload::from_serialize(&input).unwrap())).await;
    response.map(|response| response.json().unwrap()).map_err(|error| match error {
        KernelError::InvalidInput(invalid) => invalid.to_string(),
        error => error.to_string(),
    })
}

fn triangle_with_tail(registry: &KernelRegistry) -> tower_kernels::service::Operand<CsrGraph> {
    let edges = vec![[0, 1], [1, 2], [0, 2], [2, 3]];
    let document = GraphDocument {
        num_nodes: Some(4),
        edges: Some(edges),
        row_offsets: None,
        column_indices: None,
        directed: false,
        weights: None,
    };
    let graph = tower_kernels::service::OperandValue::from_document(&document, &RunContext::detached()).unwrap();
    registry.operands().put("payments", graph).unwrap()
}

#[tokio::test]
async fn a_graph_by_reference_is_the_graph_that_was_put() {
    const ID: &str = "graph/betweenness-centrality";
    let registry = catalogue();
    let graph = triangle_with_tail(&registry);
    let fields = json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [0, 2], [2, 3]]});
    let expected = ask(&registry, ID, fields.clone()).await.unwrap();
    assert_eq!(expected["scores"].as_array().unwrap().iter().filter(|score| score.as_f64() > Some(0.1)).count(), 1);
    for input in [
        json!({"graph": {"operand": "payments"}}),
        json!({"graph": {"operand": "payments@1"}}),
        json!({ "graph": fields }),
    ] {
        assert_eq!(ask(&registry, ID, input.clone()).await.unwrap(), expected, "{input}");
    }
    let mut tensors = Tensors::new();
    let text = Tensor::new(DType::U8, vec![8], "payments".into()).unwrap();
    tensors.insert("graph.operand", text).unwrap();
    let response = run(&registry, KernelRequest::new(ID, tensors.into())).await.unwrap();
    let Payload::Tensors(scores) = &response.payload else { panic!("{response:?}") };
    let typed = BetweennessInput::from_operand(graph);
    let response = run(&registry, KernelRequest::new(ID, Payload::typed(typed))).await.unwrap();
    let typed = response.payload.downcast::<BetweennessOutput>().unwrap();
    assert_eq!(scores.get("scores").unwrap().data()[..], *bytemuck_bytes(&typed.scores));
    assert_eq!(json!({ "scores": typed.scores }), expected);
}

/// Devices that have memory for operands of so many bytes, and count the copies that they made.
#[derive(Default)]
struct Devices {
    free: u64,
    copies: AtomicU64,
}

impl OperandDevices for Devices {
    fn place(&self, operand: &OperandMemory) -> Result<(), OperandError> {
        assert_eq!(operand.placement(), Placement::All);
        if operand.bytes() > self.free {
            let budget = OperandBudget::Device;
            return Err(OperandError::OverBudget { budget, need: operand.bytes(), free: self.free });
        }
        self.copies.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn an_operand_that_exceeds_the_memory_of_its_devices_is_not_stored() {
    let operands = Operands::default();
    let devices = Arc::new(Devices { free: 16, ..Devices::default() });
    let erased: Arc<dyn OperandDevices> = Arc::clone(&devices) as _;
    operands.place_on(&Arc::downgrade(&erased));
    let mut options = PutOptions::default();
    options.placement = Placement::All;
    operands.put_with("a", numbers(&[1.0, 2.0]), &options).unwrap();
    let before = operands.usage();
    let over = operands.put_with("a", numbers(&[1.0, 2.0, 3.0]), &options).unwrap_err();
    assert!(matches!(over, OperandError::OverBudget { budget: OperandBudget::Device, need: 24, free: 16 }), "{over:?}");
    assert_eq!(over.kind(), ErrorKind::InsufficientStorage);
    assert_eq!(over.to_string(), "the operand needs 24 bytes, and 16 of the device's memory for operands are free");
    assert_eq!(operands.get(None, "a").unwrap().version(), 1, "it is as it was");
    let after = operands.usage();
    assert_eq!((after.versions, after.bytes, after.rejected), (before.versions, before.bytes, 1));
    assert_eq!(devices.copies.load(Ordering::Relaxed), 1);
    // Without the placement there is room for it.
    assert_eq!(operands.put("a", numbers(&[1.0, 2.0, 3.0])).unwrap().version().unwrap().version(), 2);
}

#[tokio::test]
async fn a_request_with_a_handle_says_which_version_it_used_as_a_request_by_name_does() {
    let registry = catalogue();
    let handle = triangle_with_tail(&registry);
    let version = Arc::clone(handle.version().unwrap());
    let by_name = Payload::json(r#"{"graph": {"operand": "payments"}}"#);
    let by_handle = || Payload::typed(BetweennessInput::from_operand(handle.clone()));
    let request = |payload| KernelRequest::new("graph/betweenness-centrality", payload);
    let used = |response: Result<KernelResponse, KernelError>| {
        let operands = response.unwrap().execution.operands().to_vec();
        operands.into_iter().map(|operand| (operand.to_string(), operand.resident)).collect::<Vec<_>>()
    };
    let expected = vec![("payments@1".to_owned(), true)];
    assert_eq!(used(run(&registry, request(by_name)).await), expected);
    assert_eq!(used(run(&registry, request(by_handle())).await), expected);
    assert_eq!((version.uses(), registry.operands().usage().references), (2, 2));

    // A handle outlives the name. The layers in front of the kernel know of the operand.
    remove(registry.operands(), "payments").unwrap();
    let mut resolved = request(by_handle());
    assert!(resolved.operands().is_empty(), "not resolved yet");
    resolved.resolve_operands(&registry);
    assert_eq!(resolved.operands().iter().map(|operand| operand.id()).collect::<Vec<_>>(), [version.id()]);
    assert_eq!(used(run(&registry, resolved).await), expected);
    let without = BetweennessInput::from_edges(2, vec![[0, 1]]);
    assert_eq!(used(run(&registry, request(Payload::typed(without))).await), []);
}

#[tokio::test]
async fn graphs_are_the_same_after_a_restart() {
    const ID: &str = "graph/betweenness-centrality";
    let directory = std::env::temp_dir().join(format!("tower-kernels-graphs-{}", std::process::id()));
    let start = || {
        let registry = KernelRegistry::with_operands(Operands::open(OperandLimits::default(), &directory).unwrap());
        tower_kernels::kernels::register_all(&registry).unwrap();
        registry.operands().load();
        Arc::new(registry)
    };
    let registry = start();
    let graphs = [
        (
            "directed",
            json!({"num_nodes": 5, "edges": [[0, 1], [1, 2], [2, 0], [2, 3], [2, 3], [1, 1]], "directed": true}),
        ),
        ("undirected", json!({"num_nodes": 5, "edges": [[3, 1], [1, 2], [2, 0], [2, 3], [3, 2]]})),
        ("without edges", json!({"num_nodes": 1, "edges": []})),
    ];
    let name = |text: &str| text.replace(' ', "-");
    let mut expected = Vec::new();
    for (text, graph) in &graphs {
        let (payload, options) = (Payload::json(graph.to_string()), PutOptions::default());
        registry.operands().put_payload(&name(text), "graph", payload, &options, &RunContext::detached()).unwrap();
        expected.push(ask(&registry, ID, json!({"graph": {"operand": name(text)}})).await.unwrap());
    }
    let (infos, bytes) = (registry.operands().list(None), registry.operands().usage().bytes);
    drop(registry);

    let registry = start();
    for ((text, _), expected) in graphs.iter().zip(&expected) {
        let input = json!({"graph": {"operand": name(text)}});
        assert_eq!(ask(&registry, ID, input).await.unwrap(), *expected, "{text}");
    }
    assert_eq!((registry.operands().list(None), registry.operands().usage().bytes), (infos, bytes));
    drop(registry);
    std::fs::remove_dir_all(directory).unwrap();
}

fn bytemuck_bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[tokio::test]
async fn arrays_of_any_kernel_can_be_references() {
    let registry = catalogue();
    registry.operands().put("one", numbers(&[1.0, 2.0, 3.0])).unwrap();
    registry.operands().put("single", TensorSet::of("x", vec![2.0_f32, 4.0])).unwrap();
    let mut two = Tensors::new();
    for (name, value) in [("spot", 90.0_f64), ("strike", 100.0)] {
        two.insert(name, Tensor::new(DType::F64, vec![1], value.to_le_bytes().to_vec().into()).unwrap()).unwrap();
    }
    registry.operands().put("book", TensorSet::from(two)).unwrap();
    let saxpy = json!({"a": 1.0, "x": {"operand": "single"}, "y": {"operand": "single/x"}});
    assert_eq!(ask(&registry, "linalg/saxpy", saxpy).await.unwrap()["y"], json!([4.0, 8.0]));
    let dot = json!({"x": {"operand": "single"}, "y": [1.0, 1.0]});
    let inline = json!({"x": [2.0, 4.0], "y": [1.0, 1.0]});
    assert_eq!(ask(&registry, "linalg/dot", dot).await, ask(&registry, "linalg/dot", inline).await);
    let option = |spot: serde_json::Value, strike: serde_json::Value| json!({"spot": spot, "strike": strike, "rate": 0.01, "volatility": 0.2, "time": 1.0, "kind": "call"});
    let by_name = option(json!({"operand": "book/spot"}), json!({"operand": "book@3/strike"}));
    let inline = option(json!([90.0]), json!([100.0]));
    assert_eq!(
        ask(&registry, "risk/option-pricing", by_name).await.unwrap(),
        ask(&registry, "risk/option-pricing", inline).await.unwrap()
    );

    for (x, reason) in [
        (json!({"operand": "gone"}), "there is no operand `gone`"),
        (json!({"operand": "one@2"}), "there is no operand `one@2`"),
        (json!({"operand": "one"}), "float64 of shape [3] where an array of float32 is expected"),
        (json!({"operand": "book"}), "one of the operand's tensors after a slash: spot, strike"),
        (json!({"operand": "book/rate"}), "one of the operand's tensors after a slash"),
        (json!({"operand": "../one"}), "starts with a dot"),
        (json!({"operand": "single", "z": 1}), "no field but `operand`"),
        (json!({"also": 1}), "an object in place of an array is a reference"),
        (json!({"operand": 1}), "invalid type"),
        (json!({}), "an object in place of an array is a reference"),
    ] {
        let error = ask(&registry, "linalg/saxpy", json!({"a": 1.0, "x": x, "y": [1.0]})).await.unwrap_err();
        assert!(error.starts_with("x") && error.contains(reason), "{x}: {error}");
    }
}

#[tokio::test]
async fn references_are_found_however_json_is_written_and_escaped_keys_are_none() {
    let registry = catalogue();
    registry.operands().put("single", TensorSet::of("x", vec![2.0_f32, 4.0])).unwrap();
    for x in [r#"{ "operand" : "single" }"#, "{\"operand\"\n\t:\r\n \"single\\/x\"}", r#"{"operand":"s\u0069ngle"}"#] {
        let request =
            KernelRequest::new("linalg/saxpy", Payload::json(format!(r#"{{"a": 1, "y": [1, 1], "x": {x}}}"#)));
        assert!(run(&registry, request).await.is_ok(), "{x}");
    }
    let escaped = Payload::json(r#"{"a": 1, "y": [1, 1], "x": {"\u006fperand": "single"}}"#);
    assert!(run(&registry, KernelRequest::new("linalg/saxpy", escaped)).await.is_err());
}

#[tokio::test]
async fn a_request_keeps_the_version_that_it_was_accepted_with() {
    let registry = catalogue();
    registry.operands().put("x", TensorSet::of("x", vec![1.0_f32])).unwrap();
    let input = || Payload::json(r#"{"a": 1.0, "x": {"operand": "x"}, "y": [0.0]}"#);
    let mut request = KernelRequest::new("linalg/saxpy", input());
    request.resolve_operands(&registry);
    registry.operands().put("x", TensorSet::of("x", vec![2.0_f32])).unwrap();
    assert_eq!((registry.operands().usage().operands, registry.operands().usage().versions), (1, 2));
    let mut other = request.clone();
    let output = |response: KernelResponse| response.json::<serde_json::Value>().unwrap()["y"][0].clone();
    assert_eq!(output(run(&registry, request).await.unwrap()), 1.0);
    remove(registry.operands(), "x").unwrap();
    other.resolve_operands(&registry);
    assert_eq!(output(run(&registry, other).await.unwrap()), 1.0, "resolved once");
    assert_eq!((registry.operands().usage().versions, registry.operands().usage().bytes), (0, 0));
    assert!(run(&registry, KernelRequest::new("linalg/saxpy", input())).await.is_err());
}

#[tokio::test]
async fn caches_and_shared_calls_tell_versions_apart() {
    let registry = catalogue();
    let key = || KernelCacheKey::new(Arc::clone(&registry));
    let service =
        CoalesceLayer::new(key()).layer(KernelService::with_backend(Arc::clone(&registry), CpuBackend::new()));
    let request = || {
        let input = Payload::json(r#"{"a": 1.0, "x": {"operand": "x"}, "y": [0.0]}"#);
        let mut request = KernelRequest::new("linalg/saxpy", input);
        request.resolve_operands(&registry);
        request
    };
    registry.operands().put("x", TensorSet::of("x", vec![1.0_f32])).unwrap();
    let first = request();
    registry.operands().put("x", TensorSet::of("x", vec![2.0_f32])).unwrap();
    let second = request();
    let outputs = tokio::join!(service.clone().oneshot(first), service.clone().oneshot(second));
    let output = |response: KernelResponse| response.json::<serde_json::Value>().unwrap()["y"][0].clone();
    assert_eq!((output(outputs.0.unwrap()), output(outputs.1.unwrap())), (json!(1.0), json!(2.0)));

    use tower_kernels::middleware::cache_key::CacheKey;
    let key = key();
    let unresolved =
        KernelRequest::new("linalg/saxpy", Payload::json(r#"{"a": 1.0, "x": {"operand": "x"}, "y": [0.0]}"#));
    assert!(key.key(&unresolved).is_none(), "what it refers to is not known yet");
    let owned = key.to_owned_key(key.key(&request()).unwrap());
    assert!(key.is_equal(&owned, &key.key(&request()).unwrap()));
    registry.operands().put("x", TensorSet::of("x", vec![2.0_f32])).unwrap();
    assert!(!key.is_equal(&owned, &key.key(&request()).unwrap()));
    assert_eq!(registry.operands().usage().versions, 1, "a cached key holds no version");
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u8),
    Remove(usize),
    Get(usize),
    /// Accepts a request on the operand, which is run later.
    Accept(usize),
    /// Runs one of the accepted requests.
    Run(usize),
    Release(usize),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_usize, 1..30_u8).prop_map(|(name, len)| Step::Put(name, len)),
        1 => (0..3_usize).prop_map(Step::Remove),
        1 => (0..3_usize).prop_map(Step::Get),
        2 => (0..3_usize).prop_map(Step::Accept),
        1 => any::<usize>().prop_map(Step::Run),
        1 => any::<usize>().prop_map(Step::Release),
    ];
    proptest::collection::vec(step, 0..80)
}

/// A version as a model of the store has it: its number, which is its elements too, and how many elements it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    version: u64,
    len: u8,
}

/// Host memory of the versions that are stored or in use.
fn bytes_of(versions: impl IntoIterator<Item = Model>) -> (u64, u64) {
    let mut versions: Vec<Model> = versions.into_iter().collect();
    versions.sort_unstable();
    versions.dedup();
    (versions.len() as u64, versions.iter().map(|model| 4 * u64::from(model.len)).sum())
}

proptest! {
    /// Whatever is put, removed, read and run in whatever order: each request runs on the version that it was accepted
    /// with, and memory counts for exactly the versions that are stored or in use.
    #[test]
    fn every_version_counts_until_it_is_neither_stored_nor_in_use(steps in steps()) {
        const BUDGET: u64 = 300;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let operands = limited(|limits| limits.max_bytes = BUDGET);
        let registry = KernelRegistry::with_operands(operands.clone());
        tower_kernels::kernels::register_all(&registry).unwrap();
        let registry = Arc::new(registry);
        let service = KernelService::with_backend(Arc::clone(&registry), CpuBackend::new());
        let mut last_version = 0;
        let mut stored: [Option<Model>; 3] = [None; 3];
        let mut held = Vec::new();
        let mut accepted = Vec::new();
        for step in steps {
            let in_use = |held: &[(_, Model)], accepted: &[(_, Model)], stored: &[Option<Model>; 3]| {
                let all = held.iter().map(|(_, model): &(Arc<OperandVersion>, _)| *model);
                let all = all.chain(accepted.iter().map(|(_, model): &(KernelRequest, _)| *model));
                bytes_of(all.chain(stored.iter().copied().flatten()))
            };
            match step {
                Step::Put(name, len) => {
                    let model = Model { version: last_version + 1, len };
                    let elements = vec![model.version as f32; usize::from(len)];
                    let fits = in_use(&held, &accepted, &stored).1 + 4 * u64::from(len) <= BUDGET;
                    match operands.put(NAMES[name], TensorSet::of("x", elements)) {
                        Ok(put) => {
                            prop_assert!(fits);
                            prop_assert_eq!(put.version().unwrap().version(), model.version);
                            last_version = model.version;
                            stored[name] = Some(model);
                        }
                        Err(error) => prop_assert_eq!((error.kind(), fits), (ErrorKind::InsufficientStorage, false)),
                    }
                }
                Step::Remove(name) => {
                    prop_assert_eq!(remove(&operands, NAMES[name]).is_ok(), stored[name].take().is_some());
                }
                Step::Get(name) => {
                    let found = operands.get(None, NAMES[name]);
                    prop_assert_eq!(found.as_ref().map(|found| found.version()), stored[name].map(|model| model.version));
                    held.extend(found.zip(stored[name]));
                }
                Step::Accept(name) => {
                    let y = vec![0; stored[name].map_or(1, |model| usize::from(model.len))];
                    let input = json!({"a": 1, "x": {"operand": NAMES[name]}, "y": y});
                    let mut request = KernelRequest::new("linalg/saxpy", Payload::from_serialize(&input).unwrap());
                    request.resolve_operands(&registry);
                    match stored[name] {
                        Some(model) => accepted.push((request, model)),
                        None => prop_assert!(runtime.block_on(service.clone().oneshot(request)).is_err()),
                    }
                }
                Step::Run(at) if !accepted.is_empty() => {
                    let (request, model) = accepted.swap_remove(at % accepted.len());
                    let response = runtime.block_on(service.clone().oneshot(request)).unwrap();
                    prop_assert_eq!(response.execution.operands()[0].version, model.version);
                    let y: serde_json::Value = response.json().unwrap();
                    prop_assert_eq!(&y["y"], &json!(vec![model.version as f32; usize::from(model.len)]));
                }
                Step::Release(at) if !held.is_empty() => drop(held.swap_remove(at % held.len())),
                Step::Run(_) | Step::Release(_) => {}
            }
            let usage = operands.usage();
            prop_assert_eq!((usage.versions, usage.bytes), in_use(&held, &accepted, &stored));
            prop_assert_eq!(usage.operands, stored.iter().flatten().count() as u64);
        }
        drop((held, accepted));
        for (name, stored) in NAMES.into_iter().zip(stored) {
            prop_assert_eq!(remove(&operands, name).is_ok(), stored.is_some());
        }
        prop_assert_eq!((operands.usage().versions, operands.usage().bytes), (0, 0));
    }
}

/// Writers replace and remove while readers hold: nobody sees contents of another version, and at the end all is free.
#[test]
fn threads_see_whole_versions_and_leave_nothing() {
    let operands = Operands::default();
    let stop = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (operands, stop) = (&operands, &stop);
            scope.spawn(move || {
                for round in 0..10_000_u64 {
                    let name = format!("n{}", (round * 7 + thread) % 500);
                    let value = (round * 2 + thread) as f64;
                    operands.put(&name, numbers(&[value; 8])).unwrap();
                    if round % 3 == 0 {
                        let _ = remove(operands, &format!("n{}", (round * 13) % 500));
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        for thread in 0..2_u64 {
            let (operands, stop, seen) = (&operands, &stop, &seen);
            scope.spawn(move || {
                let mut round = thread;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let Some(version) = operands.get(None, &format!("n{}", round % 500)) else { continue };
                    let set = version.value::<TensorSet>().unwrap();
                    let data = set.tensors().get("x").unwrap().data();
                    assert!(data.chunks(8).all(|chunk| chunk == &data[..8]), "half of another version");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
    let left = operands.list(None);
    assert_eq!(operands.usage().versions, left.len() as u64);
    for info in left {
        remove(&operands, &info.name).unwrap();
    }
    assert_eq!((operands.usage().versions, operands.usage().bytes), (0, 0));
}
