"""Writes rows of data/llava/chat.json in the layouts of `llavm init chat` and `llavm init messages`.

    python cli/init/make_rows.py        # from the project's folder
"""

import json
from pathlib import Path

here = Path(__file__).parent
rows = json.loads((here / "../../data/llava/chat.json").read_text())
turns = lambda row: [{"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]

chat, messages = [], []
for row in rows:
    said = turns(row)
    if "image" in row:
        chat.append({"image": row["image"], "question": said[0]["content"].replace("<image>", "").strip(), "answer": said[1]["content"]})
    messages.append({"messages": said, "images": [row["image"]] if "image" in row else []})
for name, lines in [("chat", chat), ("messages", messages)]:
    (here / f"{name}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
