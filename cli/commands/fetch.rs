//! `llavm fetch`: models and data sets of the Hugging Face hub or of ModelScope into their caches.

use crate::ui::failure::{Failure, Outcome, colours};
use crate::ui::output::{note, print, print_data};
use crate::ui::table::{Align, Table};
use crate::ui::transfers::Transfers;
use llavm_model::hub::{FetchError, Hub, Patterns, Plan, Settings, Source, State, WebFile, resolve_in};
use llavm_pipeline::units::{bytes, duration, thousands};
use llavm_stages::benchmarks::sources::{self, SOURCES, Tsv};
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

/// Download models, data sets and benchmarks from where they are published to where Python finds them too
///
/// What is there is not downloaded again, what was cut off goes on where it stopped, and every file is checked against the
/// digest that the hub lists. The folder of each repository is printed at the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  llavm fetch hub:Qwen/Qwen3-0.6B hub:openai/clip-vit-base-patch32 --exclude \"*.h5\" --exclude \"*.msgpack\"
  llavm fetch hub:datasets/tejasvaidhya/llava-cc3m-pretrain-595K --include \"*.parquet\" --dry-run
  llavm fetch ms:Qwen/Qwen3-0.6B
  llavm fetch pope mmbench-en        benchmarks as lmms-eval has them
  llavm fetch MMBench_DEV_EN.tsv     a table of VLMEvalKit, into its folder: $LMUData, or ~/LMUData

Environment, as huggingface_hub and modelscope_hub read it: HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT (a mirror), HF_HOME,
HF_HUB_CACHE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, HF_HUB_DISABLE_SYMLINKS; MODELSCOPE_API_TOKEN, MODELSCOPE_ENDPOINT,
MODELSCOPE_CACHE; HTTPS_PROXY, NO_PROXY; REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR.")]
pub struct Args {
    /// hub:ORG/NAME[@REVISION], or hub:datasets/ORG/NAME[@REVISION] for a data set; ms: instead of hub: for ModelScope; a
    /// benchmark (`llavm score list` names them), or a TSV of VLMEvalKit
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
    let wanted = args.repositories.iter().map(|text| Wanted::of(text, args));
    let wanted = wanted.collect::<Result<Vec<Wanted>, _>>()?;
    let settings = Settings { jobs: usize::from(args.jobs), ..Settings::from_env()? };
    if let Some(variable) = settings.offline {
        return offline(&wanted, &settings, variable);
    }
    let hub = Hub::new(settings)?;
    let transfers = Transfers::new(colours(std::io::stderr().is_terminal()));
    // A mistake in the last name is reported before the first is downloaded.
    let mut plans = Vec::new();
    let mut tables = Vec::new();
    for wanted in &wanted {
        match wanted {
            Wanted::Files { locator, patterns } => plans.push(hub.plan(locator, patterns, &transfers)?),
            Wanted::Table(tsv) => tables.push(*tsv),
        }
    }
    for plan in &plans {
        for pattern in &plan.idle {
            transfers.say(&format!("{}: no file matches `{pattern}`", plan.repository));
        }
    }
    if args.dry_run {
        let listed = plans.iter().map(list).chain(tables.iter().map(list_table));
        return Ok(print(&listed.collect::<Vec<String>>().join("\n"))?);
    }
    plans.iter().try_for_each(|plan| fetch(&hub, plan, &transfers))?;
    tables.iter().try_for_each(|tsv| fetch_table(&hub, *tsv, &transfers))
}

/// What one argument asks for.
enum Wanted {
    /// Files of a repository.
    Files { locator: String, patterns: Patterns },
    /// A table of VLMEvalKit.
    Table(Tsv),
}

impl Wanted {
    fn of(text: &str, args: &Args) -> Result<Self, Failure> {
        let patterns = |include: &[String]| {
            Patterns::new(include, &args.exclude).map_err(|error| {
                let help = "`*` stands for any characters, `?` for one, `[ab]` for one of two";
                Failure::wrong(error.to_string(), help)
            })
        };
        if text.contains([':', '/']) {
            return Ok(Self::Files { locator: text.to_owned(), patterns: patterns(&args.include)? });
        }
        if let Some(tsv) = sources::table(text) {
            return Ok(Self::Table(tsv));
        }
        let source = sources::find(text).ok_or_else(|| unknown(text))?;
        let own: Vec<String> = source.include.iter().map(|include| (*include).to_owned()).collect();
        let include = if args.include.is_empty() { &own } else { &args.include };
        Ok(Self::Files { locator: source.hub.to_owned(), patterns: patterns(include)? })
    }
}

/// Neither a repository nor a benchmark.
fn unknown(text: &str) -> Failure {
    let names = SOURCES.iter().map(|source| {
        let size = source.megabytes.map_or(String::new(), |size| format!(", {size} MB"));
        format!("{} ({} questions{size})", source.name, thousands(u64::from(source.rows)))
    });
    let tables = SOURCES.iter().filter_map(|source| source.tsv).map(|tsv| tsv.file().to_owned());
    let text = format!("`{text}` is neither hub:ORG/NAME, ms:ORG/NAME nor a benchmark");
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<String>>().join(", ");
    Failure::wrong(
        text,
        format!(
            "Benchmarks: {}. VLMEvalKit's tables: {}. COCO-CN and Flickr30k-CNA are given out by their authors: manifests/README.md.",
            list(&mut names.into_iter()),
            list(&mut tables.into_iter())
        ),
    )
}

/// Where VLMEvalKit keeps its tables (`vlmeval/smp/file.py`, `LMUDataRoot`).
fn tables_folder() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("LMUData").map(PathBuf::from).filter(|folder| folder.exists());
    let home = || std::env::home_dir().map(|home| home.join("LMUData"));
    named.or_else(home).ok_or_else(|| {
        Failure::wrong("there is no home folder to keep VLMEvalKit's tables in".to_owned(), "Set LMUData.")
    })
}

fn list_table(tsv: &Tsv) -> String {
    format!("{} from {}, md5 {} (--dry-run)\n", tsv.file(), tsv.address, tsv.md5)
}

fn fetch_table(hub: &Hub, tsv: Tsv, transfers: &Transfers) -> Outcome {
    let start = Instant::now();
    let path = tables_folder()?.join(tsv.file());
    let file = WebFile { address: tsv.address, md5: tsv.md5, path: &path };
    let arrived = hub.fetch_file(&file, transfers)?;
    let name = tsv.file();
    transfers.say(&match arrived {
        0 => format!("{name}: nothing to download"),
        arrived => {
            format!("{name}: {} downloaded in {}", bytes(arrived), duration(start.elapsed().as_secs_f64()))
        }
    });
    Ok(print_data(&format!("{}\n", path.display()))?)
}

fn fetch(hub: &Hub, plan: &Plan, transfers: &Transfers) -> Outcome {
    let start = Instant::now();
    transfers.begin(plan);
    let folder = hub.fetch(plan, transfers);
    transfers.end();
    let folder = folder?;
    transfers.say(&summary(plan, start.elapsed().as_secs_f64()));
    Ok(print_data(&format!("{}\n", folder.display()))?)
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
fn offline(wanted: &[Wanted], settings: &Settings, variable: &str) -> Outcome {
    for wanted in wanted {
        let locator = match wanted {
            Wanted::Files { locator, .. } => locator,
            Wanted::Table(tsv) => {
                let path = tables_folder()?.join(tsv.file());
                if !path.is_file() {
                    let help =
                        format!("{variable} is set, so nothing is downloaded; unset it to use the network");
                    return Err(Failure::failed(format!("{} is not there", path.display()), Some(help)));
                }
                print_data(&format!("{}\n", path.display()))?;
                continue;
            }
        };
        let source = Source::of(locator).map_or(Source::HuggingFace, |(source, _)| source);
        let folder = resolve_in(&settings.site(source).cache, locator).map_err(|error| {
            let help = format!("{variable} is set, so nothing is downloaded; unset it to use the network");
            Failure::failed(error.to_string(), Some(help))
        })?;
        note(&format!("{locator}: taken from the cache unchecked, since {variable} is set"));
        print_data(&format!("{}\n", folder.display()))?;
    }
    Ok(())
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let missing = error.missing().map(|left| format!(": {} were still to come", bytes(left)));
        Self::failed(format!("{error}{}", missing.unwrap_or_default()), error.advice())
    }
}
