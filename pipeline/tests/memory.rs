//! Memory does not grow with the number of rows. Alone in its process, because the peak is that of the whole process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{World, lines};

/// Peak of runs over `files` files of 512 rows with 150,528 bytes of pixels each, in MiB.
fn peak(files: usize) -> f64 {
    let mut world = World::new(
        r#"
[stages.rows]
kind = "lines"
files = [$FILES]
partition_rows = 512
[stages.pixels]
kind = "image"
from = "rows"
bytes = 150528
[stages.sums]
kind = "sum"
from = "pixels"
[stages.packed]
kind = "pack"
from = ["sums", "pixels"]
"#,
    );
    let names: Vec<String> = (0..files).map(|n| format!("\"$DIR/{n}.txt\"")).collect();
    (0..files).for_each(|n| world.write(&format!("{n}.txt"), &lines(&n.to_string(), 512)));
    world.edit("$FILES", &names.join(", "));
    world.run();
    // The pixels are read again, by a run that has to compare them with their records first.
    world.options.force = vec!["sums".to_owned()];
    world.run().peak_rss_mib
}

#[test]
fn a_run_over_more_pixels_than_fit_below_its_peak() {
    // 73.5 MiB of pixels a file, 661 MiB in all, written once and read twice.
    let peak = peak(9);
    assert!(peak < 400.0, "{peak:.0} MiB");
}
