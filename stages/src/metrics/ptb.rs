//! Words the Penn Treebank way, as COCO's evaluation sees them: Stanford's `PTBTokenizer` 3.4.1 with `-lowerCase`, then
//! the punctuation that pycocoevalcap drops.
//!
//! Kept here are its rules for captions: contractions are split (`do n't`, `it 's`, `can not`), words joined by hyphen,
//! slash, ampersand or point stay whole, abbreviations keep their point, brackets become `-lrb-` and so on (which
//! pycocoevalcap, looking for capitals, does not drop), signs are rewritten (£ to `#`, ½ to `1/2`), and what its lexer
//! does not know (zero-width spaces, emoji, many punctuation marks) ends a word and is dropped; `ptb_chars.rs` lists it,
//! character by character. Not followed: emoticons, HTML entities. `tests/metrics/captions.json` holds what the original
//! says.

use super::ptb_chars::{DROPPED, SIGNS};

/// Abbreviations that keep their point, by themselves; single letters do, too.
const ABBREVIATIONS: &str = " jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri mr mrs ms dr \
    prof st ave blvd rd jr sr co corp inc ltd bros vs etc e.g i.e cf al dept est ft gen col lt sgt capt cmdr gov sen rep \
    rev hon pres mt u.s a.m p.m calif mich minn ind va tenn ga fla conn md mo mont neb nev okla penn wis wyo ariz colo esq \
    ph.d messrs mme mlle maj adm supt atty ct sq bldg seq tel ext univ assn plc pty ";
/// Words that are two.
const COMPOUNDS: [(&str, usize); 6] =
    [("cannot", 3), ("gonna", 3), ("gotta", 3), ("wanna", 3), ("lemme", 3), ("gimme", 3)];
/// Contractions, split off the end of a word.
const SUFFIXES: [&str; 7] = ["n't", "'s", "'m", "'d", "'ll", "'re", "'ve"];
/// Short forms that begin with an apostrophe.
const CLIPPED: [(&str, &[&str]); 5] = [
    ("'tis", &["'t", "is"]),
    ("'twas", &["'t", "was"]),
    ("'em", &["'em"]),
    ("'n'", &["'n'"]),
    ("'til", &["'til"]),
];

/// The words of `text`, lower case.
pub fn words(text: &str) -> Vec<String> {
    // A soft hyphen joins what it stands between; nothing else unknown does.
    let text: String = text.chars().filter(|letter| *letter != '\u{AD}').map(plain).collect();
    let text = text.to_lowercase();
    let mut chunks = text.split_whitespace().peekable();
    let mut words = Vec::new();
    while let Some(chunk) = chunks.next() {
        // "no. 5" is an abbreviation, "no." is an answer.
        let numbered = chunks.peek().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()));
        match chunk {
            "no." if numbered => words.push(chunk.to_owned()),
            _ => words.extend(Chunk::words(chunk)),
        }
    }
    words
}

/// Typographic signs (those of Windows-1252 among the control characters, too) as the typewriter's, unknown ones as spaces.
fn plain(letter: char) -> char {
    match letter {
        '\u{91}' | '\u{92}' | '\u{2018}' | '\u{2019}' | '\u{201B}' | '\u{2039}' | '\u{203A}' => '\'',
        '\u{93}' | '\u{94}' | '\u{201C}' | '\u{201D}' | '\u{00AB}' | '\u{00BB}' => '"',
        '\u{96}' | '\u{97}' | '\u{2013}' | '\u{2014}' | '\u{2015}' => '—',
        '\u{80}' | '\u{A4}' | '\u{20A0}' | '\u{20AC}' => '$',
        // Upper and lower case may differ in being known; the lexer reads what was written.
        other if is_dropped(other) => ' ',
        other => other,
    }
}

/// Whether the lexer does not know a character.
fn is_dropped(letter: char) -> bool {
    match u16::try_from(u32::from(letter)) {
        Ok(letter) => is_in(&DROPPED, letter),
        // Java sees two surrogates.
        Err(_) => true,
    }
}

/// Whether a character is part of a word.
fn is_letter(letter: char) -> bool {
    match u16::try_from(u32::from(letter)) {
        Ok(0..=0x7F) => letter.is_ascii_alphanumeric() || letter == '_',
        Ok(other) => !is_in(&SIGNS, other) && !is_in(&DROPPED, other),
        Err(_) => false,
    }
}

/// Whether a sorted list of ranges holds a character.
fn is_in(ranges: &[(u16, u16)], letter: u16) -> bool {
    let after = ranges.partition_point(|(start, _)| *start <= letter);
    after > 0 && letter <= ranges[after - 1].1
}

/// What stands between two spaces, while it is read.
struct Chunk<'a> {
    rest: &'a str,
    words: Vec<String>,
}

impl Chunk<'_> {
    fn words(text: &str) -> Vec<String> {
        let mut chunk = Chunk { rest: text, words: Vec::new() };
        while let Some(letter) = chunk.rest.chars().next() {
            let taken = chunk.whole().or_else(|| chunk.word());
            let length = taken.unwrap_or_else(|| chunk.sign(letter));
            chunk.rest = &chunk.rest[length..];
        }
        chunk.words
    }

    fn push(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    /// Addresses, tags and clipped words: taken as they are. Each of these answers with the bytes it took.
    fn whole(&mut self) -> Option<usize> {
        let rest = self.rest;
        if ["http://", "https://", "www."].iter().any(|start| rest.starts_with(start)) {
            let address = rest.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"', '\'']);
            self.push(address);
            return Some(address.len());
        }
        let inside = rest.strip_prefix('<').and_then(|tag| tag.find(['>', '<']));
        if let Some(end) = inside.filter(|end| *end > 0 && rest[end + 1..].starts_with('>')) {
            self.push(&rest[..end + 2]);
            return Some(end + 2);
        }
        let ends = |after: &str| !after.starts_with(char::is_alphanumeric);
        let clipped = CLIPPED.iter().find(|(form, _)| rest.strip_prefix(form).is_some_and(ends))?;
        clipped.1.iter().for_each(|word| self.push(word));
        Some(clipped.0.len())
    }

    /// A word or number with all that is joined to it.
    fn word(&mut self) -> Option<usize> {
        let end = word_end(self.rest)?;
        let (word, after) = self.rest.split_at(end);
        if after.starts_with('.') && !after.starts_with("..") && keeps_point(word) {
            self.push(&format!("{word}."));
            return Some(end + 1);
        }
        self.contracted(word);
        Some(end)
    }

    /// A word without its contractions, then these.
    fn contracted(&mut self, word: &str) {
        if let Some((_, cut)) = COMPOUNDS.iter().find(|(whole, _)| *whole == word) {
            self.push(&word[..*cut]);
            self.push(&word[*cut..]);
            return;
        }
        let suffix = SUFFIXES.iter().find(|suffix| word.len() > suffix.len() && word.ends_with(*suffix));
        match suffix {
            Some(suffix) => {
                self.contracted(&word[..word.len() - suffix.len()]);
                self.push(suffix);
            }
            None => self.push(word),
        }
    }

    /// A sign, or a run of the same kind; most are dropped.
    fn sign(&mut self, letter: char) -> usize {
        let run = |chars: &[char]| self.rest.len() - self.rest.trim_start_matches(chars).len();
        match letter {
            '!' | '?' => {
                let length = run(&['!', '?']);
                let signs = &self.rest[..length];
                if length > 1 {
                    self.words.push(signs.to_owned());
                }
                return length;
            }
            '(' => self.push("-lrb-"),
            ')' => self.push("-rrb-"),
            '[' => self.push("-lsb-"),
            ']' => self.push("-rsb-"),
            '{' => self.push("-lcb-"),
            '}' => self.push("-rcb-"),
            '.' | ',' | ':' | ';' | '-' | '—' | '…' | '\'' | '"' | '`' => {}
            '¢' => self.push("cents"),
            '£' => self.push("#"),
            '¼' => self.push("1/4"),
            '½' => self.push("1/2"),
            '¾' => self.push("3/4"),
            '⅓' => self.push("1/3"),
            '⅔' => self.push("2/3"),
            other => self.words.push(other.to_string()),
        }
        letter.len_utf8()
    }
}

/// Where the word ends that `text` begins with; `None` when it begins with a sign.
fn word_end(text: &str) -> Option<usize> {
    let letters: Vec<(usize, char)> = text.char_indices().collect();
    let at = |index: usize| letters.get(index).map(|(_, letter)| *letter);
    let digit = |index: usize| at(index).is_some_and(|letter| letter.is_ascii_digit());
    let inner = |index: usize| at(index).is_some_and(is_letter);
    // A sign or a tag's mark may begin a word: -5, .5, #tag, @you, '80s.
    let begins = match at(0)? {
        '+' | '-' | '.' | '\'' => digit(1),
        '#' => at(1).is_some_and(char::is_alphabetic),
        '@' => inner(1),
        _ => inner(0),
    };
    if !begins {
        return None;
    }
    let joins = |index: usize| match at(index) {
        Some('-' | '\u{2010}' | '\u{2011}' | '/' | '&' | '@' | '.' | '\'' | '!' | '?') => {
            inner(index + 1) && inner(index - 1)
        }
        Some(',' | ':') => digit(index + 1) && digit(index - 1),
        _ => false,
    };
    let end = (1..letters.len()).find(|index| !inner(*index) && !joins(*index));
    Some(end.map_or(text.len(), |index| letters[index].0))
}

/// Whether a point behind the word belongs to it: abbreviations, initials, `a.b`.
fn keeps_point(word: &str) -> bool {
    let single = |part: &str| part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
    word.split('.').all(single) || ABBREVIATIONS.contains(&format!(" {word} "))
}
