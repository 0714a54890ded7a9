//! Numbers for Prometheus, in its text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use llavm_model::generate::batch::engine::Engine;

/// Upper bounds of the times that are counted apart, in seconds.
const BOUNDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What was counted since the server started.
#[derive(Debug, Default)]
pub struct Metrics {
    responses: Mutex<BTreeMap<u16, u64>>,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub completion_tokens: AtomicU64,
    pub cancelled: AtomicU64,
    pub connections: AtomicUsize,
    pub first_token: Times,
    pub next_tokens: Times,
}

/// How many times were at most as long as each of [`BOUNDS`].
#[derive(Debug, Default)]
pub struct Times {
    within: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Times {
    pub fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (within, bound) in self.within.iter().zip(BOUNDS) {
            within.fetch_add(u64::from(seconds <= bound), Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, name: &str, help: &str, out: &mut String) {
        head(name, help, "histogram", out);
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        for (within, bound) in self.within.iter().zip(BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {}", get(within));
        }
        let (count, seconds) = (get(&self.count), get(&self.microseconds) as f64 / 1e6);
        let _ =
            writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}");
    }
}

impl Metrics {
    pub fn responded(&self, status: StatusCode) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry(status.as_u16()).or_default() += 1;
    }

    /// All numbers; `cache_bytes` is the most that may be held.
    pub fn text(&self, engine: &Engine, cache_bytes: usize) -> String {
        let mut out = String::new();
        head("llavm_http_responses_total", "Responses by status.", "counter", &mut out);
        for (status, count) in self.responses.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "llavm_http_responses_total{{status=\"{status}\"}} {count}");
        }
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let counters = [
            ("llavm_prompt_tokens_total", "Tokens of prompts.", get(&self.prompt_tokens)),
            (
                "llavm_prompt_tokens_cached_total",
                "Tokens of prompts found in the cache.",
                get(&self.cached_tokens),
            ),
            ("llavm_completion_tokens_total", "Tokens of answers.", get(&self.completion_tokens)),
            (
                "llavm_requests_cancelled_total",
                "Requests that nobody waited for to the end.",
                get(&self.cancelled),
            ),
        ];
        for (name, help, value) in counters {
            number(name, help, "counter", value, &mut out);
        }
        let gauges = [
            ("llavm_requests_running", "Requests being answered.", engine.running()),
            ("llavm_requests_waiting", "Requests that wait.", engine.waiting()),
            ("llavm_kv_cache_bytes", "Bytes of keys and values held.", engine.cache_bytes()),
            ("llavm_kv_cache_limit_bytes", "Most bytes of keys and values.", cache_bytes),
            ("llavm_connections", "Open connections.", self.connections.load(Ordering::Relaxed)),
        ];
        for (name, help, value) in gauges {
            number(name, help, "gauge", value as u64, &mut out);
        }
        self.first_token.write(
            "llavm_time_to_first_token_seconds",
            "From a request to its first token.",
            &mut out,
        );
        self.next_tokens.write(
            "llavm_time_per_output_token_seconds",
            "From token to token of an answer.",
            &mut out,
        );
        out
    }
}

fn head(name: &str, help: &str, kind: &str, out: &mut String) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn number(name: &str, help: &str, kind: &str, value: u64, out: &mut String) {
    head(name, help, kind, out);
    let _ = writeln!(out, "{name} {value}");
}
