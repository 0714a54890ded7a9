//! Questions as lmms-eval asks them (its tasks' `doc_to_text` with `default` arguments).

use super::item::Item;

const WORD: &str = "\nAnswer the question using a single word or phrase.";
const LETTER: &str = "\nAnswer with the option's letter from the given choices directly.";
const LETTER_CN: &str = "\n请直接使用所提供的选项字母作为答案回答。";

/// As written.
pub fn plain(item: &Item) -> String {
    item.question.trim().to_owned()
}

/// A word or phrase is wanted.
pub fn word(item: &Item) -> String {
    plain(item) + WORD
}

/// A word is wanted; MME's own request for yes or no gives way to it.
pub fn mme(item: &Item) -> String {
    item.question.trim().replace(" Please answer yes or no.", "") + WORD
}

/// `TextVQA` writes its questions with one capital.
pub fn textvqa(item: &Item) -> String {
    let lower = item.question.to_lowercase();
    let mut letters = lower.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    first + letters.as_str() + WORD
}

/// The options under the question, each on a line.
fn options(item: &Item) -> String {
    item.choices().map(|(letter, text)| format!("\n{letter}. {text}")).collect()
}

/// A letter is wanted.
pub fn letter(item: &Item) -> String {
    format!("{}{}{LETTER}", item.question, options(item))
}

/// As written, with the options of VLMEvalKit's table, which lmms-eval's questions have in their words.
pub fn realworldqa(item: &Item) -> String {
    if item.choices().next().is_some() { letter(item) } else { plain(item) }
}

/// The options stand in the question; in VLMEvalKit's table they do not.
pub fn mmstar(item: &Item) -> String {
    if item.choices().next().is_some() {
        return letter(item);
    }
    format!("{}{}", item.question.trim(), LETTER.trim_end_matches('.'))
}

/// `ScienceQA`'s hint goes before the question.
pub fn scienceqa(item: &Item) -> String {
    let hint = item.hint.as_ref().map(|hint| format!("Context: {hint}\n")).unwrap_or_default();
    hint + &letter(item)
}

fn several(item: &Item, are: &str, post: &str) -> String {
    let hint = item.hint.as_ref().map(|hint| format!("{hint} ")).unwrap_or_default();
    format!("{hint}{} {are}{}\n{post}", item.question, options(item))
}

/// English.
pub fn mmbench_en(item: &Item) -> String {
    several(item, "There are several options:", LETTER)
}

/// Chinese.
pub fn mmbench_cn(item: &Item) -> String {
    several(item, "有如下几个选项：", LETTER_CN)
}

/// A caption is wanted.
pub fn caption(_item: &Item) -> String {
    "Provide a one-sentence caption for the provided image.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_asked_for_wherever_the_file_has_them() {
        let inside = Item { question: "Which?\nOptions: A: cat, B: dog".to_owned(), ..Item::default() };
        let options = [('A', "cat"), ('B', "dog")].map(|(letter, text)| (letter, text.to_owned())).to_vec();
        let beside = Item { question: "Which?".to_owned(), options, ..Item::default() };
        for prompt in [mmstar, realworldqa] {
            assert_eq!(prompt(&inside).matches("cat").count(), 1);
            assert!(prompt(&beside).starts_with("Which?\nA. cat\nB. dog\n"), "{}", prompt(&beside));
        }
    }
}
