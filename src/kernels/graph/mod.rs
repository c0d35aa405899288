//! Graphs: the input and the compressed sparse row type that graph kernels share, and the kernels.
//!
//! A graph is stored once, as an [operand](crate::service::Operands), and any number of requests refer to it. With
//! `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/payments?type=graph' -H 'content-type: application/json' \
//!     -d '{"num_nodes": 5, "edges": [[0, 1], [1, 2], [2, 0], [2, 3], [3, 4]]}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/triangle-counting", "input": {"graph": {"operand": "payments"}}}'
//! # "output":{"total_triangles":1,"per_node_triangles":[1,1,1,0,0],...}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/jaccard-similarity", "input":
//!     {"graph": {"operand": "payments"}, "nodes": [4], "top_k": 2}}'
//! # "output":{"scores":[0.3333333333333333,0.0],"similar_nodes":[2,0]}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/pagerank", "input":
//!     {"graph": {"operand": "payments"}, "seed_nodes": [4]}}'
//! # "output":{"scores":[0.10646426467566153,0.10646426467566153,0.2160589848309687,...],"converged":true}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/closeness-centrality", "input":
//!     {"graph": {"operand": "payments"}, "nodes": [2]}}'
//! # "output":{"scores":[0.8]}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/average-path-length", "input":
//!     {"graph": {"operand": "payments"}}}'
//! # "output":{"average_path_length":1.7,"diameter":3,"num_pairs":20,"connected":true}
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/roads?type=graph' -H 'content-type: application/json' \
//!     -d '{"num_nodes": 4, "edges": [[0, 1], [1, 2], [0, 2], [2, 3]], "weights": [1.5, 2.0, 5.0, 0.5], "directed": true}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/shortest-path", "input":
//!     {"graph": {"operand": "roads"}, "predecessors": true}}'
//! # "output":{"distances":[],"weighted_distances":[0.0,1.5,3.5,4.0],"predecessors":[4294967295,0,1,2]}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "graph/shortest-path", "input":
//!     {"graph": {"operand": "roads"}, "sources": [0, 3], "targets": [2], "paths": true}}'
//! # "output":{"distances":[],"weighted_distances":[3.5,null],"predecessors":[],"path_offsets":[0,3,3],"path_nodes":[0,1,2]}
//! ```
//!
//! A stored graph may have weights. [`shortest_path`], [`modularity_score`] and [`louvain_community`] take them; to the other
//! kernels all edges are the same.

pub mod adamic_adar;
mod arc_units;
pub mod average_path_length;
pub mod betweenness_centrality;
#[cfg(feature = "cuda")]
mod breadth_first_search;
mod cancel_check;
mod canonical;
mod cases;
pub mod closeness_centrality;
pub mod clustering_coefficient;
pub mod common_neighbors;
pub mod connected_components;
pub mod cosine_similarity;
pub mod csr;
pub mod cycle_participation;
mod cycles;
mod degree;
pub mod degree_centrality;
pub mod degree_ratio;
pub mod density;
pub mod eigenvector_centrality;
mod fields;
pub mod full_metrics;
pub mod gnn_inference;
pub mod graph_attention;
pub mod input;
mod intersect;
pub mod jaccard_similarity;
pub mod k_clique;
pub mod katz_centrality;
pub mod label_propagation;
pub mod louvain_community;
pub mod modularity_score;
pub mod motif_detection;
mod multi_source_search;
pub mod neural_network;
mod node_chunks;
mod node_order;
mod node_ranges;
pub mod operand;
pub mod oriented;
pub mod pagerank;
mod power_iteration;
#[cfg(feature = "cuda")]
mod power_iteration_cuda;
mod row_counter;
#[cfg(feature = "cuda")]
mod segmented;
pub mod shortest_path;
pub mod similarity;
mod sources;
mod spmm;
mod spmv;
#[cfg(feature = "cuda")]
mod spmv_cuda;
#[cfg(feature = "cuda")]
mod spmv_segments_cuda;
pub mod star_topology;
pub mod triangle_counting;
mod triangles;
pub mod value_similarity;
mod weight_table;
