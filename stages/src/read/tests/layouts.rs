//! Images by name, lists of captions, stated and detected languages.

use super::{Files, Row, all_rows, image, rows_of, turns};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llavm_pipeline::stage::{BATCH_ROWS, Source};
use serde_json::json;

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_deref().unwrap()).collect()
}

#[test]
fn each_caption_is_a_row_with_the_same_image() {
    let files = Files::new();
    files.write("images/a.jpg", image(1));
    let lines = [
        r#"{"image": "a.jpg", "answer": ["一", "二"]}"#,
        r#"{"image": "a.jpg", "answer": "三"}"#,
        r#"{"image": "a.jpg", "answer": []}"#,
        "{broken",
    ];
    files.write("rows.jsonl", lines.join("\n"));
    let params = json!({"explode": "answer", "images": "images", "prompts": ["?"]});
    let rows = files.rows("rows.jsonl", params);
    assert_eq!(
        ids(&rows),
        ["rows.jsonl#0#0", "rows.jsonl#0#1", "rows.jsonl#1", "rows.jsonl#2", "rows.jsonl#3"]
    );
    assert_eq!(
        [0, 1, 2].map(|row| rows[row].messages.clone()),
        ["一", "二", "三"].map(|text| turns("?", text))
    );
    assert_eq!([0, 1, 2].map(|row| rows[row].images.as_ref().unwrap().len()), [1, 1, 1]);
    assert_eq!([3, 4].map(|row| rows[row].code().unwrap()), ["read/no-answer", "read/bad-json"]);
}

#[test]
fn a_drawn_instruction_needs_an_image_and_a_question_of_its_own_does_not() {
    let files = Files::new();
    let params = json!({"images": "images", "prompts": ["Describe the image."]});
    files.write("images/a.jpg", image(1));
    files.write("captions.jsonl", "{\"image\": \"a.jpg\", \"answer\": \"a cat\"}\n{\"answer\": \"a dog\"}\n");
    let source = files.open("captions.jsonl", params.clone());
    for columns in [&super::ALL[..], &["n_images"], &["images"]] {
        let rows = all_rows(source.as_ref(), columns);
        assert_eq!([0, 1].map(|row| rows[row].code()), [None, Some("read/no-image")], "{columns:?}");
    }
    files.write(
        "chats.jsonl",
        "{\"prompt\": \"Why?\", \"answer\": \"Because.\"}\n{\"image\": \"a.jpg\", \"answer\": \"a cat\"}\n",
    );
    let rows = files.rows("chats.jsonl", params);
    assert_eq!(rows.iter().map(Row::code).collect::<Vec<_>>(), [None, None], "{rows:?}");
}

#[test]
fn exploded_rows_are_the_same_whatever_is_asked_for() {
    let files = Files::new();
    let line = |n: usize| {
        json!({"answer": (0..n % 5).map(|item| format!("{n}.{item}")).collect::<Vec<_>>()}).to_string()
    };
    files.write("rows.jsonl", (0..200).map(line).collect::<Vec<_>>().join("\n"));
    let source =
        files.open("rows.jsonl", json!({"explode": "answer", "prompts": ["?"], "partition_rows": 90}));
    let places = |columns: &[&str]| all_rows(source.as_ref(), columns).len();
    // 200 / 5 times 0, 1, 2, 3 and 4 captions; a row without one is a row all the same.
    assert_eq!(
        [places(&["id"]), places(&["messages"]), places(&["n_images", "images"])],
        [40 * (1 + 1 + 2 + 3 + 4); 3]
    );
    let first = rows_of(source.as_ref(), 0, &["id", "messages"]);
    assert!(first.len() > BATCH_ROWS, "a raw row may lie across two batches");
    assert!(first.iter().filter(|row| row.reject.is_none()).all(|row| {
        let id = row.id.as_deref().unwrap().trim_start_matches("rows.jsonl#").replace('#', ".");
        row.messages == turns("?", &id)
    }));
}

#[test]
fn a_column_to_explode_that_is_not_there_is_reported() {
    let files = Files::new();
    files.write("rows.jsonl", r#"{"captions": ["a"], "answer": "b"}"#);
    let error = files.error("rows.jsonl", json!({"explode": "caption", "prompts": ["?"]}));
    assert!(error.to_string().contains("no column `caption`. Did you mean `captions`?"), "{error}");
}

#[test]
fn images_are_found_by_name_in_folders_and_tables_in_turn() {
    let files = Files::new();
    files.write("one/7.jpg", image(7));
    files.write("two/7.jpg", image(70));
    files.write("two/8.jpg", image(8));
    files.write("imgs.tsv", format!("9.jpg\t{}\n", STANDARD.encode(image(9))));
    files.write("rows.tsv", "7#0\tseven\n8#1\teight\n9\tnine\n10\tten\n");
    let places: Vec<_> = ["one", "two", "imgs.tsv"].map(|name| files.path(name)).into();
    let params = json!({"format": "tsv", "header": false, "image_name": "{}.jpg", "prompts": ["?"],
        "columns": {"image": "column_1", "answer": "column_2", "id": "column_1"}});
    let open = || {
        let mut stage = files.stage("rows.tsv", params.clone());
        stage.images = serde_json::from_value(json!(places)).unwrap();
        llavm_pipeline::stage::SourceStage::open(&stage, &super::Context::default()).unwrap()
    };
    let rows = all_rows(open().as_ref(), &super::ALL);
    assert_eq!(ids(&rows), ["7#0", "8#1", "9", "10"]);
    assert_eq!([0, 1, 2].map(|row| rows[row].images.clone()), [7, 8, 9].map(|n| Some(vec![image(n)])));
    assert_eq!(rows[3].reject.as_deref(), Some("read/missing-image: `10.jpg` is not in `images`"));

    let digest = |source: Box<dyn Source>| source.digest(0, &["images"]).unwrap();
    let before = digest(open());
    files.write("two/7.jpg", image(71));
    assert_eq!(digest(open()), before, "the first folder has that name");
    files.write("two/8.jpg", image(80));
    assert_ne!(digest(open()), before);
}

#[test]
fn an_image_of_eight_black_pixels_is_none_when_dropped() {
    let mut black = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut black, image::ImageFormat::Png).unwrap();
    let row = json!({"prompt": "q", "answer": "a", "image": STANDARD.encode(black.into_inner())});
    let files = Files::new();
    files.write("rows.jsonl", row.to_string());
    let counts = |params| files.rows("rows.jsonl", params)[0].images.as_ref().unwrap().len();
    assert_eq!(counts(json!({})), 1);
    assert_eq!(counts(json!({"placeholder_images": "drop"})), 0);
}

#[test]
fn a_language_is_the_columns_the_stated_or_that_of_the_conversation() {
    let files = Files::new();
    files.write(
        "rows.jsonl",
        r#"{"prompt": "What?", "answer": "一只猫。", "lang": "zh-Hans"}
           {"prompt": "这是什么？", "answer": "a cat", "lang": ""}
           {"prompt": "几个？", "answer": "3"}
           {"prompt": "1 + 2", "answer": "3"}"#,
    );
    let languages = |params| {
        let source = files.open("rows.jsonl", params);
        all_rows(source.as_ref(), &["language"]).into_iter().map(|row| row.language).collect::<Vec<_>>()
    };
    let some = |code: &str| Some(code.to_owned());
    assert_eq!(languages(json!({"language": "detect"})), [some("zh"), some("en"), some("zh"), None]);
    let column = json!({"columns": {"language": "lang"}, "language": "detect"});
    assert_eq!(languages(column), [some("zh-Hans"), some("en"), some("zh"), None]);
    assert_eq!(languages(json!({"language": "zh"})), [some("zh"), some("zh"), some("zh"), some("zh")]);
    assert_eq!(files.rows("rows.jsonl", json!({"source": "mine"}))[0].source, some("mine"));
}

#[test]
fn a_rejected_row_still_says_where_it_comes_from() {
    let files = Files::new();
    files.write("rows.jsonl", "{\"prompt\": \"q\", \"answer\": null, \"set\": \"own\"}\n{broken\n");
    let reported = |params| {
        let row = |row: Row| (row.source, row.language, row.reject.is_some());
        files.rows("rows.jsonl", params).into_iter().map(row).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let params = json!({"source": "mine", "language": "zh", "columns": {"source": "set"}});
    assert_eq!(reported(params), [(some("own"), some("zh"), true), (some("mine"), some("zh"), true)]);
    assert_eq!(reported(json!({"language": "detect"})), [(None, None, true), (None, None, true)]);
}
