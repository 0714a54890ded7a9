//! Rows to questions: what is asked, what should be answered, and the tokens of both.
//!
//! `turns = "last"`: the row's final question with all that was said before it, in the row's own tokens. `turns = "each"`:
//! every question by itself, without earlier turns (whose answers would help), as the model's processor asks it. The image goes
//! where the row's first question has it.

use super::rows::{Cell, Row, Turn};
use std::collections::BTreeMap;
use std::ops::Range;

/// What stands for an image in the data.
const PLACEHOLDER: &str = "<image>";

/// The reason of a row that nothing can be asked of.
pub const NO_ANSWER: &str = "evaluate/no-answer: no token carries loss";

/// One question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Index of its row among those drawn.
    pub row: usize,
    /// Which of the row's questions, from 0.
    pub turn: u32,
    /// Without the placeholder of the image.
    pub text: String,
    /// The right answer.
    pub reference: String,
    /// All right answers, where there are several.
    pub references: Vec<String>,
    /// Prompt and right answer.
    pub tokens: Tokens,
    /// By slice column.
    pub slices: Vec<Option<String>>,
}

/// A prompt with its answer, in tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All but the last.
    pub input_ids: Vec<u32>,
    /// The token that follows each, negative outside of the answer.
    pub labels: Vec<i32>,
    /// Where the labels of the answer lie.
    pub answer: Range<usize>,
}

impl Tokens {
    /// Of a whole conversation; only its last answer counts. `None` when there is none.
    pub fn of(input_ids: &[u32], labels: &[i32]) -> Option<Self> {
        let end = labels.iter().rposition(|label| *label >= 0)? + 1;
        let start = labels[..end].iter().rposition(|label| *label < 0).map_or(0, |before| before + 1);
        let answer = start..end;
        let labels = labels.iter().enumerate();
        let labels = labels.map(|(at, label)| if answer.contains(&at) { *label } else { -100 }).collect();
        Some(Self { input_ids: input_ids.to_vec(), labels, answer })
    }

    /// Of a whole conversation as training sees it, asked with `prompt`, how it begins. What a template writes before an answer
    /// may be trained on and yet be part of every prompt. `None` when no answer follows the prompt.
    pub fn asked(ids: &[u32], train: &[bool], prompt: &[u32]) -> Option<Self> {
        let targets = ids.iter().zip(train).enumerate().skip(1);
        let label = |(at, (id, train)): (usize, (&u32, &bool))| {
            if *train && at >= prompt.len() { id.cast_signed() } else { -100 }
        };
        let labels: Vec<i32> = targets.map(label).collect();
        let tokens = Self::of(ids.split_last()?.1, &labels)?;
        (ids.starts_with(prompt) && tokens.prompt() == prompt).then_some(tokens)
    }

    /// What the model gets to see before it answers.
    pub fn prompt(&self) -> &[u32] {
        &self.input_ids[..=self.answer.start]
    }

    /// The right answer.
    pub fn answer(&self) -> impl Iterator<Item = u32> + '_ {
        self.labels[self.answer.clone()].iter().map(|label| label.cast_unsigned())
    }
}

/// A question of a row by itself: [system], user, assistant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Index of the row whose images and system turns it gets.
    pub row: usize,
    /// Which of the row's questions.
    pub turn: u32,
    /// As the data has it, with its placeholder.
    pub user: String,
    /// The right answer, or any text where none is known.
    pub assistant: String,
}

/// The questions of a row with the answers that follow them.
pub fn pairs(turns: &[Turn]) -> Vec<(&str, &str)> {
    let pair = |two: &[Turn]| two[0].role == "user" && two[1].role == "assistant";
    let pairs = turns.windows(2).filter(|two| pair(two));
    pairs.map(|two| (two[0].content.as_str(), two[1].content.as_str())).collect()
}

/// Every question of a row by itself.
pub fn asks(row: usize, turns: &[Turn]) -> Vec<Ask> {
    let pairs = pairs(turns);
    let first = pairs.first().map_or("", |(question, _)| *question);
    let ask = |(turn, (question, answer)): (u32, &(&str, &str))| Ask {
        row,
        turn,
        user: placed_as(first, question),
        assistant: (*answer).to_owned(),
    };
    (0..).zip(&pairs).map(ask).collect()
}

/// `question` with the placeholder where `first` has it: before, behind, or nowhere.
pub fn placed_as(first: &str, question: &str) -> String {
    if question.contains(PLACEHOLDER) {
        return question.to_owned();
    }
    let lead = |text: &str| text.len() - text.trim_start_matches(PLACEHOLDER).trim_start().len();
    let trail = |text: &str| text.trim_end_matches(PLACEHOLDER).trim_end().len();
    if first.starts_with(PLACEHOLDER) {
        format!("{}{question}", &first[..lead(first)])
    } else if first.ends_with(PLACEHOLDER) {
        format!("{question}{}", &first[trail(first)..])
    } else {
        question.to_owned()
    }
}

/// A question as people read it.
pub fn shown(question: &str) -> String {
    question.replace(PLACEHOLDER, "").trim().to_owned()
}

/// The slice values of question `turn`.
pub fn slices(row: &Row, turn: u32) -> Vec<Option<String>> {
    let value = |cell: &Cell| match cell {
        Cell::Row(value) => value.clone(),
        Cell::Questions(values) => values.get(turn as usize).cloned().flatten(),
    };
    row.slices.iter().map(value).collect()
}

/// The final question of row number `index`, in the row's own tokens; `None` when no answer carries loss. `decode` makes
/// text of tokens, for shards that keep no `messages`.
pub fn last(index: usize, row: &Row, decode: impl Fn(&[u32]) -> String) -> Option<Question> {
    let tokens = Tokens::of(&row.input_ids, &row.labels)?;
    let pairs = pairs(&row.turns);
    let turn = pairs.len().saturating_sub(1) as u32;
    let (text, reference) = match pairs.last() {
        Some((question, answer)) => (shown(question), (*answer).to_owned()),
        None => (String::new(), decode(&tokens.answer().collect::<Vec<_>>())),
    };
    let references = row.references.clone();
    Some(Question { row: index, turn, text, reference, references, slices: slices(row, turn), tokens })
}

/// Of questions about one image the first, with the answers of all as its references. `shown`: a number for what the rows
/// show; questions without an image stay as they are.
pub fn grouped(questions: Vec<Question>, shown: &[Option<usize>]) -> Vec<Question> {
    let mut first: BTreeMap<usize, usize> = BTreeMap::new();
    let mut kept: Vec<Question> = Vec::new();
    for mut question in questions {
        let Some(image) = shown[question.row] else {
            kept.push(question);
            continue;
        };
        let mut answers = std::mem::take(&mut question.references);
        if answers.is_empty() {
            answers.push(question.reference.clone());
        }
        if let Some(at) = first.get(&image) {
            kept[*at].references.extend(answers);
        } else {
            first.insert(image, kept.len());
            kept.push(Question { references: answers, ..question });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_one_image_are_one_question_with_all_their_answers() {
        let asked = |row: usize, reference: &str| Question {
            row,
            text: format!("question {row}"),
            reference: reference.to_owned(),
            ..Question::default()
        };
        let questions = vec![asked(0, "a"), asked(1, "b"), asked(2, "c"), asked(3, "d"), asked(4, "e")];
        let found = grouped(questions, &[Some(0), Some(1), Some(0), None, Some(0)]);
        let found: Vec<(usize, String)> =
            found.iter().map(|question| (question.row, question.references.join(" "))).collect();
        assert_eq!(found, [(0, "a c e".to_owned()), (1, "b".to_owned()), (3, String::new())]);
    }

    fn turn(role: &str, content: &str) -> Turn {
        Turn { role: role.to_owned(), content: content.to_owned(), tools: None }
    }

    #[test]
    fn each_question_stands_alone_with_the_image_where_the_first_had_it() {
        let turns = [
            turn("system", "S"),
            turn("user", "<image>\nWhat?"),
            turn("assistant", "A"),
            turn("user", "Where?"),
            turn("assistant", "B"),
            turn("user", "unanswered"),
        ];
        let asks: Vec<(String, String)> =
            asks(0, &turns).into_iter().map(|ask| (ask.user, ask.assistant)).collect();
        assert_eq!(asks, [("<image>\nWhat?".into(), "A".into()), ("<image>\nWhere?".into(), "B".into())]);
        assert_eq!(placed_as("What?\n<image>", "Where?"), "Where?\n<image>");
        assert_eq!(placed_as("What?", "Where?"), "Where?");
        assert_eq!(shown("<image>\nWhere?"), "Where?");
    }

    #[test]
    fn the_last_answer_is_the_last_run_of_labels() {
        let tokens = Tokens::of(&[1, 2, 3, 4, 5, 6], &[-100, 3, -100, -100, 6, 7]).unwrap();
        assert_eq!(tokens.prompt(), [1, 2, 3, 4, 5]);
        assert_eq!(tokens.answer().collect::<Vec<_>>(), [6, 7]);
        assert_eq!(tokens.labels, [-100, -100, -100, -100, 6, 7]);
        assert_eq!(Tokens::of(&[1, 2], &[-100, -100]), None);
    }

    #[test]
    fn what_every_prompt_holds_is_no_part_of_the_answer() {
        let train = [false, false, true, true, true];
        let tokens = Tokens::asked(&[1, 2, 3, 4, 5], &train, &[1, 2, 3]).unwrap();
        assert_eq!((tokens.prompt(), tokens.labels.as_slice()), (&[1, 2, 3][..], &[-100, -100, 4, 5][..]));
        assert_eq!(Tokens::asked(&[1, 2, 3, 4, 5], &train, &[1, 9]), None, "another prompt");
        assert_eq!(Tokens::asked(&[1, 2, 3], &[false; 3], &[1, 2]), None, "no answer");
    }
}
