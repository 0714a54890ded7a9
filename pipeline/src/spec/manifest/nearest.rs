//! "Did you mean …?"

/// The candidate that `wrong` is most likely a slip of, if any is close: a third of its letters may differ (one in three
/// letters, two in four to eight), or one holds the other. Case, `-` and `_` do not count.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = plain(wrong);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((closeness(&wrong, &plain(candidate))?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of letters to change, or `None` when the two are no slip of each other.
fn closeness(wrong: &str, candidate: &str) -> Option<usize> {
    let letters = candidate.chars().count();
    let allowed = if letters <= 3 { 1 } else { (letters / 3).max(2) };
    let distance = strsim::damerau_levenshtein(wrong, candidate);
    if distance <= allowed && distance < letters.max(wrong.chars().count()) {
        return Some(distance);
    }
    let shorter = wrong.len().min(candidate.len());
    (shorter >= 3 && (candidate.contains(wrong) || wrong.contains(candidate))).then_some(allowed + 1)
}

/// Advice for an unknown name: the nearest one, and all there are. `what` names them in the plural ("kinds").
pub fn did_you_mean<'a>(
    wrong: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    let all: Vec<&str> = candidates.clone().into_iter().collect();
    let known = if all.is_empty() {
        format!("There are no {what}.")
    } else {
        format!("{}: {}.", capital(what), all.join(", "))
    };
    match nearest(wrong, candidates) {
        Some(name) => format!("Did you mean `{name}`? {known}"),
        None => known,
    }
}

fn plain(name: &str) -> String {
    // Comparing is quadratic; nothing that long is a slip of a name.
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).take(64).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 4] = ["read", "decode-resize", "chat-template", "tokenize"];

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        assert_eq!(nearest("tokenise", KINDS), Some("tokenize"));
        assert_eq!(nearest("Decode_Resize", KINDS), Some("decode-resize"));
        assert_eq!(nearest("raed", KINDS), Some("read"));
        assert_eq!(nearest("template", KINDS), Some("chat-template"));
        assert_eq!(nearest("shuffle", KINDS), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", KINDS), None);
    }

    #[test]
    fn advice_lists_all_names() {
        assert_eq!(
            did_you_mean("red", "kinds", KINDS),
            "Did you mean `read`? Kinds: read, decode-resize, chat-template, tokenize."
        );
        assert_eq!(did_you_mean("x", "variables", []), "There are no variables.");
    }
}
