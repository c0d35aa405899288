//! Kernels behind actix actors: one pipeline, two actors that share it, and a supervisor that picks the less busy one.
//!
//! ```text
//! cargo run --release --features actix --example actix_actors
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use serde_json::json;
use tower::ServiceBuilder;
use tower_kernels::actix::{ExecuteKernel, ExecuteMetadata, KernelActorConfig, KernelActorSupervisor, ListKernels};
use tower_kernels::error::{Classify, chain};
use tower_kernels::layers::{MetricsLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};

fn main() -> Result<(), Box<dyn Error>> {
    System::new().block_on(async {
        let registry = Arc::new(KernelRegistry::new());
        tower_kernels::kernels::register_all(&registry)?;
        let pipeline = ServiceBuilder::new()
            .layer(MetricsLayer::new())
            .layer(TracingLayer::new())
            .layer(TimeoutLayer::new(Duration::from_secs(30)))
            .service(KernelService::new(Arc::clone(&registry)));

        let mut supervisor = KernelActorSupervisor::with_service(pipeline, registry);
        for i in 0..2 {
            supervisor.spawn(KernelActorConfig { name: format!("worker-{i}"), ..Default::default() });
        }
        for kernel in supervisor.actors()[0].send(ListKernels).await? {
            println!("{}: {}", kernel.info().id, kernel.info().description);
        }

        let execute = |input| ExecuteKernel {
            kernel_id: "graph/betweenness-centrality".to_owned(),
            input,
            metadata: ExecuteMetadata { timeout: Some(Duration::from_millis(500)), ..Default::default() },
        };
        // Both are on their way before either is waited for.
        let path = supervisor.dispatch(execute(json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3]]})));
        let wrong = supervisor.dispatch(execute(json!({"num_nodes": 2, "edges": [[0, 7]]})));
        let path = path.await?;
        println!("{} on {}", path.output, path.execution.backend);
        if let Err(error) = wrong.await {
            println!("rejected, {}: {}", error.kind(), chain(&error));
        }
        for stats in supervisor.stats() {
            println!("{stats:?}");
        }
        Ok(())
    })
}
