//! Limited memory, with tasks that are only names and with workers that run jobs.

mod admission;
mod memory_budget;
