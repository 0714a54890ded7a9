"""Reads every output with pyarrow and polars, and compares ids, labels and pixels with what Python gives.

    python scripts/check_with_python.py --llavm target/release/llavm
    python scripts/check_with_python.py --fixture tests/pipeline/sample_tokens.json

Runs the sample manifests into a temporary store. For each row of each `labels` table it builds ids and labels from the raw data
with transformers (`apply_chat_template`, 49 image pads, prompt and answers tokenised apart, shifted by one) and compares; for each
row of each `pixels` table it decodes and resizes with Pillow as CLIPImageProcessorPil does. Exits with 1 at the first row that differs
in a token or a pixel. `--fixture` writes what transformers gives for the first rows of each
sample, which tests/pipeline/samples.rs compares with. Needs pyarrow, polars, transformers, Pillow, numpy.
"""
import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers import AutoTokenizer

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data"
TOKENIZER = AutoTokenizer.from_pretrained(DATA / "qwen3-tokenizer")
PADS = "<|image_pad|>" * 49
IGNORE = -100
SIZE = 224
FIXTURE_ROWS = 12


@dataclass
class Row:
    """A raw row: its turns (roles as the template wants them) and its encoded pictures."""
    turns: list[dict]
    images: list[bytes]


# What the raw files hold, by manifest and source stage.

def cc3m() -> list[Row]:
    rows = []
    for file in sorted((DATA / "cc3m").glob("*.parquet")):
        rows += [Row([user(row["input"]), assistant(row["output"])], [row["image"]]) for row in pq.read_table(file).to_pylist()]
    return rows


def instruct() -> list[Row]:
    rows = []
    for file in sorted((DATA / "instruct").glob("*.parquet")):
        rows += [Row(row["prompt"] + row["completion"], [image["bytes"] for image in row["images"]]) for row in pq.read_table(file).to_pylist()]
    return rows


def llava() -> list[Row]:
    role = {"human": "user", "gpt": "assistant"}
    rows = []
    for row in json.loads((DATA / "llava/chat.json").read_text(encoding="utf-8")):
        images = [(DATA / "llava/images" / row["image"]).read_bytes()] if "image" in row else []
        rows.append(Row([{"role": role[turn["from"]], "content": turn["value"]} for turn in row["conversations"]], images))
    return rows


def zh_captions() -> list[Row]:
    return [Row([user(row["prompt"]), assistant(row["answer"])], [base64.b64decode(row["image"])]) for row in json_lines("zh/captions.jsonl")]


def zh_talk() -> list[Row]:
    return [Row(row["messages"], [(DATA / "zh" / name).read_bytes() for name in row["images"]]) for row in json_lines("zh/chat.jsonl")]


def json_lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


@dataclass
class Case:
    """One source of a sample manifest and how its manifest treats it."""
    manifest: str
    rows: list[Row]
    labels: str
    pixels: str
    system: str | None
    loss_on: str


def cases() -> list[Case]:
    english, chinese = "You are a helpful assistant.", "你是一个乐于助人的助手。"
    return [Case("cc3m-sample", cc3m(), "labels", "pixels", english, "last"),
            Case("instruct-sample", instruct(), "labels", "pixels", None, "last"),
            Case("llava-sample", llava(), "labels", "pixels", None, "all-assistant"),
            Case("zh-sample", zh_captions(), "captions-labels", "captions-pixels", chinese, "last"),
            Case("zh-sample", zh_talk(), "talk-labels", "talk-pixels", chinese, "all-assistant")]


# Ids and labels.

def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def render(turns: list[dict], **options) -> str:
    return TOKENIZER.apply_chat_template(turns, tokenize=False, **options)


def with_pads(row: Row) -> list[dict]:
    """Pads for each placeholder of a user turn; a placeholder appended to the first user turn when there is none."""
    turns = [dict(turn) for turn in row.turns]
    asked = [turn for turn in turns if turn["role"] == "user"]
    if row.images and not any("<image>" in turn["content"] for turn in asked):
        asked[0]["content"] += "\n<image>"
    for turn in asked:
        turn["content"] = turn["content"].replace("<image>", PADS)
    return turns


def expected(row: Row, system: str | None, loss_on: str) -> tuple[list[int], list[int]]:
    """`input_ids` and `labels` after the shift."""
    turns = ([{"role": "system", "content": system}] if system else []) + with_pads(row)
    pieces = pieces_of_last(turns, bool(system)) if loss_on == "last" else pieces_of_all(turns)
    tokens, labels = [], []
    for text, train in pieces:
        new = ids(text)
        tokens += new
        labels += new if train else [IGNORE] * len(new)
    return tokens[:-1], labels[1:]


def pieces_of_last(turns: list[dict], stage_1: bool) -> list[tuple[str, bool]]:
    """The prompt as generation renders it, then what the full rendering adds: in stage 1 without the last line break."""
    prompt = render(turns[:-1], add_generation_prompt=True, enable_thinking=False)
    full = render(turns)
    assert full.startswith(prompt)
    answer = full[len(prompt):]
    return [(prompt, False), (answer.removesuffix("\n") if stage_1 else answer, True)]


def pieces_of_all(turns: list[dict]) -> list[tuple[str, bool]]:
    """Every answer with its end-of-turn token, each found in the full rendering behind its header."""
    full, at, pieces = render(turns), 0, []
    for turn in turns:
        if turn["role"] != "assistant":
            continue
        start = full.index(turn["content"] + "<|im_end|>", full.index("<|im_start|>assistant\n", at))
        end = start + len(turn["content"] + "<|im_end|>")
        pieces += [(full[at:start], False), (full[start:end], True)]
        at = end
    return pieces + [(full[at:], False)]


# Pixels.

def clip_pixels(data: bytes) -> np.ndarray:
    """What `datasets` and CLIPImageProcessorPil make of it, upright and on white, without the normalisation: [3, 224, 224] u8."""
    image = Image.fromarray(convert_to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True))
    short, long = sorted(image.size)
    scaled = (SIZE, SIZE * long // short) if image.width <= image.height else (SIZE * long // short, SIZE)
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE))).transpose(2, 0, 1)


def compare_pixels(case: Case, table: list[dict]) -> str:
    count = 0
    for number, (row, ours) in enumerate(zip(case.rows, table, strict=True)):
        if len(row.images) != len(ours["pixels"]):
            sys.exit(f"{case.manifest} row {number}: {len(row.images)} pictures, {len(ours['pixels'])} stored")
        for image, stored in zip(row.images, ours["pixels"]):
            theirs = clip_pixels(image)
            if stored != theirs.tobytes():
                apart = np.abs(np.frombuffer(stored, np.uint8).reshape(theirs.shape).astype(np.int16) - theirs)
                sys.exit(f"{case.manifest} row {number}: pixels up to {apart.max()} grey levels apart, {apart.mean():.3f} on average")
            count += 1
    return f"the pixels of {count} pictures"


# The outputs.

def tables(status: dict, stage: str, store: Path) -> list[dict]:
    """All rows of a stage, read with pyarrow and, to see that it can, with polars."""
    partitions = []
    for name in next(entry for entry in status["stages"] if entry["name"] == stage)["files"]:
        file = Path(name) if Path(name).is_absolute() else store / name
        if file.suffix != ".arrow":
            continue
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        frame = pl.read_ipc(file)
        assert frame.height == table.num_rows, f"{file}: polars reads {frame.height} rows, pyarrow {table.num_rows}"
        partitions.append(table.to_pylist())
    return with_images(partitions)


def with_images(partitions: list[list[dict]]) -> list[dict]:
    """The rows of all partitions, each with its own images: one that an earlier row shows too stands there."""
    for row in (row for rows in partitions for row in rows):
        for n, (image, origin) in enumerate(zip(row.get("pixels") or [], row.get("origins") or [])):
            if image is None and origin["partition"] is not None:
                row["pixels"][n] = partitions[origin["partition"]][origin["row"]]["pixels"][origin["item"]]
    return [row for rows in partitions for row in rows]


def check(case: Case, llavm: Path, store: Path) -> None:
    manifest = store / f"{case.manifest}.toml"
    text = (ROOT / f"manifests/{case.manifest}.toml").read_text(encoding="utf-8")
    manifest.write_text(f'store = "{store}"\n{text}', encoding="utf-8")
    run = lambda *arguments: subprocess.run([str(llavm), *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    run("run", manifest)
    status = json.loads(run("status", manifest, "--json"))
    labels = tables(status, case.labels, store)
    for number, (row, ours) in enumerate(zip(case.rows, labels, strict=True)):
        want_ids, want_labels = expected(row, case.system, case.loss_on)
        if ours["input_ids"] != want_ids or ours["labels"] != want_labels:
            sys.exit(f"{case.manifest} row {number} differs:\n  ours   {ours}\n  theirs {want_ids}\n         {want_labels}")
    pixels = compare_pixels(case, tables(status, case.pixels, store))
    print(f"{case.manifest} ({case.labels}): {len(labels)} rows, ids and labels equal; {pixels}")
    for entry in status["stages"]:
        tables(status, entry["name"], store)


def write_fixture(path: Path) -> None:
    """Ids and labels of the first rows, by `<manifest>/<stage>`."""
    first = {f"{case.manifest}/{case.labels}": [expected(row, case.system, case.loss_on) for row in case.rows[:FIXTURE_ROWS]] for case in cases()}
    path.write_text(json.dumps(first, separators=(",", ":")).replace("]],[[", "]],\n[[") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--llavm", type=Path)
    what.add_argument("--fixture", type=Path)
    args = parser.parse_args()
    if args.fixture:
        write_fixture(args.fixture)
        return
    with tempfile.TemporaryDirectory() as store:
        for case in cases():
            check(case, args.llavm.resolve(), Path(store))


if __name__ == "__main__":
    main()
