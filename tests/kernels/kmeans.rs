//! `ml/kmeans-cluster`: against scikit-learn, and the properties of its outputs.

use serde_json::{Value, json};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::ml::kmeans_cluster::{KMeansCluster, KMeansInput, KMeansOutput};
use tower_kernels::service::{DType, Kernel, KernelError, Payload, RunContext};

use crate::kmeans_goldens::{check_run, runs, seedings};
use crate::service::{ask, read, rejection, run, tensor, tensors};

fn cluster(input: &KMeansInput) -> KMeansOutput {
    KMeansCluster.validate(input).unwrap();
    KMeansCluster.run_cpu(input, &RunContext::detached()).unwrap()
}

/// Points in groups that overlap.
fn points(count: usize, features: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let number = |index: usize| 3.0 * (index / features % 7) as f64 + random.between(-4.0, 4.0);
    (0..count * features).map(number).map(|x| x as f32).collect()
}

fn inertia(data: &[f32], features: usize, centroids: &[f32], labels: &[u32]) -> f64 {
    let distance = |(point, &label): (&[f32], &u32)| -> f64 {
        let centroid = &centroids[label as usize * features..][..features];
        point.iter().zip(centroid).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    data.chunks(features).zip(labels).map(distance).sum()
}

#[test]
fn runs_with_initial_centroids_are_those_of_scikit_learn() {
    for golden in runs() {
        check_run(&golden, &cluster(&golden.input));
    }
}

#[test]
fn seeding_is_as_good_as_that_of_scikit_learn() {
    for golden in seedings() {
        let inertias = (0..golden.seeds).map(|seed| cluster(&KMeansInput { seed, ..golden.input.clone() }).inertia);
        let mean = inertias.sum::<f64>() / golden.seeds as f64;
        assert!(mean <= golden.limit(), "{}: {mean}, and {} in scikit-learn", golden.name, golden.mean);
    }
}

#[test]
fn more_iterations_never_raise_the_inertia() {
    let data = points(3_000, 5, 1);
    let mut before = f64::INFINITY;
    for max_iterations in 1..30 {
        let input = KMeansInput { max_iterations, tolerance: 0.0, ..KMeansInput::new(data.clone(), 5, 12) };
        let output = cluster(&input);
        assert!(output.inertia <= before * (1.0 + 1e-6), "{max_iterations}: {} after {before}", output.inertia);
        assert!((output.inertia - inertia(&data, 5, &output.centroids, &output.labels)).abs() < 1e-9 * output.inertia);
        before = output.inertia;
        if output.converged {
            break;
        }
    }
}

#[test]
fn centroids_of_a_converged_run_are_the_means_of_their_points() {
    let data = points(2_500, 9, 2);
    let output = cluster(&KMeansInput { tolerance: 0.0, ..KMeansInput::new(data.clone(), 9, 20) });
    assert!(output.converged && output.iterations > 1);
    for (cluster, centroid) in output.centroids.chunks(9).enumerate() {
        let members: Vec<&[f32]> =
            data.chunks(9).zip(output.labels.iter()).filter(|(_, l)| **l as usize == cluster).map(|(p, _)| p).collect();
        for (feature, &coordinate) in centroid.iter().enumerate() {
            let mean = members.iter().map(|point| f64::from(point[feature])).sum::<f64>() / members.len() as f64;
            assert!((f64::from(coordinate) - mean).abs() < 1e-6 * (1.0 + mean.abs()));
        }
    }
}

#[test]
fn a_run_does_not_depend_on_the_threads_or_an_offset() {
    let data = points(20_000, 3, 3);
    let input = KMeansInput::new(data.clone(), 3, 9);
    let output = cluster(&input);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| cluster(&input)) == output, "{threads} threads");
    }
    // Powers of two, so that points are exactly twice as far away.
    let doubled: Vec<f32> = data.iter().map(|x| 2.0 * x).collect();
    let doubled = cluster(&KMeansInput::new(doubled, 3, 9));
    assert!(doubled.labels == output.labels && doubled.inertia == 4.0 * output.inertia);
    let shifted: Vec<f32> = data.iter().map(|x| x + 4_096.0).collect();
    let init: Vec<f32> = output.centroids.iter().map(|x| x + 4_096.0).collect();
    let shifted = cluster(&KMeansInput { init: Some(init.into()), ..KMeansInput::new(shifted, 3, 9) });
    assert!((shifted.inertia - output.inertia).abs() < 1e-3 * output.inertia);
}

#[test]
fn points_of_fewer_values_than_clusters_leave_clusters_empty() {
    let data: Vec<f32> = (0..60).map(|index| (index % 3) as f32).collect();
    let output = cluster(&KMeansInput::new(data, 1, 5));
    let mut used = output.labels.to_vec();
    used.sort_unstable();
    used.dedup();
    assert_eq!((output.inertia, output.converged, used.len()), (0.0, true, 3));
    assert!(output.centroids.iter().all(|centroid| [0.0, 1.0, 2.0].contains(centroid)));
}

#[test]
fn numbers_of_any_size_are_clustered() {
    for unit in [1e-30_f32, 1.0, 3e37] {
        let data: Vec<f32> = [-1.0, -0.9, 9.0, 9.5, 5.0, 5.1].map(|x| x * unit).to_vec();
        let output = cluster(&KMeansInput::new(data, 1, 3));
        let labels = &output.labels;
        assert!(labels[0] == labels[1] && labels[2] == labels[3] && labels[4] == labels[5], "{unit}: {labels:?}");
        assert!(labels[0] != labels[2] && labels[2] != labels[4] && labels[0] != labels[4], "{unit}: {labels:?}");
    }
}

#[test]
fn a_run_stops_at_its_deadline() {
    let input = KMeansInput { tolerance: 0.0, ..KMeansInput::new(points(200_000, 20, 4), 20, 500) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let result = runtime.block_on(async {
        use tower::{Service, ServiceExt};
        let registry = tower_kernels::service::KernelRegistry::new();
        registry.register(KMeansCluster).unwrap();
        let backend = tower_kernels::backends::cpu::CpuBackend::new();
        let mut service = tower_kernels::service::KernelService::with_backend(registry, backend);
        let request = tower_kernels::service::KernelRequest::new("ml/kmeans", Payload::typed(input));
        let request = request.with_timeout(std::time::Duration::from_millis(100));
        service.ready().await?.call(request).await
    });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
}

#[tokio::test]
async fn clusters_are_asked_for_by_a_document() {
    let input = json!({"data": [0.5, 0.25, 7.5, 8.0], "n_features": 1, "k": 2, "init": [0.0, 1.0]});
    let output = ask("ml/kmeans-cluster", &input.to_string()).await.unwrap();
    let expected = json!({
        "labels": [0, 0, 1, 1], "centroids": [0.375, 7.75], "inertia": 0.15625, "iterations": 2, "converged": true,
    });
    assert_eq!(output, expected);
    assert_eq!(ask("ml/kmeans", &input.to_string()).await.unwrap(), expected);
    let input = json!({
        "data": [1.0, 1.0, 1.5, 2.0, 8.0, 8.0, 9.0, 9.5], "n_features": 2, "k": 2, "init": [1.0, 1.0, 8.0, 8.0],
    });
    let expected = json!({
        "labels": [0, 0, 1, 1], "centroids": [1.25, 1.5, 8.5, 8.75], "inertia": 2.25, "iterations": 2, "converged": true,
    });
    assert_eq!(ask("ml/kmeans-cluster", &input.to_string()).await.unwrap(), expected, "the example of the docs");
}

#[tokio::test]
async fn clusters_are_asked_for_by_tensors() {
    let input = tensors([
        ("data", tensor(DType::F32, &[4], &[0.5_f32, 0.25, 7.5, 8.0])),
        ("n_features", tensor(DType::U32, &[], &[1_u32])),
        ("k", tensor(DType::U32, &[], &[2_u32])),
    ]);
    let output = run("ml/kmeans-cluster", input).await.unwrap();
    let labels = read::<u32>(&output, "labels", DType::U32);
    assert!(labels[0] == labels[1] && labels[2] == labels[3] && labels[0] != labels[2]);
    assert_eq!(read::<f64>(&output, "inertia", DType::F64), [0.15625]);
}

#[tokio::test]
async fn errors_name_the_field() {
    let valid = json!({"data": [1.0, 2.0, 3.0, 4.0], "n_features": 2, "k": 2});
    for (field, changes) in [
        ("n_features", json!({"n_features": 0})),
        ("data", json!({"data": []})),
        ("data", json!({"n_features": 3})),
        ("data[2]", json!({"data": [1.0, 2.0, "nan", 4.0]})),
        ("k", json!({"k": 0})),
        ("k", json!({"k": 3})),
        ("k", json!({"k": 4_294_967_295_u32})),
        ("max_iterations", json!({"max_iterations": 0})),
        ("tolerance", json!({"tolerance": -1.0})),
        ("init", json!({"init": [1.0, 2.0]})),
        ("init[3]", json!({"init": [1.0, 2.0, 3.0, "inf"]})),
    ] {
        let mut document = valid.clone();
        for (name, value) in changes.as_object().unwrap() {
            document[name] = Value::clone(value);
        }
        assert_eq!(rejection(ask("ml/kmeans-cluster", &document.to_string()).await).field, field, "{document}");
    }
}
