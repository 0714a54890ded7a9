//! Questions about a scene, with their answers.
//!
//! The questions of one row are about different facts, and no answer gives another away: neither in training, where a model reads
//! the earlier turns, nor from the wording. A description gives everything away, so it stands alone in its row. Yes and no are
//! equally likely, whatever is asked about.

use super::scene::Scene;
use super::words::{Fact, Language, describe, no_or_yes};
use super::{Kind, Shapes};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub kind: Kind,
    pub question: String,
    pub answer: String,
}

/// Share of rows with a description, where other kinds are asked for too.
const DESCRIPTIONS: f64 = 0.25;
/// Share of the facts that are asked about by yes or no, where there is another way.
const YES_NO: f64 = 1.0 / 3.0;

/// The questions of a row, in the order they are asked.
pub fn ask(random: &mut impl Rng, stage: &Shapes, scene: &Scene, language: Language) -> Vec<Turn> {
    let mut facts = facts(random, stage, scene);
    let describes = stage.kinds.contains(&Kind::Describe);
    if facts.is_empty() || (describes && random.random_bool(DESCRIPTIONS)) {
        return vec![description(random, scene, language)];
    }
    facts.shuffle(random);
    facts.truncate(stage.turns);
    facts.into_iter().map(|fact| turn(random, stage, scene, fact, language)).collect()
}

/// What is asked about the scene.
fn facts(random: &mut impl Rng, stage: &Shapes, scene: &Scene) -> Vec<Fact> {
    let (mut facts, where_or_how_many): (Vec<Fact>, Vec<Fact>) =
        stage.askable(scene.places.len()).partition(|fact| !matches!(fact, Fact::Place | Fact::Count));
    // Only one shape has one place, so asking for it gives away the count.
    facts.extend(where_or_how_many.choose(random));
    facts
}

fn turn(random: &mut impl Rng, stage: &Shapes, scene: &Scene, fact: Fact, language: Language) -> Turn {
    let open = stage.kinds.contains(&Kind::of(fact));
    if stage.asks_whether(fact) && (!open || random.random_bool(YES_NO)) {
        return whether(random, stage, scene, fact, language);
    }
    let question = fact.questions(language)[random.random_range(0..2)].to_owned();
    let answer = fact.word(scene.value(fact), language).to_owned();
    Turn { kind: Kind::of(fact), question, answer }
}

/// Whether the fact has some value: the true one, or as often any other.
fn whether(random: &mut impl Rng, stage: &Shapes, scene: &Scene, fact: Fact, language: Language) -> Turn {
    let value = scene.value(fact);
    let yes = random.random_bool(0.5);
    let others = random.random_range(1..fact.values(stage.objects));
    let named = if yes { value } else { (value + others) % fact.values(stage.objects) };
    Turn {
        kind: Kind::YesNo,
        question: fact.whether(fact.word(named, language), language),
        answer: no_or_yes(yes, language).to_owned(),
    }
}

fn description(random: &mut impl Rng, scene: &Scene, language: Language) -> Turn {
    let question = describe(language)[random.random_range(0..2)].to_owned();
    Turn { kind: Kind::Describe, question, answer: scene.describe(language) }
}
