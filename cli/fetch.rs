//! `llavm fetch`: models and data sets of the Hugging Face hub into its cache.

use crate::failure::{Failure, Outcome, colours};
use crate::output::{Align, Table, bytes, duration, print, thousands};
use crate::transfers::Transfers;
use llavm_model::hub::{FetchError, Hub, Patterns, Plan, Settings, State, resolve_in};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Instant;

/// Download models and data sets of the Hugging Face hub, where Python finds them too
///
/// What is there is not downloaded again, what was cut off goes on where it stopped, and every file is checked against the
/// digest that the hub tells. The folder of each repository is printed at the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  llavm fetch hub:Qwen/Qwen3-0.6B hub:openai/clip-vit-base-patch32 --exclude \"*.h5\" --exclude \"*.msgpack\"
  llavm fetch hub:datasets/tejasvaidhya/llava-cc3m-pretrain-595K --include \"*.parquet\" --dry-run

Environment, as huggingface_hub reads it: HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT (a mirror), HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE.")]
pub struct Args {
    /// hub:ORG/NAME[@REVISION], or hub:datasets/ORG/NAME[@REVISION] for a data set
    #[arg(required = true, value_name = "REPOSITORY")]
    repositories: Vec<String>,

    /// Only files that match, such as "*.parquet"; may be repeated
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,

    /// No files that match; may be repeated
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,

    /// List files and sizes, and download nothing
    #[arg(long)]
    dry_run: bool,

    /// Files downloaded at the same time
    #[arg(long, short, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
}

pub fn run(args: &Args) -> Outcome {
    let patterns = Patterns::new(&args.include, &args.exclude).map_err(|error| {
        Failure::wrong(error.to_string(), "`*` stands for any characters, `?` for one, `[ab]` for one of two")
    })?;
    let settings = Settings { jobs: usize::from(args.jobs), ..Settings::from_env()? };
    if settings.offline {
        return offline(args, &settings);
    }
    let hub = Hub::new(settings)?;
    let transfers = Transfers::new(colours(std::io::stderr().is_terminal()));
    // A mistake in the last name is told before the first is downloaded.
    let plans = args.repositories.iter().map(|locator| hub.plan(locator, &patterns, &transfers));
    let plans = plans.collect::<Result<Vec<Plan>, _>>()?;
    for plan in &plans {
        for pattern in &plan.idle {
            transfers.say(&format!("{}: no file matches `{pattern}`", plan.repository));
        }
    }
    if args.dry_run {
        return Ok(print(&plans.iter().map(list).collect::<String>())?);
    }
    plans.iter().try_for_each(|plan| fetch(&hub, plan, &transfers))
}

fn fetch(hub: &Hub, plan: &Plan, transfers: &Transfers) -> Outcome {
    let start = Instant::now();
    transfers.begin(plan);
    let folder = hub.fetch(plan, transfers);
    transfers.end();
    let folder = folder?;
    transfers.say(&summary(plan, start.elapsed().as_secs_f64()));
    Ok(print(&format!("{}\n", folder.display()))?)
}

fn summary(plan: &Plan, seconds: f64) -> String {
    let (missing, files) = (plan.missing(), plan.files.len());
    let all = format!("{}: {}, {}", plan.repository, count(files), bytes(plan.size()));
    let there = plan.files.iter().filter(|(_, state)| *state == State::There).count();
    if there == files {
        return format!("{all}: nothing to download");
    }
    let kept = if there == 0 { String::new() } else { format!(", {} were there", thousands(there as u64)) };
    format!("{all}: {} downloaded in {}{kept}", bytes(missing), duration(seconds))
}

fn count(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{} files", thousands(files as u64)) }
}

/// What `--dry-run` says about one repository.
fn list(plan: &Plan) -> String {
    let mut table = Table::new(&[("file", Align::Left), ("size", Align::Right), ("here", Align::Left)]);
    for (file, state) in &plan.files {
        let here = match state {
            State::There => "all".to_owned(),
            State::Begun(have) => bytes(*have),
            State::Missing => String::new(),
        };
        table.row(vec![file.path.clone(), bytes(file.size), here]);
    }
    let mut out = format!("{} at {}\n\n{}", plan.repository, plan.commit, table.draw());
    let (all, missing) = (bytes(plan.size()), bytes(plan.missing()));
    let _ = writeln!(out, "\n{}, {all}; {missing} to download (--dry-run)", count(plan.files.len()));
    out
}

/// Without the network, what is in the cache is taken as it is.
fn offline(args: &Args, settings: &Settings) -> Outcome {
    for locator in &args.repositories {
        let folder = resolve_in(&settings.cache, locator).map_err(|error| {
            let help = "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it to use the network";
            Failure::failed(error.to_string(), Some(help.to_owned()))
        })?;
        eprintln!("{locator}: taken from the cache unchecked, since HF_HUB_OFFLINE is set");
        print(&format!("{}\n", folder.display()))?;
    }
    Ok(())
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::failed(error.to_string(), error.advice())
    }
}
