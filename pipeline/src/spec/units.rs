//! Sizes, counts and times as people read them: the one place that writes them.

/// A count: 595375 is "595,375".
pub fn thousands(count: impl Into<u128>) -> String {
    let digits = count.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: "1 file", "2,000 files".
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{} {noun}s", thousands(count)) }
}

/// A size: "812 B", "2.0 KiB", "45.3 MiB".
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A size in MiB, as measurements give it: "412.7 MiB".
pub fn mebibytes(size: f64) -> String {
    bytes((size.max(0.0) * f64::from(1 << 20)) as u64)
}

/// Seconds: "0.4 s", "12 s", "3 min 05 s", "2 h 10 min".
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{:.1} s", seconds.max(0.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_are_written_for_people() {
        assert_eq!([0_u64, 999, 1000, 595_375].map(thousands), ["0", "999", "1,000", "595,375"]);
        assert_eq!([0, 1, 2000].map(|n| counted(n, "file")), ["0 files", "1 file", "2,000 files"]);
        assert_eq!(
            [0.04, 9.2, 59.7, 185.0, 7800.0].map(duration),
            ["0.0 s", "9.2 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]
        );
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(
            [0, 1023, 1024, 47_500_000, 90 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "45.3 MiB", "90.0 GiB"]
        );
        assert_eq!([412.7, 1536.0].map(mebibytes), ["412.7 MiB", "1.5 GiB"]);
    }
}
