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
//! # "output":{"indices":[1,2],"scores":[1.0,0.7982401]}
//! ```

pub mod kmeans_cluster;
pub mod semantic_similarity;
