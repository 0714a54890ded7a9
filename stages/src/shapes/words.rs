//! What can be drawn, and what it is called in English and Chinese.

use serde::{Deserialize, Serialize};

/// A language of questions and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English
    En,
    /// Chinese
    Zh,
}

impl Language {
    /// The code in the column `language`.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A word: English, Chinese.
pub type Word = [&'static str; 2];

/// A colour: its word, and red, green, blue in sRGB.
pub const COLOURS: [(Word, [u8; 3]); 6] = [
    (["red", "红色"], [220, 40, 40]),
    (["orange", "橙色"], [245, 140, 30]),
    (["yellow", "黄色"], [240, 220, 50]),
    (["green", "绿色"], [40, 160, 70]),
    (["blue", "蓝色"], [40, 80, 220]),
    (["purple", "紫色"], [140, 60, 180]),
];

/// Shapes, in the order of [`super::paint::covers`].
pub const SHAPES: [Word; 4] =
    [["circle", "圆形"], ["square", "正方形"], ["triangle", "三角形"], ["cross", "十字形"]];

/// Sizes, small first.
pub const SIZES: [Word; 2] = [["small", "小"], ["large", "大"]];

/// Counts from one.
pub const COUNTS: [Word; 3] = [["one", "一个"], ["two", "两个"], ["three", "三个"]];

/// The nine cells of an image, row by row.
pub const PLACES: [Word; 9] = [
    ["top left", "左上"],
    ["top", "上方"],
    ["top right", "右上"],
    ["left", "左边"],
    ["centre", "中间"],
    ["right", "右边"],
    ["bottom left", "左下"],
    ["bottom", "下方"],
    ["bottom right", "右下"],
];

/// The answers to yes/no questions: no, yes.
pub const NO_YES: [Word; 2] = [["no", "不是"], ["yes", "是"]];

/// Something a question can be about. Of one image, none gives another away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    Colour,
    Shape,
    Size,
    Place,
    Count,
}

impl Fact {
    /// All of them, in the order in which they are drawn from.
    pub const ALL: [Self; 5] = [Self::Colour, Self::Shape, Self::Size, Self::Place, Self::Count];

    /// The word for value `value` of this fact.
    pub fn word(self, value: usize, language: Language) -> &'static str {
        let word = match self {
            Self::Colour => COLOURS[value].0,
            Self::Shape => SHAPES[value],
            Self::Size => SIZES[value],
            Self::Place => PLACES[value],
            Self::Count => COUNTS[value],
        };
        word[language.index()]
    }

    /// How many values it has where an image shows up to `objects` shapes.
    pub fn values(self, objects: usize) -> usize {
        match self {
            Self::Colour => COLOURS.len(),
            Self::Shape => SHAPES.len(),
            Self::Size => SIZES.len(),
            Self::Place => PLACES.len(),
            Self::Count => objects,
        }
    }

    /// The open questions about it.
    pub fn questions(self, language: Language) -> [&'static str; 2] {
        let both = match self {
            Self::Colour => {
                [["What colour is drawn?", "Name the colour."], ["画的是什么颜色？", "说出颜色。"]]
            }
            Self::Shape => [["What shape is drawn?", "Name the shape."], ["画的是什么形状？", "说出形状。"]],
            Self::Size => [["How big is it drawn?", "Name the size."], ["画得多大？", "说出大小。"]],
            Self::Place => [["Where is it drawn?", "Name the place."], ["画在哪里？", "说出位置。"]],
            Self::Count => [["How many are drawn?", "Name the number."], ["画了几个？", "说出数量。"]],
        };
        both[language.index()]
    }

    /// The question whether it is `word`.
    pub fn whether(self, word: &str, language: Language) -> String {
        match (self, language) {
            (Self::Colour, Language::En) => format!("Is the colour {word}?"),
            (Self::Shape, Language::En) => format!("Is the shape a {word}?"),
            (Self::Size, Language::En) => format!("Is the size {word}?"),
            (Self::Place, Language::En) => format!("Is the place the {word}?"),
            (Self::Count, Language::En) => format!("Is the number {word}?"),
            (Self::Colour, Language::Zh) => format!("颜色是{word}吗？"),
            (Self::Shape, Language::Zh) => format!("形状是{word}吗？"),
            (Self::Size, Language::Zh) => format!("大小是{word}吗？"),
            (Self::Place, Language::Zh) => format!("位置是{word}吗？"),
            (Self::Count, Language::Zh) => format!("数量是{word}吗？"),
        }
    }
}

/// The requests to describe an image.
pub fn describe(language: Language) -> [&'static str; 2] {
    match language {
        Language::En => ["Describe the picture.", "What does the picture show?"],
        Language::Zh => ["描述这张图片。", "图片里有什么？"],
    }
}

/// The answer to a yes/no question.
pub fn no_or_yes(yes: bool, language: Language) -> &'static str {
    NO_YES[usize::from(yes)][language.index()]
}
