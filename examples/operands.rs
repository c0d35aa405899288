//! A graph that is stored once, as an operand, and queried by its name with different sources.
//!
//! ```text
//! cargo run --release --example operands
//! ```

use std::error::Error;
use std::sync::Arc;

use serde_json::{Value, json};
use tower::ServiceExt;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    let service = KernelService::new(Arc::clone(&registry));

    let nodes = 10_000;
    let edges: Vec<[u32; 2]> = (0..nodes).flat_map(|i| [[i, (i + 1) % nodes], [i, (i * 7 + 3) % nodes]]).collect();
    let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Undirected)?;
    let stored = registry.operands().put("payments", graph)?;
    println!("{:?}", stored.version());

    for first in 0..10 {
        let sources: Vec<u32> = (0..16).map(|i| first + i * 100).collect();
        let input = json!({"graph": {"operand": "payments"}, "sources": sources});
        let request = KernelRequest::new("graph/betweenness-centrality", Payload::from_serialize(&input)?);
        let response = service.clone().oneshot(request).await?;
        let output: Value = response.json()?;
        println!("node 0 from source {first} on: {}, {:?}", output["scores"][0], response.execution);
    }
    println!("{:?}", registry.operands().usage());
    Ok(())
}
