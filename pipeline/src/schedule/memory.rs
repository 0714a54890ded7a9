//! How much memory this process took.

/// The largest resident set of this process so far, in MiB; 0 where the system does not say.
pub fn peak_rss_mib() -> f64 {
    peak_bytes().unwrap_or(0.0) / f64::from(1 << 20)
}

/// `VmHWM`, which a program that was started by a larger one does not share with it, as it does `ru_maxrss`.
#[cfg(target_os = "linux")]
fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn peak_bytes() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call only fills in `usage`, which zeros initialise already.
    let (status, usage) =
        unsafe { (libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), usage.assume_init()) };
    // Bytes on Apple's systems, KiB on the BSDs.
    let unit = if cfg!(target_vendor = "apple") { 1.0 } else { 1024.0 };
    (status == 0).then(|| usage.ru_maxrss as f64 * unit)
}

#[cfg(not(unix))]
fn peak_bytes() -> Option<f64> {
    None
}
