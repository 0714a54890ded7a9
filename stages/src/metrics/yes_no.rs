//! Answers to yes/no questions.
//!
//! | what | by |
//! |---|---|
//! | is it a yes/no question, and what is right | [`truth`] of the reference: its first clause says yes or no and nothing else |
//! | what was answered | [`says`]: first [`truth`], so that an answer equal to its reference is right; then the words of its first sentence |
//! | the same by POPE's own rule | [`pope`] (arXiv:2305.10355, `evaluate.py`): any of `No`, `no`, `not` in the first sentence means no, everything else yes |
//!
//! Each text is read by its own language, Chinese where its first sentence holds a Han character. In a sentence the first
//! word that decides counts: of English ones yes or no, not, -n't and so on; of jieba's 有, 是, 没有, 不 and so on. So
//! neither 不锈钢 nor 无人机 says no. An English statement without such a word says yes, as in POPE; a lone other word,
//! nothing, and "I don't know" say neither.

use super::exact::{plain, visible};
use super::words::{Words, is_chinese};

const YES: [&str; 4] = ["yes", "yeah", "yep", "yup"];
const NO: [&str; 3] = ["no", "nope", "nah"];
/// What may follow yes or no without a comma: the beginning of a sentence. "No parking" is none.
const BEGINNINGS: [&str; 19] = [
    "there", "there's", "it", "it's", "this", "that", "that's", "these", "those", "he", "she", "they", "we",
    "you", "i", "i'm", "the", "a", "not",
];
/// Answers that say yes, and no, when they stand alone.
const ALONE_YES: [&str; 8] =
    ["true", "correct", "right", "sure", "certainly", "absolutely", "definitely", "indeed"];
const ALONE_NO: [&str; 3] = ["false", "incorrect", "wrong"];
/// Words that say no wherever they stand; so does every word that ends in n't.
const NEGATIONS: [&str; 10] =
    ["no", "nope", "nah", "not", "none", "never", "neither", "nothing", "nobody", "cannot"];
/// A sentence with one of these answers nothing.
const EVASIONS: [&str; 20] = [
    "don't know",
    "do not know",
    "not sure",
    "unsure",
    "unclear",
    "can't tell",
    "cannot tell",
    "hard to say",
    "hard to tell",
    "can't determine",
    "cannot determine",
    "cannot be determined",
    "不知道",
    "不确定",
    "不清楚",
    "无法",
    "看不清",
    "不好说",
    "未知",
    "抱歉",
];

/// First clauses that say yes.
const CHINESE_YES: [&str; 16] = [
    "是",
    "对",
    "有",
    "会",
    "能",
    "可以",
    "在",
    "存在",
    "正确",
    "没错",
    "当然",
    "当然是",
    "当然有",
    "嗯",
    "确实",
    "的确",
];
/// First clauses that say no.
const CHINESE_NO: [&str; 22] = [
    "否",
    "不",
    "不是",
    "不对",
    "不会",
    "不能",
    "不可以",
    "不在",
    "不存在",
    "不正确",
    "不行",
    "没",
    "没有",
    "没在",
    "无",
    "非",
    "并不",
    "并不是",
    "并没有",
    "并非",
    "错",
    "错误",
];
/// Endings that change nothing: 是的, 对啊, 没有呢.
const PARTICLES: [char; 10] = ['的', '了', '啊', '呀', '哦', '呢', '吧', '嘛', '喔', '哟'];
/// jieba's words that say yes in a sentence, unless a negation follows at once.
const CHINESE_AFFIRMS: [&str; 21] = [
    "是", "有", "会", "能", "可以", "存在", "对", "正确", "没错", "这是", "那是", "都是", "就是", "也是",
    "正是", "都有", "也有", "还有", "具有", "含有", "带有",
];
/// jieba's words that say no in a sentence, beside those that begin with one of [`NEGATORS`].
const CHINESE_DENIES: [&str; 14] =
    ["不", "没", "否", "无", "非", "未", "并非", "否定", "毫无", "并未", "并无", "错误", "从未", "没什么"];
/// Words of these and a verb: 不是, 没有, 不存在, 看不到 is told apart by jieba.
const NEGATORS: [&str; 19] = [
    "不是",
    "不会",
    "不能",
    "不可",
    "不在",
    "不存在",
    "不对",
    "不行",
    "不像",
    "不见",
    "不要",
    "不到",
    "并不",
    "并没",
    "没有",
    "没在",
    "没见",
    "看不到",
    "看不见",
];
/// Words that ask rather than answer.
const CHINESE_ASKS: [&str; 4] = ["是否", "是不是", "有没有", "能否"];

/// What the right answer is: `None` when the question is no yes/no question.
pub fn truth(reference: &str) -> Option<bool> {
    let text = clean(reference);
    let text = text.trim_start_matches(|letter: char| !letter.is_alphanumeric());
    let (clause, rest) = text.split_at(text.find(ends_clause).unwrap_or(text.len()));
    let clause = clause.trim();
    if is_chinese(clause) {
        return chinese_clause(clause);
    }
    // "No. 5" is a number.
    let number = rest.strip_prefix('.').is_some_and(|rest| rest.trim().starts_with(|c: char| c.is_numeric()));
    let mut words = clause.split_whitespace();
    let said = said_by(words.next()?, &YES, &NO)?;
    let whole = words.next().is_none_or(|next| next == "-" || BEGINNINGS.contains(&next));
    (whole && !number).then_some(said)
}

/// What an answer to a yes/no question says; `None` when neither.
pub fn says(answer: &str, words: &mut Words) -> Option<bool> {
    truth(answer).or_else(|| {
        let text = clean(answer);
        let sentence = first_sentence(&text);
        if EVASIONS.iter().any(|evasion| sentence.contains(evasion)) {
            return None;
        }
        if is_chinese(sentence) { chinese_sentence(sentence, words) } else { english_sentence(sentence) }
    })
}

/// What an answer says by POPE's own rule.
pub fn pope(answer: &str) -> bool {
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| ["No", "no", "not"].contains(&word))
}

/// One form of every spelling: NFKC, lower case, typewriter's apostrophes, nothing that cannot be seen.
fn clean(text: &str) -> String {
    let text: String = plain(text).chars().filter(|letter| visible(*letter)).collect();
    text.trim().replace(['\u{2018}', '\u{2019}'], "'")
}

/// Whether a clause ends here. Hyphens and slashes join words: "no-one", "yes/no".
fn ends_clause(letter: char) -> bool {
    !(letter.is_alphanumeric() || letter == ' ' || "'-/&_".contains(letter))
}

fn first_sentence(text: &str) -> &str {
    let text = text.trim_start_matches(|letter: char| !letter.is_alphanumeric());
    text.split(['.', '!', '?', '。', '\n']).next().unwrap_or_default()
}

fn said_by(word: &str, yes: &[&str], no: &[&str]) -> Option<bool> {
    let said = yes.contains(&word).then_some(true);
    said.or_else(|| no.contains(&word).then_some(false))
}

fn english_sentence(sentence: &str) -> Option<bool> {
    let letters = |letter: char| letter.is_alphanumeric() || letter == '\'';
    let words: Vec<&str> =
        sentence.split(|letter| !letters(letter)).filter(|word| !word.is_empty()).collect();
    if let [word] = words.as_slice() {
        return said_by(word, &ALONE_YES, &ALONE_NO).or_else(|| said_by(word, &YES, &NEGATIONS));
    }
    let decides = |(at, word): (usize, &&str)| {
        let doubtless = *word == "no" && words.get(at + 1) == Some(&"doubt");
        let denies = (NEGATIONS.contains(word) && !doubtless) || word.ends_with("n't");
        if denies { Some(false) } else { YES.contains(word).then_some(true) }
    };
    words.iter().enumerate().find_map(decides).or((!words.is_empty()).then_some(true))
}

fn chinese_clause(clause: &str) -> Option<bool> {
    let clause = simplified(clause);
    let stem = clause.trim_end_matches(PARTICLES);
    said_by(&clause, &CHINESE_YES, &CHINESE_NO).or_else(|| said_by(stem, &CHINESE_YES, &CHINESE_NO))
}

fn chinese_sentence(sentence: &str, words: &mut Words) -> Option<bool> {
    let words = words.in_dictionary(&simplified(sentence));
    if words.iter().any(|word| CHINESE_ASKS.contains(&word.as_str())) {
        return None;
    }
    let denies =
        |word: &str| CHINESE_DENIES.contains(&word) || NEGATORS.iter().any(|start| word.starts_with(start));
    let decides = |(at, word): (usize, &String)| {
        let denied = words.get(at + 1).is_some_and(|next| denies(next));
        if denies(word) {
            Some(false)
        } else {
            (CHINESE_AFFIRMS.contains(&word.as_str()) && !denied).then_some(true)
        }
    };
    words.iter().enumerate().find_map(decides)
}

/// The few traditional characters that say yes or no.
fn simplified(text: &str) -> String {
    let letter = |letter| match letter {
        '對' => '对',
        '沒' => '没',
        '無' => '无',
        '會' => '会',
        '錯' => '错',
        '確' => '确',
        '實' => '实',
        '當' => '当',
        '並' => '并',
        other => other,
    };
    text.chars().map(letter).collect()
}

/// What was said to a yes/no question, and what is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Yes, no, or neither.
    pub said: Option<bool>,
    /// The right answer.
    pub truth: bool,
}

/// Right and wrong answers; yes is the positive one. An answer that says neither is wrong.
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
    /// Neither, where yes is right.
    pub unclear_positive: f64,
    /// Neither, where no is right.
    pub unclear_negative: f64,
}

impl YesNo {
    /// Counts an answer `weight` times.
    pub fn add(&mut self, Judged { said, truth }: Judged, weight: f64) {
        let count = match (said, truth) {
            (Some(true), true) => &mut self.true_positive,
            (Some(true), false) => &mut self.false_positive,
            (Some(false), false) => &mut self.true_negative,
            (Some(false), true) => &mut self.false_negative,
            (None, true) => &mut self.unclear_positive,
            (None, false) => &mut self.unclear_negative,
        };
        *count += weight;
    }

    /// The table of some answers, each so many times.
    pub fn of(rows: impl IntoIterator<Item = (Judged, f64)>) -> Self {
        let mut table = Self::default();
        rows.into_iter().for_each(|(judged, weight)| table.add(judged, weight));
        table
    }

    /// Questions.
    pub fn rows(&self) -> f64 {
        self.positives() + self.true_negative + self.false_positive + self.unclear_negative
    }

    /// Questions to be answered yes.
    fn positives(&self) -> f64 {
        self.true_positive + self.false_negative + self.unclear_positive
    }

    /// Answers that say neither.
    pub fn unclear(&self) -> f64 {
        self.unclear_positive + self.unclear_negative
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
        share(self.true_positive, self.positives())
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
    use proptest::prelude::*;

    #[test]
    fn the_reference_says_whether_it_is_a_yes_no_question() {
        for (reference, expected) in [
            ("Yes", Some(true)),
            ("no, it is not.", Some(false)),
            ("NO", Some(false)),
            ("No!", Some(false)),
            ("No - it is a cat", Some(false)),
            ("Yes there is a dog", Some(true)),
            ("**No**", Some(false)),
            ("No parking", None),
            ("No. 5", None),
            ("No-one", None),
            ("yes/no", None),
            ("None of them", None),
            ("是的，图中有一只不大的狗。", Some(true)),
            ("没有。", Some(false)),
            ("沒有", Some(false)),
            ("不是的。", Some(false)),
            ("Ｙｅｓ，有。", Some(true)),
            ("有三个圆形", None),
            ("有一架无人机", None),
            ("不锈钢", None),
            ("不规则的形状", None),
            ("a yes", None),
            ("", None),
        ] {
            assert_eq!(truth(reference), expected, "{reference}");
        }
    }

    #[test]
    fn answers_are_read_by_the_words_that_decide() {
        let mut words = Words::new();
        for (answer, said) in [
            ("Yes, there is a dog.", Some(true)),
            ("No, there is no dog", Some(false)),
            ("There is not, I think", Some(false)),
            ("There isn’t any.", Some(false)),
            ("There is. No doubt", Some(true)),
            ("There is no doubt a dog", Some(true)),
            ("There is a dog", Some(true)),
            ("The answer is no", Some(false)),
            ("Answer: Yes, although it is not big", Some(true)),
            ("Correct.", Some(true)),
            ("I don't know", None),
            ("I'm not sure.", None),
            ("red", None),
            ("", None),
            ("...", None),
            ("图中没有圆形。", Some(false)),
            ("图中有一架无人机。", Some(true)),
            ("有一架无人机", Some(true)),
            ("有。不过很小", Some(true)),
            ("这是不锈钢的", Some(true)),
            ("这不是狗", Some(false)),
            ("图里无狗", Some(false)),
            ("没狗", Some(false)),
            ("会飞", Some(true)),
            ("无花果", None),
            ("答案是否定的", Some(false)),
            ("答案：是", Some(true)),
            ("不锈钢", None),
            ("不知道", None),
            ("看不清是否有狗", None),
            ("图中是没有狗的", Some(false)),
        ] {
            assert_eq!(says(answer, &mut words), said, "{answer}");
        }
    }

    #[test]
    fn popes_own_rule_is_that_of_its_script() {
        for (answer, yes) in [
            ("Yes, there is a dog.", true),
            ("No, there is no dog", false),
            ("There is. No doubt", true),
            ("NO", true),
            ("No!", true),
            ("", true),
            ("It is,not", true),
        ] {
            assert_eq!(pope(answer), yes, "{answer}");
        }
    }

    /// Every way of writing a plain yes or no: word, case, what stands around it, what follows.
    fn written() -> impl Strategy<Value = (String, bool)> {
        let english = prop_oneof![
            prop::sample::select(&YES[..]).prop_map(|word| (word, true)),
            prop::sample::select(&NO[..]).prop_map(|word| (word, false)),
        ];
        let chinese = prop_oneof![
            prop::sample::select(&CHINESE_YES[..]).prop_map(|word| (word, true)),
            prop::sample::select(&CHINESE_NO[..]).prop_map(|word| (word, false)),
        ];
        let before = prop::sample::select(&["", " ", "\n", "\"", "**", "- ", "\u{feff}", "「", "'"][..]);
        let after =
            prop::sample::select(&["", ".", "!", "。", "\u{200b}", "**", "\"", " ", "…", "！", ")"][..]);
        let english_tail = prop::sample::select(
            &[
                "",
                ", there is no dog",
                ". It is not big.",
                ", it's red",
                "\nThe dog is not there",
                ": no",
                "; yes",
            ][..],
        );
        let chinese_tail = prop::sample::select(
            &[
                "",
                "，图中有一只不大的狗。",
                "，图中没有狗",
                "。这是无人机",
                "！",
                "，不锈钢的",
                "；是",
                "\n否",
            ][..],
        );
        let case = prop::sample::select(&[str::to_lowercase, str::to_uppercase, capital][..]);
        let english = (english, case, before.clone(), after.clone(), english_tail).prop_map(
            |((word, yes), case, before, after, tail)| (format!("{before}{}{after}{tail}", case(word)), yes),
        );
        let particle = prop::sample::select(&["", "的", "啊", "呢"][..]);
        let chinese = (chinese, particle, before, after, chinese_tail).prop_map(
            |((word, yes), particle, before, after, tail)| {
                (format!("{before}{word}{particle}{after}{tail}"), yes)
            },
        );
        prop_oneof![english, chinese]
    }

    /// A dictionary takes a while to load.
    fn said(answer: &str) -> Option<bool> {
        thread_local! { static WORDS: std::cell::RefCell<Words> = std::cell::RefCell::default(); }
        WORDS.with_borrow_mut(|words| says(answer, words))
    }

    fn capital(word: &str) -> String {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_plain_yes_or_no_is_read_as_such_however_it_is_written((text, yes) in written()) {
            prop_assert_eq!(truth(&text), Some(yes), "{:?}", text);
            prop_assert_eq!(said(&text), Some(yes), "{:?}", text);
        }

        #[test]
        fn an_answer_equal_to_its_reference_is_right(text in "[ \\n.,!?'\"*-]{0,3}(yes|no|not|Yes|NO|是|不|没有|有|无|的|[a-z]{1,4}| |狗|，|。|\\PC){0,6}") {
            if let Some(truth) = truth(&text) {
                prop_assert_eq!(said(&text), Some(truth), "{:?}", text);
                prop_assert_eq!(said(&format!(" {text}\u{200b} ")), Some(truth), "{:?}", text);
            }
        }
    }

    #[test]
    fn the_table_of_a_known_confusion() {
        let rows = [
            (Some(true), true, 6.0),
            (Some(true), false, 2.0),
            (Some(false), false, 8.0),
            (Some(false), true, 4.0),
        ];
        let judged = |(said, truth, times): &(Option<bool>, bool, f64)| {
            (Judged { said: *said, truth: *truth }, *times)
        };
        let table = YesNo::of(rows.iter().map(judged));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(table.accuracy(), 0.7);
        close(table.precision(), 0.75);
        close(table.recall(), 0.6);
        close(table.f1(), 2.0 / 3.0);
        close(table.yes_ratio(), 0.4);
        let unclear = YesNo::of([
            (Judged { said: None, truth: true }, 5.0),
            (Judged { said: Some(true), truth: true }, 5.0),
        ]);
        close(unclear.accuracy(), 0.5);
        close(unclear.recall(), 0.5);
        close(unclear.unclear(), 5.0);
    }
}
