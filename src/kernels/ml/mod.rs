//! Machine learning: clustering, and search among embeddings.
//!
//! The vectors are stored once, as an [operand](crate::service::Operands), and any number of requests search them. With
//! `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/articles?type=vectors' -H 'content-type: application/json' \
//!     -d '{"vectors": [[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], "dtype": "bfloat16"}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "ml/semantic-similarity", "input":
//!     {"queries": [0, 2, 0], "corpus": {"operand": "articles"}, "top_k": 2}}'
//! # "output":{"indices":[1,2],"scores":[1.0,0.79953176]}
//! ```
//!
//! Points to cluster can be a tensor of an operand as well:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/customers?type=tensors' -H 'content-type: application/json' \
//!     -d '{"points": {"dtype": "float32", "data": [1.0, 1.0, 1.5, 2.0, 8.0, 8.0, 9.0, 9.5]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "ml/kmeans-cluster", "input":
//!     {"data": {"operand": "customers/points"}, "n_features": 2, "k": 2, "init": [1.0, 1.0, 8.0, 8.0]}}'
//! # "output":{"labels":[0,0,1,1],"centroids":[1.25,1.5,8.5,8.75],"inertia":2.25,"iterations":2,"converged":true}
//! ```

pub mod kmeans_cluster;
pub mod semantic_similarity;

use crate::service::InvalidInput;

/// Checks that all elements of an array are finite.
fn check_finite(field: &str, elements: &[f32]) -> Result<(), InvalidInput> {
    const BLOCK: usize = 1 << 12;
    // Without a branch for each element this is vector code, which pulp compiles for the processor's instructions.
    let is_finite = |block: &[f32]| block.iter().fold(true, |all, element| all & element.is_finite());
    let first_block = pulp::Arch::new().dispatch(
        #[inline(always)]
        || elements.chunks(BLOCK).position(|block| !is_finite(block)),
    );
    let Some(block) = first_block else { return Ok(()) };
    let start = block * BLOCK;
    let index = start + elements[start..].iter().position(|element| !element.is_finite()).unwrap_or(0);
    Err(InvalidInput::new(
        format!("{field}[{index}]"),
        format!("{} where a finite number is expected", elements[index]),
    ))
}
