#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use serde_json::{Value, json};

fn read(body: &Value) -> Result<ChatRequest, ApiError> {
    parse(body.to_string().as_bytes(), &crate::Settings::default().defaults)
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    body[field] = value;
    body
}

fn refusal(field: &str, value: Value) -> (Option<&'static str>, &'static str) {
    let error = read(&with(field, value)).unwrap_err();
    assert_eq!(error.status, 400);
    (error.param, error.code)
}

#[test]
fn words_and_parts_become_turns() {
    let body = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "user": "x", "metadata": {"a": [1]},
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "data:,a", "detail": "low"}},
                {"type": "image_url", "image_url": "data:,b"},
            ]},
            {"role": "assistant", "content": null, "refusal": null},
            {"role": "user", "content": "And?", "name": "me"},
        ],
    });
    let chat = read(&body).unwrap();
    assert_eq!(chat.images().collect::<Vec<_>>(), ["data:,a", "data:,b"]);
    let roles: Vec<&str> = chat.turns.iter().map(|turn| turn.role.name()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert!(chat.stream && chat.include_usage && chat.turns[2].parts.is_empty());
    assert!(chat.check_images(2).is_ok() && chat.check_images(1).is_err());
}

#[test]
fn tools_and_what_was_called_are_kept() {
    let call =
        json!([{"id": "1", "type": "function", "function": {"name": "zoom", "arguments": "{\"x\": 1}"}}]);
    let mut body = with("tools", json!([{"type": "function", "function": {"name": "zoom"}}]));
    body["messages"] = json!([
        {"role": "user", "content": "Zoom."},
        {"role": "assistant", "content": null, "tool_calls": call, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]);
    let chat = read(&body).unwrap();
    let json = |value: &Value| Some(Json::parse(&value.to_string()).unwrap());
    assert_eq!(chat.tools, json(&body["tools"]));
    assert_eq!(chat.turns[1].tool_calls, json(&call));
    assert_eq!(chat.turns[1].extra, json(&json!({"reasoning_content": "hm"})));
    assert_eq!(
        (chat.turns[2].role, &chat.turns[2].extra),
        (Role::Tool, &json(&json!({"tool_call_id": "1"})))
    );
    body["tool_choice"] = json!("none");
    assert_eq!(read(&body).unwrap().tools, None);
}

#[test]
fn what_a_request_says_counts_before_the_defaults() {
    let mut body = with("max_tokens", json!(5));
    assert_eq!(read(&body).unwrap().options.max_tokens, 5);
    body["max_completion_tokens"] = json!(7);
    for (field, value) in
        [("temperature", json!(0.5)), ("top_p", json!(0.25)), ("top_k", json!(-1)), ("seed", json!(-3))]
    {
        body[field] = value;
    }
    body["stop"] = json!(["a", "b"]);
    let options = read(&body).unwrap().options;
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.25,
        top_k: 0,
        seed: (-3_i64).cast_unsigned(),
        ..Sampling::default()
    };
    assert_eq!((options.max_tokens, options.sampling, options.stop.len()), (7, sampling, 2));
    let plain = read(&with("stop", json!("x"))).unwrap().options;
    assert_eq!((plain.max_tokens, plain.stop), (256, vec!["x".to_owned()]));
    let nulls = ["stop", "max_tokens", "temperature", "seed", "tools", "n", "stream"]
        .map(|field| with(field, Value::Null));
    assert!(nulls.iter().all(|body| read(body).is_ok()));
    let seeds =
        [read(&body).unwrap(), read(&with("n", json!(1))).unwrap(), read(&with("n", json!(1))).unwrap()];
    assert_ne!(seeds[1].options.sampling.seed, seeds[2].options.sampling.seed, "drawn answers differ");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (field, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-1)),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({"type": "function", "function": {"name": "zoom"}})),
        ("functions", json!([{}])),
        ("response_format", json!({"type": "json_object"})),
    ] {
        assert_eq!(refusal(field, value), (Some(field), "unsupported_parameter"));
    }
    for (field, value) in [
        ("tools", json!([])),
        ("tools", json!([{"type": "function", "function": {"name": "zoom"}}])),
        ("tool_choice", json!("none")),
        ("presence_penalty", json!(0)),
        ("response_format", json!({"type": "text"})),
    ] {
        assert!(read(&with(field, value)).is_ok(), "{field}");
    }
}

#[test]
fn values_out_of_range_and_of_other_types_are_refused() {
    for (field, value) in [
        ("max_tokens", json!(0)),
        ("temperature", json!(-1)),
        ("top_p", json!(1.5)),
        ("repetition_penalty", json!(0)),
        ("stop", json!(vec!["x"; 17])),
        ("stop", json!("x".repeat(257))),
        ("tools", json!("zoom")),
        ("tools", json!([1])),
    ] {
        assert_eq!(refusal(field, value), (Some(field), "invalid_value"));
    }
    for (field, value) in [
        ("max_tokens", json!(-1)),
        ("max_tokens", json!("many")),
        ("temperature", json!("hot")),
        ("seed", json!(1.5)),
        ("stop", json!([1])),
        ("stream", json!("yes")),
        ("messages", json!("hi")),
    ] {
        assert_eq!(refusal(field, value), (None, "invalid_json"), "{field}");
    }
}

#[test]
fn conversations_that_ask_nothing_are_refused() {
    for messages in [
        json!([]),
        json!([{"role": "assistant", "content": "hi"}]),
        json!([{"role": "narrator", "content": "hi"}]),
        json!([{"role": "assistant", "content": null, "tool_calls": [{"function": {}}]}, {"role": "user", "content": "hi"}]),
        json!([{"role": "user", "content": [{"type": "text"}]}]),
        json!([{"role": "user", "content": [{"type": "image_url"}]}]),
        json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
        json!([{"role": "system", "content": [{"type": "image_url", "image_url": "data:,a"}]}, {"role": "user", "content": "hi"}]),
    ] {
        assert_eq!(refusal("messages", messages), (Some("messages"), "invalid_value"));
    }
    for broken in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"messages\": [{}]}",
        b"\xff\xfe",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\"}]}",
    ] {
        assert_eq!(parse(broken, &crate::Settings::default().defaults).unwrap_err().code, "invalid_json");
    }
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        parse(deep.as_bytes(), &crate::Settings::default().defaults).unwrap_err().code,
        "invalid_json"
    );
}
