//! "Actix Actors".

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, System};
use serde_json::json;
use tower::BoxError;
use tower_kernels::actix::{
    ExecuteKernel, GetKernelInfo, GetStats, KernelActor, KernelActorConfig, KernelActorSupervisor, ListKernels,
};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::KernelRegistry;

use super::{PATH, assert_scores, registry};

/// Runs a test on an actix system; none of them may hang.
fn run<T>(test: impl Future<Output = T>) -> T {
    System::new().block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("an end in time") })
}

#[test]
fn kernel_actor() {
    async fn block(registry: Arc<KernelRegistry>) -> Result<(Addr<KernelActor>, serde_json::Value), BoxError> {
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

        Ok((addr, result.output))
    }

    run(async {
        let (addr, output) = block(registry()).await.unwrap();
        assert_scores(&output, PATH);

        // "Messages": the other three.
        let stats = addr.send(GetStats).await.unwrap();
        assert_eq!((stats.name.as_str(), stats.received, stats.completed), ("kernel-worker", 1, 1));
        let kernels = addr.send(ListKernels).await.unwrap();
        assert!(kernels.iter().any(|kernel| kernel.info().id == "graph/betweenness-centrality"));
        let kernel_id = "graph/betweenness-centrality".to_owned();
        let kernel = addr.send(GetKernelInfo { kernel_id }).await.unwrap().unwrap();
        assert_eq!(kernel.info().domain(), "graph");
    });
}

#[test]
fn actor_supervisor() {
    run(async {
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

#[test]
fn ring_kernels_are_not_executed() {
    run(async {
        let addr = actix::Actor::start(KernelActor::new(registry(), KernelActorConfig::default()));
        let kernel_id = "orderbook/matching".to_string();
        let result = addr.send(ExecuteKernel { kernel_id, input: json!({}), metadata: Default::default() }).await;
        let error = result.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    });
}
