//! Where `${…}` stands in a string.

/// A stretch of a string with references.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Reference(&'a str),
}

/// Splits a string at its references; `None` when one is not closed.
pub(super) fn pieces(string: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = string;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(kept) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(kept), Piece::Text("${")]);
            rest = from.strip_prefix("${")?;
        } else {
            let (name, after) = from.strip_prefix("${")?.split_once('}')?;
            pieces.extend([Piece::Text(before), Piece::Reference(name.trim())]);
            rest = after;
        }
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_split_at_its_references() {
        use Piece::{Reference, Text};
        assert_eq!(pieces("a/${raw}/b"), Some(vec![Text("a/"), Reference("raw"), Text("/b")]));
        assert_eq!(pieces("${ raw }"), Some(vec![Reference("raw")]));
        assert_eq!(pieces("$${raw}$x"), Some(vec![Text("${"), Text("raw}$x")]));
        assert_eq!(pieces("cost $5"), Some(vec![Text("cost $5")]));
        assert_eq!(pieces("${raw"), None);
    }
}
