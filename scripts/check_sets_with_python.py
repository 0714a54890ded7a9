"""Runs every manifest of manifests/sets on its sample and compares ids and labels of every row with what transformers gives.

    python scripts/check_sets_with_python.py --llavm target/release/llavm

The turns are those in the shards' column `messages`: what `read` makes of the raw rows is held by tests/pipeline/sets.rs, this is about what
follows. Exits with 1 at the first row that differs. Needs what check_with_python.py needs.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pyarrow as pa

from check_with_python import ROOT, Row, expected

# Variables beside `raw`, and the sample where it is called otherwise.
SETTINGS = {
    "llava-instruct-150k": ["images=data/samples/llava-instruct-150k/train2017"],
    "chinese-llava-vision-instructions": ["images=data/samples/chinese-llava-vision-instructions/images.zip"],
    "coco-cn": ["coco=data/samples/coco-cn"],
    "flickr30k-cna": ["images=data/samples/flickr30k-cna/flickr30k-images"],
}
SAMPLES = {"llava-en-zh-300k": "llava-en-zh", "llava-en-zh-2k": "llava-en-zh"}


def check(manifest: Path, llavm: Path, store: Path) -> None:
    name = manifest.stem
    text = manifest.read_text(encoding="utf-8")
    copy = store / manifest.name
    copy.write_text(f'store = "{store}/{name}"\n{text}', encoding="utf-8")
    settings = [f"raw=data/samples/{SAMPLES.get(name, name)}", "tokenizer=data/qwen3-tokenizer", "max_rejects=0.6", *SETTINGS.get(name, [])]
    arguments = [str(copy), *(part for setting in settings for part in ("--set", setting))]
    run = lambda *command: subprocess.run([str(llavm), *command, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    run("run")
    stages = tomllib.loads(text)["stages"]
    chat, missing = stages["chat"], stages["pads"]["missing"]
    files = next(stage for stage in json.loads(run("status", "--json"))["stages"] if stage["name"] == "shards")["files"]
    rows = [row for file in files if file.endswith(".arrow") for row in pa.ipc.open_file(pa.memory_map(str(ROOT / file))).read_all().to_pylist()]
    for row in rows:
        turns = [dict(turn) for turn in row["messages"]]
        own = turns[0]["role"] == "system"
        asked = next(turn for turn in turns if turn["role"] == "user")
        if missing == "prepend" and row["n_images"] and not any("<image>" in turn["content"] for turn in turns if turn["role"] == "user"):
            asked["content"] = "<image>\n" * row["n_images"] + asked["content"]
        want = expected(Row(turns, [b""] * row["n_images"]), None if own else chat.get("system"), chat.get("loss_on", "last"))
        if (row["input_ids"], row["labels"]) != want:
            sys.exit(f"{name} {row['id']} differs:\n  ours   {row['input_ids']}\n         {row['labels']}\n  theirs {want[0]}\n         {want[1]}")
    print(f"{name}: {len(rows)} rows, ids and labels equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llavm", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        for manifest in sorted((ROOT / "manifests/sets").glob("*.toml")):
            if manifest.stem != "mix":
                check(manifest, args.llavm.resolve(), Path(store))


if __name__ == "__main__":
    main()
