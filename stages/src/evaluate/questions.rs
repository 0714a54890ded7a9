//! Rows to questions: what is asked, what should be answered, and the tokens of both.
//!
//! `turns = "last"`: the row's final question with all that was said before it, in the row's own tokens. `turns = "each"`:
//! every question by itself, without earlier turns (whose answers would help), as a row of one question that passes
//! through the run's own text stages. The picture goes where the row's first question has it.

use super::rows::{Cell, Row, Turn};
use std::ops::Range;

/// What stands for a picture in the data.
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
    /// Without the placeholder of the picture.
    pub text: String,
    /// The right answer.
    pub reference: String,
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
    /// Index of the row whose pictures and system turns it gets.
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
    Some(Question { row: index, turn, text, reference, slices: slices(row, turn), tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(role: &str, content: &str) -> Turn {
        Turn { role: role.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn each_question_stands_alone_with_the_picture_where_the_first_had_it() {
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
}
