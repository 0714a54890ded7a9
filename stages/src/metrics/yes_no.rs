//! Answers to yes/no questions, by the rule of POPE (arXiv:2305.10355, `evaluate.py`), and the same for Chinese.
//!
//! - A question is a yes/no question when its reference begins so: in English with the word yes or no; in Chinese when its
//!   first clause is one of [`CHINESE_YES`] or [`CHINESE_NO`].
//! - An answer's first sentence decides. English, as POPE: commas removed, split at spaces; any of `No`, `no`, `not` means
//!   no, everything else yes. Chinese (a reference in Chinese): 不, 没, 否 or 无 means no, everything else yes.

use super::words::is_chinese;

/// First clauses that say yes.
const CHINESE_YES: [&str; 10] = ["是", "是的", "对", "对的", "有", "有的", "会", "能", "可以", "在"];
/// First clauses that say no.
const CHINESE_NO: [&str; 14] = [
    "否",
    "不",
    "不是",
    "不是的",
    "不对",
    "不会",
    "不能",
    "不可以",
    "不在",
    "没",
    "没有",
    "没有的",
    "无",
    "非",
];

/// What the right answer is: `None` when the question is no yes/no question.
pub fn truth(reference: &str) -> Option<bool> {
    let clause = reference.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if is_chinese(reference) {
        let yes = CHINESE_YES.contains(&clause).then_some(true);
        return yes.or_else(|| CHINESE_NO.contains(&clause).then_some(false));
    }
    match clause.to_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What the answer to a yes/no question says. `chinese`: the reference's language.
pub fn says_yes(answer: &str, chinese: bool) -> bool {
    if chinese {
        let sentence =
            answer.trim().split(['。', '！', '？', '.', '!', '?', '\n']).next().unwrap_or_default();
        return !sentence.contains(['不', '没', '否', '无']);
    }
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split_whitespace().any(|word| ["No", "no", "not"].contains(&word))
}

/// Right and wrong answers; yes is the positive one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct YesNo {
    /// Yes, rightly.
    pub true_positive: f64,
    /// Yes, wrongly.
    pub false_positive: f64,
    /// No, rightly.
    pub true_negative: f64,
    /// No, wrongly.
    pub false_negative: f64,
}

impl YesNo {
    /// Counts an answer `weight` times.
    pub fn add(&mut self, said: bool, truth: bool, weight: f64) {
        let count = match (said, truth) {
            (true, true) => &mut self.true_positive,
            (true, false) => &mut self.false_positive,
            (false, false) => &mut self.true_negative,
            (false, true) => &mut self.false_negative,
        };
        *count += weight;
    }

    /// Questions.
    pub fn rows(&self) -> f64 {
        self.true_positive + self.false_positive + self.true_negative + self.false_negative
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        (self.true_positive + self.true_negative) / self.rows()
    }

    /// Of the answers yes, the share that is right.
    pub fn precision(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Of the questions to be answered yes, the share that was.
    pub fn recall(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_negative)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        share(2.0 * precision * recall, precision + recall)
    }

    /// Share of answers that say yes; a model that always agrees has 1.
    pub fn yes_ratio(&self) -> f64 {
        (self.true_positive + self.false_positive) / self.rows()
    }
}

/// Zero of nothing is zero, as in scikit-learn.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_says_whether_it_is_a_yes_no_question() {
        for (reference, expected) in [
            ("Yes", Some(true)),
            ("no, it is not.", Some(false)),
            ("None of them", None),
            ("是的，图中有一个圆形。", Some(true)),
            ("没有。", Some(false)),
            ("有三个圆形", None),
            ("不规则的形状", None),
            ("a yes", None),
            ("", None),
        ] {
            assert_eq!(truth(reference), expected, "{reference}");
        }
    }

    #[test]
    fn answers_are_read_as_pope_reads_them() {
        for (answer, yes) in [
            ("Yes, there is a dog.", true),
            ("No, there is no dog", false),
            ("There is not, I think", false),
            ("There is. No doubt", true),
            ("NO", true),
            ("", true),
        ] {
            assert_eq!(says_yes(answer, false), yes, "{answer}");
        }
        for (answer, yes) in
            [("是", true), ("不是", false), ("图中没有圆形。", false), ("有。不过很小", true), ("否", false)]
        {
            assert_eq!(says_yes(answer, true), yes, "{answer}");
        }
    }

    #[test]
    fn the_table_of_a_known_confusion() {
        let mut table = YesNo::default();
        for (said, truth, times) in
            [(true, true, 6.0), (true, false, 2.0), (false, false, 8.0), (false, true, 4.0)]
        {
            table.add(said, truth, times);
        }
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(table.accuracy(), 0.7);
        close(table.precision(), 0.75);
        close(table.recall(), 0.6);
        close(table.f1(), 2.0 / 3.0);
        close(table.yes_ratio(), 0.4);
    }
}
