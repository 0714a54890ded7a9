//! `llavm bench scale`: a run on a cluster in a time of its own, without doing anything, to see what bounds it.
//!
//! Tasks, waves and what is asked for together are those of `run --on ray` on the same engine (`llavm_pipeline::rehearsal`). The
//! planner's own pace is measured here first; all other times are parameters.

mod nodes;

use super::keys;
use super::plan::{Planned, Workers, plan};
use crate::ui::failure::Outcome;
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_pipeline::rehearsal::{Rehearsed, Wave};
use llavm_pipeline::units::{bytes, duration, mebibytes, thousands};
use llavm_pipeline::{Pass, peak_rss_mib};
use nodes::{Busy, Cost, Nodes, Parameters};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Rehearse a run on a cluster with a store in a bucket, and show what bounds it
///
/// Nothing is done: the planner hands out the tasks of rows like CC3M's, and the time of each is made up of the parameters. Their
/// defaults are assumptions: measure your store and nodes, and give theirs.
#[derive(clap::Args)]
pub struct Args {
    /// Rows
    #[arg(long, default_value = "100000000", value_name = "N")]
    rows: NonZeroUsize,

    /// Rows of a partition
    #[arg(long, default_value = "4096", value_name = "N")]
    partition_rows: NonZeroUsize,

    /// Nodes
    #[arg(long, default_value = "64", value_name = "N")]
    nodes: NonZeroUsize,

    /// CPUs of a node
    #[arg(long, default_value = "16", value_name = "N")]
    cpus: NonZeroUsize,

    /// Milliseconds until the store answers a GET or HEAD
    #[arg(long, default_value = "20", value_name = "MS", value_parser = positive)]
    get_ms: f64,

    /// Milliseconds until the store answers a PUT or DELETE
    #[arg(long, default_value = "40", value_name = "MS", value_parser = positive)]
    put_ms: f64,

    /// Gigabits a second between a node and the store
    #[arg(long, default_value = "10", value_name = "GBIT", value_parser = positive)]
    gbits: f64,

    /// Seconds from asking until a node's process does its first task
    #[arg(long, default_value = "3", value_name = "S", value_parser = positive)]
    start: f64,

    /// Rows a second that one CPU decodes and resizes
    #[arg(long, default_value = "800", value_name = "N", value_parser = positive)]
    decoded: f64,

    /// Bytes of the pixels of a row; 0 where the stage keeps none
    #[arg(long, default_value = "150528", value_name = "N")]
    pixels: u32,
}

/// Seconds of one CPU a row, beside decoding: hashing an image of 30 KB, a pass over digests, a caption to tokens, a row to its shard.
const HASH: f64 = 40e-6;
const COMPARE: f64 = 1e-6;
const TOKENIZE: f64 = 60e-6;
const SHARD: f64 = 8e-6;

/// See [`nodes::IN_ORDER`].
const SEEN_IN_ORDER: &str = "seen in order";

/// Bytes a row: an image, its digest, a caption, its tokens, and a row of a shard.
const IMAGE: f64 = 30_000.0;
const DIGEST: f64 = 50.0;
const TEXT: f64 = 200.0;
const TOKENS: f64 = 700.0;
const SHARDED: f64 = 1_200.0;

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if f64::is_finite(number) && number > 0.0 => Ok(number),
        _ => Err("write a number above 0".to_owned()),
    }
}

pub fn run(args: &Args) -> Outcome {
    let folder = tempfile::tempdir()?;
    let (engine, store) = keys::engine(args.rows.get(), args.partition_rows.get(), folder.path())?;
    let engine = engine.with_executor(Arc::new(Workers(Arc::clone(&store))));
    let planned = plan(&engine, &store)?;
    let mut nodes = Nodes::new(args.parameters(&planned));
    let rehearsed = engine.rehearse(&mut nodes)?;
    let head = format!(
        "{} rows, {} partitions, {} nodes of {} CPUs; planner {:.2} ms an output, peak memory {}\n",
        thousands(args.rows.get() as u64),
        thousands(planned.partitions as u64),
        args.nodes,
        args.cpus,
        1e3 * planned.seconds / planned.outputs.max(1) as f64,
        mebibytes(peak_rss_mib()),
    );
    let text = format!("{head}{}{}", waves(&rehearsed), args.bounds(&rehearsed, &nodes.busy));
    Ok(print(&text)?)
}

impl Args {
    fn parameters(&self, planned: &Planned) -> Parameters {
        let cost = |seconds, read, written| Cost { seconds, read, written };
        let pixels = f64::from(self.pixels);
        let costs = [
            ("seen", cost(HASH, IMAGE, DIGEST)),
            (SEEN_IN_ORDER, cost(COMPARE, DIGEST, DIGEST)),
            ("pixels", cost(1.0 / self.decoded, IMAGE, pixels)),
            ("tokens", cost(TOKENIZE, TEXT, TOKENS)),
            // Which rows of the pixels were rejected is in their records.
            ("shards", cost(SHARD, TOKENS, SHARDED)),
        ];
        Parameters {
            nodes: self.nodes.get(),
            cpus: self.cpus.get(),
            partition_rows: self.partition_rows.get(),
            get: self.get_ms / 1e3,
            put: self.put_ms / 1e3,
            bandwidth: self.gbits * 1e9 / 8.0,
            start: self.start,
            plan: planned.seconds / planned.outputs.max(1) as f64,
            lookups: 64,
            costs: costs.map(|(stage, cost)| (stage.to_owned(), cost)).into(),
        }
    }

    /// Who was busy how long, and what nobody could be faster than.
    fn bounds(&self, rehearsed: &Rehearsed, busy: &Busy) -> String {
        let Rehearsed { seconds, waves } = rehearsed;
        let share = |part: f64| format!("{:.1}%", 100.0 * part / seconds);
        let nodes: f64 = busy.nodes.values().sum();
        let asked = busy.asked_by_planner + busy.asked_by_nodes;
        let longest = waves.iter().max_by(|a, b| alone(a, waves).total_cmp(&alone(b, waves)));
        let longest = longest.map_or(String::new(), |wave| {
            let seconds = alone(wave, waves);
            format!(
                "bound by `{}`: nothing else goes on for {} ({})\n",
                name(wave),
                duration(seconds),
                share(seconds)
            )
        });
        format!(
            "all of it {}; nodes busy {}, planner {}; {} requests, {:.0} a second on average; {} moved\n{longest}",
            duration(*seconds),
            share(nodes / self.nodes.get() as f64),
            share(busy.planner),
            thousands(asked as u64),
            asked / seconds,
            bytes(busy.bytes as u64),
        )
    }
}

/// Seconds in which a wave is the only one.
fn alone(wave: &Wave, waves: &[Wave]) -> f64 {
    let others = waves.iter().filter(|other| *other != wave);
    let mut left = vec![(wave.from, wave.until)];
    for Wave { from, until, .. } in others {
        let cut = |(start, end): (f64, f64)| [(start, end.min(*from)), (start.max(*until), end)];
        left = left.into_iter().flat_map(cut).filter(|(start, end)| start < end).collect();
    }
    left.into_iter().map(|(start, end)| end - start).sum()
}

fn name(wave: &Wave) -> String {
    match wave.pass {
        Pass::Intermediate => format!("{} (by partition)", wave.stage),
        Pass::Main => wave.stage.clone(),
    }
}

fn waves(rehearsed: &Rehearsed) -> String {
    let columns = [
        ("wave", Align::Left),
        ("outputs", Align::Right),
        ("asks", Align::Right),
        ("from", Align::Right),
        ("until", Align::Right),
        ("alone", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for wave in &rehearsed.waves {
        table.row(vec![
            name(wave),
            thousands(wave.tasks as u64),
            thousands(wave.asks as u64),
            duration(wave.from),
            duration(wave.until),
            duration(alone(wave, &rehearsed.waves)),
        ]);
    }
    table.draw()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the numbers are exact")]

    use super::*;

    fn wave(from: f64, until: f64) -> Wave {
        Wave { stage: "a".to_owned(), pass: Pass::Main, tasks: 1, asks: 1, from, until }
    }

    #[test]
    fn the_pass_in_row_order_has_a_cost_of_its_own() {
        assert_eq!(SEEN_IN_ORDER, format!("seen{}", nodes::IN_ORDER));
    }

    #[test]
    fn a_wave_is_alone_where_no_other_is() {
        let waves = [wave(0.0, 10.0), wave(2.0, 4.0), wave(8.0, 20.0)];
        assert_eq!(waves.each_ref().map(|one| alone(one, &waves)), [6.0, 0.0, 10.0]);
    }
}
