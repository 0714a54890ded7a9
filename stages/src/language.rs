//! Which language a text is written in, by its script first.
//!
//! In: a text. Out: `zh`, `ja`, `ko`, `en`, or the three letters of ISO 639-3 for any other; nothing where it holds no letter.
//!
//! The rule, made for captions of a few words, which statistics over letters recognise badly:
//! 1. Kana are at least a fifth of the Chinese characters and kana together: Japanese.
//! 2. Korean or Chinese characters are at least as many as the words of other scripts: Korean or Chinese.
//! 3. Otherwise the words decide. Latin letters are English unless there are [`LONG`] of them and trigrams (`whatlang`) are sure
//!    of another language; other scripts are what the trigrams say.

use crate::read::IMAGE_PLACEHOLDER;
use whatlang::{Lang, Script, detect as by_trigrams};

/// Latin letters from which on trigrams are trusted.
const LONG: usize = 100;

#[derive(Default)]
struct Counts {
    han: usize,
    kana: usize,
    hangul: usize,
    /// Runs of letters of any other script.
    words: usize,
    letters: usize,
}

/// The language of a text.
pub fn detect(text: &str) -> Option<&'static str> {
    let counts = count(text);
    let Counts { han, kana, hangul, words, letters } = counts;
    if kana * 5 >= han + kana && kana >= words.max(1) {
        return Some("ja");
    }
    if hangul >= words.max(1) && hangul > han {
        return Some("ko");
    }
    if han + kana >= words.max(1) {
        return Some("zh");
    }
    if letters == 0 {
        return None;
    }
    let guess = by_trigrams(text)?;
    let trusted = guess.script() != Script::Latin || (letters >= LONG && guess.is_reliable());
    Some(if trusted { code(guess.lang()) } else { "en" })
}

/// The language of a conversation, given as role and text of its turns: that of the answers; of the questions where the answers
/// hold no letter, as numbers and emoji do.
pub fn of_conversation(turns: &[(&str, &str)]) -> Option<&'static str> {
    let of = |role: &str| {
        let texts: Vec<&str> = turns.iter().filter(|(by, _)| *by == role).map(|(_, text)| *text).collect();
        detect(&texts.join("\n").replace(IMAGE_PLACEHOLDER, ""))
    };
    of("assistant").or_else(|| of("user"))
}

fn count(text: &str) -> Counts {
    let mut counts = Counts::default();
    let mut in_word = false;
    for letter in text.chars() {
        let own = match letter {
            // CJK unified ideographs with extension A, and the extensions of the supplementary planes.
            '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}' => Some(&mut counts.han),
            // The dot between the parts of a foreign name stands in Chinese texts too.
            '\u{30fb}' => None,
            '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}' => {
                Some(&mut counts.kana)
            }
            '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => Some(&mut counts.hangul),
            _ => None,
        };
        if let Some(count) = own {
            *count += 1;
            in_word = false;
            continue;
        }
        let is_letter = letter.is_alphabetic();
        counts.letters += usize::from(is_letter);
        counts.words += usize::from(is_letter && !in_word);
        // An apostrophe or a hyphen keeps a word together.
        in_word = is_letter || (in_word && matches!(letter, '\'' | '’' | '-'));
    }
    counts
}

fn code(language: Lang) -> &'static str {
    match language {
        Lang::Eng => "en",
        Lang::Cmn => "zh",
        Lang::Jpn => "ja",
        Lang::Kor => "ko",
        other => other.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_captions_are_told_by_their_script() {
        for (text, language) in [
            ("a cat", Some("en")),
            ("actor arrives at the premiere", Some("en")),
            ("一只猫。", Some("zh")),
            ("iPhone 13 Pro Max 手机壳防摔", Some("zh")),
            ("這是一隻貓！😺", Some("zh")),
            ("a sign that says 出口", Some("en")),
            ("猫がソファで寝ている", Some("ja")),
            ("莱昂纳多・迪卡普里奥", Some("zh")),
            ("奥黛丽・赫本", Some("zh")),
            ("ｶﾒﾗ", Some("ja")),
            ("고양이 한 마리", Some("ko")),
            ("Полосатая кошка спит на диване, и никто не хочет её будить, пока идёт дождь.", Some("rus")),
            ("42 + 1 = 43 😀", None),
            ("", None),
        ] {
            assert_eq!(detect(text), language, "{text}");
        }
    }

    #[test]
    fn a_conversation_is_in_the_language_of_its_answers_or_else_of_its_questions() {
        let of = |question, answer| of_conversation(&[("user", question), ("assistant", answer)]);
        assert_eq!(of("What is it?", "一只猫。"), Some("zh"));
        assert_eq!(of("这是什么？", "a cat"), Some("en"));
        assert_eq!(of("<image>\n有几只猫？", "3"), Some("zh"));
        assert_eq!(of("<image>", "3"), None, "a placeholder is no word");
    }

    #[test]
    fn a_long_text_in_another_latin_language_is_not_called_english() {
        let text = "Eine getigerte Katze liegt auf dem Sofa und schläft, während draußen vor dem Fenster der Regen \
                    gegen die Scheiben schlägt und niemand zu Hause ist.";
        assert_eq!(detect(text), Some("deu"));
    }
}
