//! `llavm init`: a ready manifest and what it needs, out of the program itself.

use crate::commands::model::failed;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{note, print};
use llavm_pipeline::manifest::did_you_mean;
use std::fs;
use std::path::{Path, PathBuf};

/// Write a ready manifest, and the files it needs, into a folder
///
/// Everything comes out of the program: no repository and no network is needed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm init quickstart && llavm run quickstart.toml\n  llavm init llava mine"
)]
pub struct Args {
    /// Which one; without, they are listed
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Where to write; created where it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// A file: where it goes, and what is in it.
type File = (&'static str, &'static [u8]);

/// A manifest and what it needs.
struct Template {
    name: &'static str,
    about: &'static str,
    /// The first is the manifest.
    files: &'static [&'static [File]],
}

const TEMPLATES: &[Template] = &[
    Template {
        name: "quickstart",
        about: "drawn shapes and questions about them, to a trained model and a report, in a few minutes",
        files: &[&[("quickstart.toml", include_bytes!("../../manifests/quickstart.toml"))], TOWERS],
    },
    Template {
        name: "cc3m",
        about: "the full recipe: LLaVA-CC3M-595K and conversations, Qwen3-0.6B and CLIP (downloads)",
        files: &[&[
            ("cc3m-align.toml", include_bytes!("../../manifests/cc3m-align.toml")),
            ("instruct-lora.toml", include_bytes!("../../manifests/instruct-lora.toml")),
        ]],
    },
    Template {
        name: "chat",
        about: "your questions and answers about images, one row a question",
        files: &[
            &[
                ("chat.toml", include_bytes!("../init/chat.toml")),
                ("rows/chat.jsonl", include_bytes!("../init/chat.jsonl")),
            ],
            IMAGES,
            TOWERS,
        ],
    },
    Template {
        name: "messages",
        about: "your conversations as chat messages",
        files: &[
            &[
                ("messages.toml", include_bytes!("../init/messages.toml")),
                ("rows/messages.jsonl", include_bytes!("../init/messages.jsonl")),
            ],
            IMAGES,
            TOWERS,
        ],
    },
    Template {
        name: "llava",
        about: "your data in LLaVA's layout: chat.json and a folder of images",
        files: &[
            &[
                ("llava.toml", include_bytes!("../init/llava.toml")),
                ("rows/chat.json", include_bytes!("../../data/llava/chat.json")),
            ],
            IMAGES,
            TOWERS,
        ],
    },
    Template {
        name: "benchmark",
        about: "the quick start, and a public benchmark asked of its model",
        files: &[
            &[
                ("benchmark.toml", BENCHMARK.as_bytes()),
                ("pope/pope.parquet", include_bytes!("../../data/benchmarks/pope.parquet")),
            ],
            TOWERS,
        ],
    },
];

const BENCHMARK: &str =
    concat!(include_str!("../../manifests/quickstart.toml"), include_str!("../init/benchmark.toml"));

macro_rules! files {
    ($from:literal, $to:literal: $($name:literal),+ $(,)?) => {
        &[$((concat!($to, $name), include_bytes!(concat!("../../", $from, $name)))),+]
    };
}

/// The small towers of the quick start.
const TOWERS: &[File] = files!("data/shapes-model/", "data/shapes-model/":
    "README.md",
    "clip/config.json",
    "clip/model.safetensors",
    "qwen3/config.json",
    "qwen3/model.safetensors",
    "qwen3/tokenizer.json",
    "qwen3/tokenizer_config.json",
);

macro_rules! images {
    ($($number:literal),+ $(,)?) => {
        &[$((
            concat!("rows/images/GCC_train_000000", $number, ".jpg"),
            include_bytes!(concat!("../../data/llava/images/GCC_train_000000", $number, ".jpg")),
        )),+]
    };
}

/// The images of the sample rows.
#[rustfmt::skip]
const IMAGES: &[File] = images!["000", "001", "002", "003", "004", "005", "006", "007", "008", "010", "011", "012", "013", "014", "015", "016", "017", "018", "020", "021", "022", "023", "024", "025", "026", "027", "028", "030", "031", "032", "033", "034", "035", "036", "037", "038", ];

/// Manifests name themselves as they stand in the project; here they stand alone.
const RENAMED: [(&str, &str); 3] = [
    ("cargo run --release -- run manifests/", "llavm run "),
    ("llavm run manifests/", "llavm run "),
    ("llavm serve manifests/", "llavm serve "),
];

pub fn run(args: &Args) -> Outcome {
    let Some(name) = &args.name else { return list() };
    let template = TEMPLATES.iter().find(|template| template.name == *name).ok_or_else(|| {
        let names = TEMPLATES.iter().map(|template| template.name);
        Failure::wrong(format!("there is no template `{name}`"), did_you_mean(name, "templates", names))
    })?;
    let files: Vec<(PathBuf, Vec<u8>)> = template.contents(&args.folder);
    // All or nothing: what a person changed is not written over.
    if let Some((path, _)) = files.iter().find(|(path, bytes)| is_another(path, bytes)) {
        return Err(Failure::wrong(
            format!("{} is there already, and is another", path.display()),
            "Name another folder, or move the file away.",
        ));
    }
    for (path, bytes) in &files {
        write(path, bytes)?;
    }
    note(&format!("{} files written to {}", files.len(), args.folder.display()));
    let enter = if args.folder == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", args.folder.display())
    };
    print(&format!("{enter}llavm run {}\n", template.manifest()))?;
    Ok(())
}

fn list() -> Outcome {
    let width = TEMPLATES.iter().map(|template| template.name.len()).max().unwrap_or(0);
    for template in TEMPLATES {
        print(&format!("{:width$}  {}\n", template.name, template.about))?;
    }
    Ok(())
}

impl Template {
    fn manifest(&self) -> &'static str {
        self.files.iter().copied().flatten().next().map_or("", |(path, _)| path)
    }

    /// What is written, and where.
    fn contents(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.files.iter().copied().flatten();
        files.map(|(path, bytes)| (folder.join(path), self.written(path, bytes))).collect()
    }

    fn written(&self, path: &str, bytes: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(bytes) {
            Ok(text) if Path::new(path).extension().is_some_and(|kind| kind == "toml") => {
                let text = RENAMED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
                // The benchmark's manifest is the quick start's and a stage more.
                if self.name == "benchmark" {
                    text.replace("quickstart", self.name).into_bytes()
                } else {
                    text.into_bytes()
                }
            }
            _ => bytes.to_vec(),
        }
    }
}

fn is_another(path: &Path, bytes: &[u8]) -> bool {
    path.exists() && !fs::read(path).is_ok_and(|there| there == bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    let at = |error: std::io::Error| failed(format!("{}: {error}", path.display()));
    fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).map_err(at)?;
    fs::write(path, bytes).map_err(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use llavm_pipeline::Manifest;

    #[test]
    fn every_manifest_that_is_written_is_valid_and_names_no_repository() {
        for template in TEMPLATES {
            for (path, bytes) in template.contents(Path::new("")) {
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = String::from_utf8(bytes.clone()).unwrap();
                    assert!(
                        !text.contains("cargo run") && !text.contains("run manifests/"),
                        "{}",
                        path.display()
                    );
                    let read = Manifest::read(&bytes, &path, &[], &llavm_stages::registry());
                    assert!(read.is_ok(), "{}: {:?}", path.display(), read.err());
                }
            }
        }
    }

    #[test]
    fn no_two_files_of_a_template_have_one_name() {
        for template in TEMPLATES {
            let mut paths: Vec<PathBuf> =
                template.contents(Path::new("")).into_iter().map(|(path, _)| path).collect();
            let count = paths.len();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), count, "{}", template.name);
        }
    }
}
