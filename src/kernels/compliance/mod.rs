//! Compliance: names against lists of names.
//!
//! A list is stored once, as an [operand](crate::service::Operands) of type `names`, and any number of requests refer to it.
//! With `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/sanctions?type=names' -H 'content-type: application/json' -d '{"entries": [
//!     {"id": 7, "name": "SMITH, John", "aliases": ["Johnny Smith"], "source": "OFAC", "country": "US", "dob": 19600131},
//!     {"id": 9, "name": "Doe, José", "source": "EU", "country": "ES"}]}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "compliance/sanctions-screening",
//!     "input": {"names": ["jon smith", "Jane Roe"], "sanctions_list": {"operand": "sanctions"}}}'
//! # "output":{"is_hit":[true,false],"match_offsets":[0,1,1],"entries":[0],"ids":[7],"scores":[0.9473684210526316],
//! #     "name_indices":[0],"matched_names":["SMITH, John"],"sources":["OFAC"]}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "compliance/entity-resolution",
//!     "input": {"query": {"name": "Jose Doe", "country": "es"}, "candidates": {"operand": "sanctions"}}}'
//! # "output":{"query_ids":[0],"match_offsets":[0,1],"entries":[1],"ids":[9],"scores":[1.0],"name_indices":[0],
//! #     "matched_names":["Doe, José"]}
//! ```

pub mod entity_resolution;
pub mod names;
pub mod sanctions_screening;
