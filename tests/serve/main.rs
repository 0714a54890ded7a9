//! `llavm serve` as clients and others meet it, over plain sockets: on the small model of `model/tests/fixtures/gqa`.
//!
//! | file | what |
//! |---|---|
//! | `answers.rs` | the API: answers, streams, errors, as `llavm generate` answers |
//! | `hostile.rs` | what must not take the server down |
//! | `client.rs` | the server as a child process, and requests byte by byte |
//!
//! `check_clients.py` asks with the clients that people use, `check_page.mjs` opens the page in Chromium.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod client;
mod hostile;
