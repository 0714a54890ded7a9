//! What holds for any manifest.

use super::{GOOD, drawn, load};
use crate::spec::graph::Graph;
use proptest::prelude::*;

/// Everything of a graph but the name of its file.
fn description(graph: &Graph) -> String {
    let nodes: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| {
            format!(
                "{} {} {} {:?} {:?}",
                node.name, node.stage.kind, node.stage.params, node.inputs, node.budget
            )
        })
        .collect();
    format!("{} {} {} {}", graph.name, graph.seed, graph.store.display(), nodes.join("\n"))
}

/// [`GOOD`] as its top-level lines and its sections, each a header and its keys.
fn sections() -> Vec<Vec<String>> {
    let blocks = GOOD.trim().split("\n\n");
    blocks.map(|block| block.lines().map(str::to_owned).collect()).collect()
}

fn shuffled() -> impl Strategy<Value = String> {
    let mut sections = sections();
    let top = Just(sections.remove(0)).prop_shuffle();
    let rest: Vec<_> = sections
        .into_iter()
        .map(|lines| {
            let header = lines[0].clone();
            Just(lines[1..].to_vec())
                .prop_shuffle()
                .prop_map(move |keys| format!("{header}\n{}", keys.join("\n")))
        })
        .collect();
    (top, rest.prop_shuffle()).prop_map(|(top, rest)| format!("{}\n{}\n", top.join("\n"), rest.join("\n")))
}

/// Words that a manifest is made of, so that edits reach further than the parser.
const WORDS: [&str; 20] = [
    "[stages.rows]",
    "[vars]",
    "from = ",
    "kind = ",
    "\"shard\"",
    "\"rows\"",
    "\"few\"",
    "[\"few\", \"tokens\"]",
    "${",
    "}",
    "${raw}",
    "$${",
    "= 0",
    "-1",
    "{ table = \"few\" }",
    "[",
    "]",
    "\n",
    "max_rejects = 0.5\n",
    "é\"",
];

proptest! {
    #[test]
    fn the_order_of_sections_and_keys_does_not_matter(text in shuffled()) {
        let graph = load(&text).map(|manifest| description(&manifest.graph)).map_err(|error| drawn(&error));
        prop_assert_eq!(graph, Ok(description(&load(GOOD).unwrap().graph)));
    }

    #[test]
    fn no_edit_makes_the_reader_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, prop::sample::select(&WORDS[..])), 1..5)
    ) {
        let mut text = GOOD.to_owned();
        for (at, cut, word) in edits {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.floor_char_boundary((start + cut).min(text.len()));
            text.replace_range(start..end, word);
        }
        if let Err(error) = load(&text) {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(!drawn(&error).is_empty());
        }
    }

    #[test]
    fn a_manifest_with_a_removed_line_is_read_or_reported(line in 0..GOOD.lines().count()) {
        let kept: Vec<&str> = GOOD.lines().enumerate().filter(|(n, _)| *n != line).map(|(_, text)| text).collect();
        if let Err(error) = load(&kept.join("\n")) {
            prop_assert!(error.problems().iter().all(|problem| !problem.message().is_empty()));
        }
    }
}
