//! Ctrl-C: the first asks the run to stop, the second ends the program.

use crate::failure::{Failure, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of a program ended by the second Ctrl-C: the run failed.
const ENDED: i32 = 1;

/// Sets `cancel` at the first Ctrl-C (or SIGTERM, SIGHUP).
pub fn listen(cancel: &Arc<AtomicBool>) -> Outcome {
    let cancel = Arc::clone(cancel);
    let stop = move || {
        if cancel.swap(true, Ordering::SeqCst) {
            std::process::exit(ENDED);
        }
        eprintln!("stopping; what is finished is kept. Press Ctrl-C again to end at once.");
    };
    ctrlc::set_handler(stop)
        .map_err(|error| Failure::failed(format!("cannot listen to Ctrl-C: {error}"), None))
}
