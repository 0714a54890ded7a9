//! Panics at a chosen point of a run.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The file is counted down by one thread at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// Counts the number in the file down; panics, and removes the file, when it was 0. Where there is no file nothing happens.
pub fn trap(path: &Path) {
    let counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = fs::read_to_string(path) else { return };
    let left: u64 = text.parse().unwrap();
    if left > 0 {
        fs::write(path, (left - 1).to_string()).unwrap();
        return;
    }
    fs::remove_file(path).unwrap();
    drop(counting);
    panic!("toy trap");
}
