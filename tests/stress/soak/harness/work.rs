//! What callers ask for, made once: payloads in every encoding, and the answers of the CPU.

use std::sync::Arc;

use bytes::Bytes;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::error::Classify;
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::kernels::risk::option_pricing::OptionKind;
use tower_kernels::kernels::risk::option_pricing::{OptionPricingInput, OptionPricingOutput};
use tower_kernels::service::{
    Buffer, DType, FloatArray, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload, Tensor, Tensors,
};

use super::super::hold::{HOLD, HoldInput};
use super::kernels::{GREEDY, Nothing, PANIC};
use super::{Random, Tally};

/// Copies an array into memory that the device reads on its own, where there is some left.
pub(crate) type Pin = Arc<dyn Fn(&Buffer<f32>) -> Option<Buffer<f32>> + Send + Sync>;

/// How large it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// For two cores.
    Small,
    /// For a device.
    Full,
}

pub(crate) struct Works {
    works: Vec<Work>,
    /// Sent by itself, once.
    pub(super) greedy: Work,
    weights: u64,
    pin: Option<Pin>,
}

/// One thing to ask for.
pub(crate) struct Work {
    pub(crate) kernel: &'static str,
    pub(crate) name: String,
    weight: u64,
    payload: Payload,
    /// Typed saxpy: its arrays can be put into pinned memory.
    saxpy: Option<Arc<SaxpyInput>>,
    bytes: u64,
    end: End,
}

/// How it ends, where nobody leaves and there is time.
enum End {
    /// With these numbers, by the output's field, to within this share of the largest.
    Values(Arc<Fields>, f64),
    /// With an answer that says nothing.
    Done,
    /// With an error of this code.
    Error(&'static str),
}

/// Numbers by the output's field.
type Fields = Vec<(&'static str, Vec<f64>)>;

const SAXPY: &str = "linalg/saxpy";
const PRICING: &str = "risk/option-pricing";
const BETWEENNESS: &str = "graph/betweenness-centrality";

impl Works {
    /// All of it.
    pub(crate) async fn new(scale: Scale, seed: u64, pin: Option<Pin>) -> Self {
        let mut random = Random::new(seed);
        let mut cpu = Cpu::new();
        let mut works = Vec::new();
        let full = scale == Scale::Full;
        let sizes: &[(usize, u64)] = if full {
            &[(1 << 10, 300), (1 << 12, 60), (1 << 15, 30), (1 << 18, 12), (1 << 20, 8), (1 << 22, 2)]
        } else {
            &[(1 << 10, 300), (1 << 15, 60), (1 << 18, 10)]
        };
        for &(len, weight) in sizes {
            saxpy(&mut cpu, &mut random, &mut works, len, weight).await;
        }
        let sizes: &[(usize, u64)] = if full {
            &[(1 << 10, 60), (1 << 14, 20), (1 << 17, 4), (1 << 20, 1)]
        } else {
            &[(1 << 10, 60), (1 << 14, 10)]
        };
        for &(contracts, weight) in sizes {
            pricing(&mut cpu, &mut random, &mut works, contracts, weight).await;
        }
        let sizes: &[(u64, u64)] = if full { &[(50, 30), (2_000, 10), (20_000, 1)] } else { &[(50, 30), (300, 5)] };
        for &(nodes, weight) in sizes {
            betweenness(&mut cpu, &mut random, &mut works, nodes, weight).await;
        }
        for (micros, weight) in [(500, 10), (20_000, 4)] {
            let input = HoldInput { micros, blocks: 8, waits: false };
            works.push(Work::new(HOLD, format!("{micros} µs"), weight, Payload::typed(input), End::Done));
        }
        nonsense(&mut works);
        let greedy = Work::new(GREEDY, "all the memory", 0, Payload::typed(Nothing {}), End::Error("overloaded"));
        let weights = works.iter().map(|work| work.weight).sum();
        Self { works, greedy, weights, pin }
    }

    /// The kernels that are asked for and known.
    pub(crate) const KERNELS: [&'static str; 6] = [SAXPY, PRICING, BETWEENNESS, HOLD, PANIC, GREEDY];

    pub(super) fn choose(&self, random: &mut Random) -> &Work {
        let mut left = random.below(self.weights);
        for work in &self.works {
            if left < work.weight {
                return work;
            }
            left -= work.weight;
        }
        &self.works[0]
    }
}

impl Work {
    fn new(kernel: &'static str, name: impl Into<String>, weight: u64, payload: Payload, end: End) -> Self {
        Self { kernel, name: name.into(), weight, payload, saxpy: None, bytes: 0, end }
    }

    pub(super) fn request(&self, random: &mut Random, works: &Works) -> KernelRequest {
        let mut payload = self.payload.clone();
        if let (Some(pin), Some(input)) = (&works.pin, &self.saxpy)
            && random.below(2) == 0
            && let (Some(x), Some(y)) = (pin(&input.x), pin(&input.y))
        {
            payload = Payload::typed(SaxpyInput { a: input.a, x, y });
        }
        // `unknown` is no kernel's name; it is what the metrics call what they do not know.
        let id = if self.kernel == "unknown" { "soak/of-no-such-name" } else { self.kernel };
        KernelRequest::new(id, payload)
    }

    /// Whether that is how it has to end.
    pub(super) fn check<E: Classify + std::fmt::Debug>(
        &self,
        result: Result<KernelResponse, E>,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let response = match (&self.end, result) {
            (End::Error(code), Err(error)) if error.kind().code() == *code => return Ok(()),
            (End::Error(code), result) => {
                return Err(format!("{:?}, and not an error `{code}`", result.map(|_| "an answer")));
            }
            (_, Err(error)) => return Err(format!("{error:?}")),
            (_, Ok(response)) => response,
        };
        tally.bytes += self.bytes;
        let End::Values(expected, within) = &self.end else { return Ok(()) };
        let len = expected[0].1.len() as u64;
        // Comparing costs more than the answer, so most often only of what is small.
        if random.below(1 + len / 4096) > 0 {
            return Ok(());
        }
        tally.checked += 1;
        for (field, expected) in expected.iter() {
            let values = values(&response.payload, field).ok_or_else(|| format!("no `{field}` in the answer"))?;
            if values.len() != expected.len() {
                return Err(format!("{} elements of `{field}`, and not {}", values.len(), expected.len()));
            }
            let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            // Not a number is near nothing.
            let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= within * largest;
            if let Some((ours, theirs)) = values.iter().zip(expected).find(|(ours, theirs)| !near(**ours, **theirs)) {
                return Err(format!("`{field}` has {ours:e} where the CPU's has {theirs:e}"));
            }
        }
        Ok(())
    }
}

/// What nobody should send, and what it ends with.
fn nonsense(works: &mut Vec<Work>) {
    let json = |text: &'static str| Payload::json(Bytes::from_static(text.as_bytes()));
    let invalid = End::Error("invalid_argument");
    works.push(Work::new(SAXPY, "no JSON", 5, json(r#"{"a": 1.0, "x": [1.0"#), End::Error("invalid_argument")));
    works.push(Work::new(SAXPY, "of two lengths", 5, json(r#"{"a": 1.0, "x": [1.0], "y": [1.0, 2.0]}"#), invalid));
    let other = Payload::typed(HoldInput { micros: 1, blocks: 1, waits: false });
    works.push(Work::new(SAXPY, "another kernel's input", 5, other, End::Error("invalid_argument")));
    let negative = r#"{"spot": [-1.0], "strike": 1.0, "rate": 0.0, "volatility": 0.1, "time": 1.0, "kind": "call"}"#;
    works.push(Work::new(PRICING, "a negative spot", 5, json(negative), End::Error("invalid_argument")));
    let astray = json(r#"{"num_nodes": 2, "edges": [[0, 7]]}"#);
    works.push(Work::new(BETWEENNESS, "an edge to nowhere", 5, astray, End::Error("invalid_argument")));
    works.push(Work::new("unknown", "no such kernel", 5, json("{}"), End::Error("not_found")));
    works.push(Work::new(PANIC, "panics", 12, Payload::typed(Nothing {}), End::Error("internal")));
}

async fn saxpy(cpu: &mut Cpu, random: &mut Random, works: &mut Vec<Work>, len: usize, weight: u64) {
    let mut array = || (0..len).map(|_| random.between(-1e3, 1e3) as f32).collect::<Buffer<f32>>();
    let input = Arc::new(SaxpyInput { a: 1.0 / 3.0, x: array(), y: array() });
    let answer =
        cpu.run(SAXPY, Payload::typed(SaxpyInput::clone(&input))).await.downcast::<SaxpyOutput>().expect("typed");
    let expected = Arc::new(vec![("y", answer.y.iter().map(|&value| f64::from(value)).collect())]);
    let tensors = |skipped: usize| {
        let array = |values: &[f32]| {
            // At an odd address it has to be copied, as in the middle of a message.
            let mut bytes = vec![0; skipped];
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            Tensor::new(DType::F32, vec![values.len()], Bytes::from(bytes).slice(skipped..))
                .expect("as long as it says")
        };
        let mut tensors = Tensors::new();
        let scalar = Tensor::new(DType::F32, Vec::new(), input.a.to_le_bytes().to_vec().into()).expect("four bytes");
        for (name, tensor) in [("a", scalar), ("x", array(&input.x)), ("y", array(&input.y))] {
            tensors.insert(name, tensor).expect("three names");
        }
        Payload::Tensors(tensors)
    };
    let mut add = |name: &str, weight: u64, payload: Payload, typed: bool| {
        let mut work =
            Work::new(SAXPY, format!("{len}, {name}"), weight.max(1), payload, End::Values(Arc::clone(&expected), 0.0));
        work.bytes = len as u64 * 12;
        // Below that pinning is not worth the copy.
        work.saxpy = (typed && len >= 1 << 18).then(|| Arc::clone(&input));
        works.push(work);
    };
    add("typed", weight / 2, Payload::typed(SaxpyInput::clone(&input)), true);
    add("tensors", weight / 4, tensors(0), false);
    add("tensors in a message", weight / 4, tensors(1), false);
    if len <= 1 << 15 {
        let json = format!("{{\"a\": {:?}, \"x\": {:?}, \"y\": {:?}}}", input.a, &*input.x, &*input.y);
        add("JSON", weight / 8, Payload::json(json), false);
    }
}

async fn pricing(cpu: &mut Cpu, random: &mut Random, works: &mut Vec<Work>, contracts: usize, weight: u64) {
    for single in [false, true] {
        let mut array = |low: f64, high: f64| -> FloatArray {
            let values = (0..contracts).map(|_| random.between(low, high));
            if single {
                FloatArray::F32(values.map(|value| value as f32).collect())
            } else {
                FloatArray::F64(values.collect())
            }
        };
        let input = OptionPricingInput {
            spot: array(50.0, 150.0),
            strike: array(50.0, 150.0),
            rate: array(0.0, 0.1),
            volatility: array(0.05, 0.6),
            time: array(0.05, 3.0),
            dividend_yield: FloatArray::One(0.01),
            kind: OptionKind::Put.into(),
            precision: None,
        };
        let payload = Payload::typed(input);
        let answer = cpu.run(PRICING, payload.clone()).await.downcast::<OptionPricingOutput>().expect("typed");
        let fields = [
            ("price", &answer.price),
            ("delta", &answer.delta),
            ("gamma", &answer.gamma),
            ("vega", &answer.vega),
            ("theta", &answer.theta),
            ("rho", &answer.rho),
        ];
        let expected = Arc::new(fields.map(|(field, reals)| (field, numbers(reals))).into());
        let (name, within, size) = if single { ("f32", 1e-4, 4) } else { ("f64", 1e-11, 8) };
        let mut work =
            Work::new(PRICING, format!("{contracts}, {name}"), weight, payload, End::Values(expected, within));
        work.bytes = contracts as u64 * 11 * size;
        works.push(work);
    }
}

async fn betweenness(cpu: &mut Cpu, random: &mut Random, works: &mut Vec<Work>, nodes: u64, weight: u64) {
    let edges: Vec<_> = (0..nodes * 4).map(|_| [random.below(nodes) as u32, random.below(nodes) as u32]).collect();
    let bytes = edges.len() as u64 * 8 + nodes * 8;
    let json = format!("{{\"num_nodes\": {nodes}, \"edges\": {edges:?}}}");
    let payload = Payload::typed(BetweennessInput::from_edges(nodes, edges));
    let answer = cpu.run(BETWEENNESS, payload.clone()).await.downcast::<BetweennessOutput>().expect("typed");
    let expected = Arc::new(vec![("scores", answer.scores.to_vec())]);
    let payloads = [("typed", payload), ("JSON", Payload::json(json))];
    for (name, payload) in payloads.into_iter().take(if nodes <= 2_000 { 2 } else { 1 }) {
        let end = End::Values(Arc::clone(&expected), 1e-9);
        let mut work = Work::new(BETWEENNESS, format!("{nodes} nodes, {name}"), weight, payload, end);
        work.bytes = bytes;
        works.push(work);
    }
}

/// The numbers of an answer's field, in whatever form.
fn values(payload: &Payload, field: &str) -> Option<Vec<f64>> {
    match payload {
        Payload::Json(text) => {
            let mut output: serde_json::Value = serde_json::from_slice(text).ok()?;
            let array = output.get_mut(field)?.take();
            if field != "y" {
                return serde_json::from_value(array).ok();
            }
            // In single precision as they were written: the same digits are another number in double.
            let values: Vec<f32> = serde_json::from_value(array).ok()?;
            Some(values.into_iter().map(f64::from).collect())
        }
        Payload::Tensors(tensors) => {
            let tensor = tensors.get(field)?;
            Some(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect())
        }
        _ => {
            if let Some(output) = payload.downcast::<SaxpyOutput>() {
                return Some(output.y.iter().map(|&value| f64::from(value)).collect());
            }
            if let Some(output) = payload.downcast::<BetweennessOutput>() {
                return Some(output.scores.to_vec());
            }
            let output = payload.downcast::<OptionPricingOutput>()?;
            let OptionPricingOutput { price, delta, gamma, vega, theta, rho } = &*output;
            let fields =
                [("price", price), ("delta", delta), ("gamma", gamma), ("vega", vega), ("theta", theta), ("rho", rho)];
            fields.iter().find(|(name, _)| *name == field).map(|(_, reals)| numbers(reals))
        }
    }
}

fn numbers(reals: &FloatArray) -> Vec<f64> {
    match reals {
        FloatArray::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
        FloatArray::F64(values) => values.to_vec(),
        FloatArray::One(value) => vec![*value],
        _ => Vec::new(),
    }
}

/// What the answers are compared with.
struct Cpu(KernelService<CpuBackend>);

impl Cpu {
    fn new() -> Self {
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).expect("distinct names");
        Self(KernelService::with_backend(registry, CpuBackend::new()))
    }

    async fn run(&mut self, id: &'static str, payload: Payload) -> Payload {
        let request = KernelRequest::new(id, payload);
        let response = self.0.ready().await.expect("it is there").call(request).await;
        response.expect("the input is sound").payload
    }
}
