use super::super::columns::ColumnNames;
use super::super::raw::RawColumn;
use super::*;

/// A reader of the layout, for a row whose columns are these.
fn reader(layout: Layout, columns: &[&str]) -> Reader {
    let columns: Vec<_> = columns.iter().map(|&name| RawColumn::new(name, "string")).collect();
    let mapping = Mapping::new(&ColumnNames::default(), layout, false, "rows.jsonl", &columns).unwrap();
    Reader { mapping, marks: Marks::default() }
}

type Turns = Vec<(&'static str, String)>;

fn read(row: &str, layout: Layout, with_images: bool) -> Result<(Turns, Vec<Image<'static>>), Reject> {
    let row = json::parse(row).unwrap();
    let Value::Object(fields) = &row else { panic!() };
    let mut columns: Vec<&str> = fields.iter().map(|(name, _)| name.as_ref()).collect();
    columns.extend(with_images.then_some("image"));
    let found = reader(layout, &columns).read(&row, || None)?;
    let turn = |turn: Message<'_>| {
        let calls = turn.tool_calls.map_or_else(String::new, |calls| format!(" {calls}"));
        (turn.role.name(), format!("{}{calls}", turn.content))
    };
    Ok((found.turns.into_iter().map(turn).collect(), found.images))
}

fn turns(messages: &str) -> Result<Turns, Reject> {
    read(&format!(r#"{{"messages": {messages}}}"#), Layout::Messages, true).map(|(turns, _)| turns)
}

fn code(messages: &str) -> &'static str {
    turns(messages).unwrap_err().code
}

fn pairs(pairs: &[(&'static str, &str)]) -> Turns {
    pairs.iter().map(|(role, text)| (*role, (*text).to_owned())).collect()
}

#[test]
fn all_layouts_of_the_same_conversation_give_the_same_turns() {
    let expected = pairs(&[("user", "What?\n<image>"), ("assistant", "A cat。😺")]);
    for layout in [
        r#"[{"role": "user", "content": "What?\n<image>"}, {"role": "assistant", "content": "A cat。😺"}]"#,
        r#"[{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A cat。😺"}]"#,
        r#"[{"content": [{"index": null, "text": "What?\n", "type": "text"}, {"index": 0, "text": null, "type": "image"}], "role": "user"},
            {"content": [{"index": null, "text": "A cat。😺", "type": "text"}], "role": "assistant"}]"#,
        r#"[{"content": [{"text": "What?", "type": "text"}, {"type": "image"}], "role": "user"}, {"role": "assistant", "content": "A cat。😺"}]"#,
        r#"[{"user": "What?\n<image>", "assistant": "A cat。😺", "source": "vqa"}]"#,
        r#"[{"query": "What?\n<image>", "response": "A cat。😺"}]"#,
        r#"[["What?\n<image>", "A cat。😺"]]"#,
        r#""[{\"role\": \"user\", \"content\": \"What?\\n<image>\"}, {\"role\": \"assistant\", \"content\": \"A cat。😺\"}]""#,
        r#"[{"role": "system", "content": ""}, {"from": "Human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A cat。😺"}]"#,
        r#"{"from": ["human", "gpt"], "value": ["What?\n<image>", "A cat。😺"]}"#,
        r#"{"user": ["What?\n<image>"], "assistant": ["A cat。😺"]}"#,
        r#"[{"role": null, "content": null, "from": "human", "value": "What?\n<image>"}, {"role": "assistant", "content": "A cat。😺", "from": null, "value": null}]"#,
    ] {
        assert_eq!(turns(layout).unwrap(), expected, "{layout}");
    }
}

#[test]
fn an_image_among_parts_stands_on_a_line_of_its_own() {
    let joined = |before: &str, after: &str| {
        let part = |text: &str| serde_json::json!({"type": "text", "text": text});
        let content = serde_json::json!([part(before), {"type": "image"}, part(after)]).to_string();
        let messages =
            format!(r#"[{{"role": "user", "content": {content}}}, {{"role": "assistant", "content": "a"}}]"#);
        turns(&messages).unwrap()[0].1.clone()
    };
    assert_eq!(joined("Look at ", " and say."), "Look at \n<image>\n and say.");
    assert_eq!(joined("Look.\n", "\nSay."), "Look.\n<image>\nSay.");
    assert_eq!(joined("Look.\r\n", "\r\nSay."), "Look.\r\n<image>\r\nSay.");
    assert_eq!(joined("", ""), "<image>");
}

#[test]
fn images_that_parts_or_tags_hold_are_the_rows_where_no_column_is() {
    let data = "data:image/png;base64,iVBORw0KGgo=";
    let parts = [
        r#"{"type": "image", "image": "a.png"}"#.to_owned(),
        r#"{"image": "a.png"}"#.to_owned(),
        r#"{"type": "image", "text": null, "path": "a.png"}"#.to_owned(),
        format!(r#"{{"type": "image_url", "image_url": {{"url": "{data}"}}}}"#),
        format!(r#"{{"type": "image_url", "image_url": "{data}"}}"#),
        r#"{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}"#.to_owned(),
    ];
    for part in &parts {
        let row = format!(
            r#"{{"messages": [{{"role": "user", "content": [{part}, {{"type": "text", "text": "What?", "image": null}}]}},
                {{"role": "assistant", "content": "A cat"}}]}}"#
        );
        let (found, images) = read(&row, Layout::Messages, false).unwrap();
        assert_eq!(found[0].1, "<image>\nWhat?", "{part}");
        assert_eq!(images.len(), 1, "{part}");
        let (found, images) = read(&row, Layout::Messages, true).unwrap();
        assert_eq!((found[0].1.as_str(), images.len()), ("<image>\nWhat?", 0), "a column holds them: {part}");
    }
    let row = r#"{"messages": [["Picture 1: <img>a/图.jpg</img>\nWhat?", "<img>is kept</img>"]]}"#;
    let (found, images) = read(row, Layout::Messages, false).unwrap();
    assert_eq!(found, pairs(&[("user", "Picture 1: <image>\nWhat?"), ("assistant", "<img>is kept</img>")]));
    assert_eq!(images, [Image::Path("a/图.jpg".into())]);
    let url = r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.jpg"}}]},
        {"role": "assistant", "content": "a"}]}"#;
    let reject = read(url, Layout::Messages, false).unwrap_err();
    assert_eq!(reject.code, "image-is-url");
    assert!(reject.detail.starts_with("message 1: "), "{}", reject.detail);
}

#[test]
fn turns_stay_in_the_order_they_have_whoever_speaks() {
    let found = turns(
        r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1"}, {"role": "user", "content": "2"},
            {"role": "assistant", "content": "3"}, {"role": "system", "content": "Be long."}, {"role": "user", "content": "4"},
            {"role": "assistant", "content": "5"}]"#,
    );
    let roles: Vec<_> = found.unwrap().into_iter().map(|(role, _)| role).collect();
    assert_eq!(roles, ["system", "user", "user", "assistant", "system", "user", "assistant"]);
}

#[test]
fn calls_of_tools_are_kept_in_every_form() {
    let call = r#"[{"type":"function","function":{"name":"zoom","arguments":{"x":1}}}]"#;
    let expected = [
        ("user", "Zoom in.".to_owned()),
        ("assistant", format!(" {call}")),
        ("tool", "done".to_owned()),
        ("assistant", "A cat.".to_owned()),
    ];
    let (user, last) =
        (r#"{"role": "user", "content": "Zoom in."}"#, r#"{"role": "assistant", "content": "A cat."}"#);
    for (spoken, answered) in [
        (format!(r#"{{"role": "assistant", "content": null, "tool_calls": {call}}}"#), r#"{"role": "tool", "content": "done"}"#),
        (
            r#"{"role": "assistant", "content": "", "function_call": {"name": "zoom", "arguments": {"x": 1}}}"#.to_owned(),
            r#"{"role": "function", "content": "done"}"#,
        ),
        (
            r#"{"from": "function_call", "value": "{\"name\": \"zoom\", \"arguments\": {\"x\": 1}}"}"#.to_owned(),
            r#"{"from": "observation", "value": "done"}"#,
        ),
    ] {
        let found = turns(&format!("[{user}, {spoken}, {answered}, {last}]")).unwrap();
        let normal = |(role, text): (&'static str, String)| match text.trim().parse::<serde_json::Value>() {
            Ok(calls) if calls.is_array() => {
                let call = &calls[0]["function"];
                (role, format!("{} {}", call["name"], call["arguments"]["x"]))
            }
            _ => (role, text),
        };
        let found: Vec<_> = found.into_iter().map(normal).collect();
        assert_eq!(found, expected.clone().into_iter().map(normal).collect::<Vec<_>>(), "{spoken}");
    }
}

#[test]
fn system_and_history_beside_the_turns_are_turns() {
    let row = r#"{"system": "Be brief.", "history": [["1", "2"], ["3", "4"]], "prompt": "5", "answer": "6"}"#;
    let (found, _) = read(row, Layout::PromptAnswer, true).unwrap();
    let expected =
        [("system", "Be brief."), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")];
    assert_eq!(found, pairs(&[&expected[..], &[("user", "5"), ("assistant", "6")]].concat()));
    let row = r#"{"system": null, "history": [], "prompt": "5", "answer": 6.50}"#;
    let (found, _) = read(row, Layout::PromptAnswer, true).unwrap();
    assert_eq!(found, pairs(&[("user", "5"), ("assistant", "6.50")]), "a number stays as it is written");
}

#[test]
fn a_completion_may_begin_with_a_bracket() {
    for answer in ["[1, 2]", "[0.1, 0.2, 0.3]", "{\\\"a\\\": 1}", "[not json", "[]"] {
        let row = format!(r#"{{"prompt": "Where?", "completion": "{answer}"}}"#);
        let (found, _) = read(&row, Layout::PromptCompletion, true).unwrap();
        assert_eq!(found[1].1, answer.replace("\\\"", "\""));
    }
    let row = r#"{"prompt": [{"role": "user", "content": "q"}], "completion": "[{\"role\": \"assistant\", \"content\": \"a\"}]"}"#;
    assert_eq!(
        read(row, Layout::PromptCompletion, true).unwrap().0,
        pairs(&[("user", "q"), ("assistant", "a")])
    );
}

#[test]
fn what_is_no_training_conversation_is_rejected_by_name() {
    assert_eq!(code("[]"), "no-answer");
    assert_eq!(code(r#"[{"role": "assistant", "content": "a"}]"#), "no-prompt");
    assert_eq!(code(r#"[{"role": "user", "content": "a"}]"#), "no-answer");
    assert_eq!(
        code(r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": " \n"}]"#),
        "no-answer"
    );
    assert_eq!(
        code(r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]"#),
        "no-answer"
    );
    assert_eq!(code(r#"[{"role": "narrator", "content": "a"}]"#), "unknown-role");
    assert_eq!(code(r#"[{"role": "user"}]"#), "bad-conversation");
    assert_eq!(code(r#"[{"role": "user", "content": [{"type": "video"}]}]"#), "bad-conversation");
    assert_eq!(code(r#""not json""#), "bad-conversation");
    assert_eq!(code("7"), "bad-conversation");
    let python = turns(r#""[{'from': 'human', 'value': 'x'}]""#).unwrap_err();
    assert!(python.detail.contains("use json.dumps"), "{}", python.detail);
}

#[test]
fn a_blank_question_needs_an_image() {
    let row = r#"{"prompt": "", "answer": "A cat"}"#;
    assert_eq!(read(row, Layout::PromptAnswer, true).unwrap().0.len(), 2);
    assert_eq!(read(row, Layout::PromptAnswer, false).unwrap_err().code, "no-prompt");
}
