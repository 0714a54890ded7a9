//! Untrusted text made fit for a terminal: what data, file names, models or servers wrote can move no cursor, change no title
//! and turn no line around. The one place that decides how such characters look.

use std::borrow::Cow;

/// `text` with every control character but line break and tab shown as a sign of its own.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.contains(is_hidden) {
        Cow::Owned(text.chars().map(|c| if is_hidden(c) { sign(c) } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// As [`visible`], on one line.
pub fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// As [`visible`], with as many bytes as before in each place: for text that others point into.
pub fn visible_in_place(text: &str) -> String {
    let stand_in = |c: char| match c.len_utf8() {
        1 => '?',
        2 => '¿',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(|c| if is_hidden(c) && c != '\r' { stand_in(c) } else { c }).collect()
}

/// JSON whose strings hold no such character as it is; the values stay the same.
pub fn visible_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            let escape = format!("\\u{:04x}", u32::from(c));
            out.push_str(&escape);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Controls of ASCII and of ISO 6429, and what turns the direction of writing.
fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => c.is_control(),
    }
}

/// The image that Unicode has for a control of ASCII; a replacement character for others.
fn sign(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '␡',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "\x1b]0;title\x07 a\rb \u{9b}2J \u{202e}x\u{7f}";

    #[test]
    fn control_characters_become_signs_and_plain_text_stays() {
        assert_eq!(visible(HOSTILE), "␛]0;title␇ a␍b \u{FFFD}2J \u{FFFD}x␡");
        assert_eq!(visible("图\n\ta é"), "图\n\ta é");
        assert_eq!(one_line("a\nb\x1b"), "a b␛");
    }

    #[test]
    fn places_stay_the_same() {
        let shown = visible_in_place(HOSTILE);
        assert_eq!((shown.len(), shown.find('J')), (HOSTILE.len(), HOSTILE.find('J')));
        assert!(!shown.contains('\x1b') && !shown.contains('\u{9b}'), "{shown:?}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let json = serde_json::to_string(HOSTILE).unwrap();
        let shown = visible_json(&json);
        assert!(!shown.contains(is_hidden), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), HOSTILE);
    }
}
