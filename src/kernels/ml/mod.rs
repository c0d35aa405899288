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
