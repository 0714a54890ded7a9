//! Standard output: text as it is, and tables whose columns line up.

use indicatif::ProgressState;
use std::io::{self, ErrorKind, Write};

/// Writes `text` to standard output. A reader that has gone away (`llavm … | head`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Where the text of a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows of cells under a head, two spaces between columns.
pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[(&str, Align)]) -> Self {
        Self {
            align: head.iter().map(|(_, align)| *align).collect(),
            rows: vec![head.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, each ended, none with spaces at its end.
    pub fn draw(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.align.len()).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.align).map(|((cell, width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            out += cells.collect::<Vec<_>>().join("  ").trim_end();
            out.push('\n');
        }
        out
    }
}

/// A count as people read it: 595375 is "595,375".
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The key `rate` of a progress bar: units a second without decimals.
pub fn rate(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    // Decoration: where it cannot be written, nothing is lost.
    let _ = text.write_str(&thousands(state.per_sec() as u64));
}

/// A size as people read it: "812 B", "2.0 KiB", "45.3 MiB".
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

/// Seconds as people read them: "0.4 s", "12 s", "3 min 05 s", "2 h 10 min".
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
        assert_eq!([0, 999, 1000, 595_375].map(thousands), ["0", "999", "1,000", "595,375"]);
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
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("stage", Align::Left), ("rows", Align::Right)]);
        table.row(vec!["chat".to_owned(), "7".to_owned()]);
        table.row(vec!["shards".to_owned(), "1,234".to_owned()]);
        assert_eq!(table.draw(), "stage    rows\nchat        7\nshards  1,234\n");
    }
}
