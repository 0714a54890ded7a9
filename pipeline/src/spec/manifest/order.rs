//! The order in which stages can be built and run: every stage after its inputs, the free ones by name.

use super::problem::{Problem, Problems};
use super::wiring::Part;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// The indices of `parts` in that order. Stages on a cycle, or behind one, are left out, and each cycle is reported.
pub(super) fn order(parts: &[Part<'_, '_>], problems: &mut Problems) -> Vec<usize> {
    let index: BTreeMap<&str, usize> =
        parts.iter().enumerate().map(|(index, part)| (part.entry.name.as_str(), index)).collect();
    let needs: Vec<BTreeSet<usize>> = parts
        .iter()
        .map(|part| part.names().filter_map(|name| index.get(name.get_ref().as_str()).copied()).collect())
        .collect();
    let mut left: BTreeSet<usize> = (0..parts.len()).collect();
    let mut ordered = Vec::with_capacity(parts.len());
    // Parts are sorted by name, so the first free index is the first free name.
    while let Some(&next) = left.iter().find(|&&entry| needs[entry].is_disjoint(&left)) {
        left.remove(&next);
        ordered.push(next);
    }
    tell_cycles(parts, &needs, &left, problems);
    ordered
}

/// Every stage left has an input that is left; going back from one to the next must come round.
fn tell_cycles(
    parts: &[Part<'_, '_>],
    needs: &[BTreeSet<usize>],
    left: &BTreeSet<usize>,
    problems: &mut Problems,
) {
    let mut seen = BTreeSet::new();
    for &start in left {
        let mut path = Vec::new();
        let mut at = Some(start);
        while let Some(stage) = at.filter(|stage| seen.insert(*stage)) {
            path.push(stage);
            at = needs[stage].intersection(left).next().copied();
        }
        if let Some(first) = at.and_then(|end| path.iter().position(|&stage| stage == end)) {
            // The path goes from reader to read; rows flow the other way.
            let cycle: Vec<&Part<'_, '_>> = path[first..].iter().rev().map(|&stage| &parts[stage]).collect();
            problems.add(draw(&cycle));
        }
    }
}

fn draw(cycle: &[&Part<'_, '_>]) -> Problem {
    let drawn: Vec<&str> = cycle.iter().chain(cycle.first()).map(|part| part.entry.name.as_str()).collect();
    let mut problem = Problem::new(format!("stages that wait for each other: {}", drawn.join(" -> ")));
    let before = cycle.iter().cycle().skip(cycle.len().saturating_sub(1));
    for (part, input) in cycle.iter().zip(before) {
        let (reader, read) = (part.entry, input.entry);
        let name = part.names().find(|name| *name.get_ref() == read.name);
        let span = name.map_or_else(|| reader.name_span.clone(), Spanned::span);
        problem = problem.at(span, format!("`{}` reads `{}`", reader.name, read.name));
    }
    problem.help("Let one of them read another stage.")
}
