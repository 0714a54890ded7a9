//! Answers read as lmms-eval and VLMEvalKit read them: yes and no, and `EvalAI`'s normal form of words.

/// VLMEvalKit's `YOrN_Extraction` (`dataset/utils/yorn.py`): `Yes`, `No` or `Unknown`.
pub fn yes_or_no(answer: &str) -> &'static str {
    let words = punctuation(&answer.to_lowercase(), Period::VlmEvalKit);
    let has = |wanted: &str| words.split_whitespace().any(|word| word == wanted);
    match (has("yes"), has("no")) {
        (true, false) => "Yes",
        (false, true) => "No",
        _ => "Unknown",
    }
}

/// lmms-eval's `parse_pred_ans` (`tasks/mme/utils.py`): `yes`, `no` or `other`.
pub fn mme(answer: &str) -> &'static str {
    let answer = answer.to_lowercase().trim().replace('.', "");
    let start: String = answer.chars().take(4).collect();
    match answer.as_str() {
        "yes" | "y" => "yes",
        "no" | "n" => "no",
        _ if answer.chars().count() == 1 => "other",
        _ if start.contains("yes") => "yes",
        _ if start.contains("no") => "no",
        _ => "other",
    }
}

/// Which points are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    /// `(?!<=\d)(\.)(?!\d)`: those before no digit (a slip of `(?<!`, as it stands in mmf, too).
    LmmsEval,
    /// `(?<!\d)\.(?!\d)`: those between no digits.
    VlmEvalKit,
}

/// Signs that become spaces, or nothing.
const SIGNS: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!',
];
/// Both give a flag where `re.sub` takes a count: no more than so many points are taken away.
const MOST_PERIODS: usize = 32;
const ARTICLES: [&str; 3] = ["a", "an", "the"];
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

fn punctuation(text: &str, period: Period) -> String {
    let letters: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(char::is_ascii_digit);
    let comma_in_number = letters.iter().enumerate().any(|(at, letter)| {
        let run = letters[at..].iter().take_while(|letter| **letter == ',').count();
        let run = if period == Period::VlmEvalKit { run.min(1) } else { run };
        *letter == ',' && digit(at.checked_sub(1)) && digit(Some(at + run))
    });
    let mut out = text.to_owned();
    for sign in SIGNS {
        let apart = text.contains(&format!("{sign} ")) || text.contains(&format!(" {sign}"));
        out = out.replace(sign, if apart || comma_in_number { "" } else { " " });
    }
    periods(&out, period)
}

fn periods(text: &str, period: Period) -> String {
    let letters: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(char::is_ascii_digit);
    let mut taken = 0;
    let kept = letters.iter().enumerate().filter(|(at, letter)| {
        let before = period == Period::VlmEvalKit && digit(at.checked_sub(1));
        let goes = **letter == '.' && !before && !digit(Some(at + 1)) && taken < MOST_PERIODS;
        taken += usize::from(goes);
        !goes
    });
    kept.map(|(_, letter)| *letter).collect()
}

/// Numbers in digits, no articles, contractions with their apostrophe.
fn words(text: &str) -> String {
    let text = text.to_lowercase();
    let words = text
        .split_whitespace()
        .map(|word| NUMBERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, digits)| digits));
    let words = words.filter(|word| !ARTICLES.contains(word));
    let words =
        words.map(|word| CONTRACTIONS.iter().find(|(bare, _)| *bare == word).map_or(word, |(_, full)| full));
    words.collect::<Vec<_>>().join(" ")
}

/// lmms-eval's `EvalAIAnswerProcessor` (`tasks/_task_utils/vqa_eval_metric.py`).
pub fn eval_ai(text: &str) -> String {
    let text = text.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let text = text.trim().replace(['\n', '\t'], " ");
    words(&punctuation(text.trim(), Period::LmmsEval))
}

/// VLMEvalKit's `process_answer` (`dataset/utils/vqa_eval.py`).
pub fn process_answer(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    words(&punctuation(text.trim(), Period::VlmEvalKit))
}

/// The mean over each reference left out of how many of the others the answer equals, three being all.
pub fn leave_one_out(answer: &str, references: &[String]) -> f64 {
    let equal = references.iter().filter(|reference| *reference == answer).count();
    let share = |reference: &String| {
        let others = equal - usize::from(reference == answer);
        (others as f64 / 3.0).min(1.0)
    };
    references.iter().map(share).sum::<f64>() / references.len() as f64
}

/// `EvalAI`'s contractions; entries whose key has capitals never match lower-case words, and are left out.
const CONTRACTIONS: [(&str, &str); 114] = [
    ("aint", "ain't"),
    ("arent", "aren't"),
    ("cant", "can't"),
    ("couldve", "could've"),
    ("couldnt", "couldn't"),
    ("couldn'tve", "couldn't've"),
    ("couldnt've", "couldn't've"),
    ("didnt", "didn't"),
    ("doesnt", "doesn't"),
    ("dont", "don't"),
    ("hadnt", "hadn't"),
    ("hadnt've", "hadn't've"),
    ("hadn'tve", "hadn't've"),
    ("hasnt", "hasn't"),
    ("havent", "haven't"),
    ("hed", "he'd"),
    ("hed've", "he'd've"),
    ("he'dve", "he'd've"),
    ("hes", "he's"),
    ("howd", "how'd"),
    ("howll", "how'll"),
    ("hows", "how's"),
    ("isnt", "isn't"),
    ("itd", "it'd"),
    ("itd've", "it'd've"),
    ("it'dve", "it'd've"),
    ("itll", "it'll"),
    ("maam", "ma'am"),
    ("mightnt", "mightn't"),
    ("mightnt've", "mightn't've"),
    ("mightn'tve", "mightn't've"),
    ("mightve", "might've"),
    ("mustnt", "mustn't"),
    ("mustve", "must've"),
    ("neednt", "needn't"),
    ("notve", "not've"),
    ("oclock", "o'clock"),
    ("oughtnt", "oughtn't"),
    ("ow's'at", "'ow's'at"),
    ("'ows'at", "'ow's'at"),
    ("'ow'sat", "'ow's'at"),
    ("shant", "shan't"),
    ("shed've", "she'd've"),
    ("she'dve", "she'd've"),
    ("shouldve", "should've"),
    ("shouldnt", "shouldn't"),
    ("shouldnt've", "shouldn't've"),
    ("shouldn'tve", "shouldn't've"),
    ("somebody'd", "somebodyd"),
    ("somebodyd've", "somebody'd've"),
    ("somebody'dve", "somebody'd've"),
    ("somebodyll", "somebody'll"),
    ("somebodys", "somebody's"),
    ("someoned", "someone'd"),
    ("someoned've", "someone'd've"),
    ("someone'dve", "someone'd've"),
    ("someonell", "someone'll"),
    ("someones", "someone's"),
    ("somethingd", "something'd"),
    ("somethingd've", "something'd've"),
    ("something'dve", "something'd've"),
    ("somethingll", "something'll"),
    ("thats", "that's"),
    ("thered", "there'd"),
    ("thered've", "there'd've"),
    ("there'dve", "there'd've"),
    ("therere", "there're"),
    ("theres", "there's"),
    ("theyd", "they'd"),
    ("theyd've", "they'd've"),
    ("they'dve", "they'd've"),
    ("theyll", "they'll"),
    ("theyre", "they're"),
    ("theyve", "they've"),
    ("twas", "'twas"),
    ("wasnt", "wasn't"),
    ("wed've", "we'd've"),
    ("we'dve", "we'd've"),
    ("weve", "we've"),
    ("werent", "weren't"),
    ("whatll", "what'll"),
    ("whatre", "what're"),
    ("whats", "what's"),
    ("whatve", "what've"),
    ("whens", "when's"),
    ("whered", "where'd"),
    ("wheres", "where's"),
    ("whereve", "where've"),
    ("whod", "who'd"),
    ("whod've", "who'd've"),
    ("who'dve", "who'd've"),
    ("wholl", "who'll"),
    ("whos", "who's"),
    ("whove", "who've"),
    ("whyll", "why'll"),
    ("whyre", "why're"),
    ("whys", "why's"),
    ("wont", "won't"),
    ("wouldve", "would've"),
    ("wouldnt", "wouldn't"),
    ("wouldnt've", "wouldn't've"),
    ("wouldn'tve", "wouldn't've"),
    ("yall", "y'all"),
    ("yall'll", "y'all'll"),
    ("y'allll", "y'all'll"),
    ("yall'd've", "y'all'd've"),
    ("y'alld've", "y'all'd've"),
    ("y'all'dve", "y'all'd've"),
    ("youd", "you'd"),
    ("youd've", "you'd've"),
    ("you'dve", "you'd've"),
    ("youll", "you'll"),
    ("youre", "you're"),
    ("youve", "you've"),
];
