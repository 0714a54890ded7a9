"""Writes tools.json: conversations with tools on offer, thoughts, names and ids of calls, and what Transformers renders.

    python stages/tests/golden/make_tools.py

What stands beside the words is text, since the order of its keys is that of the rendering. `prompt` is what a model is asked for the
last answer. Needs transformers.
"""
import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
TOKENIZER = AutoTokenizer.from_pretrained(HERE / "../../../data/qwen3-tokenizer")
ZOOM = {"type": "function", "function": {"name": "zoom", "description": "Zoom in: \"closer\" <看>\n& back", "parameters": {
    "type": "object", "required": ["x"], "properties": {
        "x": {"type": "number", "minimum": 1e-05, "maximum": 1e16, "default": 1.0, "exclusive": 0.5},
        "boxes": {"type": "array", "items": {"type": "number"}, "default": None},
        "at": {"type": "string", "enum": ["左上", "a<b", "c"]}}}}}
BARE = {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}}
CALL = [{"id": "call12345", "type": "function", "function": {"name": "zoom", "arguments": {"x": 1.5, "tiny": 1.5e-07, "big": 123456789012345680000.0, "at": "左上"}}}]


def turn(role: str, content: str, calls: list | None = None, **extra) -> dict:
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {}) | extra


ASK = turn("user", "Zoom in.")
A_CAT = turn("assistant", "A cat.")
DONE = turn("tool", "done", name="zoom", tool_call_id="call12345")
# Looks at types, as gpt-oss's does, and prints names and ids, as Mistral's does.
INSPECTS = """{%- for tool in tools or [] %}{% for name, of in tool.function.parameters.properties.items() %}
{{- name }}: {% if of.type == "array" %}{{ of["items"].type }}[]{% elif of.enum %}{{ of.enum | join(" | ") }}{% else %}{{ of.type }}{% endif %};{% endfor %}
{%- endfor %}
{%- for message in messages %}
{{- "<|im_start|>" + message.role }}{% if message.name %} {{ message.name | trim }}{% endif %}{% if message.tool_call_id is defined %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception("ids have 9 letters") }}{% endif %} #{{ message.tool_call_id }}{% endif %}
{{- "\\n" }}{% if message.thinking %}({{ message.thinking }}) {% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}[{{ call.id }} {{ call.function.name }} {{ call.function.arguments | tojson }}]{% endfor %}
{{- "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\\n" }}{% endif %}"""

# name: messages, tools, enable_thinking, template
CASES = {
    "tools": ([ASK, A_CAT], [ZOOM], False, None),
    "tools and a system message": ([turn("system", "Be brief."), ASK, A_CAT], [ZOOM, BARE], False, None),
    "tools that are called": ([ASK, turn("assistant", "", CALL), DONE, A_CAT], [ZOOM], False, None),
    "ends in a call": ([ASK, turn("assistant", "", CALL)], [ZOOM], False, None),
    "thoughts": ([ASK, turn("assistant", "A cat.", reasoning_content="I see fur.\nSo: a cat.")], None, True, None),
    "thoughts among line breaks": ([ASK, turn("assistant", "A cat.", reasoning_content="\n\nfur \n")], None, True, None),
    "empty thoughts": ([ASK, turn("assistant", "A cat.", reasoning_content="")], None, False, None),
    "thoughts before a call": ([ASK, turn("assistant", "", CALL, reasoning_content="Closer."), DONE, turn("assistant", "A cat.", reasoning_content="Fur.")], [ZOOM], True, None),
    "words, thoughts and a call": ([ASK, turn("assistant", "Let me see.", CALL, reasoning_content="Closer.")], [ZOOM], True, None),
    "thoughts of an earlier answer": ([ASK, turn("assistant", "A cat.", reasoning_content="Fur."), turn("user", "And?"), turn("assistant", "A mat.")], None, False, None),
    "a name that the template leaves out": ([turn("user", "Who?", name="Ann"), A_CAT], None, False, None),
    "types, names and ids": ([turn("user", "Zoom in.", name=" Ann <1> "), turn("assistant", "", CALL, thinking="Closer <3"), DONE, A_CAT], [ZOOM], False, INSPECTS),
}


def row(messages: list[dict], tools: list | None) -> list:
    text = lambda value: json.dumps(value, ensure_ascii=False) if value else None
    beside = lambda message: {key: value for key, value in message.items() if key not in ("role", "content", "tool_calls")}
    rows = [[message["role"], message["content"], text(message.get("tool_calls")), text(beside(message)), None] for message in messages]
    rows[0][4] = text(tools)
    return rows


def case(messages: list[dict], tools: list | None, thinking: bool, template: str | None) -> dict:
    render = lambda messages, prompt: TOKENIZER.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=prompt, enable_thinking=thinking, chat_template=template)
    return {"turns": row(messages, tools), "enable_thinking": thinking, "template": template,
            "text": render(messages, False), "prompt": render(messages[:-1], True)}


cases = {name: case(*given) for name, given in CASES.items()}
(HERE / "tools.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
