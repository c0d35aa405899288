//! Memory that is counted, with tasks that are only names and with lanes that run jobs.

mod admission;
mod memory_budget;
