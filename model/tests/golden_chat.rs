//! The chat template and the tokenizer against Transformers: every case of `stages/tests/golden/chat.json`, which
//! `stages/tests/golden/make_chat.py` renders with transformers 5.23 and tokenizers 0.23.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use llavm_model::chat_template::{ChatTemplate, Json, Message, TemplateError};
use llavm_model::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn golden() -> Value {
    let text = std::fs::read_to_string(root("stages/tests/golden/chat.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn template() -> ChatTemplate {
    ChatTemplate::from_folder(&root("data/qwen3-tokenizer")).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(&root("data/qwen3-tokenizer")).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn render(template: &ChatTemplate, case: &Value) -> Result<String, TemplateError> {
    let prompt = case["add_generation_prompt"].as_bool().unwrap_or(false);
    template.render(&case["messages"], prompt, case["enable_thinking"].as_bool(), None)
}

#[test]
fn every_rendering_and_its_ids_equal_those_of_transformers() {
    let (template, tokenizer, golden) = (template(), tokenizer(), golden());
    let cases: Vec<_> =
        ["cases", "reasoning_cases"].iter().flat_map(|group| golden[group].as_array().unwrap()).collect();
    assert_eq!(cases.len(), 92);
    for case in cases {
        let text = render(&template, case).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{}", case["name"]);
        assert_eq!(tokenizer.encode(&text).unwrap(), ids(&case["input_ids"]), "{}", case["name"]);
    }
}

/// The template in the tokenizer's folder raises where the one on the hub does not; the hub's is this one with guards.
#[test]
fn the_hub_template_reads_lists_and_nulls_as_transformers_does_and_ours_refuses_them() {
    let golden = golden();
    let ours = template();
    let hub = hub_template(ours.source());
    for case in golden["hub_only_cases"].as_array().unwrap() {
        assert_eq!(
            render(&hub, case).unwrap(),
            case["text_hub_template"].as_str().unwrap(),
            "{}",
            case["name"]
        );
        assert!(matches!(render(&ours, case), Err(TemplateError::Render(_))), "{}", case["name"]);
    }
}

/// The guards that the hub's template has: content and reasoning count only where they are strings.
fn hub_template(ours: &str) -> ChatTemplate {
    let source = ours
        .replace(
            "message.role == \"user\" and not(message.content.startswith",
            "message.role == \"user\" and message.content is string and not(message.content.startswith",
        )
        .replace(
            "{%- for message in messages %}\n    {%- if (message.role",
            "{%- for message in messages %}\n    {%- set content = message.content if message.content is string else '' %}\n    {%- if (message.role",
        )
        .replace("'\\n' + message.content + '<|im_end|>'", "'\\n' + content + '<|im_end|>'")
        .replace("        {%- set content = message.content %}\n", "")
        .replace(
            "message.reasoning_content is defined and message.reasoning_content is not none",
            "message.reasoning_content is string",
        )
        .replace("'</think>' in message.content", "'</think>' in content")
        .replace("message.content.split", "content.split")
        .replace(
            "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}",
            "{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}",
        );
    assert_ne!(source, ours);
    ChatTemplate::with_source(&root("data/qwen3-tokenizer"), source).unwrap()
}

#[test]
fn special_tokens_have_the_ids_of_transformers() {
    let (tokenizer, golden) = (tokenizer(), golden());
    for (text, id) in golden["special_ids"].as_object().unwrap() {
        assert_eq!(tokenizer.token_id(text), Some(id.as_u64().unwrap() as u32), "{text}");
    }
    assert_eq!(tokenizer.len(), golden["len_tokenizer"].as_u64().unwrap() as usize);
    assert_eq!(tokenizer.eos().unwrap().id, 151_645);
    assert_eq!(tokenizer.pad().unwrap().id, 151_643);
}

#[test]
fn decoding_gives_the_text_back_and_can_hide_special_tokens() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("<|im_start|>user\n一只猫在沙发上。<|im_end|>\n").unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<|im_start|>user\n一只猫在沙发上。<|im_end|>\n");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "user\n一只猫在沙发上。\n");
}

#[test]
fn a_special_token_typed_in_a_text_is_found() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.special_in("x<|image_pad|>y").unwrap().text, "<|image_pad|>");
    assert_eq!(tokenizer.special_in("<image> <|im_en d|>"), None);
}

#[test]
fn generation_blocks_mark_what_the_assistant_writes_and_leave_the_text_alone() {
    let source = "{% for m in messages %}\n{{ m.role }}:\n{% if m.role == 'user' %}\n{{ m.content }}\n{% else %}\n\
                  {% generation %}\n{{ m.content }};\n{% endgeneration %}\n{% endif %}\n{% endfor %}\n";
    let template = ChatTemplate::with_source(&root("data/qwen3-tokenizer"), source.to_owned()).unwrap();
    let messages = [Message::new("user", "q"), Message::new("assistant", "a")];
    assert!(template.marks_generation());
    assert_eq!(template.render(&messages, false, None, None).unwrap(), "user:\nq\nassistant:\na;\n");
    assert_eq!(
        template.render_marked(&messages, false, None, None).unwrap(),
        "user:\nq\nassistant:\n\u{FDE0}a;\n\u{FDE1}"
    );
}

#[test]
fn json_in_a_template_is_written_as_python_writes_it() {
    let source = "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}".to_owned();
    let template = ChatTemplate::with_source(&root("data/qwen3-tokenizer"), source).unwrap();
    let tools = Json::parse(r#"[{"name": "<看>"}, 1, true, null]"#).unwrap();
    let text = template.render(&[0; 0], false, None, Some(&tools)).unwrap();
    assert_eq!(
        text,
        "[{\"name\": \"<看>\"}, 1, true, null]|[\n  {\n    \"name\": \"<看>\"\n  },\n  1,\n  true,\n  null\n]"
    );
}

#[test]
fn a_template_is_found_in_every_place_transformers_looks() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let rendered = || {
        let template = ChatTemplate::from_folder(folder.path())?;
        template.render(&[Message::new("user", "x")], false, None, None)
    };
    assert!(matches!(rendered(), Err(TemplateError::Missing { .. })));
    write(
        "tokenizer_config.json",
        r#"{"eos_token": {"content": "E"}, "chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"}]}"#,
    );
    assert_eq!(rendered().unwrap(), "xE");
    write("chat_template.jinja", "{{ eos_token }}!");
    assert_eq!(rendered().unwrap(), "E!");
    write("chat_template.jinja", "{{ raise_exception('only system, please') }}");
    assert_eq!(
        rendered().unwrap_err().to_string(),
        "the chat template cannot render these messages: only system, please (template line 1)"
    );
    write("chat_template.jinja", "{% if %}");
    assert!(matches!(rendered(), Err(TemplateError::Syntax(_))));
}
