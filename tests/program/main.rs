//! The program `tower-kernels`, as a process: real signals, real sockets, real pipes.

#![cfg(unix)]

mod auth;
mod batch;
mod commands;
mod config;
mod connection;
mod cross_origin;
mod docs;
mod drain;
mod early;
mod frames;
mod process;
mod serving;
