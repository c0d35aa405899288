//! The program `tower-kernels`, as a process: real signals, real sockets, real pipes.

#![cfg(unix)]

mod addresses;
mod auth;
mod batch;
mod bench;
mod commands;
mod config;
mod connection;
mod cross_origin;
mod docs;
mod drain;
mod drain_clients;
mod early;
mod frames;
#[cfg(target_os = "linux")]
mod isolation;
mod kernel_pages;
mod logs;
mod operands;
mod serving;
mod settings;
#[path = "../support/mod.rs"]
mod support;
