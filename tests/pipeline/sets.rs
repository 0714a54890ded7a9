//! Every manifest of `manifests/sets` on the sample of its data set: what became of each row, odd ones included.
//!
//! A line of a snapshot is a row of the shards: its id, its language, images, turns, tokens and those trained on, and its last answer;
//! then the rows left out. The first row's tokens follow, runs of equal ones joined, the trained ones in brackets.

use crate::project::{Project, ran, repository};
use crate::tables::{batches, files, results};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt32Type};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const TOKENIZER: &str = "tokenizer=data/qwen3-tokenizer";
const PROMPTS: &str = "manifests/prompts";

/// A project with one manifest, its sample, and the arguments that point the one at the other.
pub struct Set {
    project: Project,
    manifest: String,
    arguments: Vec<String>,
}

impl Set {
    /// `variables` beside `raw`, as the manifest's own comment gives them.
    fn new(name: &str, sample: &str, variables: &[&str]) -> Self {
        Self::on(name, &format!("data/samples/{sample}"), variables)
    }

    /// The manifest `name` on the files in `data`.
    pub fn on(name: &str, data: &str, variables: &[&str]) -> Self {
        let manifest = format!("manifests/sets/{name}.toml");
        let project = Project::with(&[data, "data/qwen3-tokenizer", PROMPTS, &manifest]);
        let raw = format!("raw={data}");
        let settings = [raw.as_str(), TOKENIZER, "max_rejects=0.6", "validation=0.0"];
        let settings = settings.iter().chain(variables).flat_map(|setting| ["--set", *setting]);
        let arguments = settings.map(str::to_owned).collect();
        Self { project, manifest, arguments }
    }

    fn arguments<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        let settings = self.arguments.iter().map(String::as_str);
        command.iter().copied().chain([self.manifest.as_str()]).chain(settings).collect()
    }

    /// Validates, dry-runs and runs; then tells what the shards hold.
    pub fn reported(&self) -> String {
        self.project.stdout(&self.arguments(&["validate"]));
        let store = self.project.path(".llavm");
        let made = || if store.is_dir() { results(&store) } else { BTreeMap::new() };
        let before = made();
        self.project.stdout(&self.arguments(&["run", "--dry-run"]));
        assert!(made() == before, "a dry run makes nothing");
        self.project.run(&self.arguments(&[]));
        reported(&shards(&self.project, &self.arguments(&[])))
    }
}

/// The folder of `shards` under the same settings.
fn shards(project: &Project, arguments: &[&str]) -> std::path::PathBuf {
    let status = project.stdout(&[&["status", "--json"], arguments].concat());
    let status: Value = serde_json::from_str(&status).unwrap();
    let stages = status["stages"].as_array().unwrap();
    let files =
        stages.iter().find(|stage| stage["name"] == "shards").unwrap()["files"].as_array().unwrap().clone();
    let index = files.iter().filter_map(Value::as_str).find(|file| file.ends_with("shards.json")).unwrap();
    project.path(index).parent().unwrap().to_owned()
}

fn reported(shards: &Path) -> String {
    let mut rows: BTreeMap<(u32, u32, u32), (String, String)> = BTreeMap::new();
    for file in files(&shards.join("train")) {
        for batch in batches(&shards.join("train").join(file)) {
            for row in 0..batch.num_rows() {
                rows.insert(place(&batch, row), (line(&batch, row), tokens(&batch, row)));
            }
        }
    }
    let mut text: String = rows.values().fold(String::new(), |text, (line, _)| text + line + "\n");
    let rejects: Value =
        serde_json::from_str(&std::fs::read_to_string(shards.join("rejects.json")).unwrap()).unwrap();
    for reject in rejects["rows"].as_array().unwrap() {
        let _ = writeln!(text, "left out: row {}: {}", reject["row"], reject["reason"].as_str().unwrap());
    }
    text + rows.values().next().map_or("", |(_, tokens)| tokens)
}

fn place(batch: &RecordBatch, row: usize) -> (u32, u32, u32) {
    let place = batch.column_by_name("row").unwrap().as_struct();
    let part = |name: &str| place.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(row);
    (part("group"), part("partition"), part("row"))
}

fn line(batch: &RecordBatch, row: usize) -> String {
    let text = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_string::<i32>();
        if column.is_valid(row) { column.value(row).to_owned() } else { "-".to_owned() }
    };
    let count = batch.column_by_name("n_images").unwrap().as_primitive::<UInt32Type>().value(row);
    let messages = batch.column_by_name("messages").unwrap().as_list::<i32>().value(row);
    let contents = messages.as_struct().column(1).as_string::<i32>().clone();
    let labels = list(batch, "labels", row).as_primitive::<Int32Type>().values().to_vec();
    let trained = labels.iter().filter(|label| **label >= 0).count();
    let answer: String = contents.value(contents.len() - 1).chars().take(24).collect();
    let language = text("language");
    format!(
        "{} {language} images {count} turns {} tokens {}/{trained} {answer:?}",
        text("id"),
        contents.len(),
        labels.len()
    )
}

fn list(batch: &RecordBatch, name: &str, row: usize) -> arrow::array::ArrayRef {
    batch.column_by_name(name).unwrap().as_list::<i32>().value(row)
}

/// `151644 872 … 151655x49 …`; a token that is a label stands in brackets.
fn tokens(batch: &RecordBatch, row: usize) -> String {
    let ids = list(batch, "input_ids", row).as_primitive::<UInt32Type>().values().to_vec();
    let labels = list(batch, "labels", row).as_primitive::<Int32Type>().values().to_vec();
    // The last token is a label only, for the input ends before it; where it is not trained on, shards do not have it.
    let last = labels.last().filter(|label| **label >= 0).map(|label| (label.cast_unsigned(), true));
    let trained = std::iter::once(false).chain(labels.iter().map(|label| *label >= 0));
    let all: Vec<(u32, bool)> = ids.into_iter().zip(trained).chain(last).collect();
    let shown = all.chunk_by(|a, b| a == b).map(|run| {
        let (id, trained) = run[0];
        let id = if run.len() > 1 { format!("{id}x{}", run.len()) } else { id.to_string() };
        if trained { format!("[{id}]") } else { id }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_manifest_of_a_set_is_tested_here() {
    let tests = include_str!("sets.rs");
    for file in files(&repository().join("manifests/sets")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(tests.contains(&format!("\"{name}\",")) || name == "mix", "no test of {name}");
    }
}

macro_rules! set {
    ($test:ident, ($name:literal, $sample:literal $(, $variable:literal)*), $reported:literal) => {
        #[test]
        fn $test() {
            insta::assert_snapshot!(Set::new($name, $sample, &[$($variable),*]).reported(), @$reported);
        }
    };
}

set!(
    llava_cc3m_pretrain_595k,
    ("llava-cc3m-pretrain-595k", "llava-cc3m-pretrain-595k"),
    r#"
    GCC_train_000000000 en images 1 turns 2 tokens 91/12 "an astronaut in an orang"
    GCC_train_000000001 en images 1 turns 2 tokens 94/14 "a man in a dark coat loo"
    GCC_train_000000002 en images 1 turns 2 tokens 92/11 "the pink nose and the wh"
    GCC_train_000000003 en images 1 turns 2 tokens 89/9 "a rocket on the launch p"
    GCC_train_000000004 en images 1 turns 2 tokens 92/9 "small coloured galaxies "
    GCC_train_000000005 en images 1 turns 2 tokens 90/10 "a white cell with a dark"
    GCC_train_000000007 en images 1 turns 2 tokens 97/14 "a man in a dark coat loo"
    left out: row 6: read/missing-image: `GCC_train_999999999.jpg` is not in `images`
    151644 8948 198 2610 525 264 10950 17847 13 151645 198 151644 872 198 151655x49 198 74785 279 2168 3529 285 974 13 151645 198 151644 77091 198 151667 271 151668 271 [276] [46633] [304] [458] [18575] [12621] [3083] [42532] [369] [264] [33033] [151645]
    "#
);
set!(
    llava_pretrain_558k,
    ("llava-pretrain-558k", "llava-pretrain-558k"),
    r#"
    000000000 en images 1 turns 2 tokens 93/15 "official portrait of a w"
    000010001 en images 1 turns 2 tokens 93/13 "a cameraman at work with"
    000020002 en images 1 turns 2 tokens 89/10 "a cat 😺, “half asleep”"
    000030003 en images 1 turns 2 tokens 92/11 "rocket ready for launch "
    000040004 en images 1 turns 2 tokens 91/9 "a patch of sky full of f"
    000050005 en images 0 turns 2 tokens 39/9 "2 + 3 = 5."
    000060006 en images 1 turns 2 tokens 97/15 "official portrait of a w"
    000070007 en images 1 turns 2 tokens 96/13 "a cameraman at work with"
    151644 8948 198 2610 525 264 10950 17847 13 151645 198 151644 872 198 74785 279 2168 3529 285 974 624 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [32812] [33033] [315] [264] [5220] [304] [458] [18575] [10971] [7781] [9963] [264] [4158] [31535] [151645]
    "#
);
set!(
    llava_instruct_150k,
    ("llava-instruct-150k", "llava-instruct-150k", "images=data/samples/llava-instruct-150k/train2017"),
    r#"
    000000033471 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    000000033472 en images 1 turns 5 tokens 110/17 "The camera stands on a t"
    000000033473 en images 1 turns 6 tokens 116/18 "The nose is pink."
    000000033474 en images 1 turns 2 tokens 75/8 "A rocket stands in the m"
    000000033476 en images 1 turns 6 tokens 115/21 "A dark ring surrounds it"
    000000033477 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    000000033478 en images 1 turns 4 tokens 100/17 "The camera stands on a t"
    left out: row 4: read/no-answer: message 4, by assistant, is empty
    151644 872 198 151655x49 198 3838 12463 374 279 12621 3083 30 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645]
    "#
);
set!(
    llava_instruct_mix,
    ("llava-instruct-mix", "llava-instruct-mix"),
    r#"
    train-00000-of-00001.parquet#0 en images 1 turns 2 tokens 75/8 "The spacesuit is orange."
    train-00000-of-00001.parquet#1 en images 1 turns 4 tokens 100/9 "The camera stands on a t"
    train-00000-of-00001.parquet#2 en images 0 turns 6 tokens 66/7 "The nose is pink."
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 75/9 "A rocket stands in the m"
    train-00000-of-00001.parquet#4 en images 1 turns 4 tokens 96/7 "It is mostly dark."
    train-00000-of-00001.parquet#5 en images 1 turns 7 tokens 123/8 "A dark ring surrounds it"
    train-00000-of-00001.parquet#6 en images 0 turns 2 tokens 26/8 "The spacesuit is orange."
    train-00000-of-00001.parquet#7 en images 1 turns 4 tokens 100/9 "The camera stands on a t"
    151644 872 198 3838 12463 374 279 12621 3083 5267 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645] [198]
    "#
);
set!(
    llava_instruct_mix_vsft,
    ("llava-instruct-mix-vsft", "llava-instruct-mix-vsft"),
    r#"
    train-00000-of-00001.parquet#0 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#1 en images 1 turns 4 tokens 100/17 "The camera stands on a t"
    train-00000-of-00001.parquet#2 en images 1 turns 6 tokens 116/18 "The nose is pink."
    train-00000-of-00001.parquet#3 en images 2 turns 2 tokens 123/8 "A rocket stands in the m"
    train-00000-of-00001.parquet#4 en images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#5 en images 1 turns 6 tokens 115/21 "A dark ring surrounds it"
    train-00000-of-00001.parquet#6 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#7 en images 1 turns 4 tokens 100/17 "The camera stands on a t"
    151644 872 198 151655x49 198 3838 12463 374 279 12621 3083 30 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645]
    "#
);
set!(
    the_cauldron,
    ("the-cauldron", "the-cauldron"),
    r#"
    train-00000-of-00001.parquet#0 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#1 en images 2 turns 4 tokens 151/17 "The camera stands on a t"
    train-00000-of-00001.parquet#2 en images 1 turns 6 tokens 116/18 "The nose is pink."
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 76/8 "A rocket stands in the m"
    train-00000-of-00001.parquet#4 en images 1 turns 4 tokens 97/12 "It is mostly dark."
    train-00000-of-00001.parquet#5 en images 1 turns 6 tokens 116/21 "A dark ring surrounds it"
    151644 872 198 151655x49 198 3838 12463 374 279 12621 3083 30 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645]
    "#
);
set!(
    finevision,
    ("finevision", "finevision", "quality=relevance_min >= 4"),
    r#"
    train-00000-of-00001.parquet#0 en images 1 turns 2 tokens 76/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#1 en images 1 turns 4 tokens 101/17 "The camera stands on a t"
    train-00000-of-00001.parquet#2 en images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#4 en images 1 turns 4 tokens 97/12 "It is mostly dark."
    train-00000-of-00001.parquet#5 en images 1 turns 6 tokens 116/21 "A dark ring surrounds it"
    151644 872 198 151655x49 198 3838 12463 374 279 12621 3083 30 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645]
    "#
);
set!(
    chinese_llava_vision_instructions,
    (
        "chinese-llava-vision-instructions",
        "chinese-llava-vision-instructions",
        "images=data/samples/chinese-llava-vision-instructions/images.zip"
    ),
    r#"
    GCC_train_000000000 zh images 1 turns 2 tokens 96/15 "一位身穿橙色航天服的女宇航员在微笑。"
    GCC_train_000000001 zh images 1 turns 2 tokens 101/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    GCC_train_000000002 zh images 1 turns 2 tokens 89/10 "猫的粉红色鼻子和胡须。"
    GCC_train_000000003 zh images 1 turns 2 tokens 88/11 "一隻貓😺，正看著鏡頭。"
    GCC_train_000000004 zh images 1 turns 2 tokens 92/11 "散布在黑色天空中的彩色小星系。"
    GCC_train_000000005 zh images 1 turns 2 tokens 94/11 "一个白色细胞，周围有一圈暗影。"
    GCC_train_000000007 zh images 1 turns 2 tokens 95/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    left out: row 6: read/no-answer: message 2, by assistant, is empty
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 151655x49 198 14880 98237 30534 53481 108893 45930 1773 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    llava_en_zh_300k,
    ("llava-en-zh-300k", "llava-en-zh"),
    r#"
    train-00000-of-00001.parquet#0 zh images 1 turns 2 tokens 74/8 "航天服是橙色的。"
    train-00000-of-00001.parquet#1 zh images 1 turns 4 tokens 95/15 "相机放在三脚架上。"
    train-00000-of-00001.parquet#2 zh images 1 turns 7 tokens 122/21 "鼻子是粉红色的。"
    train-00000-of-00001.parquet#3 zh images 1 turns 2 tokens 72/7 "画面中间是一枚火箭。"
    train-00000-of-00001.parquet#4 zh images 1 turns 4 tokens 94/14 "画面大部分是暗的。"
    train-00000-of-00001.parquet#5 zh images 0 turns 2 tokens 21/3 "２。"
    train-00000-of-00001.parquet#6 zh images 1 turns 2 tokens 74/8 "航天服是橙色的。"
    train-00000-of-00001.parquet#7 zh images 1 turns 4 tokens 95/15 "相机放在三脚架上。"
    151644 872 198 102782 43209 102021 102284 94432 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [102782] [43209] [20412] [107678] [38035] [9370] [1773] [151645]
    "#
);
set!(
    llava_en_zh_2k_in_english,
    ("llava-en-zh-2k", "llava-en-zh", "lang=en"),
    r#"
    train-00000-of-00001.parquet#0 en images 1 turns 2 tokens 75/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#1 en images 1 turns 4 tokens 100/17 "The camera stands on a t"
    train-00000-of-00001.parquet#2 en images 1 turns 6 tokens 115/18 "The nose is pink."
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 75/8 "A rocket stands in the m"
    train-00000-of-00001.parquet#4 en images 1 turns 4 tokens 96/12 "It is mostly dark."
    train-00000-of-00001.parquet#5 en images 1 turns 6 tokens 115/21 "A dark ring surrounds it"
    train-00000-of-00001.parquet#6 en images 1 turns 2 tokens 75/7 "The spacesuit is orange."
    train-00000-of-00001.parquet#7 en images 1 turns 4 tokens 100/17 "The camera stands on a t"
    151644 872 198 3838 12463 374 279 12621 3083 5267 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [785] [12621] [3083] [374] [18575] [13] [151645]
    "#
);
set!(
    minimind_v,
    ("minimind-v", "minimind-v"),
    r#"
    sft_i2t.parquet#0 zh images 1 turns 2 tokens 74/8 "航天服是橙色的。"
    sft_i2t.parquet#1 zh images 0 turns 2 tokens 22/7 "我是一个小助手😊。"
    sft_i2t.parquet#2 zh images 1 turns 6 tokens 112/21 "鼻子是粉红色的。"
    sft_i2t.parquet#3 zh images 1 turns 2 tokens 72/7 "画面中间是一枚火箭。"
    sft_i2t.parquet#5 zh images 1 turns 6 tokens 115/24 "细胞周围有一圈暗影。"
    left out: row 4: image-pads/placeholder-count: the row has 0 image(s), and 1 × `<image>` in its user turns
    151644 872 198 151655x49 102782 43209 102021 102284 11319 151645 198 151644 77091 198 151667 271 151668 271 [102782] [43209] [20412] [107678] [38035] [9370] [1773] [151645]
    "#
);
set!(
    minimind_v_captions,
    ("minimind-v", "minimind-v", "part=pretrain"),
    r#"
    pretrain_i2t.parquet#0 zh images 1 turns 2 tokens 81/15 "一位身穿橙色航天服的女宇航员在微笑。"
    pretrain_i2t.parquet#1 zh images 1 turns 2 tokens 84/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    pretrain_i2t.parquet#2 zh images 1 turns 2 tokens 76/10 "猫的粉红色鼻子和胡须。"
    pretrain_i2t.parquet#3 zh images 1 turns 2 tokens 79/13 "黄昏时分，一枚火箭矗立在发射台上。"
    pretrain_i2t.parquet#4 zh images 1 turns 2 tokens 77/11 "散布在黑色天空中的彩色小星系。"
    pretrain_i2t.parquet#5 zh images 1 turns 2 tokens 77/11 "一个白色细胞，周围有一圈暗影。"
    151644 872 198 151655x49 198 28029 15946 104139 11319 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    coco_cn,
    ("coco-cn", "coco-cn", "coco=data/samples/coco-cn"),
    r#"
    COCO_train2014_000000217153#0 zh images 1 turns 2 tokens 98/15 "一位身穿橙色航天服的女宇航员在微笑。"
    COCO_train2014_000000217153#1 zh images 1 turns 2 tokens 97/18 "女宇航员的正式肖像，背景是旗帜和航天飞机模型。"
    COCO_train2014_000000217153#9 zh images 1 turns 2 tokens 101/16 "\"引号没有闭合，全角标点：（）！"
    COCO_val2014_000000217154#0 zh images 1 turns 2 tokens 105/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    COCO_val2014_000000217154#1 zh images 1 turns 2 tokens 88/9 "草坪上一位摄影师的黑白照片。"
    COCO_train2014_000000217155#0 zh images 1 turns 2 tokens 95/10 "猫的粉红色鼻子和胡须。"
    COCO_val2014_000000217156#0 zh images 1 turns 2 tokens 96/13 "黄昏时分，一枚火箭矗立在发射台上。"
    COCO_val2014_000000217156#1 zh images 1 turns 2 tokens 92/13 "深蓝色天空下的白色火箭，四周是铁塔。"
    COCO_train2014_000000217157#0 zh images 1 turns 2 tokens 95/11 "散布在黑色天空中的彩色小星系。"
    COCO_val2014_000000217158#0 zh images 1 turns 2 tokens 96/11 "一个白色细胞，周围有一圈暗影。"
    left out: row 10: read/missing-image: `COCO_val2014_000000999999.jpg` is not in `images`
    left out: row 11: read/no-answer: message 2, by assistant, is empty
    left out: row 12: read/bad-row: line 13: 1 fields, expected 2
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 14880 110485 104812 36587 56568 32664 108893 45930 108894 8997 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    flickr30k_cna,
    ("flickr30k-cna", "flickr30k-cna", "images=data/samples/flickr30k-cna/flickr30k-images"),
    r#"
    flickr30k_cna_train.txt#0 zh images 1 turns 2 tokens 94/15 "一位身穿橙色航天服的女宇航员在微笑。"
    flickr30k_cna_train.txt#1 zh images 1 turns 2 tokens 103/18 "女宇航员的正式肖像，背景是旗帜和航天飞机模型。"
    flickr30k_cna_train.txt#2 zh images 1 turns 2 tokens 99/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    flickr30k_cna_train.txt#3 zh images 1 turns 2 tokens 94/9 "草坪上一位摄影师的黑白照片。"
    flickr30k_cna_train.txt#4 zh images 1 turns 2 tokens 89/10 "猫的粉红色鼻子和胡须。"
    flickr30k_cna_train.txt#5 zh images 1 turns 2 tokens 96/13 "黄昏时分，一枚火箭矗立在发射台上。"
    flickr30k_cna_train.txt#6 zh images 1 turns 2 tokens 92/13 "深蓝色天空下的白色火箭，四周是铁塔。"
    flickr30k_cna_train.txt#7 zh images 1 turns 2 tokens 94/11 "散布在黑色天空中的彩色小星系。"
    flickr30k_cna_train.txt#8 zh images 1 turns 2 tokens 94/11 "一个白色细胞，周围有一圈暗影。"
    flickr30k_cna_train.txt#9 zh images 1 turns 2 tokens 90/11 "一個穿著橙色太空服的女人😊。"
    flickr30k_cna_train.txt#10 zh images 1 turns 2 tokens 88/7 "ＡＢＣ１２３"
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 109193 108893 45930 111097 43815 8997 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    ai_challenger,
    ("ai-challenger", "ai-challenger"),
    r#"
    0000000000000000000000000000000000000000.jpg#0 zh images 1 turns 2 tokens 94/15 "一位身穿橙色航天服的女宇航员在微笑。"
    0000000000000000000000000000000000000000.jpg#1 zh images 1 turns 2 tokens 102/18 "女宇航员的正式肖像，背景是旗帜和航天飞机模型。"
    0000000000000000000000000000000000000000.jpg#2 zh images 1 turns 2 tokens 97/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    0000000000000000000000000000000000000000.jpg#3 zh images 1 turns 2 tokens 86/9 "草坪上一位摄影师的黑白照片。"
    0000000000000000000000000000000000000000.jpg#4 zh images 1 turns 2 tokens 90/10 "猫的粉红色鼻子和胡须。"
    0000000000000000000000000000000000000001.jpg#0 zh images 1 turns 2 tokens 98/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    0000000000000000000000000000000000000002.jpg#0 zh images 1 turns 2 tokens 93/10 "猫的粉红色鼻子和胡须。"
    0000000000000000000000000000000000000002.jpg#1 zh images 1 turns 2 tokens 92/13 "黄昏时分，一枚火箭矗立在发射台上。"
    0000000000000000000000000000000000000002.jpg#2 zh images 1 turns 2 tokens 92/13 "深蓝色天空下的白色火箭，四周是铁塔。"
    0000000000000000000000000000000000000002.jpg#3 zh images 1 turns 2 tokens 96/11 "散布在黑色天空中的彩色小星系。"
    0000000000000000000000000000000000000003.jpg zh images 1 turns 2 tokens 97/13 "黄昏时分，一枚火箭矗立在发射台上。"
    left out: row 11: read/no-answer: the answer is null
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 11622 105321 109193 45930 43815 8997 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    muge,
    ("muge", "muge"),
    r#"
    8426#0 zh images 1 turns 2 tokens 99/15 "一位身穿橙色航天服的女宇航员在微笑。"
    8427#0 zh images 1 turns 2 tokens 101/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    8427#1 zh images 1 turns 2 tokens 98/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    8428#0 zh images 1 turns 2 tokens 92/13 "高级感ins风👜斜挎包２０２４"
    8429#0 zh images 1 turns 2 tokens 93/13 "黄昏时分，一枚火箭矗立在发射台上。"
    8431#0 zh images 1 turns 2 tokens 92/11 "一个白色细胞，周围有一圈暗影。"
    left out: row 5: read/missing-image: `999` is not in `images`
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 14880 11622 14777 77540 100908 104136 31838 89012 9370 45930 8997 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);
set!(
    wukong,
    ("wukong", "wukong"),
    r#"
    000000000 zh images 1 turns 2 tokens 92/15 "一位身穿橙色航天服的女宇航员在微笑。"
    000000001 zh images 1 turns 2 tokens 103/18 "一名穿深色大衣的男子正通过三脚架上的相机观看。"
    000000005 zh images 1 turns 2 tokens 90/11 "一个白色细胞，周围有一圈暗影。"
    left out: row 2: quality/image-too-small: 72 x 59 pixels, a side under 64
    left out: row 3: read/no-answer: message 2, by assistant, is empty
    left out: row 4: quality/url: holds `http://t.cn/x`
    151644 8948 198 56568 101909 99350 34204 99262 103947 110498 1773 151645 198 151644 872 198 28029 15946 104139 94432 151655x49 151645 198 151644 77091 198 151667 271 151668 271 [101961] [112531] [107678] [38035] [102782] [43209] [9370] [57750] [100732] [99440] [42223] [18493] [105626] [1773] [151645]
    "#
);

const MIX: &str = "manifests/sets/mix.toml";

/// The mixed manifest on samples.
fn mix() -> (Project, Vec<String>) {
    let captions = "data/samples/chinese-llava-vision-instructions";
    let project = Project::with(&[
        "data/samples/llava-en-zh",
        captions,
        "data/samples/text-only",
        "data/qwen3-tokenizer",
        MIX,
    ]);
    let settings = [
        "talk=data/samples/llava-en-zh".to_owned(),
        format!("captions={captions}/LLaVA-CC3M-Pretrain-595K/chat-translated.json"),
        format!("images={captions}/images.zip"),
        "text=data/samples/text-only/chat.jsonl".to_owned(),
        TOKENIZER.to_owned(),
        "max_rejects=0.5".to_owned(),
    ];
    let settings = settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]);
    (project, std::iter::once(MIX.to_owned()).chain(settings).collect())
}

fn counts(project: &Project, arguments: &[&str]) -> String {
    let index = shards(project, arguments).join("shards.json");
    let index: Value = serde_json::from_str(&std::fs::read_to_string(index).unwrap()).unwrap();
    format!("{}\n{}", index["train"]["languages"], index["train"]["sources"])
}

#[test]
fn a_mixture_counts_its_sources_and_languages_and_swaps_one_of_them_alone() {
    let (project, arguments) = mix();
    let english: Vec<&str> = arguments.iter().map(String::as_str).collect();
    project.run(&english);
    insta::assert_snapshot!(counts(&project, &english), @r#"
    {"en":17,"zh":8}
    {"chinese-llava-captions":7,"llava-en-zh":16,"text-only":2}
    "#);
    let chinese = [&english[..], &["--set", "lang=zh"]].concat();
    let summary = project.run(&chinese);
    let made: Vec<_> = ran(&summary).into_iter().filter(|name| summary[*name].kind != "read").collect();
    let talk =
        ["talk-chat", "talk-labels", "talk-pads", "talk-pixels", "talk-pixels.distinct", "talk-tokens"];
    assert_eq!(made, [&["shards"], &talk[..]].concat());
    insta::assert_snapshot!(counts(&project, &chinese), @r#"
    {"en":1,"zh":24}
    {"chinese-llava-captions":7,"llava-en-zh":16,"text-only":2}
    "#);
    assert_eq!(ran(&project.run(&english)), Vec::<&str>::new(), "the English shards are still there");
}

#[test]
fn a_corrupt_file_among_many_stops_the_run_unless_it_may_be_lost() {
    let set = Set::new("llava-en-zh-2k", "llava-en-zh", &["lang=*"]);
    let broken = "data/samples/llava-en-zh/fr/train-00000-of-00001.parquet";
    set.project.write(broken, b"PAR1 and then nothing");
    let refused = crate::project::text(&set.project.llavm(&set.arguments(&["run"])));
    assert!(refused.contains("1 file that could not be read to the end, more than 0"), "{refused}");
    set.project.replace(
        &set.manifest,
        "max_rejects = \"${max_rejects}\"",
        "max_rejects = { fraction = 0.6, files = 1 }",
    );
    let reported = set.reported();
    assert_eq!(reported.lines().filter(|line| line.contains(" tokens ")).count(), 16, "{reported}");
    let left_out: Vec<_> = reported.lines().filter(|line| line.starts_with("left out")).collect();
    insta::assert_snapshot!(
        left_out.join("\n"),
        @"left out: row 0: read/bad-file: fr/train-00000-of-00001.parquet: Parquet error: Invalid Parquet file. Corrupt footer"
    );
}

#[test]
fn a_wrong_column_name_lists_the_columns_that_exist() {
    let set = Set::new("minimind-v", "minimind-v", &[]);
    set.project.replace(&set.manifest, "image = \"image_bytes\"", "image = \"image_byte\"");
    let output = set.project.llavm(&set.arguments(&["run"]));
    let said = crate::project::text(&output);
    for part in [
        "has no column `image_byte`",
        "Did you mean `image_bytes`?",
        "conversations: string",
        "image_bytes: list<binary>",
    ] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}
