//! Clients that stop reading their responses.
