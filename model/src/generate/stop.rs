//! Texts that end an answer: they may begin in one token and end in another, so what might become one is held back.

/// An answer's text on its way out, watched for stop texts.
#[derive(Clone, Debug, Default)]
pub struct StopText {
    stops: Vec<String>,
    held: String,
}

impl StopText {
    /// Watches for `stops`; an empty one never occurs.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new() }
    }

    /// What of the text so far can be given out, and whether a stop text followed it, which is left out.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(self.held.len() - self.beginning());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was still held back when the answer ended.
    pub fn finish(self) -> String {
        self.held
    }

    /// Bytes at the end of the held text that a stop text may begin with.
    fn beginning(&self) -> usize {
        let longest = |stop: &String| {
            let most = stop.len().saturating_sub(1).min(self.held.len());
            (1..=most).rev().find(|n| stop.is_char_boundary(*n) && self.held.ends_with(&stop[..*n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given out, piece by piece and at the end.
    fn given(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut text = StopText::new(&stops);
        let mut given = Vec::new();
        for piece in pieces {
            let (out, stopped) = text.push(piece);
            given.push(out);
            if stopped {
                return (given, true);
            }
        }
        given.push(text.finish());
        (given, false)
    }

    #[test]
    fn without_stops_text_passes_at_once() {
        assert_eq!(given(&[], &["a", "b"]), (vec!["a".into(), "b".into(), String::new()], false));
        assert_eq!(given(&[""], &["a"]), (vec!["a".into(), String::new()], false));
    }

    #[test]
    fn a_stop_text_over_several_pieces_is_left_out() {
        assert_eq!(
            given(&["\n\nQ:"], &["yes\n", "\nQ", ": no"]),
            (vec!["yes".into(), String::new(), String::new()], true)
        );
        assert_eq!(given(&["END"], &["aENEND!"]), (vec!["aEN".into()], true));
    }

    #[test]
    fn what_only_looked_like_one_is_given_out_later() {
        assert_eq!(given(&["END"], &["aEN", "x"]), (vec!["a".into(), "ENx".into(), String::new()], false));
        assert_eq!(given(&["END"], &["aEN"]), (vec!["a".into(), "EN".into()], false));
    }

    #[test]
    fn the_first_of_several_ends_the_answer_and_characters_stay_whole() {
        assert_eq!(given(&["两", "b"], &["a两b"]), (vec!["a".into()], true));
        assert_eq!(
            given(&["好的"], &["不好", "吧"]),
            (vec!["不".into(), "好吧".into(), String::new()], false)
        );
    }
}
