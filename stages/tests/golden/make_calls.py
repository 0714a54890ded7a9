"""Writes calls.json: conversations that call tools, have two questions in a row or a system turn in the middle, and what Transformers renders.

    python stages/tests/golden/make_calls.py

`tool_calls` stand as text, since the order of their keys is that of the rendering. Needs transformers.
"""
import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
TOKENIZER = AutoTokenizer.from_pretrained(HERE / "../../../data/qwen3-tokenizer")
ZOOM = [{"type": "function", "function": {"name": "zoom", "arguments": {"x": 1, "at": "左上", "boxes": [[0.5, 1.0], ["a", "b"]], "city": None}}}]
TWO = [{"type": "function", "function": {"name": "zoom", "arguments": "{\"x\": 1}"}}, {"type": "function", "function": {"name": "look", "arguments": {}}}]


def turn(role: str, content: str, calls: list | None = None) -> dict:
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {})


CASES = {
    "a silent call": [turn("user", "Zoom in."), turn("assistant", "", ZOOM), turn("tool", "done"), turn("assistant", "A cat.")],
    "two calls after words": [turn("user", "Zoom in."), turn("assistant", "Let me see.", TWO), turn("tool", "1"), turn("tool", "2"), turn("assistant", "A cat.")],
    "ends in a call": [turn("user", "Zoom in."), turn("assistant", "", ZOOM)],
    "ends in words and calls": [turn("user", "Zoom in."), turn("assistant", "Let me see.", TWO)],
    "two users": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")],
    "a system turn in the middle": [turn("user", "a"), turn("assistant", "b"), turn("system", "Be long."), turn("user", "c"), turn("assistant", "d")],
}


def row(messages: list[dict]) -> list:
    text = lambda calls: None if calls is None else json.dumps(calls, ensure_ascii=False)
    return [[message["role"], message["content"], text(message.get("tool_calls"))] for message in messages]


cases = {name: {"turns": row(messages), "text": TOKENIZER.apply_chat_template(messages, tokenize=False)} for name, messages in CASES.items()}
(HERE / "calls.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
