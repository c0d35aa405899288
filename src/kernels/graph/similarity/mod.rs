//! What the kernels on the similarity of two nodes share: a score that follows from their common neighbours and their
//! degrees, for given pairs of nodes, or for the nodes that are most similar to given ones.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | undirected, as in [`GraphInput`] |
//! | `pairs` | `u32`, `[k, 2]` | pairs of different nodes |
//! | `nodes` | `u32`, `[k]` | nodes whose most similar nodes are searched; instead of `pairs` |
//! | `top_k` | `u32`, default 10, from 1 to 1024 | how many similar nodes of each of `nodes` |
//! | out: `scores` | `f64`, `[k]`, or `[k * t]` with `nodes` | t is `top_k`, or all other nodes if fewer |
//! | out: `similar_nodes` | `u32`, `[k * t]` | the t nodes most similar to each of `nodes`; empty with `pairs` |
//!
//! Similar nodes come in the order of their scores, those of equal scores in the order of their numbers. All other
//! nodes of the graph are candidates: neighbours of the node, and nodes with the score 0.
//!
//! A pair with rows of lengths a and b takes O(min(a + b, a log b)) time, a node of `nodes` that of visiting the
//! neighbours of its neighbours. Requests on the same graph [share a run](crate::backends::batched) on CUDA.
//!
//! # Errors
//! An invalid graph, or a directed one; neither `pairs` nor `nodes`, or both; a node that is not in the graph, a pair
//! of the same node twice, or `top_k` out of its range. The error names the field.

pub(super) mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod measure;
mod pairs;
mod top;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

pub(super) use self::measure::Measure;
use self::measure::{Sum, WeightSum};
use super::csr::CsrGraph;
use super::input::GraphInput;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, KernelError, RunContext, optional_pairs};

/// The most similar nodes of a node that a request may ask for.
pub(super) const MAX_TOP_K: u32 = 1024;

/// The output of the kernels on the similarity of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SimilarityOutput {
    /// The score of each pair; or those of the similar nodes of each node, one node after the other.
    pub scores: Buffer<f64>,
    /// The similar nodes of each node, one node after the other; none where pairs were given.
    pub similar_nodes: Buffer<u32>,
}

/// The fields of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) graph: GraphInput<'a>,
    pub(super) pairs: Option<&'a [[u32; 2]]>,
    pub(super) nodes: Option<&'a [u32]>,
    pub(super) top_k: u32,
}

/// The scores that a request asks for.
enum Wanted<'a> {
    Pairs(&'a [[u32; 2]]),
    SimilarTo(&'a [u32]),
}

impl<'a> Request<'a> {
    fn wanted(&self) -> Result<Wanted<'a>, InvalidInput> {
        match (self.pairs, self.nodes) {
            (Some(pairs), None) => Ok(Wanted::Pairs(pairs)),
            (None, Some(nodes)) => Ok(Wanted::SimilarTo(nodes)),
            (Some(_), Some(_)) => Err(InvalidInput::new("nodes", "there are pairs already; give one of the two")),
            (None, None) => Err(InvalidInput::new("pairs", "missing; give pairs or nodes")),
        }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidInput> {
        let num_nodes = self.graph.validate_undirected()?;
        if !(1..=MAX_TOP_K).contains(&self.top_k) {
            return Err(InvalidInput::new("top_k", format!("{}, and it is from 1 to {MAX_TOP_K}", self.top_k)));
        }
        let check = |field: &dyn Fn() -> String, node: u32| match (node as usize) < num_nodes {
            true => Ok(()),
            false => Err(InvalidInput::new(field(), format!("node {node}, and the graph has {num_nodes} nodes"))),
        };
        match self.wanted()? {
            Wanted::Pairs(pairs) => pairs.iter().enumerate().try_for_each(|(index, &[a, b])| {
                check(&|| format!("pairs[{index}][0]"), a)?;
                check(&|| format!("pairs[{index}][1]"), b)?;
                match a == b {
                    true => Err(InvalidInput::new(format!("pairs[{index}]"), format!("node {a} twice"))),
                    false => Ok(()),
                }
            }),
            Wanted::SimilarTo(nodes) => {
                nodes.iter().enumerate().try_for_each(|(index, &node)| check(&|| format!("nodes[{index}]"), node))
            }
        }
    }

    /// The pairs or nodes, and the scores of each, as the input claims before it is checked.
    fn claimed(&self) -> (u64, u64) {
        let (num_nodes, _) = self.graph.claimed_size();
        match (self.pairs, self.nodes) {
            (Some(pairs), _) => (pairs.len() as u64, 1),
            (None, Some(nodes)) => (nodes.len() as u64, u64::from(self.top_k).min(num_nodes.saturating_sub(1))),
            (None, None) => (0, 0),
        }
    }

    pub(super) fn cost(&self) -> Cost {
        let (nodes, arcs) = self.graph.claimed_size();
        let (count, each) = self.claimed();
        let degree = arcs / nodes.max(1) + 1;
        let steps = if self.pairs.is_some() { 2 * degree } else { degree.saturating_mul(degree).saturating_add(each) };
        Cost {
            bytes: self.graph.load_bytes().saturating_add(count.saturating_mul(8)),
            operations: count.saturating_mul(steps).saturating_add(1_000),
            device_memory: self.device_memory(),
        }
    }

    #[cfg(feature = "cuda")]
    fn device_memory(&self) -> u64 {
        let ((nodes, arcs), (count, each)) = (self.graph.claimed_size(), self.claimed());
        let pairs = self.pairs.map(|pairs| pairs.len() as u64);
        cuda::device_memory(nodes, arcs, pairs, count, each)
    }

    #[cfg(not(feature = "cuda"))]
    fn device_memory(&self) -> u64 {
        0
    }

    pub(super) fn footprint(&self) -> Footprint {
        let (count, each) = self.claimed();
        let (num_nodes, _) = self.graph.claimed_size();
        let scores = count.saturating_mul(each);
        let (similar_nodes, scratch) = match self.pairs {
            Some(_) => (0, 0),
            None => (Footprint::of_array::<u32>(scores), top::scratch(num_nodes, count)),
        };
        let output = Footprint::of_array::<f64>(scores).saturating_add(similar_nodes);
        Footprint { output, scratch: self.graph.load_memory().saturating_add(scratch) }
    }

    pub(super) fn run_cpu(&self, measure: Measure, context: &RunContext<'_>) -> Result<SimilarityOutput, KernelError> {
        match measure {
            Measure::AdamicAdar => self.run_with_sums::<WeightSum>(measure, context),
            _ => self.run_with_sums::<u32>(measure, context),
        }
    }

    fn run_with_sums<S: Sum>(
        &self,
        measure: Measure,
        context: &RunContext<'_>,
    ) -> Result<SimilarityOutput, KernelError> {
        let graph: &CsrGraph = &*self.graph.load_in(context)?;
        match self.wanted()? {
            Wanted::Pairs(pairs) => {
                let scores = pairs::scores::<S>(graph, pairs, measure, context)?;
                Ok(SimilarityOutput { scores: scores.into(), similar_nodes: Buffer::default() })
            }
            Wanted::SimilarTo(nodes) => top::most_similar::<S>(graph, nodes, self.top_k as usize, measure, context),
        }
    }
}

/// Reads an optional field of pairs of nodes, as JSON or as a tensor of shape `[k, 2]`.
///
/// # Errors
/// Elements that are no pairs.
pub(super) fn node_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<[u32; 2]>>, D::Error> {
    optional_pairs::<D, NodePair>(deserializer)
}

struct NodePair([u32; 2]);

impl From<NodePair> for [u32; 2] {
    fn from(NodePair(pair): NodePair) -> Self {
        pair
    }
}

impl<'de> Deserialize<'de> for NodePair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The cause last: serde_json takes the line and column from the end of the text.
        <[u32; 2]>::deserialize(deserializer).map(Self).map_err(|error| {
            D::Error::custom(format_args!("a pair is two nodes; as a tensor, pairs have the shape [k, 2]: {error}"))
        })
    }
}

/// Defines a kernel on the similarity of nodes: its type, its input and their implementations.
macro_rules! similarity_kernel {
    ($Kernel:ident, $Input:ident, $measure:ident, $id:literal, $(alias $alias:literal,)? $description:literal) => {
        /// The kernel.
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $Kernel;

        $crate::kernels::graph::fields::graph_input! {
            examples = [
                { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "pairs": [[0, 2], [0, 1]] },
                { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "nodes": [0], "top_k": 2 },
            ];
            #[doc = concat!("The input of `", $id, "`.")]
            pub struct $Input {
                /// Pairs of different nodes.
                #[serde(
                    serialize_with = "crate::service::serialize_pairs",
                    deserialize_with = "crate::kernels::graph::similarity::node_pairs"
                )]
                #[schemars(with = "Option<Vec<[u32; 2]>>")]
                pub pairs: Option<Vec<[u32; 2]>> = None,
                /// Nodes whose most similar nodes are searched; instead of `pairs`.
                pub nodes: Option<$crate::service::Buffer<u32>> = None,
                /// How many similar nodes of each node, from 1 to 1024.
                pub top_k: u32 = 10,
            }
        }

        impl $Input {
            fn request(&self) -> $crate::kernels::graph::similarity::Request<'_> {
                $crate::kernels::graph::similarity::Request {
                    graph: self.graph_input(),
                    pairs: self.pairs.as_deref(),
                    nodes: self.nodes.as_deref(),
                    top_k: self.top_k,
                }
            }
        }

        impl $crate::service::Kernel for $Kernel {
            type Input = $Input;
            type Output = $crate::kernels::graph::similarity::SimilarityOutput;

            fn info(&self) -> $crate::service::KernelInfo {
                $crate::service::KernelInfo::new($id, "1.0.0", $description)
                    $(.alias($alias))?
                    .cuda()
                    .pure()
            }

            fn validate(&self, input: &$Input) -> Result<(), $crate::service::InvalidInput> {
                input.request().validate()
            }

            fn cost(&self, input: &$Input) -> $crate::service::Cost {
                input.request().cost()
            }

            fn footprint(&self, input: &$Input) -> Option<$crate::service::Footprint> {
                Some(input.request().footprint())
            }

            fn operands(&self, input: &$Input) -> Vec<std::sync::Arc<$crate::service::OperandVersion>> {
                input.graph_input().operands()
            }

            fn run_cpu(
                &self,
                input: &$Input,
                context: &$crate::service::RunContext<'_>,
            ) -> Result<Self::Output, $crate::service::KernelError> {
                input.request().run_cpu($crate::kernels::graph::similarity::Measure::$measure, context)
            }

            #[cfg(feature = "cuda")]
            fn modules(&self) -> Vec<&'static $crate::cuda::Module> {
                vec![&$crate::kernels::graph::similarity::cuda::MODULE, &$crate::kernels::device::scan::MODULE]
            }

            #[cfg(feature = "cuda")]
            fn run_cuda(
                &self,
                input: &$Input,
                cuda: &mut $crate::service::LaunchContext<'_>,
            ) -> Result<Self::Output, $crate::service::KernelError> {
                let mut outputs = self.run_cuda_batch(&[input], cuda)?;
                Ok(outputs.swap_remove(0))
            }

            fn batch_key(&self, input: &$Input) -> Option<$crate::service::BatchKey> {
                input.graph_input().batch_key()
            }

            fn shares_run(&self, first: &$Input, other: &$Input) -> bool {
                first.graph_input().is_same(&other.graph_input())
            }

            #[cfg(feature = "cuda")]
            fn run_cuda_batch(
                &self,
                inputs: &[&$Input],
                cuda: &mut $crate::service::LaunchContext<'_>,
            ) -> Result<Vec<Self::Output>, $crate::service::KernelError> {
                let requests: Vec<_> = inputs.iter().map(|input| input.request()).collect();
                let measure = $crate::kernels::graph::similarity::Measure::$measure;
                $crate::kernels::graph::similarity::cuda::run(&requests, measure, cuda)
            }
        }

        $crate::kernels::graph::similarity::cases::similarity_cases!($Kernel, $Input, $measure);
    };
}

pub(super) use similarity_kernel;
