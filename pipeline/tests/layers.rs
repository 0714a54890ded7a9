//! The house: which file may use which. Read from the `use` lines and paths of the sources.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of the workspace and where their sources are.
const CRATES: [(&str, &str); 5] = [
    ("llavm_pipeline", "pipeline/src"),
    ("llavm_model", "model/src"),
    ("llavm_serve", "serve/src"),
    ("llavm_stages", "stages/src"),
    ("llavm", "cli"),
];

/// The layers of the pipeline, lowest first; those of one row do not use each other.
const LAYERS: [&[&str]; 8] =
    [&["spec"], &["store"], &["keys"], &["table"], &["state", "exec"], &["schedule"], &["engine"], &["lib"]];

type Module = (String, Vec<String>);

/// A path that a file mentions.
struct Use {
    /// Whether it only hands a name on (`pub use`).
    is_handed_on: bool,
    path: Vec<String>,
}

/// The modules of the workspace, and what each mentions.
struct Workspace {
    files: BTreeMap<Module, PathBuf>,
    uses: BTreeMap<Module, Vec<Use>>,
    /// What modules hand on, by name.
    handed_on: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Workspace {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = BTreeMap::new();
        for (name, folder) in CRATES {
            for path in sources(&root.join(folder)) {
                let inner = path.strip_prefix(root.join(folder)).unwrap().with_extension("");
                let mut module: Vec<String> =
                    inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                    module.pop();
                }
                if !module.iter().any(|part| part == "tests") {
                    files.insert((name.to_owned(), module), path);
                }
            }
        }
        let uses = files.iter().map(|(module, path)| (module.clone(), uses_of(path))).collect();
        let mut workspace = Self { files, uses, handed_on: BTreeMap::new() };
        let mut handed_on: BTreeMap<Module, BTreeMap<String, Module>> = BTreeMap::new();
        for (module, uses) in &workspace.uses {
            for used in uses.iter().filter(|used| used.is_handed_on) {
                if let Some(target) = workspace.absolute(module, &used.path) {
                    let name = used.path.last().cloned().unwrap_or_default();
                    handed_on.entry(module.clone()).or_default().insert(name, target);
                }
            }
        }
        workspace.handed_on = handed_on;
        workspace
    }

    /// The path from its crate's root; `None` for paths out of the workspace.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (name, inner) = module;
        let rest = |from: usize| path[from..].to_vec();
        match path[0].as_str() {
            "crate" => Some((name.clone(), rest(1))),
            "self" => Some((name.clone(), [inner.clone(), rest(1)].concat())),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let above = inner[..inner.len().saturating_sub(up)].to_vec();
                Some((name.clone(), [above, rest(up)].concat()))
            }
            first if CRATES.iter().any(|(name, _)| *name == first) => Some((first.to_owned(), rest(1))),
            first => {
                let child = [inner.clone(), vec![first.to_owned()]].concat();
                let is_child = self.files.contains_key(&(name.clone(), child));
                is_child.then(|| (name.clone(), [inner.clone(), rest(0)].concat()))
            }
        }
    }

    /// The module that a path leads to, whoever hands the name on.
    fn resolve(&self, (name, path): &Module, depth: usize) -> Option<Module> {
        for length in (0..=path.len()).rev() {
            let module = (name.clone(), path[..length].to_vec());
            if !self.files.contains_key(&module) {
                continue;
            }
            let next = path.get(length).and_then(|item| self.handed_on.get(&module)?.get(item));
            return match next {
                Some((name, target)) if depth < 10 => {
                    let target = [target.clone(), path[length + 1..].to_vec()].concat();
                    self.resolve(&(name.clone(), target), depth + 1)
                }
                _ => Some(module),
            };
        }
        None
    }

    /// By module: the modules it uses.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |(module, uses): (&Module, &Vec<Use>)| -> BTreeSet<Module> {
            let used = uses.iter().filter(|used| !used.is_handed_on);
            let found = used.filter_map(|used| self.resolve(&self.absolute(module, &used.path)?, 0));
            found.filter(|found| found != module).collect()
        };
        self.uses.iter().map(|entry| (entry.0, of(entry))).collect()
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The paths a file mentions outside its tests and comments.
fn uses_of(path: &Path) -> Vec<Use> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let text = text.split("#[cfg(test)]\npub mod tests {").next().unwrap();
    let code: String = text.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        match use_statement(statement) {
            Some((before, is_handed_on, tree)) => {
                rest += before;
                let paths = expand(tree).into_iter();
                found.extend(paths.map(|path| Use { is_handed_on, path: segments(&path) }));
            }
            None => rest += statement,
        }
    }
    for start in
        ["crate::", "super::", "llavm_pipeline::", "llavm_model::", "llavm_serve::", "llavm_stages::"]
    {
        for (at, _) in rest.match_indices(start) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let is_inner = rest[..at].chars().next_back().is_some_and(|c| is_word(c) || c == ':');
            let end = rest[at..].find(|c| !is_word(c) && c != ':').map_or(rest.len(), |end| at + end);
            if !is_inner {
                let path = rest[at..end].trim_end_matches(':');
                found.push(Use { is_handed_on: false, path: segments(path) });
            }
        }
    }
    found
}

/// What stands before a `use` at the end of a statement, whether it is handed on, and its tree.
fn use_statement(statement: &str) -> Option<(&str, bool, &str)> {
    let at = statement.match_indices("use ").map(|(at, _)| at).find(|at| {
        let line = statement[..*at].rsplit('\n').next().unwrap_or("");
        matches!(line.trim(), "" | "pub" | "pub(crate)" | "pub(super)")
    })?;
    let line = statement[..at].rsplit('\n').next().unwrap_or("");
    let tree = statement[at + "use ".len()..].trim_end_matches(';');
    Some((&statement[..at], !line.trim().is_empty(), tree))
}

/// The paths of a tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or("").trim().to_owned()];
    };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                if !part.is_empty() {
                    paths.extend(expand(part).into_iter().map(|path| format!("{before}{path}")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|part| part.trim().to_owned()).collect()
}

/// The row of a pipeline module in [`LAYERS`].
fn layer((_, path): &Module) -> (usize, String) {
    let name = path.first().map_or("lib", String::as_str);
    let row = LAYERS.iter().position(|row| row.contains(&name));
    (row.unwrap_or_else(|| panic!("{name} is in no layer")), name.to_owned())
}

#[test]
fn every_layer_of_the_pipeline_uses_only_those_below_it() {
    let workspace = Workspace::read();
    let mut upwards = Vec::new();
    for (module, used) in workspace.imports() {
        for used in used.iter().filter(|used| module.0 == CRATES[0].0 && used.0 == module.0) {
            let ((from, name), (to, other)) = (layer(module), layer(used));
            if to > from || to == from && name != other {
                upwards.push(format!("{} uses {}", module.1.join("::"), used.1.join("::")));
            }
        }
    }
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
}

#[test]
fn crates_use_each_other_in_one_direction() {
    let workspace = Workspace::read();
    for (module, used) in workspace.imports() {
        for used in &used {
            let fine = match module.0.as_str() {
                "llavm_pipeline" | "llavm_model" => used.0 == module.0,
                "llavm_serve" => matches!(used.0.as_str(), "llavm_serve" | "llavm_model"),
                "llavm_stages" => !matches!(used.0.as_str(), "llavm" | "llavm_serve"),
                _ => true,
            };
            assert!(fine, "{module:?} uses {used:?}");
        }
    }
}

#[test]
fn no_file_is_in_an_import_circle() {
    let workspace = Workspace::read();
    let imports = workspace.imports();
    let reached = |from: &Module| {
        let (mut open, mut seen) = (vec![from.clone()], BTreeSet::new());
        while let Some(module) = open.pop() {
            for next in imports.get(&module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let in_circle: Vec<String> = workspace
        .files
        .iter()
        .filter(|(module, _)| reached(module).contains(module))
        .map(|(_, path)| path.display().to_string())
        .collect();
    assert!(in_circle.is_empty(), "{}", in_circle.join("\n"));
}

#[test]
fn what_is_read_of_a_source_is_what_it_says() {
    assert_eq!(expand("a::{b, c::{d, e as f}}"), ["a::b", "a::c::d", "a::c::e"]);
    let (before, is_handed_on, tree) = use_statement("fn x() {}\npub use a::{b};").unwrap();
    assert_eq!((before, is_handed_on, tree), ("fn x() {}\npub ", true, "a::{b}"));
    assert!(use_statement("let because = 1;").is_none());
}
