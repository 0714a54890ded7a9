//! What stages that work on the same rows must agree on ([`crate::spec::stage::Parameters::facts`]).
//!
//! A stage is compared with all that its rows went through, and those with one another. Behind a job other rows begin: of a
//! job that is an input only its own facts count.

use super::Places;
use super::problem::Problem;
use crate::spec::graph::{Node, NodeIndex};
use crate::spec::stage::Fact;
use std::collections::{BTreeMap, BTreeSet};

/// Every stage that disagrees with the first one its rows went through, each pair once for each fact.
pub(super) fn conflicts(nodes: &[Node], places: &BTreeMap<String, Places>) -> Vec<Problem> {
    let facts: Vec<Vec<Fact>> = nodes.iter().map(|node| node.stage.role.parameters().facts()).collect();
    let mut known = BTreeSet::new();
    let mut problems = Vec::new();
    for index in 0..nodes.len() {
        let mut first: BTreeMap<&str, (NodeIndex, &Fact)> = BTreeMap::new();
        for one in behind(nodes, index) {
            for fact in &facts[one] {
                let (other, agreed) = *first.entry(fact.name).or_insert((one, fact));
                if agreed.value != fact.value && known.insert((other, one, fact.name)) {
                    problems.push(problem((&nodes[other], agreed), (&nodes[one], fact), places));
                }
            }
        }
    }
    problems
}

/// `index` and all that its rows went through, in order.
fn behind(nodes: &[Node], index: NodeIndex) -> BTreeSet<NodeIndex> {
    let mut found = BTreeSet::from([index]);
    let mut open = vec![index];
    while let Some(next) = open.pop() {
        for table in nodes[next].tables() {
            if found.insert(table) && !nodes[table].stage.role.is_job() {
                open.push(table);
            }
        }
    }
    found
}

fn problem(
    (one, this): (&Node, &Fact),
    (two, that): (&Node, &Fact),
    places: &BTreeMap<String, Places>,
) -> Problem {
    let place = |node: &Node, fact: &Fact| {
        let stage = places.get(&node.name);
        stage.map_or(0..0, |stage| stage.params.get(fact.param).unwrap_or(&stage.name).clone())
    };
    Problem::new(format!(
        "`{}` ({}) and `{}` ({}) do not agree on {}",
        one.name, one.stage.kind, two.name, two.stage.kind, this.name
    ))
    .at(place(two, that), that.shown.clone())
    .at(place(one, this), this.shown.clone())
    .help(that.help.clone())
}
