//! Connections under hyper (HTTP/1.1), and what hyper leaves to its user: how many there are, how slow either end may be, and an
//! answer in OpenAI's form where hyper has a status alone.
//!
//! | file | what |
//! |---|---|
//! | [`listener`] | all connections: how many, and how they end |
//! | [`connection`] | one: limits of heads, refusals, the end |
//! | [`socket`] | a socket whose other end takes what is written, or is not waited for |
//! | [`body`] | a request's body within its limits |
//!
//! Why not `axum::serve`: it sets no limit to the time and size of a head, to connections, or to the time after a stop.

pub mod body;
pub mod connection;
pub mod listener;
pub mod socket;
