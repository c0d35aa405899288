//! The built-in catalogue, one folder and one cargo feature for each domain. A kernel is registered under `domain/name`.
//!
//! | id | module |
//! |---|---|
//! | `compliance/entity-resolution` | [`compliance::entity_resolution`] |
//! | `compliance/sanctions-screening` | [`compliance::sanctions_screening`] |
//! | `core/segmented-aggregate` | [`core::segmented_aggregate`] |
//! | `core/sort` | [`core::sort`] |
//! | `core/top-k` | [`core::top_k`] |
//! | `graph/adamic-adar`, `graph/adamic-adar-index` | [`graph::adamic_adar`] |
//! | `graph/average-path-length` | [`graph::average_path_length`] |
//! | `graph/betweenness-centrality` | [`graph::betweenness_centrality`] |
//! | `graph/closeness-centrality` | [`graph::closeness_centrality`] |
//! | `graph/clustering-coefficient` | [`graph::clustering_coefficient`] |
//! | `graph/common-neighbors` | [`graph::common_neighbors`] |
//! | `graph/cosine-similarity` | [`graph::cosine_similarity`] |
//! | `graph/connected-components` | [`graph::connected_components`] |
//! | `graph/cycle-participation` | [`graph::cycle_participation`] |
//! | `graph/degree-centrality` | [`graph::degree_centrality`] |
//! | `graph/degree-ratio` | [`graph::degree_ratio`] |
//! | `graph/density`, `graph/graph-density` | [`graph::density`] |
//! | `graph/eigenvector-centrality` | [`graph::eigenvector_centrality`] |
//! | `graph/full-metrics`, `graph/full-graph-metrics` | [`graph::full_metrics`] |
//! | `graph/gnn-inference` | [`graph::gnn_inference`] |
//! | `graph/graph-attention` | [`graph::graph_attention`] |
//! | `graph/jaccard-similarity` | [`graph::jaccard_similarity`] |
//! | `graph/k-clique`, `graph/k-clique-detection` | [`graph::k_clique`] |
//! | `graph/katz-centrality` | [`graph::katz_centrality`] |
//! | `graph/label-propagation` | [`graph::label_propagation`] |
//! | `graph/louvain-community` | [`graph::louvain_community`] |
//! | `graph/modularity-score` | [`graph::modularity_score`] |
//! | `graph/motif-detection` | [`graph::motif_detection`] |
//! | `graph/pagerank` | [`graph::pagerank`] |
//! | `graph/shortest-path` | [`graph::shortest_path`] |
//! | `graph/star-topology` | [`graph::star_topology`] |
//! | `graph/triangle-counting` | [`graph::triangle_counting`] |
//! | `graph/value-similarity` | [`graph::value_similarity`] |
//! | `linalg/dot` | [`linalg::dot`] |
//! | `linalg/saxpy` | [`linalg::saxpy`] |
//! | `linalg/weighted-sum-product` | [`linalg::weighted_sum_product`] |
//! | `ml/kmeans-cluster`, `ml/kmeans` | [`ml::kmeans_cluster`] |
//! | `ml/semantic-similarity` | [`ml::semantic_similarity`] |
//! | `orderbook/matching`, `orderbook/matching-engine` (ring) | [`orderbook::matching`] |
//! | `risk/monte-carlo-var` | [`risk::monte_carlo_var`] |
//! | `risk/option-pricing` | [`risk::option_pricing`] |
//! | `stats/moments` | [`stats::moments`] |
//! | `temporal/volatility-analysis` | [`temporal::volatility_analysis`] |

/// Evaluates an expression with the buffer of a [`NumberArray`](crate::service::NumberArray), whatever its type.
macro_rules! with_numbers {
    ($array:expr, $numbers:ident => $result:expr) => {
        match $array {
            $crate::service::NumberArray::U32($numbers) => $result,
            $crate::service::NumberArray::I32($numbers) => $result,
            $crate::service::NumberArray::U64($numbers) => $result,
            $crate::service::NumberArray::I64($numbers) => $result,
            $crate::service::NumberArray::F32($numbers) => $result,
            $crate::service::NumberArray::F64($numbers) => $result,
        }
    };
}

pub mod authoring;
#[cfg(feature = "kernels-compliance")]
pub mod compliance;
#[cfg(feature = "kernels-core")]
pub mod core;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "kernels-graph")]
pub mod graph;
#[cfg(feature = "kernels-linalg")]
pub mod linalg;
#[cfg(feature = "kernels-ml")]
pub mod ml;
#[cfg(feature = "kernels-orderbook")]
pub mod orderbook;
pub mod ordered_bits;
#[cfg(feature = "kernels-risk")]
pub mod risk;
#[cfg(feature = "kernels-stats")]
pub mod stats;
#[cfg(feature = "kernels-temporal")]
pub mod temporal;

use authoring::ErasedCases;

use crate::service::{Kernel, KernelInfo, KernelRegistry, RegisterError};

/// Registers every kernel of the catalogue.
///
/// # Errors
/// Where one of their names is taken.
pub fn register_all(registry: &KernelRegistry) -> Result<(), RegisterError> {
    register_where(registry, |_| true)
}

/// The catalogue: the kernels of each domain, by the feature that has them, are registered and tested.
macro_rules! catalogue {
    ($($feature:tt: [$($kernel:path),*],)*) => {
        /// Registers the kernels of the catalogue for which `wanted` returns true, and the types of operands that they
        /// take.
        ///
        /// ```
        /// use tower_kernels::service::KernelRegistry;
        ///
        /// let registry = KernelRegistry::new();
        /// tower_kernels::kernels::register_where(&registry, |kernel| kernel.domain() == "graph").unwrap();
        /// assert!(registry.list().iter().all(|kernel| kernel.info().domain() == "graph"));
        /// ```
        ///
        /// # Errors
        /// Where one of their names is taken.
        pub fn register_where(
            registry: &KernelRegistry,
            wanted: impl Fn(&KernelInfo) -> bool,
        ) -> Result<(), RegisterError> {
            register_wanted(registry, &wanted)
        }

        // Not generic: it would be compiled again, with all that the kernels are made of, in each crate that calls it.
        #[cfg_attr(not(feature = "kernels"), allow(unused_variables, reason = "there may be no domain"))]
        fn register_wanted(
            registry: &KernelRegistry,
            wanted: &dyn Fn(&KernelInfo) -> bool,
        ) -> Result<(), RegisterError> {
            #[cfg(feature = "kernels-compliance")]
            registry.operands().register::<compliance::names::NameList>();
            #[cfg(feature = "kernels-graph")]
            registry.operands().register::<graph::csr::CsrGraph>();
            $($(
                #[cfg(feature = $feature)]
                if wanted(&$kernel.info()) {
                    registry.register($kernel)?;
                }
            )*)*
            Ok(())
        }

        /// The tests of the catalogue's kernels.
        // Compiled where it is called, with what it makes of each kernel: no build of the library or the program needs that.
        #[inline]
        #[doc(hidden)]
        #[cfg_attr(not(feature = "kernels"), allow(unused_mut, reason = "there may be no domain"))]
        pub fn cases() -> Vec<Box<dyn ErasedCases>> {
            let mut cases: Vec<Box<dyn ErasedCases>> = Vec::new();
            $(
                #[cfg(feature = $feature)]
                cases.extend([$(Box::new($kernel) as Box<dyn ErasedCases>),*]);
            )*
            cases
        }
    };
}

catalogue! {
    "kernels-compliance": [
        compliance::entity_resolution::EntityResolution,
        compliance::sanctions_screening::SanctionsScreening
    ],
    "kernels-core": [core::segmented_aggregate::SegmentedAggregate, core::sort::Sort, core::top_k::TopK],
    "kernels-graph": [
        graph::adamic_adar::AdamicAdar,
        graph::average_path_length::AveragePathLength,
        graph::betweenness_centrality::BetweennessCentrality,
        graph::closeness_centrality::ClosenessCentrality,
        graph::clustering_coefficient::ClusteringCoefficient,
        graph::common_neighbors::CommonNeighbors,
        graph::connected_components::ConnectedComponents,
        graph::cosine_similarity::CosineSimilarity,
        graph::cycle_participation::CycleParticipation,
        graph::degree_centrality::DegreeCentrality,
        graph::degree_ratio::DegreeRatio,
        graph::density::Density,
        graph::eigenvector_centrality::EigenvectorCentrality,
        graph::full_metrics::FullMetrics,
        graph::gnn_inference::GnnInference,
        graph::graph_attention::GraphAttention,
        graph::jaccard_similarity::JaccardSimilarity,
        graph::k_clique::KClique,
        graph::katz_centrality::KatzCentrality,
        graph::label_propagation::LabelPropagation,
        graph::louvain_community::LouvainCommunity,
        graph::modularity_score::ModularityScore,
        graph::motif_detection::MotifDetection,
        graph::pagerank::PageRank,
        graph::shortest_path::ShortestPath,
        graph::star_topology::StarTopology,
        graph::triangle_counting::TriangleCounting,
        graph::value_similarity::ValueSimilarity
    ],
    "kernels-linalg": [linalg::dot::Dot, linalg::saxpy::Saxpy, linalg::weighted_sum_product::WeightedSumProduct],
    "kernels-ml": [ml::kmeans_cluster::KMeansCluster, ml::semantic_similarity::SemanticSimilarity],
    "kernels-orderbook": [orderbook::matching::Matching],
    "kernels-risk": [risk::monte_carlo_var::MonteCarloVar, risk::option_pricing::OptionPricing],
    "kernels-stats": [stats::moments::Moments],
    "kernels-temporal": [temporal::volatility_analysis::VolatilityAnalysis],
}

#[cfg(all(test, feature = "kernels"))]
mod transfer_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Encoding, Mode, Payload, RunContext};

    /// Larger inputs than the examples, with outputs of few and of many digits.
    pub(super) fn inputs(id: &str) -> Vec<String> {
        let list = |of: fn(usize) -> String| (0..5000).map(of).collect::<Vec<_>>().join(",");
        match id {
            "linalg/saxpy" => [list(|_| "1".to_owned()), list(|at| format!("-{}.7e-30", at + 1))]
                .map(|numbers| format!(r#"{{"a": 0.3, "x": [{numbers}], "y": [{numbers}]}}"#))
                .to_vec(),
            "risk/option-pricing" => ["0", "1e-9", "0.3"]
                .map(|volatility| {
                    let spots = list(|at| format!("{}", at + 1));
                    format!(
                        r#"{{"spot": [{spots}], "strike": 100, "rate": 0.01, "volatility": {volatility}, "time": 1,
                            "kind": "put"}}"#
                    )
                })
                .to_vec(),
            "graph/betweenness-centrality" => {
                let path = list(|node| format!("[{node},{}]", (node + 1) % 5000));
                let star = list(|node| format!("[0,{node}]"));
                [path, star]
                    .map(|edges| format!(r#"{{"num_nodes": 5000, "samples": 16, "edges": [{edges}]}}"#))
                    .to_vec()
            }
            "graph/eigenvector-centrality" | "graph/katz-centrality" => {
                let chain = list(|node| format!("[{node},{}]", (node + 7) % 5000));
                vec![format!(r#"{{"num_nodes": 5000, "directed": true, "edges": [{chain},[0,3]]}}"#)]
            }
            "graph/pagerank" => {
                let star = list(|node| format!("[{node},0]"));
                ["", r#", "seed_nodes": [0, 1, 4999]"#]
                    .map(|seeds| format!(r#"{{"num_nodes": 5000, "edges": [{star}]{seeds}}}"#))
                    .to_vec()
            }
            "graph/degree-centrality" | "graph/degree-ratio" | "graph/star-topology" => {
                let chain = list(|node| format!("[{node},{}]", (node + 1) % 5000));
                vec![format!(r#"{{"num_nodes": 5000, "directed": true, "edges": [{chain}]}}"#)]
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_kernel_says_what_its_output_takes_and_it_is_so() {
        let registry = KernelRegistry::new();
        register_all(&registry).unwrap();
        for kernel in registry.list().iter().filter(|kernel| kernel.info().mode == Mode::Batch) {
            let id = &kernel.info().id;
            let examples = kernel.input_schema().get("examples").and_then(|examples| examples.as_array());
            let examples = examples.into_iter().flatten().map(ToString::to_string);
            for input in examples.chain(inputs(id)) {
                let input = kernel.decode_input(Payload::json(input), None).unwrap();
                kernel.validate(&input).unwrap();
                let run = kernel.footprint(&input).unwrap_or_else(|| panic!("{id} does not say what a run takes"));
                let output = kernel.run_cpu(&input, &RunContext::detached()).unwrap();
                let size = |encoding| {
                    let payload = kernel.encode(&output, encoding, Some(run), &RunContext::detached()).unwrap();
                    payload.byte_len().unwrap() as u64
                };
                let (json, tensors) = (size(Encoding::Json), size(Encoding::Tensors));
                assert!(tensors <= run.output && run.output <= tensors + 64, "{id}: {tensors} of {run:?}");
                assert!(run.min_encoded(Encoding::Json) <= json, "{id}: {json} of {run:?}");
                assert!(json <= run.max_as_json(u64::MAX), "{id}: {json} of {run:?}");
            }
        }
    }
}
