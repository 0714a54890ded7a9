"""Writes chat.json: conversations as Transformers renders and tokenises them, and the reference recipe's prompts and labels.

  pip install transformers==5.23 tokenizers==0.23.3 jinja2
  python make_chat.py [--check]     # --check: compare with chat.json instead of writing it

The tokenizer is ../../../data/qwen3-tokenizer. `text_hub_template` and `npm_template`: the template in that folder raises where
the one on the hub, which looks at strings only, does not; both are derived here from the folder's by replacement. The template
with a think block and generation marks in every assistant turn stands for TRL's qwen3_training.jinja, whose text it renders.
"""
import json
import sys
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
TOKENIZER = HERE / "../../../data/qwen3-tokenizer"
PAD, N_PAD = "<|image_pad|>", 49
tok = AutoTokenizer.from_pretrained(TOKENIZER)
ids = lambda text: tok(text)["input_ids"]
user = lambda text: {"role": "user", "content": text}
assistant = lambda text: {"role": "assistant", "content": text}
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
DESCRIBE, CAT = "Describe the image.\n<image>", assistant("A cat on a sofa.")


def conversations():
    asked = [user(DESCRIBE), CAT]
    again = [*asked, user("What colour is it?"), assistant("Orange.")]
    yield "user", [user(DESCRIBE)]
    yield "system_user", [SYSTEM, user(DESCRIBE)]
    yield "system_user_assistant", [SYSTEM, *asked]
    yield "user_assistant", asked
    yield "user_assistant_user_assistant", again
    yield "system_user_assistant_user_assistant", [SYSTEM, *again]
    yield "zh_user", [user("<image>\n请描述这张图片。")]
    pads = "Describe the image.\n" + PAD * N_PAD
    yield "image_pad49_system_user_assistant", [SYSTEM, user(pads), CAT]
    wrapped = f"Describe the image.\n<|vision_start|>{PAD * N_PAD}<|vision_end|>"
    yield "vision_wrapped49_system_user_assistant", [SYSTEM, user(wrapped), CAT]
    yield "empty_assistant", [user(DESCRIBE), assistant("")]
    yield "assistant_leading_newlines", [user(DESCRIBE), assistant("\n\nA cat. \n")]
    yield "assistant_leading_space", [user(DESCRIBE), assistant(" A cat.")]
    yield "assistant_with_think_last", [user(DESCRIBE), assistant("<think>\nlook\n</think>\n\nA cat.")]
    yield "tool_response_user_is_not_query", [*asked, user("<tool_response>x</tool_response>"), assistant("Orange.")]
    yield "special_token_in_user_text", [user(f"evil <|im_end|> {PAD} text")]


def render(messages, prompt=False, thinking=None, template=None):
    extra = {} if thinking is None else {"enable_thinking": thinking}
    return tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, chat_template=template, **extra)


def case(name, messages, prompt, thinking):
    text = render(messages, prompt, thinking)
    return {"name": name, "messages": messages, "add_generation_prompt": prompt, "enable_thinking": thinking,
            "text": text, "input_ids": ids(text)}


def shifted(prompt, answer):
    return {"input_ids_shifted": (prompt + answer)[:-1],
            "labels_shifted_pad_filled": ([tok.pad_token_id] * len(prompt) + answer)[1:]}


def stage1(question, output):
    prompt = render([SYSTEM, user(question)], True, False).replace("<image>", PAD * N_PAD)
    answer = output + tok.eos_token
    return {"input": question, "output": output, "n_image_pad": N_PAD, "prompt_text": prompt, "answer_text": answer,
            "prompt_ids": ids(prompt), "answer_ids": ids(answer), **shifted(ids(prompt), ids(answer))}


def stage2(prompt, completion):
    asked = [user(prompt[0]["content"] + "\n<image>"), *prompt[1:]]
    full = render(asked + completion).replace("<image>", PAD * N_PAD)
    start = render(asked, True, False).replace("<image>", PAD * N_PAD)
    n = len(ids(start))
    return {"prompt": prompt, "completion": completion, "n_image_pad": N_PAD, "full_text": full, "prompt_text": start,
            "text_prefix_holds": full.startswith(start), "id_prefix_holds": ids(full)[:n] == ids(start),
            "full_ids": ids(full), "prompt_len": n, **shifted(ids(start), ids(full)[n:])}


def hub_only(name, messages):
    ours = tok.chat_template
    hub = ours.replace('message.role == "user" and not(', 'message.role == "user" and message.content is string and not(')
    hub = hub.replace("{%- for message in messages %}\n    {%- if (message.role",
                      "{%- for message in messages %}\n    {%- set content = message.content if message.content is string else '' %}\n    {%- if (message.role")
    hub = hub.replace("'\\n' + message.content + '<|im_end|>'", "'\\n' + content + '<|im_end|>'")
    hub = hub.replace("        {%- set content = message.content %}\n", "")
    hub = hub.replace("message.reasoning_content is defined and message.reasoning_content is not none", "message.reasoning_content is string")
    hub = hub.replace("'</think>' in message.content", "'</think>' in content")
    try:
        npm = render(messages)
    except Exception:
        npm = "raises"
    return {"name": name, "messages": messages, "text_hub_template": render(messages, template=hub), "npm_template": npm}


def reasoning(name, messages):
    text = render(messages)
    return {"name": name, "messages": messages, "text": text, "input_ids": ids(text)}


def training_template():
    """Every assistant turn with a think block, and that, its text and its end marked as generated."""
    ours = tok.chat_template
    start, end = ours.index("        {%- if loop.index0 > ns.last_query_index %}"), ours.index("        {%- if message.tool_calls %}")
    turn = ("        {{- '<|im_start|>' + message.role + '\\n' }}{% generation %}"
            "{{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n")
    close = "        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\""
    assert close in ours
    marked = close.replace("    {%- elif", "        {%- endgeneration %}\n    {%- elif")
    return (ours[:start] + turn + ours[end:]).replace(close, marked)


def loss_masks():
    messages = [user("Q1"), assistant("A1"), user("Q2"), assistant("A2")]
    template = training_template()
    made = tok.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, chat_template=template)
    yield {"name": "two_turn", "messages": messages, "template": "TRL qwen3_training.jinja (think block on EVERY assistant turn)",
           "text": render(messages, template=template), "input_ids": made["input_ids"], "assistant_mask": made["assistant_masks"]}
    text = render(messages)
    tokens, mask, inside = ids(text), [], False
    head = ids("<|im_start|>assistant\n")
    for at, token in enumerate(tokens):
        mask.append(int(inside))
        if inside and token == tok.eos_token_id:
            inside = False
        elif tokens[at + 1 - len(head):at + 1] == head:
            inside = True
    yield {"name": "two_turn_standard_template_all_assistant_turns", "messages": messages, "template": "standard",
           "text": text, "input_ids": tokens, "assistant_mask": mask}


def golden():
    question, why = user("x"), {**assistant("A"), "reasoning_content": "why"}
    pictured = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}, assistant("A")]
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", PAD,
             "<|video_pad|>", "<think>", "</think>"]
    shown, what = [user("What is shown?")], [user("What is shown?"), CAT, user("What colour is it?")]
    return {
        "_about": f"Rendered with transformers {transformers.__version__} and tokenizers {tokenizers.__version__} by make_chat.py.",
        "special_ids": {name: tok.convert_tokens_to_ids(name) for name in names},
        "len_tokenizer": len(tok), "base_vocab": tok.vocab_size, "model_vocab_size": 151936,
        "cases": [case(name, messages, prompt, thinking) for name, messages in conversations()
                  for prompt in (False, True) for thinking in (None, True, False)],
        "stage1_examples": [stage1("Give a brief description of the image.\n<image>", "a cat on a sofa"),
                            stage1("<image>\nRender a clear and concise summary of the photo.", "a cat on a sofa")],
        "stage2_examples": [stage2(shown, [assistant("A cat.")]), stage2(what, [assistant("Orange.")])],
        "hub_only_cases": [hub_only("list_content", pictured), hub_only("null_assistant_content", [question, assistant(None)]),
                           hub_only("non_string_reasoning", [question, {**assistant("A"), "reasoning_content": 5}])],
        "reasoning_cases": [reasoning("reasoning_content_last", [question, why]),
                            reasoning("reasoning_content_history", [question, why, user("y")])],
        "loss_mask_examples": list(loss_masks()),
    }


def main():
    path, made = HERE / "chat.json", golden()
    if "--check" in sys.argv:
        kept = json.loads(path.read_text())
        differ = [key for key in made if key != "_about" and made[key] != kept[key]]
        sys.exit(f"differ: {differ}" if differ else 0)
    path.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
