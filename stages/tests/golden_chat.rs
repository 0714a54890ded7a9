//! The text branch against Transformers: the cases of `golden/chat.json`, through the stages, to the byte.

#![allow(clippy::expect_used, reason = "a test stops at what it cannot read")]

mod common;

use common::{Table, conversations, golden, ids, list, qwen, turns};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::shift_labels::ShiftLabels;
use llavm_stages::tokenize::Tokenize;
use serde_json::{Value, json};

/// The reference fills labels that carry no loss with the pad token.
fn filled(labels: &[i32]) -> Vec<u32> {
    labels.iter().map(|label| u32::try_from(*label).unwrap_or(151_643)).collect()
}

fn tokens(table: &Table) -> Table {
    table.then::<ImagePads>(json!({})).then::<Tokenize>(json!({ "tokenizer": qwen() }))
}

#[test]
fn stage_1_rows_equal_the_reference_recipe() {
    for case in list(&golden()["stage1_examples"]) {
        let text = |name: &str| case[name].as_str().expect("a string").to_owned();
        let turns = vec![("user".to_owned(), text("input")), ("assistant".to_owned(), text("output"))];
        let chat = conversations(&[(turns, 1)]).then::<ChatTemplate>(json!({
            "tokenizer": qwen(), "system": "You are a helpful assistant.",
        }));
        let padded = chat.then::<ImagePads>(json!({}));
        assert_eq!(padded.text(0, Some(false)), text("prompt_text"));
        assert_eq!(padded.text(0, Some(true)), text("answer_text"));
        let tokens = tokens(&chat);
        assert_eq!(tokens.input_ids(0), [ids(&case["prompt_ids"]), ids(&case["answer_ids"])].concat());
        let labels = tokens.then::<ShiftLabels>(json!({}));
        assert_eq!(labels.input_ids(0), ids(&case["input_ids_shifted"]));
        assert_eq!(filled(&labels.labels(0)), ids(&case["labels_shifted_pad_filled"]));
    }
}

#[test]
fn stage_2_rows_equal_the_reference_recipe() {
    for case in list(&golden()["stage2_examples"]) {
        let messages = [turns(&case["prompt"]), turns(&case["completion"])].concat();
        let chat = conversations(&[(messages, 1)]).then::<ChatTemplate>(json!({ "tokenizer": qwen() }));
        let padded = chat.then::<ImagePads>(json!({}));
        assert_eq!(padded.text(0, Some(false)), case["prompt_text"].as_str().expect("a string"));
        assert_eq!(padded.text(0, None), case["full_text"].as_str().expect("a string"));
        let tokens = tokens(&chat);
        assert_eq!(tokens.input_ids(0), ids(&case["full_ids"]));
        let untrained = tokens.train(0).iter().filter(|train| !**train).count();
        assert_eq!(untrained as u64, case["prompt_len"].as_u64().expect("a number"));
        let labels = tokens.then::<ShiftLabels>(json!({}));
        assert_eq!(labels.input_ids(0), ids(&case["input_ids_shifted"]));
        assert_eq!(filled(&labels.labels(0)), ids(&case["labels_shifted_pad_filled"]));
    }
}

/// Of the 90 renderings, those a training row can have: an answer at the end, no generation prompt, thinking given.
#[test]
fn every_conversation_with_an_answer_is_rendered_and_encoded_as_transformers_does() {
    let golden = golden();
    let cases = list(&golden["cases"]).iter().filter(|case| {
        let messages = list(&case["messages"]);
        let answered = messages.last().is_some_and(|last| last["role"] == "assistant");
        answered && case["add_generation_prompt"] == false && case["enable_thinking"].is_boolean()
    });
    let cases: Vec<&Value> = cases.collect();
    let (mut changed, mut equal) = (Vec::new(), 0);
    for thinking in [false, true] {
        let cases: Vec<_> = cases.iter().filter(|case| case["enable_thinking"] == thinking).collect();
        let rows: Vec<_> = cases.iter().map(|case| (turns(&case["messages"]), 0)).collect();
        let chat = conversations(&rows)
            .then::<ChatTemplate>(json!({ "tokenizer": qwen(), "enable_thinking": thinking }));
        // Pads are typed in some of these texts, as a processor would have put them there.
        let tokens = chat.then::<Tokenize>(json!({ "tokenizer": qwen(), "special_in_text": "allow" }));
        for (row, case) in cases.iter().enumerate() {
            let name = case["name"].as_str().expect("a name");
            if let Some(code) = chat.code(row) {
                assert_eq!(code, "chat-template/answer-changes-prompt");
                changed.push((name, thinking));
                continue;
            }
            assert_eq!(chat.text(row, None), case["text"].as_str().expect("a string"), "{name}");
            assert_eq!(tokens.input_ids(row), ids(&case["input_ids"]), "{name}");
            equal += 1;
        }
    }
    let refused = [
        ("assistant_leading_newlines", false),
        ("assistant_leading_newlines", true),
        ("assistant_with_think_last", false),
    ];
    changed.sort_unstable();
    assert_eq!((changed, equal), (refused.to_vec(), 19));
}

/// As in `make_chat.py`: every assistant turn with a think block, and that, its text and its end marked as generated.
fn training_template() -> String {
    let path = common::root("data/qwen3-tokenizer/tokenizer_config.json");
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("a configuration");
    let ours = config["chat_template"].as_str().expect("a template");
    let start = ours.find("        {%- if loop.index0 > ns.last_query_index %}").expect("how a turn begins");
    let end = ours.find("        {%- if message.tool_calls %}").expect("what follows a turn's text");
    let turn = "        {{- '<|im_start|>' + message.role + '\\n' }}{% generation %}\
                {{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n";
    let close = "        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\"";
    let marked = close.replace("    {%- elif", "        {%- endgeneration %}\n    {%- elif");
    format!("{}{turn}{}", &ours[..start], &ours[end..]).replace(close, &marked)
}

#[test]
fn all_assistant_turns_carry_loss_as_in_transformers() {
    for case in list(&golden()["loss_mask_examples"]) {
        let params = if case["template"] == "standard" {
            // The mask covers the think block of the last turn: it is what a model prompted to think would write.
            json!({ "tokenizer": qwen(), "loss_on": "all-assistant", "enable_thinking": true })
        } else {
            json!({ "tokenizer": qwen(), "loss_on": "all-assistant", "template": training_template() })
        };
        let chat = conversations(&[(turns(&case["messages"]), 0)]).then::<ChatTemplate>(params);
        assert_eq!(chat.text(0, None), case["text"].as_str().expect("a string"), "{}", case["name"]);
        let tokens = chat.then::<Tokenize>(json!({ "tokenizer": qwen() }));
        assert_eq!(tokens.input_ids(0), ids(&case["input_ids"]), "{}", case["name"]);
        let mask: Vec<bool> = ids(&case["assistant_mask"]).iter().map(|bit| *bit == 1).collect();
        assert_eq!(tokens.train(0), mask, "{}", case["name"]);
    }
}
