//! The program `tower-kernels`, as a process: real signals, real sockets, real pipes.

#![cfg(unix)]

mod auth;
mod commands;
mod config;
mod drain;
mod process;
mod serving;
