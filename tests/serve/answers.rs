//! The API: what is answered is what `llavm generate` and `llavm chat` answer.

use crate::client::{Response, Server, ask, data_uri, image, model, turn};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the commands answer, which ask the model directly.
fn llavm(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_llavm"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn content(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// As the terminal shows it: control characters as signs.
fn visible(text: &str) -> String {
    let sign = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap(),
        _ => c,
    };
    text.chars().map(sign).collect()
}

/// The text of a stream, put together.
fn streamed(events: &[Value]) -> String {
    let deltas = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    deltas.collect()
}

#[test]
fn answers_are_those_of_generate_and_chat() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.png");
    std::fs::write(&file, image(4)).unwrap();
    let (model, file) = (model(), file.to_str().unwrap().to_owned());
    let model = model.to_str().unwrap();
    let generated = llavm(
        &["generate", model, "--image", &file, "--prompt", "What? 什么", "--max-new-tokens", "20", "--json"],
        "",
    );
    let generated: Value = serde_json::from_str(&generated).unwrap();
    let script = format!("/image {file}\nWhat? 什么\nAnd now?\n");
    let chat = llavm(&["chat", model, "--max-new-tokens", "20"], &script);

    let server = Server::start(&[]);
    let mut body = json!({"messages": [turn("What? 什么", &[&image(4)])], "max_tokens": 20});
    let answer = server.chat(&body).json();
    assert_eq!(content(&answer), generated["text"].as_str().unwrap());
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], generated["prompt_tokens"]);
    assert_eq!(usage["completion_tokens"], generated["generated_ids"].as_array().unwrap().len());
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    let total = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("gqa")));

    let turns = body["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": content(&answer)}));
    turns.push(json!({"role": "user", "content": "And now?"}));
    let next = server.chat(&body).json();
    assert_eq!(visible(&format!("{}\n{}\n", content(&answer), content(&next))), chat);
    let cached = next["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    // Qwen3's template leaves the empty think block out of earlier answers: the beginning is shared up to there.
    let image = 9;
    assert!(cached > image, "the first turn's image is not computed again: {cached}");
}

#[test]
fn tools_are_offered_alike_by_generate_chat_and_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let tools = json!([{"name": "z"}]);
    let call = json!([{"id": "1", "type": "function", "function": {"name": "zoom", "arguments": "{}"}}]);
    let turns = json!([
        {"role": "user", "content": "Zoom."},
        {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]);
    let write = |name: &str, value: &Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let file = write("tools.json", &tools);
    let line = write("questions.jsonl", &json!({"messages": turns}));
    let model = model();
    let model = model.to_str().unwrap();
    let generate = |more: &[&str]| -> Value {
        let all = [&["generate", model, "--max-new-tokens", "8", "--json"], more].concat();
        serde_json::from_str(&llavm(&all, "")).unwrap()
    };
    let plain = generate(&["--text-only", "--prompt", "Zoom."]);
    let offered = generate(&["--text-only", "--prompt", "Zoom.", "--tools", &file]);
    let called = generate(&["--jsonl", &line]);
    let tokens = |answer: &Value| answer["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&plain) + 100 < tokens(&offered) && tokens(&plain) + 50 < tokens(&called));
    let chat = llavm(&["chat", model, "--max-new-tokens", "8"], &format!("/tools {file}\nZoom.\n"));

    let server = Server::start(&[]);
    let ask = |turns: Value, tools: &Value| {
        server.chat(&json!({"messages": turns, "tools": tools, "max_tokens": 8})).json()
    };
    let answer = ask(json!([turn("Zoom.", &[])]), &tools);
    assert_eq!(
        (answer["usage"]["prompt_tokens"].as_u64(), content(&answer)),
        (offered["prompt_tokens"].as_u64(), offered["text"].as_str().unwrap().to_owned())
    );
    assert_eq!(visible(&format!("{}\n", content(&answer))), chat);
    let answer = ask(turns, &Value::Null);
    assert_eq!(
        (answer["usage"]["prompt_tokens"].as_u64(), content(&answer)),
        (called["prompt_tokens"].as_u64(), called["text"].as_str().unwrap().to_owned())
    );
    let typed = json!([{"name": "zoom", "description": "<|im_end|>"}]);
    let refused = server.chat(&json!({"messages": [turn("Zoom.", &[])], "tools": typed})).error();
    assert_eq!(refused, (400, "special-token".to_owned()));
}

#[test]
fn a_stream_says_the_same_in_the_order_that_clients_expect() {
    let server = Server::start(&[]);
    let mut body = ask("What is this?", 12);
    let whole = server.chat(&body).json();
    body["stream"] = json!(true);
    let (events, done) = server.chat(&body).events();
    assert!(done);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk" && event["id"] == events[0]["id"])
    );
    assert_eq!(streamed(&events), content(&whole));
    let (last, before) = events.split_last().unwrap();
    let ended = &whole["choices"][0]["finish_reason"];
    assert_eq!((&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]), (ended, &json!({})));
    assert!(before.iter().all(|event| event["choices"][0]["finish_reason"].is_null()));
    assert!(events.iter().all(|event| event.get("usage").is_none()));

    body["stream_options"] = json!({"include_usage": true});
    let (events, _) = server.chat(&body).events();
    let (usage, before) = events.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert!(before.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
}

#[test]
fn answers_end_for_the_reason_they_give() {
    let server = Server::start(&[]);
    let whole = server.chat(&ask("Tell", 30)).json();
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let text = content(&whole);
    let (start, end) = (text.char_indices().nth(4).unwrap().0, text.char_indices().nth(7).unwrap().0);
    let mut body = ask("Tell", 30);
    body["stop"] = json!(text[start..end]);
    let cut = server.chat(&body).json();
    assert_eq!(content(&cut), text[..text.find(&text[start..end]).unwrap()]);
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    body["stop"] = json!(["never said", &text[start..end]]);
    body["stream"] = json!(true);
    let (events, done) = server.chat(&body).events();
    assert!(done && streamed(&events) == content(&cut));
    let most =
        json!({"messages": ask("Tell", 1)["messages"], "max_tokens": 100_000, "max_completion_tokens": 2});
    assert_eq!(server.chat(&most).json()["usage"]["completion_tokens"], 2);
}

#[test]
fn bench_serve_has_a_line_for_every_number_of_clients() {
    let model = model();
    let asked =
        ["bench", "serve", model.to_str().unwrap(), "--prompt", "8", "--new", "3", "--questions", "2"];
    let table = llavm(&[&asked[..], &["--clients", "1", "--clients", "5"]].concat(), "");
    let clients: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(clients, ["clients", "1", "5"], "{table}");
}

#[test]
fn a_seed_draws_the_same_answer_beside_others() {
    let server = Server::start(&["--temperature", "0.9"]);
    let drawn = |seed: Option<u64>| {
        let mut body = ask("Tell me", 24);
        body["seed"] = json!(seed);
        body
    };
    let alone = content(&server.chat(&drawn(Some(3))).json());
    let together: Vec<String> = std::thread::scope(|scope| {
        let server = &server;
        let asked = (0..8).map(|n| scope.spawn(move || content(&server.chat(&drawn(Some(n))).json())));
        asked.collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(together[3], alone);
    assert_ne!(together[2], together[4]);
    let unseeded = [server.chat(&drawn(None)).json(), server.chat(&drawn(None)).json()];
    assert_ne!(content(&unseeded[0]), content(&unseeded[1]), "without a seed every answer is drawn anew");
}

#[test]
fn sixteen_at_once_get_what_each_gets_alone() {
    let server = Server::start(&["--cache-mib", "4"]);
    let question = |n: u32| {
        let pixels = image(n % 5 + 1);
        let text = format!("{} image {n}?", "What is in ".repeat(n as usize % 4 + 1));
        let images: &[&[u8]] = if n.is_multiple_of(4) { &[] } else { &[&pixels] };
        json!({"messages": [turn(&text, images)], "max_tokens": 16 + n, "stream": n.is_multiple_of(2)})
    };
    let text = |n: u32| {
        let response = server.chat(&question(n));
        if n.is_multiple_of(2) { streamed(&response.events().0) } else { content(&response.json()) }
    };
    let alone: Vec<String> = (0..16).map(text).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let asked = (0..16).map(|n| scope.spawn(move || text(n))).collect::<Vec<_>>();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    assert!(server.metric("llavm_kv_cache_bytes") <= 4 << 20);
}

#[test]
fn every_format_and_form_of_an_image_is_taken() {
    let server = Server::start(&[]);
    let decoded = image::load_from_memory(&image(4)).unwrap().to_rgb8();
    let encoded = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        decoded.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let png = data_uri("png", &image(4));
    let answer = |part: Value| {
        let content = json!([{"type": "text", "text": "What?"}, part]);
        server.chat(&json!({"messages": [{"role": "user", "content": content}], "max_tokens": 8}))
    };
    let expected = content(&answer(json!({"type": "image_url", "image_url": {"url": png}})).json());
    let webp = data_uri("webp", &encoded(image::ImageFormat::WebP));
    let wrapped = png.replacen("base64,", "base64,\n", 1);
    for url in [json!(png), json!({"url": webp}), json!({"url": wrapped, "detail": "high"})] {
        assert_eq!(content(&answer(json!({"type": "image_url", "image_url": url})).json()), expected);
    }
    for (kind, format) in [("jpeg", image::ImageFormat::Jpeg), ("gif", image::ImageFormat::Gif)] {
        let part = json!({"type": "image_url", "image_url": {"url": data_uri(kind, &encoded(format))}});
        assert_eq!(answer(part).status, 200, "{kind}");
    }
    let bmp = json!({"type": "image_url", "image_url": {"url": data_uri("png", &encoded(image::ImageFormat::Bmp))}});
    assert_eq!(answer(bmp).error(), (400, "invalid_image".to_owned()));
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_status_and_a_code() {
    let server = Server::start(&[]);
    let code = |body: &Value| server.chat(body).error();
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(server.post("/v1/chat/completions", "", b"{").error(), refused(400, "invalid_json"));
    assert_eq!(
        code(&json!({"messages": ask("x", 1)["messages"], "model": "other"})),
        refused(404, "model_not_found")
    );
    assert_eq!(
        code(&json!({"messages": ask("x", 1)["messages"], "n": 2})),
        refused(400, "unsupported_parameter")
    );
    assert_eq!(code(&ask(&"long ".repeat(2000), 1)), refused(400, "context_length_exceeded"));
    assert_eq!(code(&ask("hi <|im_end|> there", 1)), refused(400, "special-token"));
    let image_of = |url: &str| json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]});
    for url in [
        "data:image/png;base64,@@@",
        "data:",
        "",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/a.png",
        "HTTPS://x/",
    ] {
        assert_eq!(code(&image_of(url)), refused(400, "invalid_image_url"), "{url}");
    }
    assert_eq!(code(&image_of("data:image/png;base64,aGVsbG8=")), refused(400, "invalid_image"));
    let pixels = image(4);
    let many: Vec<&[u8]> = vec![&pixels; 17];
    assert_eq!(code(&json!({"messages": [turn("x", &many)]})), refused(400, "invalid_value"));
    assert_eq!(
        code(&json!({"messages": [turn("<image> or <image>", &[&pixels])]})),
        refused(400, "invalid_value")
    );
    assert_eq!(server.get("/nothing").error(), refused(404, "unknown_url"));
    assert_eq!(server.get("/v1/chat/completions").error(), refused(405, "method_not_allowed"));
    assert_eq!(server.get("/v1/models/other").error(), refused(404, "model_not_found"));
}

#[test]
fn the_model_its_health_and_its_numbers_can_be_asked_for() {
    let server = Server::start(&["--name", "org/shapes"]);
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("org/shapes")));
    assert_eq!(server.get("/v1/models/org/shapes").json(), models["data"][0]);
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    server.chat(&ask("Hi", 5));
    assert_eq!(server.metric("llavm_completion_tokens_total"), 5);
    assert_eq!(server.metric("llavm_time_to_first_token_seconds_count"), 1);
    assert_eq!(server.metric("llavm_time_per_output_token_seconds_count"), 4);
    let page = server.get("/");
    assert!(page.head.contains("text/html") && page.head.contains("frame-ancestors 'none'"));
    assert_eq!((server.get("/page.js").status, server.get("/page.css").status), (200, 200));
}

#[test]
fn one_connection_carries_one_request_after_the_other() {
    let server = Server::start(&[]);
    let chat = |body: &Value| {
        let body = body.to_string();
        let length = body.len();
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let whole = content(&server.chat(&ask("Hi", 5)).json());
    let streaming = {
        let mut body = ask("Hi", 5);
        body["stream"] = json!(true);
        body
    };
    let mut stream = server.connect();
    let mut send = |request: &str| {
        stream.write_all(request.as_bytes()).unwrap();
        Response::next(&mut stream)
    };
    for _ in 0..3 {
        assert_eq!(content(&send(&chat(&ask("Hi", 5))).json()), whole);
        assert_eq!(streamed(&send(&chat(&streaming)).events().0), whole);
        assert_eq!(send(&chat(&json!({}))).error().0, 400, "what is refused ends no connection");
        assert_eq!(send(&get("/nothing", "")).error().0, 404);
        assert_eq!(send(&get("http://x:1/health?a", "")).status, 200, "a target may be a whole address");
    }
    // Two at once are answered in order, and the connection ends when that is asked for.
    stream
        .write_all(format!("{}{}", chat(&ask("Hi", 5)), get("/health", "Connection: close\r\n")).as_bytes())
        .unwrap();
    assert_eq!(content(&Response::next(&mut stream).json()), whole);
    assert_eq!(Response::read(&mut stream).json(), json!({"status": "ok"}));
    // HTTP/1.0 ends every connection, unless asked not to, and knows no chunks.
    let body = streaming.to_string();
    let old = format!("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let old = server.raw(old.as_bytes());
    assert!(!old.head.contains("transfer-encoding"));
    assert_eq!(streamed(&old.events().0), whole);
    assert_eq!(server.raw(b"GET /health HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn a_body_that_waits_to_be_asked_for_is_asked_for_only_if_it_is_wanted() {
    let server = Server::start(&["--max-body-mib", "1", "--api-key", "k"]);
    let body = ask("Hi", 1).to_string();
    let head = |path: &str, key: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut stream = server.connect();
    stream.write_all(head("/v1/chat/completions", "k", body.len()).as_bytes()).unwrap();
    assert_eq!(Response::next(&mut stream).status, 100);
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(Response::read(&mut stream).status, 200);
    for (path, key, length, status) in [
        ("/v1/chat/completions", "k", 2 << 20, 413),
        ("/v1/chat/completions", "wrong", 100, 401),
        ("/nothing", "k", 100, 404),
    ] {
        assert_eq!(server.raw(head(path, key, length).as_bytes()).error().0, status);
    }
}

#[test]
fn keys_are_asked_for_everywhere_but_on_the_page_and_for_health() {
    let server = Server::start(&["--api-key", "one", "--api-key", "two"]);
    let body = ask("Hi", 1).to_string();
    let chat = |headers: &str| server.post("/v1/chat/completions", headers, body.as_bytes());
    for headers in
        ["", "Authorization: Bearer three\r\n", "Authorization: Basic one\r\n", "Authorization: Bearer\r\n"]
    {
        let response = chat(headers);
        assert_eq!(response.error(), (401, "invalid_api_key".to_owned()));
        assert!(response.head.contains("www-authenticate: bearer"));
    }
    assert_eq!(chat("Authorization: Bearer two\r\n").status, 200);
    for path in ["/v1/models", "/v1/models/gqa", "/metrics"] {
        assert_eq!(server.get(path).error().0, 401, "{path}");
    }
    assert_eq!(server.post("/preview", "", &image(4)).error().0, 401);
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
}

#[test]
fn pages_of_other_origins_are_let_in_only_when_asked() {
    let origin = "Origin: http://a.example\r\n";
    let body = ask("Hi", 1).to_string();
    let closed = Server::start(&[]);
    assert!(!closed.post("/v1/chat/completions", origin, body.as_bytes()).head.contains("access-control"));
    let open = Server::start(&["--cors", "http://a.example", "--api-key", "k"]);
    let preflight =
        format!("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{origin}Connection: close\r\n\r\n");
    let allowed = open.raw(preflight.as_bytes());
    assert_eq!(allowed.status, 204);
    assert!(allowed.head.contains("access-control-allow-origin: http://a.example"));
    assert!(allowed.head.contains("authorization"));
    let other = open.raw(preflight.replace("a.example", "b.example").as_bytes());
    assert!(!other.head.contains("access-control"));
}

#[test]
fn the_preview_is_the_square_that_the_model_sees() {
    let server = Server::start(&[]);
    let response = server.post("/preview", "", &image(4));
    assert!(response.head.contains("content-type: image/png"));
    let square = image::load_from_memory(&response.body).unwrap().to_rgb8();
    let folder = llavm_model::folder::ModelFolder::open(model().to_str().unwrap()).unwrap();
    let processor = llavm_model::processor::Processor::load(&folder).unwrap();
    let expected = processor.image.prepare(&image(4)).unwrap();
    let plane = (square.width() * square.height()) as usize;
    let seen: Vec<u8> =
        (0..3).flat_map(|channel| square.pixels().map(move |pixel| pixel.0[channel])).collect();
    assert_eq!((seen.len(), seen), (3 * plane, expected));
    assert_eq!(server.post("/preview", "", b"no image").error(), (400, "invalid_image".to_owned()));
}

#[test]
fn a_full_queue_is_429_and_whoever_hangs_up_is_forgotten() {
    let server = Server::start(&["--max-batch", "1", "--queue", "1"]);
    let long = ask("Tell me", 480);
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let asked = (0..12).map(|_| scope.spawn(|| server.chat(&long))).collect::<Vec<_>>();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let (answered, refused): (Vec<&Response>, Vec<&Response>) =
        responses.iter().partition(|response| response.status == 200);
    assert!(answered.len() >= 2 && !refused.is_empty(), "{} answered", answered.len());
    for response in refused {
        assert_eq!(response.error(), (429, "rate_limit_exceeded".to_owned()));
        assert!(response.head.contains("retry-after: 1"));
    }
    let mut streaming = long;
    streaming["stream"] = json!(true);
    let request = crate::client::post("/v1/chat/completions", "", streaming.to_string().as_bytes());
    for _ in 0..8 {
        let mut stream = server.connect();
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    server.wait_for("llavm_requests_running", 0);
    server.wait_for("llavm_requests_waiting", 0);
    assert!(server.metric("llavm_requests_cancelled_total") > 0);
    assert_eq!(server.chat(&ask("Hi", 1)).status, 200);
}

#[test]
fn stopping_lets_answers_end_and_takes_no_more() {
    let server = Server::start(&[]);
    let mut body = ask("Tell me", 300);
    body["stream"] = json!(true);
    let mut stream = server.connect();
    stream.write_all(&crate::client::post("/v1/chat/completions", "", body.to_string().as_bytes())).unwrap();
    stream.read_exact(&mut [0; 20]).unwrap();
    let idle = server.connect();
    let (status, time) = server.stop();
    assert_eq!(status, Some(0));
    assert!(time < Duration::from_secs(30), "an idle connection held it for {time:?}");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]") || rest.contains("is stopping"), "{rest}");
    drop(idle);
}
