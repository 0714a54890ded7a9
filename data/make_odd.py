"""Odd but legal files, written by the programs that people use, and what these programs read back: `odd/expected.json`.

    python data/make_odd.py        # needs pyarrow, pandas, datasets, zstandard

The test `files_read_as_the_programs_that_wrote_them_read_them` (stages/src/read/tests/odd.rs) compares. Every set has a question and an answer
a row; `expected.json` holds, for each file, how it is to be read (parameters of `read`) and the answers as Python has them.
"""
import csv
import decimal
import gzip
import io
import json
import shutil
import struct
import tarfile
import uuid
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import zstandard

HERE = Path(__file__).parent / "odd"
ROWS = [
    ("What is it?", "一只猫。"),
    ("Quote \"this\"", "tab\there, \"quotes\", commas"),
    ("Two lines\nof question", "two lines\nof answer"),
    ("多少？", "3"),
    ("é in one or two characters", "caf\u00e9, cafe\u0301"),
]
PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000 1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082".replace(" ", ""))
expected = {}


def expect(files, answers, **params):
    expected[files] = {"params": params, "answers": answers}


def answers(rows=ROWS):
    return [answer for _, answer in rows]


def frame():
    return pd.DataFrame(ROWS, columns=["prompt", "answer"])


def parquet_codecs():
    for codec in ["snappy", "gzip", "brotli", "lz4", "zstd"]:
        name = f"{codec}.parquet"
        frame().to_parquet(HERE / name, compression=codec, index=False)
        expect(name, pd.read_parquet(HERE / name)["answer"].tolist())


def types():
    """Cells that are not text, as the text that Python's str, json or the type's own standard give."""
    big = 2**63 + 1
    unique = [uuid.UUID(int=n << 96 | 7) for n in range(3)]
    columns = {
        "uint64": (pa.array([1, big, 2**64 - 1], pa.uint64()), [str(n) for n in [1, big, 2**64 - 1]]),
        "decimal": (
            pa.array([decimal.Decimal("1.50"), decimal.Decimal("-0.01"), decimal.Decimal("12345678901234567890.12")], pa.decimal128(24, 2)),
            ["1.50", "-0.01", "12345678901234567890.12"],
        ),
        "float32": (pa.array([0.1, 1.0, 16777216.0], pa.float32()), [json.dumps(float(str(np.float32(n)))) for n in [0.1, 1.0, 16777216.0]]),
        "float64": (pa.array([0.1, 1.0, 2.5], pa.float64()), [json.dumps(n) for n in [0.1, 1.0, 2.5]]),
        "bool": (pa.array([True, False, True]), [json.dumps(b) for b in [True, False, True]]),
        "dictionary": (pa.array(["a", "图", "a"]).dictionary_encode(), ["a", "图", "a"]),
        "large": (pa.array(["x", "y", "z"], pa.large_string()), ["x", "y", "z"]),
        "unmarked": (pa.array(["a".encode(), "图".encode(), b"c"], pa.binary()), ["a", "图", "c"]),
        "date": (pa.array([0, 1, 20000], pa.date32()), ["1970-01-01", "1970-01-02", "2024-10-04"]),
    }
    for name, (array, texts) in columns.items():
        table = pa.table({"prompt": ["q"] * 3, "answer": array})
        pq.write_table(table, HERE / f"{name}.parquet")
        expect(f"{name}.parquet", texts, text_only=True)
    ids = {
        "uuid": (pa.array([u.bytes for u in unique], pa.binary(16)), [str(u) for u in unique]),
        "whole": (pa.array([7.0, 8.0, 9007199254740992.0], pa.float64()), ["7", "8", "9007199254740992"]),
        "bytes": (pa.array([b"\xff\x00", b"\x01\x02", b"abc"], pa.binary()), ["ff00", "0102", "abc"]),
        "huge": (pa.array([1, big, 2**64 - 1], pa.uint64()), [str(n) for n in [1, big, 2**64 - 1]]),
    }
    for name, (array, texts) in ids.items():
        table = pa.table({"prompt": ["q"] * 3, "answer": ["a"] * 3, "id": array})
        pq.write_table(table, HERE / f"id-{name}.parquet")
        expect(f"id-{name}.parquet", ["a"] * 3, columns={"id": "id"})
        expected[f"id-{name}.parquet"]["ids"] = texts


def nested():
    turns = [[{"from": "human", "value": question}, {"from": "gpt", "value": answer}] for question, answer in ROWS]
    features = datasets.Features(
        {
            "conversations": datasets.Sequence({"from": datasets.Value("string"), "value": datasets.Value("string")}),
            "image": datasets.Image(),
        }
    )
    sequence = [{key: [turn[key] for turn in row] for key in ["from", "value"]} for row in turns]
    saved = datasets.Dataset.from_dict(
        {"conversations": sequence, "image": [{"bytes": PIXEL, "path": "a.png"}] * len(turns)}, features=features
    )
    saved.save_to_disk(HERE / "saved")
    again = datasets.load_from_disk(HERE / "saved")
    read = [row["value"][1] for row in again["conversations"]]
    expect("saved/*.arrow", read, conversation="llava")
    maps = pa.array([[("role", "user"), ("content", q)] for q, _ in ROWS], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"prompt": maps, "completion": answers()}), HERE / "map.parquet")
    expect("map.parquet", answers(), conversation="prompt-completion")
    feather.write_feather(frame(), HERE / "plain.feather", compression="uncompressed")
    expect("plain.feather", feather.read_feather(HERE / "plain.feather")["answer"].tolist())


def tables():
    frame().to_csv(HERE / "plain.csv", index=False)
    frame().to_csv(HERE / "quoted.tsv", index=False, sep="\t")
    frame().to_csv(HERE / "semicolon.csv", index=False, sep=";")
    frame().to_csv(HERE / "single.csv", index=False, quotechar="'")
    frame().to_csv(HERE / "cr.csv", index=False, lineterminator="\r")
    frame().to_csv(HERE / "crlf.csv", index=False, lineterminator="\r\n")
    frame().to_csv(HERE / "mark.csv", index=False, encoding="utf-8-sig", quoting=csv.QUOTE_ALL)
    frame().to_csv(HERE / "utf16.csv", index=False, encoding="utf-16")
    frame().iloc[:4].to_csv(HERE / "gbk.csv", index=False, encoding="gbk")
    read = lambda name, **how: pd.read_csv(HERE / name, dtype=str, keep_default_na=False, **how)["answer"].tolist()
    expect("plain.csv", read("plain.csv"))
    expect("quoted.tsv", read("quoted.tsv", sep="\t"))
    expect("semicolon.csv", read("semicolon.csv", sep=";"), delimiter=";")
    expect("single.csv", read("single.csv", quotechar="'"), quote="'")
    expect("cr.csv", read("cr.csv", lineterminator="\r"))
    expect("crlf.csv", read("crlf.csv"))
    expect("mark.csv", read("mark.csv"))
    expect("utf16.csv", read("utf16.csv", encoding="utf-16"), encoding="utf-16")
    expect("gbk.csv", read("gbk.csv", encoding="gbk"), encoding="gbk")
    (HERE / "unquoted.tsv").write_text('prompt\tanswer\nq\t"an open quote\nq\ta 5" disk\n', encoding="utf-8")
    expect("unquoted.tsv", pd.read_csv(HERE / "unquoted.tsv", sep="\t", quoting=csv.QUOTE_NONE)["answer"].tolist())


def json_lines():
    lines = "".join(json.dumps({"prompt": q, "answer": a, "score": float("nan")}) + "\n" for q, a in ROWS)
    with gzip.GzipFile(HERE / "rows.jsonl.gz", "wb", mtime=0) as file:
        file.write(lines.encode())
    (HERE / "rows.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    (HERE / "nan.jsonl").write_text(lines)
    for name in ["rows.jsonl.gz", "rows.jsonl.zst", "nan.jsonl"]:
        expect(name, [json.loads(line)["answer"] for line in lines.splitlines()])
    written = ["1.0", "1e3", "0.10", "12345678901234567890123", "7"]
    text = "".join(f'{{"prompt": "q", "answer": {number}}}\n' for number in written)
    (HERE / "numbers.jsonl").write_text(text)
    expect("numbers.jsonl", written)


def tars():
    def members(rows):
        for n, (_, answer) in enumerate(rows):
            yield f"{n:04}.png", PIXEL
            yield f"{n:04}.txt", answer.encode()

    def tar(rows):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in members(rows):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return file.getvalue()

    with gzip.GzipFile(HERE / "packed.tar.gz", "wb", mtime=0) as file:
        file.write(tar(ROWS))
    (HERE / "packed.tar.zst").write_bytes(zstandard.compress(tar(ROWS)))
    both = tar(ROWS[:2]) + tar(ROWS[2:])
    with gzip.GzipFile(HERE / "two-in-one.tar.gz", "wb", mtime=0) as file:
        file.write(both)
    with tarfile.open(fileobj=io.BytesIO(both), ignore_zeros=True) as archive:
        read = [archive.extractfile(info).read().decode() for info in archive if info.name.endswith(".txt")]
    for name, texts in [("packed.tar.gz", answers()), ("packed.tar.zst", answers()), ("two-in-one.tar.gz", read)]:
        expect(name, texts, columns={"answer": "txt"}, prompts=["What is it?"])


def zips():
    """Names as Windows writes them: GBK without the mark for UTF-8, backslashes; and as macOS does, decomposed, with its own folder."""
    names = {"gbk.zip": "图片/猫.png", "mac.zip": "photos/cafe\u0301.png", "backslash.zip": "photos\\cat.png"}
    for name, inner in names.items():
        encoded = inner.encode("gbk") if name == "gbk.zip" else inner.encode()
        (HERE / name).write_bytes(plain_zip(encoded, PIXEL, utf8=name == "mac.zip"))
    with zipfile.ZipFile(HERE / "mac.zip", "a") as archive:
        archive.writestr(zipfile.ZipInfo("__MACOSX/photos/._cafe\u0301.png"), b"\0\5\x16\7")
    for archive, named in [("gbk.zip", "猫.png"), ("gbk.zip", "图片/猫.png"), ("mac.zip", "caf\u00e9.png"), ("backslash.zip", "photos/cat.png")]:
        name = f"{archive}-{len(named)}.jsonl"
        (HERE / name).write_text(json.dumps({"prompt": "q", "answer": "a", "image": named}) + "\n")
        expect(name, ["a"], images=archive)


def plain_zip(name: bytes, content: bytes, utf8: bool) -> bytes:
    """A stored entry; zipfile would mark every name that is not ASCII as UTF-8."""
    import zlib

    flags = 0x800 if utf8 else 0
    sizes = struct.pack("<III", zlib.crc32(content), len(content), len(content))
    head = struct.pack("<HHHHH", 20, flags, 0, 0, 0x21) + sizes + struct.pack("<HH", len(name), 0)
    local = b"PK\3\4" + head + name + content
    entry = b"PK\1\2" + struct.pack("<H", 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for make in [parquet_codecs, types, nested, tables, json_lines, tars, zips]:
        make()
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (HERE / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
