//! `llavm export`: a trained model for other programs, as the stage `export` writes it.

use crate::commands::locate;
use crate::commands::model::failed;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::interrupt;
use crate::ui::output::print;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use llavm_model::config::Dtype;
use llavm_model::folder::{ModelFolder, write_atomically};
use llavm_stages::export::{Export, Format, REPORT};
use std::fs;
use std::path::{Path, PathBuf};

/// Write a trained model as Transformers, PEFT and others load it
///
/// The same as a stage of kind `export`, which keeps its result in the store; this one writes a folder of your own, whole or
/// not at all.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    llavm export manifests/quickstart.toml --format llava --out my-llava\n  \
    llavm export manifests/quickstart.toml:align --format projector --out projector\n  \
    llavm export DIR --format merged --dtype bf16 --out merged")]
pub struct Args {
    /// A model folder, `hub:ORG/NAME`, or a manifest, whose last run trained it: MANIFEST or MANIFEST:STAGE
    #[arg(value_name = "MODEL")]
    model: String,

    /// llava: all of it, for Transformers' LLaVA classes; merged: the language model with the adapter in its weights; peft: the
    /// adapter; projector: the layers between the towers
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    format: Format,

    /// The folder to write, which must be empty or not there yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// f32, f16 or bf16 of what is written [default: f32 for projector and adapter, for whole models the model's]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,

    /// An evaluation or a benchmark of this model, whose scores stand in the folder's README.md: a folder with its report.json,
    /// MANIFEST or MANIFEST:STAGE; may be given again
    #[arg(long, value_name = "REPORT")]
    scores: Vec<String>,
}

fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| name.parse::<Format>())
}

pub fn run(args: &Args) -> Outcome {
    let out = own_folder(&args.out)?;
    let model = ModelFolder::open(&locate::model(&args.model)?).map_err(failed)?;
    let stage = Export { format: args.format, dtype: args.dtype };
    let reports = args.scores.iter().map(|named| report(named)).collect::<Result<Vec<_>, _>>()?;
    write_atomically(&out, |scratch| {
        interrupt::removes(scratch)?;
        stage.export(&model.path, scratch)?;
        stage.card(&model.path, &reports, scratch).map_err(Failure::from)
    })?;
    print(&next(args.format, &args.out, out.join("base").is_dir()))?;
    Ok(())
}

/// An evaluation as the card names it, and its folder.
fn report(named: &str) -> Result<(String, PathBuf), Failure> {
    let folder = locate::evaluation(named)?;
    if !folder.join(REPORT).is_file() {
        return Err(Failure::wrong(
            format!("--scores {named} is no evaluation: it has no {REPORT}"),
            "Name a folder that `evaluate` or `benchmark` made, or MANIFEST:STAGE.",
        ));
    }
    let last = named.rsplit(['/', ':']).find(|part| !part.is_empty());
    Ok((last.unwrap_or(named).to_owned(), folder))
}

/// The folder in full; refused when something is in it.
fn own_folder(out: &Path) -> Result<PathBuf, Failure> {
    let io = |error| failed(format!("{}: {error}", out.display()));
    let whole = std::path::absolute(out).map_err(io)?;
    let taken = |what: &str| {
        Failure::wrong(
            format!("--out {} {what}", out.display()),
            "Name a folder that is empty or not there yet.",
        )
    };
    if whole.file_name().is_none() {
        return Err(taken("is no name for a new folder"));
    }
    match fs::read_dir(&whole).map(|mut entries| entries.next()) {
        Ok(None) => Ok(whole),
        Ok(Some(_)) => Err(taken("is not empty")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(whole),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Err(taken("is a file")),
        Err(error) => Err(io(error)),
    }
}

/// What to do with the folder.
fn next(format: Format, out: &Path, has_base: bool) -> String {
    let folder = out.display();
    let python = |class: &str, from: &str| format!("  {class}.from_pretrained(\"{from}\")\n");
    let uses = match format {
        Format::Llava => {
            format!("  llavm chat {folder} --image FILE\n")
                + &python("LlavaForConditionalGeneration", &folder.to_string())
                + &python("AutoProcessor", &folder.to_string())
        }
        Format::Merged => {
            python("AutoModelForCausalLM", &folder.to_string())
                + &python("AutoTokenizer", &folder.to_string())
        }
        // The adapter names `base` from the folder in which Python is started.
        Format::Peft if has_base => format!("  cd {folder}\n") + &python("AutoPeftModelForCausalLM", "."),
        Format::Peft => python("AutoPeftModelForCausalLM", &folder.to_string()),
        Format::Projector => {
            format!("  safetensors.torch.load_file(\"{}\")\n", out.join("projector.safetensors").display())
        }
    };
    format!("{} written to {folder}. Try it:\n{uses}", format.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_is_empty_or_not_there_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        fs::create_dir(inside("empty")).unwrap();
        fs::write(inside("file"), "").unwrap();
        assert_eq!(own_folder(&inside("new")).ok(), Some(inside("new")));
        assert_eq!(own_folder(&inside("empty")).ok(), Some(inside("empty")));
        for taken in [folder.path(), &inside("file"), Path::new("/")] {
            assert!(own_folder(taken).is_err(), "{}", taken.display());
        }
    }

    #[test]
    fn scores_are_named_by_what_made_them() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("pope");
        fs::create_dir(&made).unwrap();
        assert!(report(&made.display().to_string()).is_err(), "no report in it");
        fs::write(made.join(REPORT), "{}").unwrap();
        assert_eq!(report(&format!("{}/", made.display())).ok(), Some(("pope".to_owned(), made)));
    }

    #[test]
    fn every_format_says_how_it_is_loaded() {
        for format in Format::ALL {
            let said = next(format, Path::new("out"), false);
            assert!(said.starts_with(&format!("{} written to out. Try it:\n  ", format.name())), "{said}");
        }
        assert!(next(Format::Peft, Path::new("out"), true).contains("cd out\n"));
    }
}
