//! The code blocks of the deployment page, as they stand there.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tower_kernels::service::KernelRegistry;

use crate::kernels::run;

fn registry() -> Arc<KernelRegistry> {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry
}

#[test]
fn kernel_actor() {
    async fn block(registry: Arc<KernelRegistry>) -> Result<serde_json::Value, Box<dyn Error>> {
        use actix::prelude::*;
        use tower_kernels::actix::{ExecuteKernel, KernelActor, KernelActorConfig};

        let config = KernelActorConfig {
            name: "kernel-worker".to_string(),
            mailbox_capacity: 1000,
            default_timeout: Duration::from_secs(30),
            ..Default::default()
        };

        let actor = KernelActor::new(registry, config);
        let addr = actor.start();

        // Execute — dispatches to real batch kernel
        let result = addr
            .send(ExecuteKernel {
                kernel_id: "graph/betweenness-centrality".to_string(),
                input: serde_json::json!({
                    "num_nodes": 4,
                    "edges": [[0, 1], [1, 2], [2, 3]],
                    "normalized": true
                }),
                metadata: Default::default(),
            })
            .await??;
        Ok(result.output)
    }

    let output = run(block(registry())).unwrap();
    let scores: Vec<f64> = serde_json::from_value(output["scores"].clone()).unwrap();
    // networkx.betweenness_centrality(networkx.path_graph(4))
    for (score, expected) in scores.iter().zip([0.0, 2.0 / 3.0, 2.0 / 3.0, 0.0]) {
        assert!((score - expected).abs() < 1e-9, "{scores:?}");
    }
    assert_eq!(scores.len(), 4);
}

#[test]
fn actor_supervisor() {
    run(async {
        use tower_kernels::actix::{ExecuteKernel, KernelActorConfig, KernelActorSupervisor};
        let (registry, num_workers) = (registry(), 3);

        let mut supervisor = KernelActorSupervisor::new(registry);

        for i in 0..num_workers {
            supervisor.spawn(KernelActorConfig { name: format!("worker-{}", i), ..Default::default() });
        }

        let workers = supervisor.actors();

        assert_eq!(workers.len(), num_workers);
        for worker in workers {
            let kernel_id = "linalg/saxpy".to_string();
            let input = json!({"a": 2.0, "x": [1.0], "y": [10.0]});
            let result = worker.send(ExecuteKernel { kernel_id, input, metadata: Default::default() }).await.unwrap();
            assert_eq!(result.unwrap().output, json!({"y": [12.0]}));
        }
        let names: Vec<_> = supervisor.stats().into_iter().map(|stats| stats.name).collect();
        assert_eq!(names, ["worker-0", "worker-1", "worker-2"]);
    });
}
