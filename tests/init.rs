//! `llavm init`: what it writes runs, in a folder where nothing else is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn llavm(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
    command.args(arguments).current_dir(folder).env("HF_HOME", "/no/such/cache").output().unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = llavm(folder, arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_templates_are_listed_and_a_mistyped_one_is_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let listed = done(folder.path(), &["init"]);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["quickstart", "cc3m", "chat", "messages", "llava", "benchmark"]);
    let wrong = llavm(folder.path(), &["init", "quikstart"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("quickstart"));
}

#[test]
fn what_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let told = done(folder.path(), &["init", "quickstart", "new/project"]);
    assert_eq!(told, "cd new/project && llavm run quickstart.toml\n");
    done(folder.path(), &["init", "quickstart", "new/project"]);
    let manifest = folder.path().join("new/project/quickstart.toml");
    fs::write(&manifest, "mine").unwrap();
    fs::remove_file(folder.path().join("new/project/data/shapes-model/README.md")).unwrap();
    let refused = llavm(folder.path(), &["init", "quickstart", "new/project"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(fs::read(&manifest).unwrap(), b"mine");
    assert!(
        !folder.path().join("new/project/data/shapes-model/README.md").exists(),
        "nothing is written then"
    );
}

/// From nothing to an answer. The other templates differ in how rows are read, which the manifests of the project's own samples
/// try; here each is read and its rows are made.
#[test]
fn from_an_empty_folder_to_an_answer_without_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    done(folder, &["init", "llava"]);
    done(folder, &["run", "llava.toml"]);
    let image = "rows/images/GCC_train_000000000.jpg";
    done(
        folder,
        &["generate", "llava.toml", "--image", image, "--prompt", "What is this?", "--max-new-tokens", "3"],
    );
    for name in ["chat", "messages", "quickstart", "benchmark"] {
        done(folder, &["init", name, name]);
        let (here, manifest) = (folder.join(name), format!("{name}.toml"));
        if name == "quickstart" || name == "benchmark" {
            let text = fs::read_to_string(here.join(&manifest)).unwrap();
            fs::write(here.join(&manifest), text.replace("rows   = 6000", "rows   = 200")).unwrap();
        }
        done(&here, &["run", &manifest, "--until", "shards"]);
        assert!(done(&here, &["status", &manifest, "--json"]).contains("shards"));
    }
    done(folder, &["init", "cc3m", "cc3m"]);
    let missing = llavm(&folder.join("cc3m"), &["validate", "cc3m-align.toml"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("llavm fetch"), "what is missing is named");
}
