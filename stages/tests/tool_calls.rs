//! Conversations with calls of tools against Transformers (`golden/make_calls.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringBuilder, StructBuilder, UInt32Array};
use common::{Table, root};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::row::message_fields;
use llavm_stages::tokenize::Tokenize;
use serde_json::{Value, json};
use std::sync::Arc;

fn qwen() -> String {
    root("data/qwen3-tokenizer").display().to_string()
}

/// A row of turns `[role, content, tool_calls]`.
fn row(turns: &Value) -> Table {
    let mut messages = ListBuilder::new(StructBuilder::from_fields(message_fields(), 0));
    for turn in turns.as_array().unwrap() {
        for field in 0..3 {
            let text = messages.values().field_builder::<StringBuilder>(field).unwrap();
            text.append_option(turn[field].as_str());
        }
        messages.values().append(true);
    }
    messages.append(true);
    let columns = [
        ("messages", Arc::new(messages.finish()) as ArrayRef, true),
        ("n_images", Arc::new(UInt32Array::from(vec![0])) as ArrayRef, true),
    ];
    Table::new(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
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
        let chat = row(&case["turns"]).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
        assert_eq!(chat.rejects[0], None, "{name}");
        assert_eq!(chat.text(0, None), case["text"].as_str().unwrap(), "{name}");
        let all = json!({ "tokenizer": qwen(), "loss_on": "all-assistant" });
        let all = row(&case["turns"]).then::<ChatTemplate>(all);
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
    let last = row(&golden["ends in a call"]["turns"]).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
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
                let tokens = row(&json!(turns)).then::<ChatTemplate>(chat).then::<ImagePads>(json!({}));
                let tokens = tokens.then::<Tokenize>(json!({ "tokenizer": qwen() }));
                assert_eq!(tokens.code(0), Some("tokenize/special-token"), "{call} {ends} {loss_on}");
            }
        }
    }
}
