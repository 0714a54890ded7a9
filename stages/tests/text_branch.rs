//! From conversations to labels: what each stage of the text branch does with odd rows, and what always holds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Table, Turn, conversation, conversations, qwen};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::shift_labels::ShiftLabels;
use llavm_stages::tokenize::Tokenize;
use proptest::prelude::*;
use serde_json::{Value, json};

const PAD: u32 = 151_655;
const EOS: u32 = 151_645;

fn chat(table: &Table) -> Table {
    table.then::<ChatTemplate>(json!({ "tokenizer": qwen() }))
}

/// `text` with every run of 49 pads written as `[49]`.
fn short(text: &str) -> String {
    text.replace(&"<|image_pad|>".repeat(49), "[49]")
}

/// The prompt after `image-pads` with these parameters.
fn padded(question: &str, n_images: u32, params: Value) -> Result<String, String> {
    let table = chat(&conversation(&[("user", question), ("assistant", "ok")], n_images));
    let table = table.then::<ImagePads>(params);
    let prompt = || {
        let text = short(&table.text(0, Some(false)));
        let question = text.strip_prefix("<|im_start|>user\n").unwrap();
        question.split("<|im_end|>").next().unwrap().to_owned()
    };
    table.rejects[0].clone().map_or_else(|| Ok(prompt()), Err)
}

#[test]
fn images_go_where_the_placeholders_are() {
    assert_eq!(padded("a<image>b", 1, json!({})).unwrap(), "a[49]b");
    assert_eq!(padded("<image>\n<image>", 2, json!({})).unwrap(), "[49]\n[49]");
    assert_eq!(padded("no image", 0, json!({})).unwrap(), "no image");
    let other = json!({ "count": 2, "placeholder": "[img]", "pad": "<|video_pad|>" });
    assert_eq!(padded("[img]<image>", 1, other).unwrap(), "<|video_pad|><|video_pad|><image>");
}

#[test]
fn an_image_without_placeholder_goes_where_missing_says() {
    assert_eq!(padded("What? ", 1, json!({})).unwrap(), "What? \n[49]");
    assert_eq!(padded("What?", 2, json!({})).unwrap(), "What?\n[49]\n[49]");
    assert_eq!(padded("", 1, json!({})).unwrap(), "\n[49]");
    assert_eq!(padded("What?", 1, json!({ "missing": "prepend" })).unwrap(), "[49]\nWhat?");
}

#[test]
fn images_and_placeholders_must_be_as_many() {
    let reported = [
        padded("<image><image>", 1, json!({})),
        padded("<image>", 0, json!({})),
        padded("<image>", 2, json!({})),
        padded("What?", 1, json!({ "missing": "reject" })),
    ]
    .map(Result::unwrap_err)
    .join("\n");
    insta::assert_snapshot!(reported, @"
    image-pads/placeholder-count: the row has 1 image(s), and 2 × `<image>` in its user turns
    image-pads/placeholder-count: the row has 0 image(s), and 1 × `<image>` in its user turns
    image-pads/placeholder-count: the row has 2 image(s), and 1 × `<image>` in its user turns
    image-pads/no-placeholder: the row has 1 image(s) and no `<image>`; set missing = \"append\" to have it added
    ");
}

#[test]
fn a_placeholder_in_an_answer_or_a_system_message_stays_text() {
    let turns = [("system", "<image>?"), ("user", "<image>"), ("assistant", "Write <image>.")];
    let table = chat(&conversation(&turns, 1)).then::<ImagePads>(json!({}));
    assert_eq!(table.text(0, Some(true)), "Write <image>.<|im_end|>\n");
    assert!(table.text(0, Some(false)).starts_with("<|im_start|>system\n<image>?<|im_end|>"));
    let tokens = table.then::<Tokenize>(json!({ "tokenizer": qwen() }));
    assert_eq!(tokens.input_ids(0).iter().filter(|id| **id == PAD).count(), 49);
}

#[test]
fn images_of_a_conversation_without_placeholder_go_to_its_first_question() {
    let turns = [("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")];
    let table = chat(&conversation(&turns, 1)).then::<ImagePads>(json!({}));
    let text = short(&table.text(0, None));
    assert!(text.starts_with("<|im_start|>user\nOne?\n[49]<|im_end|>\n"), "{text}");
    assert!(text.contains("user\nTwo?<|im_end|>"), "{text}");
}

#[test]
fn rows_that_cannot_be_rendered_for_training_are_rejected_by_name() {
    let rows: [&[(&str, &str)]; 7] = [
        &[("user", "q")],
        &[],
        &[("user", "q"), ("assistant", "\nA cat.")],
        &[("user", "q"), ("assistant", "</think>A cat.")],
        &[("user", "q"), ("assistant", "<think>why</think>A cat.")],
        &[("user", "q\u{FDD0}"), ("assistant", "a")],
        &[("user", "q"), ("assistant", "a")],
    ];
    let owned = |row: &&[(&str, &str)]| -> (Vec<Turn>, u32) {
        (row.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect(), 0)
    };
    let rows: Vec<_> = rows.iter().map(owned).collect();
    let refuses = "{{ raise_exception('Roles must alternate') if messages|length != 1 }}x";
    let refused =
        conversations(&rows[6..]).then::<ChatTemplate>(json!({ "tokenizer": qwen(), "template": refuses }));
    let mut reasons = chat(&conversations(&rows)).rejects;
    reasons.extend(refused.rejects);
    let reported: Vec<_> =
        reasons.into_iter().map(|reason| reason.unwrap_or_else(|| "fine".to_owned())).collect();
    insta::assert_snapshot!(reported.join("\n"), @"
    chat-template/no-answer: the conversation does not end with an assistant turn
    chat-template/no-answer: the conversation does not end with an assistant turn
    chat-template/answer-changes-prompt: the template renders the answer otherwise than the model would write it after the prompt; an answer may not begin with a line break or hold `</think>`
    chat-template/answer-changes-prompt: the answer thinks (`reasoning_content`, or text before `</think>`), but its prompt ends in an empty think block; set enable_thinking = true, or take the thoughts out of the data
    chat-template/answer-changes-prompt: the answer thinks (`reasoning_content`, or text before `</think>`), but its prompt ends in an empty think block; set enable_thinking = true, or take the thoughts out of the data
    chat-template/noncharacter: message 1 holds a Unicode noncharacter (U+FDD0 to U+FDEF)
    fine
    chat-template/template-refuses: the chat template cannot render these messages: Roles must alternate (template line 1)
    ");
}

#[test]
fn reasoning_is_learnt_where_thinking_is_enabled_and_left_out_of_earlier_turns() {
    let turns = [
        ("user", "q"),
        ("assistant", "<think>\nold\n</think>\n\nA"),
        ("user", "r"),
        ("assistant", "<think>\nnew\n</think>\n\nB"),
    ];
    let table =
        conversation(&turns, 0).then::<ChatTemplate>(json!({ "tokenizer": qwen(), "enable_thinking": true }));
    assert_eq!(table.text(0, Some(true)), "<think>\nnew\n</think>\n\nB<|im_end|>\n");
    assert!(table.text(0, Some(false)).contains("assistant\nA<|im_end|>"));
    let all = conversation(&turns, 0).then::<ChatTemplate>(
        json!({ "tokenizer": qwen(), "enable_thinking": true, "loss_on": "all-assistant" }),
    );
    assert_eq!(all.text(0, Some(true)), "A<|im_end|><think>\nnew\n</think>\n\nB<|im_end|>");
}

#[test]
fn a_template_that_trims_messages_is_followed() {
    let template = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}{% endfor %}\
                    {% if add_generation_prompt %}[assistant]{% endif %}";
    let table = conversation(&[("user", " <image> what? "), ("assistant", " A cat. ")], 1)
        .then::<ChatTemplate>(json!({ "tokenizer": qwen(), "template": template }))
        .then::<ImagePads>(json!({}));
    assert_eq!(short(&table.text(0, None)), "[user][49] what?<|im_end|>[assistant]A cat.<|im_end|>");
    assert_eq!(table.text(0, Some(true)), "A cat.<|im_end|>");
}

#[test]
fn a_system_message_is_given_to_conversations_that_have_none() {
    let own = conversation(&[("system", "own"), ("user", "q"), ("assistant", "a")], 0);
    let none = conversation(&[("user", "q"), ("assistant", "a")], 0);
    let params = json!({ "tokenizer": qwen(), "system": "given" });
    let prompt = |table: &Table| table.then::<ChatTemplate>(params.clone()).text(0, Some(false));
    assert!(prompt(&own).starts_with("<|im_start|>system\nown<|im_end|>\n<|im_start|>user\nq"));
    assert!(prompt(&none).starts_with("<|im_start|>system\ngiven<|im_end|>\n<|im_start|>user\nq"));
}

#[test]
fn where_an_answer_ends_is_chosen_by_name() {
    let table = conversation(&[("user", "q"), ("assistant", "a")], 0);
    for (end, answer) in [("eos", "a<|im_end|>"), ("turn", "a<|im_end|>\n")] {
        let chat = table.then::<ChatTemplate>(json!({ "tokenizer": qwen(), "answer_end": end }));
        assert_eq!(chat.text(0, Some(true)), answer);
    }
}

fn tokenized(question: &str, n_images: u32, mut params: Value) -> Table {
    params["tokenizer"] = json!(qwen());
    let table = chat(&conversation(&[("user", question), ("assistant", "An answer.")], n_images));
    table.then::<ImagePads>(json!({})).then::<Tokenize>(params)
}

#[test]
fn a_special_token_typed_in_a_message_rejects_the_row_unless_allowed() {
    for evil in ["<|im_end|>", "<|endoftext|>"] {
        let question = format!("evil {evil} text");
        assert_eq!(tokenized(&question, 0, json!({})).code(0), Some("tokenize/special-token"));
        let allowed = tokenized(&question, 0, json!({ "special_in_text": "allow" }));
        assert_eq!(allowed.code(0), None);
    }
    // The image token would be taken for an image, whatever is allowed: with images in the row or without.
    for (question, images) in [("<image> and <|image_pad|>", 1), ("What is <|image_pad|>?", 0)] {
        for special in ["allow", "reject"] {
            let pads = tokenized(question, images, json!({ "special_in_text": special }));
            assert_eq!(pads.code(0), Some("image-pads/typed-pad"), "{question} {special}");
        }
    }
    let own = chat(&conversation(&[("user", "What is <|image_pad|>?"), ("assistant", "A cat.")], 1));
    let own = own.then::<ImagePads>(json!({ "placeholder": "<|image_pad|>" }));
    let own = own.then::<Tokenize>(json!({ "tokenizer": qwen() }));
    assert_eq!((own.code(0), own.input_ids(0).iter().filter(|id| **id == 151_655).count()), (None, 49));
    assert_eq!(tokenized("<im_end> is <think>", 0, json!({})).code(0), None);
}

#[test]
fn a_long_row_is_rejected_or_cut_but_never_within_an_image() {
    let whole = tokenized("What is shown?", 1, json!({}));
    let n = whole.input_ids(0).len();
    let reported = tokenized("What is shown?", 1, json!({ "max_tokens": n - 1 })).rejects[0].clone().unwrap();
    insta::assert_snapshot!(
        reported,
        @"tokenize/too-long: 70 tokens, over max_tokens = 69; raise max_tokens or set overlong = \"truncate\""
    );
    assert_eq!(tokenized("What is shown?", 1, json!({ "max_tokens": n })).rejects, [None]);
    let cut = json!({ "max_tokens": n - 2, "overlong": "truncate" });
    assert_eq!(tokenized("What is shown?", 1, cut).input_ids(0), whole.input_ids(0)[..n - 2]);
    let cut = json!({ "max_tokens": 40, "overlong": "truncate" });
    assert_eq!(tokenized("What is shown?", 1, cut).code(0), Some("tokenize/truncated-image"));
    let cut = tokenized("What is shown?", 0, json!({ "max_tokens": 6, "overlong": "truncate" }));
    assert_eq!(cut.code(0), Some("tokenize/truncated-answer"), "no token is left to train on");
}

#[test]
fn answers_are_measured_in_tokens() {
    let whole = tokenized("What is shown?", 1, json!({}));
    let trained = whole.train(0).into_iter().filter(|train| *train).count();
    let code = |params| tokenized("What is shown?", 1, params).code(0).map(str::to_owned);
    let fits = json!({ "min_answer_tokens": trained, "max_answer_tokens": trained });
    assert_eq!(code(fits), None);
    let short = code(json!({ "min_answer_tokens": trained + 1 }));
    assert_eq!(short.as_deref(), Some("tokenize/answer-too-short"));
    let long = code(json!({ "max_answer_tokens": trained - 1 }));
    assert_eq!(long.as_deref(), Some("tokenize/answer-too-long"));
}

/// Anything a data set may hold, with what could be taken for something else.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        "[a-zA-Z ,.?!]{0,12}",
        "\\PC{0,6}",
        Just("一只猫在沙发上。".to_owned()),
        Just("\n".to_owned()),
        Just("<image>".to_owned()),
        Just("</think>".to_owned()),
        Just("<|im_end|>".to_owned()),
        Just("<|image_pad|>".to_owned()),
        Just(" ".to_owned()),
    ];
    prop::collection::vec(pieces, 0..5).prop_map(|pieces| pieces.concat())
}

fn row() -> impl Strategy<Value = (Vec<Turn>, u32)> {
    let turn = |role: &'static str| text().prop_map(move |text| (role.to_owned(), text));
    let pair = (turn("user"), turn("assistant")).prop_map(|(question, answer)| vec![question, answer]);
    let turns = prop::collection::vec(pair, 1..4).prop_map(|pairs| pairs.concat());
    (turns, 0_u32..3)
}

fn labels(table: &Table) -> (Table, Table) {
    let tokens = chat(table).then::<ImagePads>(json!({})).then::<Tokenize>(json!({ "tokenizer": qwen() }));
    let labels = tokens.then::<ShiftLabels>(json!({}));
    (tokens, labels)
}

proptest! {
    // Each case opens the tokenizer again, so cases are few and hold many rows.
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn labels_are_the_next_tokens_where_trained_and_pads_are_those_of_the_images(
        rows in prop::collection::vec(row(), 120)
    ) {
        let (tokens, labels) = labels(&conversations(&rows));
        for (n, (_, n_images)) in rows.iter().enumerate().filter(|(n, _)| labels.rejects[*n].is_none()) {
            let (ids, train) = (tokens.input_ids(n), tokens.train(n));
            let (inputs, targets) = (labels.input_ids(n), labels.labels(n));
            prop_assert_eq!(&inputs, &ids[..ids.len() - 1]);
            prop_assert_eq!(inputs.len(), targets.len());
            for (at, target) in targets.iter().enumerate() {
                let next = if train[at + 1] { ids[at + 1].cast_signed() } else { -100 };
                prop_assert_eq!(*target, next);
            }
            prop_assert_eq!(ids.iter().filter(|id| **id == PAD).count(), 49 * *n_images as usize);
            prop_assert_eq!(targets.iter().filter(|id| **id == EOS.cast_signed()).count(), 1);
            prop_assert!(!targets.contains(&PAD.cast_signed()));
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_batch_it_is_in(
        rows in prop::collection::vec(row(), 24), cut in 1_usize..23
    ) {
        let table = conversations(&rows);
        let (_, whole) = labels(&table);
        let (_, first) = labels(&table.slice(0, cut));
        let (_, second) = labels(&table.slice(cut, rows.len()));
        prop_assert_eq!(&whole.rejects, &[first.rejects.clone(), second.rejects.clone()].concat());
        prop_assert_eq!(&first.batch, &whole.batch.slice(0, cut));
        prop_assert_eq!(&second.batch, &whole.batch.slice(cut, rows.len() - cut));
    }
}
