//! Exact match: whether an answer is the reference, give or take spelling that means nothing.
//!
//! Both are brought to one form: Unicode NFKC (so that full-width letters and digits are the plain ones), lower case,
//! characters that cannot be seen (zero-width spaces and the like) dropped, and every character that is neither letter nor digit counts as a space, except a point or comma between two digits
//! ("2.5") and a sign before a number ("-5"); spaces are then collapsed and trimmed. Articles stay. Texts that nothing is
//! left of are compared as they are.

use tokenizers::NormalizedString;

/// Whether `answer` says what `reference` says, to the word.
pub fn is_exact(answer: &str, reference: &str) -> bool {
    let (left, right) = (normalise(answer), normalise(reference));
    if left.is_empty() && right.is_empty() { answer.trim() == reference.trim() } else { left == right }
}

/// Unicode NFKC in lower case.
pub fn plain(text: &str) -> String {
    let mut text = NormalizedString::from(text);
    text.nfkc();
    text.get().to_lowercase()
}

/// Whether a character leaves a trace on paper: soft hyphens, zero-width signs, direction marks and variation selectors do
/// not.
pub fn visible(letter: char) -> bool {
    !matches!(letter, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}')
}

/// The form that is compared.
pub fn normalise(text: &str) -> String {
    let letters: Vec<char> = plain(text).chars().filter(|letter| visible(*letter)).collect();
    let digit = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(char::is_ascii_digit);
    let kept = |at: usize, letter: char| {
        let (before, after) = (at.checked_sub(1), Some(at + 1));
        match letter {
            '.' | ',' => digit(before) && digit(after),
            '-' | '+' | '\u{2212}' => digit(after) && before.is_none_or(|at| !letters[at].is_alphanumeric()),
            _ => letter.is_alphanumeric(),
        }
    };
    let spaced: String = letters
        .iter()
        .enumerate()
        .map(|(at, letter)| match letter {
            '\u{2212}' if kept(at, *letter) => '-',
            _ if kept(at, *letter) => *letter,
            _ => ' ',
        })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_and_width_mean_nothing() {
        for (answer, reference) in [
            ("Red.", "red"),
            ("  top-left ", "Top left"),
            ("红色。", "红色"),
            ("３个", "3个"),
            ("It's 2.5!", "it s 2.5"),
            ("re\u{200B}d\u{FEFF}", "red"),
        ] {
            assert!(is_exact(answer, reference), "{answer} | {reference}");
        }
    }

    #[test]
    fn numbers_signs_and_articles_mean_something() {
        for (answer, reference) in [
            ("-5", "5"),
            ("2.5", "25"),
            ("a red circle", "red circle"),
            ("+", "-"),
            ("", "red"),
            ("12", "1 2"),
        ] {
            assert!(!is_exact(answer, reference), "{answer} | {reference}");
        }
        assert!(is_exact("5-6 people", "5 6 people"), "a dash between numbers is no sign");
        assert!(is_exact("\u{2212}5", "-5"));
    }
}
