//! The goldens on CUDA: networkx's scores, components, communities and distances, option prices of 40 digits, numpy's sorts
//! and top k, pandas' aggregates, arch's estimates, rapidfuzz's scores, scikit-learn's clusters and neighbours, and scipy's
//! layers of neural networks.

use serde_json::{Value, json};
use tower::{Service, ServiceExt};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::core::segmented_aggregate::{
    SegmentedAggregate, SegmentedAggregateInput, SegmentedAggregateOutput,
};
use tower_kernels::kernels::core::sort::{Sort, SortInput, SortOutput};
use tower_kernels::kernels::core::top_k::{TopK, TopKInput, TopKOutput};
use tower_kernels::kernels::ml::kmeans_cluster::{KMeansInput, KMeansOutput};
use tower_kernels::kernels::ml::semantic_similarity::SemanticSimilarityOutput;
use tower_kernels::service::{Kernel, KernelError, KernelRequest, NumberArray, Payload, RunContext};

use crate::probe::Bench;
use crate::support::core_goldens::{AGGREGATES, aggregates, assert_aggregates, bits_at, bits_of_rows, sorts, top_ks};
use crate::support::kmeans_goldens::{check_run, runs, seedings};
use crate::support::{gnn_goldens, similarity_inputs};

crate::tests! {
    betweenness_is_that_of_networkx
    triangles_are_those_of_networkx
    cycles_and_motifs_are_those_of_networkx_and_igraph
    similarities_and_cliques_are_those_of_networkx
    pagerank_is_that_of_networkx
    eigenvector_and_katz_centrality_are_those_of_networkx
    distances_of_histograms_are_those_of_scipy
    components_are_those_of_networkx
    communities_and_their_modularity_are_those_of_networkx
    distances_are_those_of_networkx
    distances_and_paths_to_targets_are_those_of_networkx
    closeness_path_lengths_and_metrics_are_those_of_networkx
    neighbours_are_those_of_scikit_learn
    hard_searches_are_those_of_all_scores
    option_prices_are_within_1e12_of_40_digits
    sorts_are_those_of_numpy
    the_top_k_are_those_of_numpy
    neural_networks_are_those_of_scipy
    clusters_are_those_of_scikit_learn
    large_sorts_and_selections_are_those_of_the_cpu
    selections_from_long_rows_are_those_of_the_cpu
    aggregates_are_those_of_pandas
    aggregates_of_many_rows_are_those_of_the_cpu
    volatility_models_are_those_of_arch
    names_score_as_with_rapidfuzz
}

fn run(bench: &Bench, id: &'static str, input: &Value) -> Value {
    let response = bench.runtime.block_on(async {
        let mut service = bench.service();
        let request = KernelRequest::new(id, Payload::json(input.to_string()));
        service.ready().await.unwrap().call(request).await.unwrap()
    });
    assert_eq!(response.execution.backend, "CUDA");
    let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
    serde_json::from_slice(&output).unwrap()
}

/// The output for a typed input.
fn run_typed<I, O>(bench: &Bench, id: &'static str, input: I) -> std::sync::Arc<O>
where
    I: std::any::Any + Send + Sync,
    O: std::any::Any + Send + Sync,
{
    let response = bench.runtime.block_on(async {
        let mut service = bench.service();
        service.ready().await.unwrap().call(KernelRequest::new(id, Payload::typed(input))).await.unwrap()
    });
    assert_eq!(response.execution.backend, "CUDA");
    response.payload.downcast().unwrap()
}

fn bench() -> Bench {
    let bench = Bench::new(1);
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    bench
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn betweenness_is_that_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/betweenness.json")).unwrap();
    assert!(goldens.len() >= 12);
    let bench = bench();
    for golden in &goldens {
        for (form, normalized) in [("normalized", true), ("raw", false)] {
            let mut input = json!({
                "num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"],
                "normalized": normalized,
            });
            if let Some(sources) = golden.get("sources") {
                input["sources"] = sources.clone();
            }
            let scores = numbers(&run(&bench, "graph/betweenness-centrality", &input)["scores"]);
            let expected = numbers(&golden[form]);
            assert_eq!(scores.len(), expected.len());
            let most = expected.iter().copied().fold(0.0, f64::max);
            for (node, (score, expected)) in scores.iter().zip(&expected).enumerate() {
                let bound = 1e-9 * expected.abs() + 1e-14 * most;
                assert!((score - expected).abs() <= bound, "{}, {form}, {node}: {score} {expected}", golden["name"]);
            }
        }
    }
}

fn triangles_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/neighborhoods.json")).unwrap();
    assert!(goldens.len() >= 13);
    let bench = bench();
    for golden in &goldens {
        let input = json!({"num_nodes": golden["num_nodes"], "edges": golden["edges"]});
        let output = run(&bench, "graph/triangle-counting", &input);
        assert_eq!(output["per_node_triangles"], golden["triangles"], "{}", golden["name"]);
        let clustering = run(&bench, "graph/clustering-coefficient", &input);
        for (values, expected) in [
            (&output["clustering_coefficients"], &golden["clustering"]),
            (&clustering["coefficients"], &golden["clustering"]),
            (&json!([output["global_clustering_coefficient"]]), &json!([golden["transitivity"]])),
            (&json!([clustering["average"]]), &json!([golden["average"]])),
        ] {
            let (values, expected) = (numbers(values), numbers(expected));
            assert_eq!(values.len(), expected.len(), "{}", golden["name"]);
            let is_near = |(value, expected): (&f64, &f64)| (value - expected).abs() <= 1e-13 * expected;
            assert!(values.iter().zip(&expected).all(is_near), "{}: {values:?} {expected:?}", golden["name"]);
        }
    }
}

fn similarities_and_cliques_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/neighborhoods.json")).unwrap();
    assert!(goldens.len() >= 13);
    let bench = bench();
    for golden in &goldens {
        let graph = json!({"num_nodes": golden["num_nodes"], "edges": golden["edges"]});
        for (k, count) in (3..=8).zip(golden["cliques"].as_array().unwrap()) {
            let input = json!({"graph": graph, "k": k});
            assert_eq!(run(&bench, "graph/k-clique", &input)["count"], *count, "{k} nodes, {}", golden["name"]);
        }
        if golden["pairs"].is_null() {
            continue;
        }
        let input = json!({"graph": graph, "pairs": golden["pairs"]});
        for (id, field) in [
            ("graph/common-neighbors", "common"),
            ("graph/jaccard-similarity", "jaccard"),
            ("graph/adamic-adar", "adamic_adar"),
            ("graph/cosine-similarity", "cosine"),
        ] {
            let (scores, expected) = (numbers(&run(&bench, id, &input)["scores"]), numbers(&golden[field]));
            assert_eq!(scores.len(), expected.len(), "{id}, {}", golden["name"]);
            let is_near = |(score, expected): (&f64, &f64)| (score - expected).abs() <= 1e-13 * expected;
            assert!(scores.iter().zip(&expected).all(is_near), "{id}, {}: {scores:?}", golden["name"]);
        }
    }
}

fn cycles_and_motifs_are_those_of_networkx_and_igraph() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/motifs.json")).unwrap();
    assert!(goldens.len() >= 17);
    let bench = bench();
    for golden in &goldens {
        let [num_nodes, edges, directed, name] = ["num_nodes", "edges", "directed", "name"].map(|field| &golden[field]);
        let input = json!({"num_nodes": num_nodes, "edges": edges, "directed": directed});
        let output = run(&bench, "graph/cycle-participation", &input);
        for (field, expected) in ["two_cycles", "three_cycles", "four_cycles"].iter().zip(0..) {
            assert_eq!(output[field], golden["cycles"][expected as usize], "{field} of {name}");
        }
        let output = run(&bench, "graph/motif-detection", &input);
        assert_eq!(output.get("triads").unwrap_or(&Value::Null), &golden["triads"], "{name}");
        for (field, count) in golden["motifs"].as_object().unwrap() {
            assert_eq!(output[field], *count, "{field} of {name}");
        }
    }
}

fn pagerank_is_that_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/graphs.json")).unwrap();
    assert!(goldens.len() >= 15);
    let bench = bench();
    for golden in &goldens {
        for run_by_networkx in golden["pagerank"].as_array().unwrap() {
            let options = &run_by_networkx["options"];
            let mut input = json!({
                "num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"],
                "damping": options["damping"], "max_iterations": options["max_iterations"],
                "tolerance": options["tolerance"],
            });
            if let Some(weights) = options.get("weights") {
                input["personalization"] = json!([weights]);
            }
            let output = run(&bench, "graph/pagerank", &input);
            assert_eq!(output["converged"], !run_by_networkx["scores"].is_null(), "{}", golden["name"]);
            if run_by_networkx["scores"].is_null() {
                continue;
            }
            let (scores, expected) = (numbers(&output["scores"]), numbers(&run_by_networkx["scores"]));
            assert_eq!(scores.len(), expected.len());
            for (node, (score, expected)) in scores.iter().zip(&expected).enumerate() {
                assert!((score - expected).abs() < 1e-12, "{}, {node}: {score} {expected}", golden["name"]);
            }
        }
    }
}

fn eigenvector_and_katz_centrality_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/graphs.json")).unwrap();
    let bench = bench();
    for golden in &goldens {
        for (id, name) in [("graph/eigenvector-centrality", "eigenvector"), ("graph/katz-centrality", "katz")] {
            for run_by_networkx in golden[name].as_array().unwrap() {
                let mut input = run_by_networkx.clone();
                let expected = input.as_object_mut().unwrap().remove("scores").unwrap();
                for field in ["num_nodes", "edges", "directed"] {
                    input[field] = golden[field].clone();
                }
                let output = run(&bench, id, &input);
                assert_eq!(output["converged"], !expected.is_null(), "{id}, {}", golden["name"]);
                if expected.is_null() {
                    continue;
                }
                let (scores, expected) = (numbers(&output["scores"]), numbers(&expected));
                assert_eq!(scores.len(), expected.len());
                let largest = expected.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
                for (node, (score, expected)) in scores.iter().zip(&expected).enumerate() {
                    let is_near = (score - expected).abs() <= 1e-10 * largest;
                    assert!(is_near, "{id}, {}, {node}: {score} {expected}", golden["name"]);
                }
            }
        }
    }
}

fn components_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/connected_components.json")).unwrap();
    assert!(goldens.len() >= 14);
    let bench = bench();
    for golden in &goldens {
        let input = json!({"num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"]});
        let strong = if golden["strong"].is_null() { &golden["weak"] } else { &golden["strong"] };
        for (is_strong, expected) in [(false, &golden["weak"]), (true, strong)] {
            let mut input = input.clone();
            input["strong"] = json!(is_strong);
            let output = run(&bench, "graph/connected-components", &input);
            assert_eq!(&output["components"], expected, "{}", golden["name"]);
            let sizes: f64 = numbers(&output["sizes"]).iter().sum();
            assert_eq!(Some(sizes), golden["num_nodes"].as_f64(), "{}", golden["name"]);
        }
    }
}

fn communities_and_their_modularity_are_those_of_networkx() {
    let labels: Vec<Value> = serde_json::from_str(include_str!("../goldens/label_propagation.json")).unwrap();
    let scores: Vec<Value> = serde_json::from_str(include_str!("../goldens/modularity_score.json")).unwrap();
    assert!(labels.len() >= 12 && scores.len() >= 15);
    let bench = bench();
    let is_near =
        |value: &Value, expected: &Value| (value.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-13;
    for golden in &labels {
        for expected in golden["runs"].as_array().unwrap() {
            let input = json!({
                "num_nodes": golden["num_nodes"], "edges": golden["edges"], "seed": expected["seed"],
            });
            let output = run(&bench, "graph/label-propagation", &input);
            assert_eq!(output["communities"], expected["communities"], "{}", golden["name"]);
            assert!(is_near(&output["modularity"], &expected["modularity"]), "{}: {output}", golden["name"]);
            assert_eq!(output["converged"], true, "{}", golden["name"]);
        }
    }
    for golden in &scores {
        for expected in golden["partitions"].as_array().unwrap() {
            let input = json!({
                "num_nodes": golden["num_nodes"], "edges": golden["edges"], "weights": golden["weights"],
                "directed": golden["directed"], "communities": expected["communities"],
                "resolution": expected["resolution"],
            });
            let output = run(&bench, "graph/modularity-score", &input);
            for field in ["modularity", "coverage"] {
                assert!(is_near(&output[field], &expected[field]), "{}: {output} {expected}", golden["name"]);
            }
        }
    }
}

/// The values of all rows, with the number that stands for none.
fn joined(rows: &Value) -> Vec<f64> {
    let values = rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    values.map(|value| value.as_f64().unwrap_or(f64::from(u32::MAX))).collect()
}

fn distances_of_histograms_are_those_of_scipy() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/value_similarity.json")).unwrap();
    assert!(goldens.len() >= 9);
    let bench = bench();
    for golden in &goldens {
        for metric in ["jsd", "wasserstein"] {
            let mut input = json!({
                "distributions": golden["distributions"], "num_distributions": golden["num_distributions"],
                "metric": metric,
            });
            if metric == "wasserstein" {
                input["bin_edges"] = golden["bin_edges"].clone();
            }
            let output = run(&bench, "graph/value-similarity", &input);
            let (found, expected) = (numbers(&output["distances"]), numbers(&golden[metric]));
            assert_eq!((found.len(), output["matching_pairs"].as_u64()), (expected.len(), Some(expected.len() as u64)));
            assert!(found.is_sorted(), "{}", golden["name"]);
            let (node_a, node_b) = (numbers(&output["node_a"]), numbers(&output["node_b"]));
            let pairs = golden["pairs"].as_array().unwrap();
            for (index, distance) in found.iter().enumerate() {
                let pair = json!([node_a[index] as u64, node_b[index] as u64]);
                let expected = expected[pairs.iter().position(|golden| *golden == pair).unwrap()];
                let bound = if metric == "jsd" { 1e-15 / expected.max(1e-8) } else { 1e-13 * expected + 1e-15 };
                assert!((distance - expected).abs() <= bound, "{}, {pair}: {distance} {expected}", golden["name"]);
            }
        }
    }
}

fn distances_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/shortest_path.json")).unwrap();
    assert!(goldens.len() >= 14);
    let bench = bench();
    for golden in &goldens {
        let input = json!({
            "num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"],
            "sources": golden["sources"], "predecessors": true,
        });
        let output = run(&bench, "graph/shortest-path", &input);
        for field in ["distances", "predecessors"] {
            assert_eq!(numbers(&output[field]), joined(&golden[field]), "{field} of {}", golden["name"]);
        }
    }
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/weighted_paths.json")).unwrap();
    assert!(goldens.len() >= 8);
    for golden in &goldens {
        let mut input = golden.clone();
        input.as_object_mut().unwrap().retain(|field, _| field != "name" && field != "distances");
        let distances = run(&bench, "graph/shortest-path", &input)["weighted_distances"].clone();
        let expected = golden["distances"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        // Null where no path leads.
        let distances = distances.as_array().unwrap().iter().map(Value::as_f64);
        assert!(distances.eq(expected.map(Value::as_f64)), "{}", golden["name"]);
    }
}

fn distances_and_paths_to_targets_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/paths_to_targets.json")).unwrap();
    assert!(goldens.len() >= 6);
    let bench = bench();
    for golden in &goldens {
        for (kind, use_weights) in [("weighted_", true), ("", false)] {
            let mut input = json!({"paths": true, "use_weights": use_weights});
            for field in ["num_nodes", "edges", "directed", "weights", "sources", "targets"] {
                input[field] = golden[field].clone();
            }
            let output = run(&bench, "graph/shortest-path", &input);
            let all = |field: &str| -> Vec<Value> {
                let rows = golden[format!("{kind}{field}")].as_array().unwrap();
                rows.iter().flat_map(|row| row.as_array().unwrap().clone()).collect()
            };
            if use_weights {
                let distances = output["weighted_distances"].as_array().unwrap().iter().map(Value::as_f64);
                assert!(distances.eq(all("distances").iter().map(Value::as_f64)), "{}", golden["name"]);
            } else {
                assert_eq!(numbers(&output["distances"]), joined(&golden["distances"]), "{}", golden["name"]);
            }
            let (offsets, nodes) = (numbers(&output["path_offsets"]), numbers(&output["path_nodes"]));
            let found = offsets.windows(2).map(|ends| nodes[ends[0] as usize..ends[1] as usize].to_vec());
            assert!(found.eq(all("paths").iter().map(numbers)), "{kind}paths of {}", golden["name"]);
        }
    }
}

fn closeness_path_lengths_and_metrics_are_those_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/closeness.json")).unwrap();
    assert!(goldens.len() >= 11);
    let bench = bench();
    for golden in &goldens {
        let mut input =
            json!({"num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"]});
        let output = run(&bench, "graph/average-path-length", &input);
        for field in ["diameter", "num_pairs", "connected"] {
            assert_eq!(output[field], golden[field], "{field} of {}", golden["name"]);
        }
        let [mean, expected] = [&output, golden].map(|of| of["average_path_length"].as_f64().unwrap());
        assert!((mean - expected).abs() < 1e-12, "{}", golden["name"]);
        let metrics = run(&bench, "graph/full-metrics", &input);
        for (field, expected) in golden["metrics"].as_object().unwrap() {
            match (metrics[field].as_f64(), expected.as_f64()) {
                (Some(value), Some(expected)) => {
                    assert!((value - expected).abs() <= 1e-13 * expected, "{field} of {}", golden["name"]);
                }
                _ => assert_eq!(&metrics[field], expected, "{field} of {}", golden["name"]),
            }
        }
        for (wf_improved, expected) in [(true, &golden["improved"]), (false, &golden["plain"])] {
            input["wf_improved"] = json!(wf_improved);
            let scores = numbers(&run(&bench, "graph/closeness-centrality", &input)["scores"]);
            assert_eq!(scores.len(), numbers(expected).len());
            for (score, expected) in scores.iter().zip(numbers(expected)) {
                assert!((score - expected).abs() < 1e-14, "{}", golden["name"]);
            }
        }
    }
}

/// What one unit of each output is on the scale of the contract: the size of the terms that cancel in it.
fn scales([spot, strike, rate, volatility, time, dividend_yield]: [f64; 6]) -> [f64; 6] {
    let (forward, owed) = (spot * (-dividend_yield * time).exp(), strike * (-rate * time).exp());
    let money = forward + owed;
    let root = time.sqrt();
    let decay = if root > 0.0 { volatility / root } else { 0.0 };
    let peak = if volatility * root > 0.0 { forward / (spot * spot * volatility * root) } else { 1.0 };
    let carry = rate.abs() + dividend_yield.abs();
    [money, forward / spot, peak, forward * root, money * (carry + decay), owed * time]
}

fn option_prices_are_within_1e12_of_40_digits() {
    let rows: Vec<Vec<Value>> = serde_json::from_str(include_str!("../goldens/option_pricing.json")).unwrap();
    assert!(rows.len() > 3_000);
    let column = |index: usize| -> Vec<Value> { rows.iter().map(|row| row[index].clone()).collect() };
    let input = json!({
        "spot": column(0), "strike": column(1), "rate": column(2), "volatility": column(3), "time": column(4),
        "dividend_yield": column(5), "kind": column(6),
    });
    let output = run(&bench(), "risk/option-pricing", &input);
    for (index, field) in ["price", "delta", "gamma", "vega", "theta", "rho"].into_iter().enumerate() {
        for (row, value) in rows.iter().zip(numbers(&output[field])) {
            let terms = [0, 1, 2, 3, 4, 5].map(|term: usize| row[term].as_f64().unwrap());
            let expected = row[7 + index].as_f64().unwrap();
            let bound = 1e-12 * expected.abs().max(scales(terms)[index]);
            assert!((value - expected).abs() <= bound, "{field} of {} {terms:?}: {value:e} {expected:e}", row[6]);
        }
    }
}

fn names_score_as_with_rapidfuzz() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/names.json")).unwrap();
    let names = goldens["names"].as_array().unwrap();
    let entries: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let bench = bench();
    for (form, normalize) in [("scores", true), ("raw_scores", false)] {
        for (scorer, expected) in goldens[form].as_object().unwrap() {
            let input = json!({
                "names": goldens["queries"], "sanctions_list": {"entries": entries, "normalize": normalize},
                "scorer": scorer, "min_score": 0.0, "max_matches": 1024,
            });
            let output = run(&bench, "compliance/sanctions-screening", &input);
            let (scores, entries) = (numbers(&output["scores"]), numbers(&output["entries"]));
            assert_eq!(scores.len(), expected.as_array().unwrap().len() * names.len());
            for (index, (score, entry)) in scores.iter().zip(entries).enumerate() {
                let expected = expected[index / names.len()][entry as usize].as_f64().unwrap();
                assert!((score - expected).abs() < 1e-8, "{scorer}, {index}: {score} {expected}");
            }
        }
    }
}

fn sorts_are_those_of_numpy() {
    let bench = bench();
    for (input, indices) in sorts() {
        let output = run_typed::<_, SortOutput>(&bench, "core/sort", input.clone());
        assert_eq!(output.indices.as_deref(), Some(&indices[..]), "{input:?}");
        let count = indices.len() as u32;
        assert_eq!(bits_at(&output.values, 0..count), bits_at(&input.values, indices), "{input:?}");
    }
}

fn the_top_k_are_those_of_numpy() {
    let bench = bench();
    for (input, indices) in top_ks() {
        let output = run_typed::<_, TopKOutput>(&bench, "core/top-k", input.clone());
        assert_eq!(output.indices.to_vec(), indices, "{input:?}");
        assert_eq!(bits_at(&output.values, 0..indices.len() as u32), bits_of_rows(&input, &indices), "{input:?}");
    }
}

/// Sizes at which many blocks work on a row, in orders that are hard to select from, and more than one portion of a sort.
fn large_sorts_and_selections_are_those_of_the_cpu() {
    let bench = bench();
    let mut random = Random::new(9);
    let random: Vec<f32> = (0..(5 << 20) + 3).map(|_| random.number() as f32).collect();
    let ascending: Vec<u32> = (0..3 << 20).collect();
    let equal = vec![7_i64; 3 << 20];
    let arrays: [NumberArray; 3] = [random.into(), ascending.into(), equal.into()];
    for values in arrays {
        for descending in [false, true] {
            let input = SortInput { values: values.clone(), descending, return_indices: true };
            let expected = Sort.run_cpu(&input, &RunContext::detached()).unwrap();
            assert!(*run_typed::<_, SortOutput>(&bench, "core/sort", input) == expected);
            for (rows, k) in [(1, 1), (1, 100), (1, 1024), (1, 1025), (3, 700)] {
                let len = values.len() as u64;
                if !len.is_multiple_of(rows) {
                    continue;
                }
                let input = TopKInput { values: values.clone(), rows, k, largest: descending };
                let expected = TopK.run_cpu(&input, &RunContext::detached()).unwrap();
                let output = run_typed::<_, TopKOutput>(&bench, "core/top-k", input);
                assert!(*output == expected, "{:?}, {rows} rows, {k}, {descending}", values.dtype());
            }
        }
    }
}

/// Rows that are selected from by the minima of groups, with the first numbers side by side, and with many that are equal.
fn selections_from_long_rows_are_those_of_the_cpu() {
    let bench = bench();
    let mut random = Random::new(10);
    let len = 9 << 20;
    let descending: Vec<u32> = (0..len).rev().collect();
    let few: Vec<i32> = (0..len).map(|_| random.below(5) as i32 - 2).collect();
    let number = |random: &mut Random| if random.below(3) == 0 { f64::NAN } else { random.number() };
    let with_nan: Vec<f64> = (0..len).map(|_| number(&mut random)).collect();
    let equal = vec![-1_i64; len as usize];
    let arrays: [NumberArray; 4] = [descending.into(), few.into(), with_nan.into(), equal.into()];
    for values in arrays {
        for (rows, k) in [(1, 1), (1, 100), (1, 512), (2, 100), (4, 500)] {
            for largest in [false, true] {
                let input = TopKInput { values: values.clone(), rows, k, largest };
                let expected = TopK.run_cpu(&input, &RunContext::detached()).unwrap();
                let output = run_typed::<_, TopKOutput>(&bench, "core/top-k", input);
                assert!(*output == expected, "{:?}, {rows} rows, {k}, {largest}", values.dtype());
            }
        }
    }
}

fn aggregates_are_those_of_pandas() {
    let bench = bench();
    for (input, expected) in aggregates() {
        let output = run_typed::<_, SegmentedAggregateOutput>(&bench, "core/segmented-aggregate", input.clone());
        assert_aggregates(&input, &output, &expected);
    }
}

/// Groups that end in a thread, a warp or a tile, and such that go over many tiles; as integers, which are exact.
fn aggregates_of_many_rows_are_those_of_the_cpu() {
    let bench = bench();
    let mut random = Random::new(12);
    let rows = (5 << 20) + 7;
    for groups in [1, 2, 300, 5_000, 1 << 20, 1 << 40] {
        let keys: Vec<i64> = (0..rows).map(|_| random.below(groups).cast_signed() - 3).collect();
        let arrays: [NumberArray; 4] = [
            (0..rows).map(|_| random.word() as u32).collect::<Vec<_>>().into(),
            (0..rows).map(|_| random.word() as i32).collect::<Vec<_>>().into(),
            (0..rows).map(|_| random.word() >> 24).collect::<Vec<_>>().into(),
            (0..rows).map(|_| random.word().cast_signed() >> 24).collect::<Vec<_>>().into(),
        ];
        for values in arrays {
            let input = SegmentedAggregateInput {
                aggregates: AGGREGATES.to_vec().into(),
                ..SegmentedAggregateInput::new(keys.clone(), values)
            };
            let expected = SegmentedAggregate.run_cpu(&input, &RunContext::detached()).unwrap();
            let output = run_typed::<_, SegmentedAggregateOutput>(&bench, "core/segmented-aggregate", input.clone());
            assert!(*output == expected, "{:?}, {groups} groups", input.values);
        }
    }
    let keys: Vec<u32> = vec![1, 2, 3, 3, 2, 4];
    let input = SegmentedAggregateInput { sorted: true, ..SegmentedAggregateInput::new(keys.clone(), keys) };
    let result = bench.runtime.block_on(async {
        let mut service = bench.service();
        let request = KernelRequest::new("core/segmented-aggregate", Payload::typed(input));
        service.ready().await.unwrap().call(request).await
    });
    assert!(matches!(result, Err(KernelError::InvalidInput(invalid)) if invalid.field == "keys[4]"));
}

/// Their parameters, where the fit is the same maximum, and otherwise a higher one.
fn volatility_models_are_those_of_arch() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/volatility.json")).unwrap();
    assert!(goldens.len() >= 30);
    let bench = bench();
    let mut same_maximum = 0;
    for golden in &goldens {
        let input = json!({ "returns": golden["returns"], "mean": golden["mean"], "forecast_horizon": 6 });
        let output = run(&bench, "temporal/volatility-analysis", &input);
        let name = format!("{}, {}", golden["name"], golden["mean"]);
        assert_eq!(output["status"], json!([0]), "{name}");
        let (found, expected) = (numbers(&output["log_likelihood"])[0], golden["log_likelihood"].as_f64().unwrap());
        let bound = 1e-6 * expected.abs();
        assert!(found >= expected - bound, "{name}: {found} is below {expected}");
        if found > expected + bound {
            continue;
        }
        same_maximum += 1;
        let relative = if golden["is_interior"] == true { 1e-4 } else { 1e-3 };
        for field in ["mu", "omega", "alpha", "beta", "volatility"] {
            let (value, expected) = (numbers(&output[field])[0], golden[field].as_f64().unwrap());
            let bound = relative * expected.abs() + 1e-9;
            assert!((value - expected).abs() <= bound, "{field} of {name}: {value:e}, not {expected:e}");
        }
    }
    assert!(same_maximum >= 28, "{same_maximum} of {}", goldens.len());
}

/// From given centroids its labels and centroids, and from those of k-means++ an inertia that is as low.
fn clusters_are_those_of_scikit_learn() {
    let bench = bench();
    for golden in runs() {
        check_run(&golden, &run_typed::<_, KMeansOutput>(&bench, "ml/kmeans-cluster", golden.input.clone()));
    }
    for golden in seedings() {
        let inertia = |seed| {
            let input = KMeansInput { seed, ..golden.input.clone() };
            run_typed::<_, KMeansOutput>(&bench, "ml/kmeans-cluster", input).inertia
        };
        let mean = (0..golden.seeds).map(inertia).sum::<f64>() / golden.seeds as f64;
        assert!(mean <= golden.limit(), "{}: {mean}, and {} in scikit-learn", golden.name, golden.mean);
    }
}

fn neural_networks_are_those_of_scipy() {
    let bench = bench();
    for golden in gnn_goldens::goldens("gnn_inference") {
        gnn_goldens::check_inference(&run(&bench, "graph/gnn-inference", &golden["input"]), &golden);
    }
    for golden in gnn_goldens::goldens("graph_attention") {
        gnn_goldens::check_attention(&run(&bench, "graph/graph-attention", &golden["input"]), &golden);
    }
}

fn neighbours_are_those_of_scikit_learn() {
    let bench = bench();
    for (document, indices, scores) in similarity_inputs::goldens() {
        let output = run(&bench, "ml/semantic-similarity", &document);
        assert_eq!(output["indices"], json!(indices), "{document}");
        for (score, expected) in numbers(&output["scores"]).into_iter().zip(scores) {
            assert!(similarity_inputs::is_score(score, expected), "{score} {expected} of {document}");
        }
    }
}

/// Also where the bound of the error excludes too few vectors, or norms are out of the range that it holds for.
fn hard_searches_are_those_of_all_scores() {
    let bench = bench();
    for (name, input) in similarity_inputs::inputs() {
        let output = run_typed::<_, SemanticSimilarityOutput>(&bench, "ml/semantic-similarity", input.clone());
        similarity_inputs::check(&name, &input, &output);
    }
}
