//! Token ids as text a person can read.
//!
//! In: ids, which of them carry loss, and a decoder. Out: [`Token`]s: ids that only together are a character are joined
//! (a Chinese character can take three), and long runs of one token (image pads) are counted.

use super::row::Token;

/// Most tokens one character can take: a character has at most four bytes, a token at least one.
const MOST_JOINED: usize = 4;

/// Shortest run that is counted instead of written out.
const SHORTEST_RUN: usize = 4;

/// Rows `input_ids` and `train` of `tokenize`.
pub fn of_tokenize(ids: &[u32], train: &[bool], decode: &dyn Fn(&[u32]) -> String) -> Vec<Token> {
    let flagged: Vec<(u32, bool)> = ids.iter().copied().zip(train.iter().copied()).collect();
    tokens(&flagged, decode)
}

/// Rows `input_ids` and `labels` of `shift-labels`: label i is the token after id i, and a negative one carries no loss.
pub fn of_shift_labels(ids: &[u32], labels: &[i32], decode: &dyn Fn(&[u32]) -> String) -> Vec<Token> {
    let mut flagged: Vec<(u32, bool)> = Vec::with_capacity(ids.len() + 1);
    flagged.extend(ids.first().map(|&first| (first, false)));
    for (index, &label) in labels.iter().enumerate() {
        let train = label >= 0;
        let id = ids.get(index + 1).copied().or_else(|| u32::try_from(label).ok());
        flagged.extend(id.map(|id| (id, train)));
    }
    tokens(&flagged, decode)
}

fn tokens(flagged: &[(u32, bool)], decode: &dyn Fn(&[u32]) -> String) -> Vec<Token> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&(id, train)) = flagged.get(at) {
        let run = flagged[at..].iter().take_while(|&&next| next == (id, train)).count();
        if run >= SHORTEST_RUN {
            out.push(Token { text: decode(&[id]), ids: vec![id], times: run, train });
            at += run;
            continue;
        }
        let same: Vec<u32> = flagged[at..]
            .iter()
            .take(MOST_JOINED)
            .take_while(|(_, other)| *other == train)
            .map(|(id, _)| *id)
            .collect();
        let whole =
            (1..=same.len()).map(|n| (n, decode(&same[..n]))).find(|(_, text)| !text.contains('\u{FFFD}'));
        let (n, text) = whole.unwrap_or_else(|| (1, decode(&same[..1])));
        out.push(Token { text, ids: same[..n].to_vec(), times: 1, train });
        at += n;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token n is byte n, as in a byte-level tokenizer; 300 is a pad.
    fn decode(ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().flat_map(|&id| if id == 300 { b"<pad>".to_vec() } else { vec![id as u8] }).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn shown(tokens: &[Token]) -> String {
        let one = |token: &Token| {
            let times = if token.times > 1 { format!("*{}", token.times) } else { String::new() };
            format!("{}{times}{}", token.text, if token.train { "!" } else { "" })
        };
        tokens.iter().map(one).collect::<Vec<_>>().join("|")
    }

    fn ids(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn bytes_of_one_character_are_joined_and_runs_are_counted() {
        let mut all = ids("a图");
        all.extend([300; 49]);
        let train = vec![false; all.len()];
        assert_eq!(shown(&of_tokenize(&all, &train, &decode)), "a|图|<pad>*49");
    }

    #[test]
    fn a_broken_character_is_shown_and_ends_nothing() {
        let all = [ids("图")[0], u32::from(b'a')];
        assert_eq!(shown(&of_tokenize(&all, &[true, false], &decode)), "\u{FFFD}!|a");
    }

    #[test]
    fn shifted_labels_mark_the_token_they_predict() {
        let ids = ids("abc");
        let labels = [-100, i32::from(b'c'), i32::from(b'd')];
        assert_eq!(shown(&of_shift_labels(&ids, &labels, &decode)), "a|b|c!|d!");
        assert_eq!(shown(&of_shift_labels(&ids, &[-100; 3], &decode)), "a|b|c");
    }
}
