//! Conversations with calls of tools against Transformers (`golden/make_calls.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{messages, root};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::tokenize::Tokenize;
use serde_json::{Value, json};

fn qwen() -> String {
    root("data/qwen3-tokenizer").display().to_string()
}

fn golden() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(root("stages/tests/golden/calls.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_conversation_is_rendered_as_transformers_does_and_its_calls_are_learnt() {
    let golden = golden();
    assert_eq!(golden.len(), 6);
    for (name, case) in &golden {
        let chat = messages(&case["turns"]).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
        assert_eq!(chat.rejects[0], None, "{name}");
        assert_eq!(chat.text(0, None), case["text"].as_str().unwrap(), "{name}");
        let all = json!({ "tokenizer": qwen(), "loss_on": "all-assistant" });
        let all = messages(&case["turns"]).then::<ChatTemplate>(all);
        let trained = all.text(0, Some(true));
        let text = case["text"].as_str().unwrap();
        assert_eq!(trained.matches("<tool_call>").count(), text.matches("<tool_call>").count(), "{name}");
        assert_eq!(
            trained.matches("<|im_end|>").count(),
            text.matches("<|im_start|>assistant").count(),
            "{name}"
        );
        let others = all.text(0, Some(false));
        assert!(!others.contains("zoom") && !trained.contains("done"), "{name}: {others}");
    }
    let last =
        messages(&golden["ends in a call"]["turns"]).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
    assert!(
        last.text(0, Some(true)).starts_with("<tool_call>\n{\"name\": \"zoom\""),
        "{}",
        last.text(0, None)
    );
}

#[test]
fn a_special_token_in_a_call_rejects_the_row_wherever_it_stands() {
    let calls = [
        r#"[{"function": {"name": "zoom<|im_end|>", "arguments": {}}}]"#,
        r#"[{"function": {"name": "zoom", "arguments": {"x": ["<|im_end|>"]}}}]"#,
        r#"[{"function": {"name": "zoom", "arguments": {"<|im_end|>": 1}}}]"#,
        r#"[{"function": {"name": "zoom", "arguments": "<|im_end|>"}}]"#,
        r#"[{"name": "zoom<|im_end|>", "arguments": {}}]"#,
    ];
    for call in calls {
        for ends in [true, false] {
            let mut turns = vec![json!(["user", "Zoom.", null]), json!(["assistant", "", call])];
            if !ends {
                turns.extend([json!(["tool", "done", null]), json!(["assistant", "A cat.", null])]);
            }
            for loss_on in ["last", "all-assistant"] {
                let chat = json!({ "tokenizer": qwen(), "loss_on": loss_on });
                let tokens = messages(&json!(turns)).then::<ChatTemplate>(chat).then::<ImagePads>(json!({}));
                let tokens = tokens.then::<Tokenize>(json!({ "tokenizer": qwen() }));
                assert_eq!(tokens.code(0), Some("tokenize/special-token"), "{call} {ends} {loss_on}");
            }
        }
    }
}

/// The cases of `golden/make_tools.py`.
fn golden_tools() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(root("stages/tests/golden/tools.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn tools_thoughts_and_names_reach_the_template_as_in_transformers() {
    let golden = golden_tools();
    assert_eq!(golden.len(), 12);
    for (name, case) in &golden {
        let mut params =
            json!({ "tokenizer": qwen(), "enable_thinking": case["enable_thinking"], "answer_end": "turn" });
        if let Some(template) = case["template"].as_str() {
            params["template"] = json!(template);
        }
        let chat = messages(&case["turns"]).then::<ChatTemplate>(params);
        assert_eq!(chat.rejects[0], None, "{name}");
        assert_eq!(chat.text(0, None), case["text"].as_str().unwrap(), "{name}");
        assert_eq!(chat.text(0, Some(false)), case["prompt"].as_str().unwrap(), "{name}");
        let roles = chat.segments(0);
        let of = |wanted: &'static str| roles.iter().filter(move |(_, _, role)| role == wanted);
        assert!(
            of("template").all(|(text, ..)| !text.contains("Closer") && !text.contains("看")),
            "{name}: {roles:?}"
        );
        assert_eq!(
            of("user").count(),
            case["text"].as_str().unwrap().matches("<|im_start|>user").count()
                - case["text"].as_str().unwrap().matches("user\n<tool_response>").count(),
            "{name}"
        );
    }
}

#[test]
fn thoughts_need_a_prompt_that_lets_the_model_think() {
    let case = golden_tools()["thoughts"].clone();
    for loss_on in ["last", "all-assistant"] {
        let chat =
            messages(&case["turns"]).then::<ChatTemplate>(json!({ "tokenizer": qwen(), "loss_on": loss_on }));
        let reject = chat.rejects[0].clone().unwrap();
        assert!(reject.starts_with("chat-template/answer-changes-prompt: the answer thinks"), "{reject}");
        assert!(reject.contains("enable_thinking = true"), "{reject}");
    }
}

#[test]
fn a_special_token_beside_the_words_rejects_the_row() {
    let rows = [
        json!([
            ["user", "Zoom.", null, null, r#"[{"name": "zoom", "description": "x <|im_end|> y"}]"#],
            ["assistant", "A cat."]
        ]),
        json!([
            ["user", "Zoom.", null, null, r#"[{"name": "zoom", "parameters": {"<|im_end|>": 1}}]"#],
            ["assistant", "A cat."]
        ]),
        json!([["user", "Zoom."], ["assistant", "A cat.", null, r#"{"reasoning_content": "<|im_end|>"}"#]]),
    ];
    for turns in rows {
        let chat = json!({ "tokenizer": qwen(), "enable_thinking": true });
        let tokens = messages(&turns).then::<ChatTemplate>(chat).then::<ImagePads>(json!({}));
        let tokens = tokens.then::<Tokenize>(json!({ "tokenizer": qwen() }));
        assert_eq!(tokens.code(0), Some("tokenize/special-token"), "{turns}");
    }
}

#[test]
fn a_noncharacter_beside_the_words_rejects_the_row() {
    let turns = json!([["user", "Zoom.", null, null, "[{\"name\": \"\u{FDD1}\"}]"], ["assistant", "A cat."]]);
    let chat = messages(&turns).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
    assert_eq!(chat.code(0), Some("chat-template/noncharacter"));
}
