//! Letters of options in answers, as lmms-eval and VLMEvalKit find them.

/// The letter that VLMEvalKit answers with where a model refuses.
const REFUSED: char = 'Z';
/// Answers that refuse (`can_infer_option`).
const REFUSALS: [&str; 4] = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
];
const FAILED: &str = "Failed to obtain answer via API";

/// VLMEvalKit's `can_infer` (`utils/matching_util.py`): the letter that an answer names, or whose option it quotes.
pub fn vlmevalkit(answer: &str, choices: &[(char, &str)]) -> Option<char> {
    option_named(answer, choices).or_else(|| text_quoted(answer, choices, true))
}

/// `can_infer_option` of VLMEvalKit.
fn option_named(answer: &str, choices: &[(char, &str)]) -> Option<char> {
    if answer.contains(FAILED) {
        return None;
    }
    if REFUSALS.iter().any(|refusal| answer.contains(refusal)) {
        return Some(REFUSED);
    }
    let plain = answer.replace(|letter| ".()[],:;!*#{}".contains(letter), " ");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let place = |letter: char| words.iter().position(|word| is_letter(word, letter));
    let named: Vec<(char, usize)> =
        choices.iter().filter_map(|(letter, _)| Some((*letter, place(*letter)?))).collect();
    match named.as_slice() {
        // A letter before the last four words may be an article.
        [(letter, at)] if at + 5 > words.len() => return Some(*letter),
        [] if place(REFUSED).is_some() => return Some(REFUSED),
        _ => {}
    }
    let letter = answer_is(answer)?;
    choices.iter().any(|(choice, _)| *choice == letter).then_some(letter)
}

fn is_letter(word: &str, letter: char) -> bool {
    let mut letters = word.chars();
    letters.next() == Some(letter) && letters.next().is_none()
}

/// `(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**`: the letter behind "answer is", which may begin a word.
fn answer_is(text: &str) -> Option<char> {
    let lower = text.to_lowercase();
    lower.match_indices("answer").find_map(|(at, word)| {
        let after = spaced(&lower[at + word.len()..])?;
        let after = spaced(after.strip_prefix("is")?)?;
        let letter = after.trim_start_matches('*').chars().next()?;
        ('a'..='d').contains(&letter).then(|| letter.to_ascii_uppercase())
    })
}

/// What follows at least one space.
fn spaced(text: &str) -> Option<&str> {
    let after = text.trim_start();
    (after.len() < text.len()).then_some(after)
}

/// `can_infer_text`: the only option whose text stands in the answer. VLMEvalKit gives up on answers much longer than all
/// options together.
fn text_quoted(answer: &str, choices: &[(char, &str)], not_too_long: bool) -> Option<char> {
    let answer = answer.to_lowercase();
    let length: usize = choices.iter().map(|(_, text)| text.chars().count()).sum();
    if not_too_long && answer.chars().count() > 2 * length {
        return None;
    }
    let mut quoted = choices.iter().filter(|(_, text)| answer.contains(&text.to_lowercase()));
    match (quoted.next(), quoted.next()) {
        (Some((letter, _)), None) => Some(*letter),
        _ => None,
    }
}

/// What may stand around a letter in lmms-eval's `MMBench` rule.
const AROUND: [(&str, &str); 12] = [
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
];

/// lmms-eval's `can_infer` of `MMBench_Evaluator` (`tasks/mmbench/mmbench_evals.py`). Options are the letters A to E,
/// whichever there are.
pub fn mmbench(answer: &str, choices: &[(char, &str)]) -> Option<char> {
    mmbench_option(answer).or_else(|| text_quoted(answer, choices, false))
}

fn mmbench_option(answer: &str) -> Option<char> {
    if answer.contains(FAILED) {
        return None;
    }
    let words: Vec<&str> = answer.split_whitespace().collect();
    let only = |before: &str, after: &str| {
        let mut named =
            ('A'..='E').filter(|letter| words.contains(&format!("{before}{letter}{after}").as_str()));
        named.next().filter(|_| named.next().is_none())
    };
    // "A" in a longer sentence may be an article, whichever letter was found.
    let article = words.contains(&"A") && words.len() > 3;
    let bare = only("", "").filter(|_| !article);
    bare.or_else(|| AROUND.iter().find_map(|(before, after)| only(before, after)))
}

/// Phrases before a letter (`_ANSWER_PHRASES`).
const PHRASES: [&str; 27] = [
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the best answer is",
    "best answer is",
    "the correct option is",
    "correct option is",
    "the best option is",
    "best option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
];

/// How sure a form is (`_FORMAT_PRIORITY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Anywhere,
    Space,
    RightParen,
    Colon,
    Period,
    Parentheses,
    Phrase,
    End,
    Start,
}

/// lmms-eval's `extract_mcq_answer` (`tasks/_task_utils/mcq_extract.py`): of the surest form the last letter.
pub fn lmms_eval(answer: &str, letters: &[char]) -> Option<char> {
    let mut text = answer.trim();
    for sign in [',', '.', '!', '?', ';', ':', '\'', '"'] {
        text = text.trim_matches(sign);
    }
    if answer.trim().is_empty() {
        return None;
    }
    let padded = format!(" {text} ");
    let mut found: Vec<(Form, usize, char)> = Vec::new();
    for (form, before, after) in [
        (Form::Parentheses, "(", ")"),
        (Form::Period, "", "."),
        (Form::Colon, "", ":"),
        (Form::RightParen, "", ")"),
        (Form::Space, "", " "),
    ] {
        let last = |letter: char| padded.rfind(&format!("{before}{letter}{after}"));
        found.extend(letters.iter().filter_map(|letter| Some((form, last(*letter)?, *letter))));
    }
    found.extend(behind_phrases(&padded, letters));
    found.extend(at_the_ends(padded.trim(), padded.len(), letters));
    if found.is_empty() {
        found.extend(
            letters.iter().filter_map(|letter| Some((Form::Anywhere, padded.rfind(*letter)?, *letter))),
        );
    }
    // The first of equal ones, as a stable sort has it.
    let best = found.iter().map(|(form, at, _)| (*form, *at)).max()?;
    found.into_iter().find(|(form, at, _)| (*form, *at) == best).map(|(_, _, letter)| letter)
}

fn behind_phrases(text: &str, letters: &[char]) -> Vec<(Form, usize, char)> {
    let lower = text.to_lowercase();
    let mut found = Vec::new();
    for phrase in PHRASES {
        let Some(after) = lower.find(phrase).map(|at| at + phrase.len()) else { continue };
        let Some(rest) = text.get(after..) else { continue };
        let first = |letter: &char| Some((Form::Phrase, after + rest.find(*letter)?, *letter));
        found.extend(letters.iter().filter_map(first));
    }
    found
}

/// A letter that begins or ends the answer and is no part of a word.
fn at_the_ends(text: &str, length: usize, letters: &[char]) -> Vec<(Form, usize, char)> {
    let alone = |letter: Option<char>| !letter.is_some_and(char::is_alphabetic);
    let (first, last) = (text.chars().next(), text.chars().next_back());
    let starts = letters.iter().filter(|letter| Some(**letter) == first && alone(text.chars().nth(1)));
    let ends = letters.iter().filter(|letter| Some(**letter) == last && alone(text.chars().rev().nth(1)));
    let starts = starts.map(|letter| (Form::Start, 0, *letter));
    starts.chain(ends.map(|letter| (Form::End, length - 1, *letter))).collect()
}
