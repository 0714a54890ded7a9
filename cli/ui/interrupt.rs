//! Ctrl-C: the first asks the run to stop, the second ends the program.

use super::failure::{Failure, INTERRUPTED, Outcome};
use super::output::note;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sets `cancel` at the first Ctrl-C (or SIGTERM, SIGHUP).
pub fn listen(cancel: &Arc<AtomicBool>) -> Outcome {
    let cancel = Arc::clone(cancel);
    let said = "stopping; what is finished is kept. Press Ctrl-C again to end at once.";
    on_stop(said, move || cancel.store(true, Ordering::SeqCst))
}

/// Calls `stop` at the first Ctrl-C (or SIGTERM, SIGHUP), and ends the program at the second.
pub fn on_stop(said: &'static str, stop: impl Fn() + Send + 'static) -> Outcome {
    let asked = AtomicBool::new(false);
    handle(move || {
        if asked.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop();
        note(said);
    })
}

/// Removes the folder `scratch` at the first Ctrl-C and ends the program: nothing half written is left behind.
pub fn removes(scratch: &Path) -> Outcome {
    let scratch = scratch.to_owned();
    handle(move || {
        drop(fs::remove_dir_all(&scratch)); // gone already when it has its final name
        std::process::exit(i32::from(INTERRUPTED));
    })
}

/// A signal that the program was started to ignore stays ignored: a run under `nohup`, or in the background of a script,
/// outlives its terminal.
fn handle(stop: impl FnMut() + Send + 'static) -> Outcome {
    let ignored = ignored::signals();
    ctrlc::set_handler(stop)
        .map_err(|error| Failure::failed(format!("cannot listen to Ctrl-C: {error}"), None))?;
    ignored::keep(&ignored);
    Ok(())
}

#[cfg(unix)]
mod ignored {
    use std::mem::MaybeUninit;
    use std::os::raw::c_int;
    use std::ptr;

    /// Which of the signals that ask a program to end are ignored.
    pub fn signals() -> Vec<c_int> {
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(|signal| is_ignored(*signal)).collect()
    }

    fn is_ignored(signal: c_int) -> bool {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action the call only fills in `now`, which zeros initialise already.
        let (status, now) =
            unsafe { (libc::sigaction(signal, ptr::null(), now.as_mut_ptr()), now.assume_init()) };
        status == 0 && now.sa_sigaction == libc::SIG_IGN
    }

    /// Ignores `signals` again.
    pub fn keep(signals: &[c_int]) {
        for &signal in signals {
            // SAFETY: ignoring a signal runs no handler.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

#[cfg(not(unix))]
mod ignored {
    pub fn signals() {}
    pub fn keep(&(): &()) {}
}
