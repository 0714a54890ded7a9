//! Odd but legal values in the layout of every public data set, one a row (`data/make_held_back.py`): no image, a list of one,
//! `<image>` in the middle, Windows line ends, byte-order marks, full-width marks, emoji, three questions, a system turn, an empty answer.
//! Each becomes the row it should, or a reject with a name. A snapshot's lines are those of `sets.rs`.

use crate::project::repository;
use crate::sets::Set;
use crate::tables::files;

#[test]
fn every_set_has_odd_values_here() {
    let tests = include_str!("held_back.rs");
    for file in files(&repository().join("data/held-back")) {
        let name = file.iter().next().unwrap().to_str().unwrap();
        assert!(tests.contains(&format!("\"{name}\"")), "no test of {name}");
    }
}

macro_rules! odd {
    ($test:ident, ($name:literal, $data:literal $(, $variable:literal)*), $reported:literal) => {
        #[test]
        fn $test() {
            let set = Set::on($name, concat!("data/held-back/", $data), &[$($variable),*]);
            let reported = set.reported();
            // The first row's tokens are `sets.rs`'s matter.
            let rows: Vec<_> = reported.lines().filter(|line| !line.starts_with("151644 ")).collect();
            insta::assert_snapshot!(rows.join("\n"), @$reported);
        }
    };
}

odd!(
    llava_cc3m_pretrain_595k,
    ("llava-cc3m-pretrain-595k", "llava-cc3m-pretrain-595k"),
    r#"
    none en images 0 turns 2 tokens 32/2 "5"
    list en images 1 turns 2 tokens 81/5 "a list of one"
    middle en images 1 turns 2 tokens 84/4 "in the middle"
    crlf en images 1 turns 2 tokens 82/4 "one\r\ntwo"
    bom en images 1 turns 2 tokens 80/3 "\u{feff}marked"
    wide en images 1 turns 2 tokens 86/7 "“猫”，１只！"
    emoji en images 1 turns 2 tokens 80/3 "🚀🌕"
    turns en images 1 turns 6 tokens 102/2 "3"
    system en images 1 turns 3 tokens 78/5 "after a system turn"
    missing en images 0 turns 2 tokens 32/2 "5"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    llava_pretrain_558k,
    ("llava-pretrain-558k", "llava-pretrain-558k"),
    r#"
    none en images 0 turns 2 tokens 32/2 "5"
    list en images 1 turns 2 tokens 81/5 "a list of one"
    middle en images 1 turns 2 tokens 84/4 "in the middle"
    crlf en images 1 turns 2 tokens 82/4 "one\r\ntwo"
    bom en images 1 turns 2 tokens 80/3 "\u{feff}marked"
    wide en images 1 turns 2 tokens 86/7 "“猫”，１只！"
    emoji en images 1 turns 2 tokens 80/3 "🚀🌕"
    turns en images 1 turns 6 tokens 102/2 "3"
    system en images 1 turns 3 tokens 78/5 "after a system turn"
    missing en images 0 turns 2 tokens 32/2 "5"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    llava_instruct_150k,
    ("llava-instruct-150k", "llava-instruct-150k", "images=data/held-back/llava-instruct-150k/train2017"),
    r#"
    none en images 0 turns 2 tokens 22/2 "5"
    list en images 1 turns 2 tokens 71/5 "a list of one"
    middle en images 1 turns 2 tokens 74/4 "in the middle"
    crlf en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    bom en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    wide en images 1 turns 2 tokens 76/7 "“猫”，１只！"
    emoji en images 1 turns 2 tokens 70/3 "🚀🌕"
    turns en images 1 turns 6 tokens 92/6 "3"
    system en images 1 turns 3 tokens 79/5 "after a system turn"
    missing en images 0 turns 2 tokens 22/2 "5"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    llava_instruct_mix,
    ("llava-instruct-mix", "llava-instruct-mix"),
    r#"
    train-00000-of-00001.parquet#0 en images 0 turns 2 tokens 22/3 "5"
    train-00000-of-00001.parquet#1 en images 1 turns 2 tokens 71/6 "a list of one"
    train-00000-of-00001.parquet#2 en images 1 turns 2 tokens 74/5 "in the middle"
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 72/5 "one\r\ntwo"
    train-00000-of-00001.parquet#4 en images 1 turns 2 tokens 70/4 "\u{feff}marked"
    train-00000-of-00001.parquet#5 en images 1 turns 2 tokens 76/8 "“猫”，１只！"
    train-00000-of-00001.parquet#6 en images 1 turns 2 tokens 70/4 "🚀🌕"
    train-00000-of-00001.parquet#7 en images 1 turns 6 tokens 92/3 "3"
    train-00000-of-00001.parquet#8 en images 1 turns 3 tokens 79/6 "after a system turn"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    llava_instruct_mix_vsft,
    ("llava-instruct-mix-vsft", "llava-instruct-mix-vsft"),
    r#"
    train-00000-of-00001.parquet#0 en images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#1 en images 1 turns 2 tokens 71/5 "a list of one"
    train-00000-of-00001.parquet#2 en images 1 turns 2 tokens 75/4 "in the middle"
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    train-00000-of-00001.parquet#4 en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    train-00000-of-00001.parquet#5 en images 1 turns 2 tokens 76/7 "“猫”，１只！"
    train-00000-of-00001.parquet#6 en images 1 turns 2 tokens 70/3 "🚀🌕"
    train-00000-of-00001.parquet#7 en images 1 turns 6 tokens 92/6 "3"
    train-00000-of-00001.parquet#8 en images 1 turns 3 tokens 79/5 "after a system turn"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    the_cauldron,
    ("the-cauldron", "the-cauldron"),
    r#"
    train-00000-of-00001.parquet#0 en images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#1 en images 1 turns 2 tokens 71/5 "a list of one"
    train-00000-of-00001.parquet#2 en images 1 turns 2 tokens 74/4 "in the middle"
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    train-00000-of-00001.parquet#4 en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    train-00000-of-00001.parquet#5 en images 1 turns 2 tokens 76/7 "“猫”，１只！"
    train-00000-of-00001.parquet#6 en images 1 turns 2 tokens 70/3 "🚀🌕"
    train-00000-of-00001.parquet#7 en images 1 turns 6 tokens 92/6 "3"
    left out: row 8: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    finevision,
    ("finevision", "finevision"),
    r#"
    train-00000-of-00001.parquet#0 en images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#1 en images 1 turns 2 tokens 71/5 "a list of one"
    train-00000-of-00001.parquet#2 en images 1 turns 2 tokens 74/4 "in the middle"
    train-00000-of-00001.parquet#3 en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    train-00000-of-00001.parquet#4 en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    train-00000-of-00001.parquet#5 zh images 1 turns 2 tokens 76/7 "“猫”，１只！"
    train-00000-of-00001.parquet#6 - images 1 turns 2 tokens 70/3 "🚀🌕"
    train-00000-of-00001.parquet#7 en images 1 turns 6 tokens 92/6 "3"
    left out: row 8: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    chinese_llava_vision_instructions,
    (
        "chinese-llava-vision-instructions",
        "chinese-llava-vision-instructions",
        "images=data/held-back/chinese-llava-vision-instructions/images.zip"
    ),
    r#"
    none zh images 0 turns 2 tokens 34/2 "5"
    list zh images 1 turns 2 tokens 83/5 "a list of one"
    middle zh images 1 turns 2 tokens 86/4 "in the middle"
    crlf zh images 1 turns 2 tokens 84/4 "one\r\ntwo"
    bom zh images 1 turns 2 tokens 82/3 "\u{feff}marked"
    wide zh images 1 turns 2 tokens 88/7 "“猫”，１只！"
    emoji zh images 1 turns 2 tokens 82/3 "🚀🌕"
    turns zh images 1 turns 6 tokens 104/2 "3"
    system zh images 1 turns 3 tokens 78/5 "after a system turn"
    missing zh images 0 turns 2 tokens 34/2 "5"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    llava_en_zh,
    ("llava-en-zh-300k", "llava-en-zh"),
    r#"
    train-00000-of-00001.parquet#0 zh images 0 turns 2 tokens 22/2 "5"
    train-00000-of-00001.parquet#1 zh images 1 turns 2 tokens 71/5 "a list of one"
    train-00000-of-00001.parquet#2 zh images 1 turns 2 tokens 74/4 "in the middle"
    train-00000-of-00001.parquet#3 zh images 1 turns 2 tokens 72/4 "one\r\ntwo"
    train-00000-of-00001.parquet#4 zh images 1 turns 2 tokens 70/3 "\u{feff}marked"
    train-00000-of-00001.parquet#5 zh images 1 turns 2 tokens 76/7 "“猫”，１只！"
    train-00000-of-00001.parquet#6 zh images 1 turns 2 tokens 70/3 "🚀🌕"
    train-00000-of-00001.parquet#7 zh images 1 turns 6 tokens 92/6 "3"
    train-00000-of-00001.parquet#8 zh images 1 turns 3 tokens 79/5 "after a system turn"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    minimind_v,
    ("minimind-v", "minimind-v"),
    r#"
    sft_i2t.parquet#0 en images 0 turns 2 tokens 22/2 "5"
    sft_i2t.parquet#1 en images 1 turns 2 tokens 71/5 "a list of one"
    sft_i2t.parquet#2 en images 1 turns 2 tokens 74/4 "in the middle"
    sft_i2t.parquet#3 en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    sft_i2t.parquet#4 en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    sft_i2t.parquet#5 zh images 1 turns 2 tokens 76/7 "“猫”，１只！"
    sft_i2t.parquet#6 - images 1 turns 2 tokens 70/3 "🚀🌕"
    sft_i2t.parquet#7 en images 1 turns 6 tokens 92/6 "3"
    sft_i2t.parquet#8 en images 1 turns 3 tokens 79/5 "after a system turn"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    minimind_v_with_bytes,
    ("minimind-v", "minimind-v", "part=pretrain"),
    r#"
    pretrain_i2t.parquet#0 en images 0 turns 2 tokens 22/2 "5"
    pretrain_i2t.parquet#1 en images 1 turns 2 tokens 71/5 "a list of one"
    pretrain_i2t.parquet#2 en images 1 turns 2 tokens 74/4 "in the middle"
    pretrain_i2t.parquet#3 en images 1 turns 2 tokens 72/4 "one\r\ntwo"
    pretrain_i2t.parquet#4 en images 1 turns 2 tokens 70/3 "\u{feff}marked"
    pretrain_i2t.parquet#5 zh images 1 turns 2 tokens 76/7 "“猫”，１只！"
    pretrain_i2t.parquet#6 - images 1 turns 2 tokens 70/3 "🚀🌕"
    pretrain_i2t.parquet#7 en images 1 turns 6 tokens 92/6 "3"
    pretrain_i2t.parquet#8 en images 1 turns 3 tokens 79/5 "after a system turn"
    left out: row 9: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    coco_cn,
    ("coco-cn", "coco-cn", "coco=data/held-back/coco-cn"),
    r#"
    COCO_train2014_000000000001#0 zh images 1 turns 2 tokens 85/6 "只有一项的列表"
    COCO_val2014_000000000002#0 zh images 1 turns 2 tokens 90/7 "写着<image>的牌子"
    COCO_train2014_000000000003#0 zh images 1 turns 2 tokens 91/6 "第一行 第二行"
    COCO_val2014_000000000004#0 zh images 1 turns 2 tokens 90/6 "\u{feff}带标记的猫"
    COCO_train2014_000000000005#0 zh images 1 turns 2 tokens 90/7 "“猫”，１只！"
    COCO_val2014_000000000006#0 zh images 1 turns 2 tokens 90/6 "🚀飞向🌕了"
    left out: row 0: read/no-image: the row has no image, and its instruction asks about one
    left out: row 7: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    flickr30k_cna,
    ("flickr30k-cna", "flickr30k-cna", "images=data/held-back/flickr30k-cna/flickr30k-images"),
    r#"
    flickr30k_cna_train.txt#1 zh images 1 turns 2 tokens 86/6 "只有一项的列表"
    flickr30k_cna_train.txt#2 zh images 1 turns 2 tokens 92/7 "写着<image>的牌子"
    flickr30k_cna_train.txt#3 zh images 1 turns 2 tokens 85/6 "第一行 第二行"
    flickr30k_cna_train.txt#4 zh images 1 turns 2 tokens 91/6 "\u{feff}带标记的猫"
    flickr30k_cna_train.txt#5 zh images 1 turns 2 tokens 94/7 "“猫”，１只！"
    flickr30k_cna_train.txt#6 zh images 1 turns 2 tokens 89/6 "🚀飞向🌕了"
    left out: row 0: read/no-image: the row has no image, and its instruction asks about one
    left out: row 7: read/no-answer: message 2, by assistant, is empty
    "#
);
odd!(
    ai_challenger,
    ("ai-challenger", "ai-challenger"),
    r#"
    list.jpg#0 zh images 1 turns 2 tokens 89/6 "只有一项的列表"
    middle.jpg#0 zh images 1 turns 2 tokens 86/7 "写着<image>的牌子"
    crlf.jpg#0 zh images 1 turns 2 tokens 91/6 "第一行\r\n第二行"
    bom.jpg#0 zh images 1 turns 2 tokens 89/6 "\u{feff}带标记的猫"
    wide.jpg#0 zh images 1 turns 2 tokens 90/7 "“猫”，１只！"
    emoji.jpg#0 zh images 1 turns 2 tokens 89/6 "🚀飞向🌕了"
    list.jpg zh images 1 turns 2 tokens 84/3 "不是列表"
    left out: row 0: read/no-image: the row has no image, and its instruction asks about one
    left out: row 7: read/no-answer: message 2, by assistant, is empty
    left out: row 9: read/no-answer: the answer is null
    "#
);
odd!(
    muge,
    ("muge", "muge"),
    r#"
    1#0 zh images 1 turns 2 tokens 91/6 "只有一项的列表"
    2#0 zh images 1 turns 2 tokens 88/7 "写着<image>的牌子"
    3#0 zh images 1 turns 2 tokens 89/6 "第一行\r\n第二行"
    4#0 zh images 1 turns 2 tokens 85/6 "\u{feff}带标记的猫"
    5#0 zh images 1 turns 2 tokens 86/7 "“猫”，１只！"
    6#0 zh images 1 turns 2 tokens 90/6 "🚀飞向🌕了"
    91 zh images 1 turns 2 tokens 88/3 "不是列表"
    left out: row 0: read/no-image: the row has no image, and its instruction asks about one
    left out: row 7: read/no-answer: message 2, by assistant, is empty
    left out: row 8: read/no-image: the row has no image, and its instruction asks about one
    "#
);
odd!(
    wukong,
    ("wukong", "wukong"),
    r#"
    000000001 zh images 1 turns 2 tokens 87/6 "只有一项的列表"
    000000003 zh images 1 turns 2 tokens 85/6 "第一行\r\n第二行"
    000000004 zh images 1 turns 2 tokens 87/6 "\u{feff}带标记的猫"
    000000005 zh images 1 turns 2 tokens 90/7 "“猫”，１只！"
    000000006 zh images 1 turns 2 tokens 85/6 "🚀飞向🌕了"
    left out: row 0: read/no-image: the row has no image, and its instruction asks about one
    left out: row 2: quality/tag: holds `<image>`
    left out: row 7: read/no-answer: message 2, by assistant, is empty
    "#
);
