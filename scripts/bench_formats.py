"""Measures how fast each raw format is read: the same rows and pictures as parquet, jsonl + images folder, jsonl + zip, webdataset.

    python scripts/make_bench_data.py /tmp/bench --rows 4096
    python scripts/bench_formats.py /tmp/bench --llavm target/release/llavm [--repeat 3] [--zip-entries 100000] [--long-rows 2900000]

Each run is `llavm run` of manifests/cc3m-tokens.toml's stages into an empty store, the files in the page cache. A rate is rows a
second of CPU time (user and system), which other programs on the machine disturb less than wall time. Also: the seconds until a
zip of many entries is open and its first row is read (it is never extracted), and the peak memory of a file with many rows.
Needs pyarrow.
"""
import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "data/qwen3-tokenizer"
PARQUET = 'columns = { image = "image", prompt = "input", answer = "output" }'


def convert(data: Path, folder: Path) -> tuple[int, dict[str, str]]:
    """Writes the rows of DATA in every format; their number, and by format the lines of [stages.rows] that read them."""
    (folder / "images").mkdir(parents=True)
    rows = 0
    with (folder / "rows.jsonl").open("w") as lines, zipfile.ZipFile(folder / "images.zip", "w") as archive, \
            tarfile.open(folder / "rows.tar", "w") as tar:
        for file in sorted(data.glob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                name = f"{rows:08}.jpg"
                (folder / "images" / name).write_bytes(row["image"])
                archive.writestr(f"images/{name}", row["image"])
                lines.write(json.dumps({"image": name, "input": row["input"], "output": row["output"]}, ensure_ascii=False) + "\n")
                for extension, member in [("jpg", row["image"]), ("txt", row["output"].encode())]:
                    info = tarfile.TarInfo(f"{rows:08}.{extension}")
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
                rows += 1
    return rows, {
        "parquet": f'files = "{data}/*.parquet"\n{PARQUET}',
        "jsonl + images folder": f'files = "{folder}/rows.jsonl"\nimages = "{folder}/images"\n{PARQUET}',
        "jsonl + zip": f'files = "{folder}/rows.jsonl"\nimages = "{folder}/images.zip"\n{PARQUET}',
        "webdataset": f'files = "{folder}/rows.tar"\ncolumns = {{ answer = "txt" }}\nprompts = ["Describe the image."]',
    }


def manifest(rows: str, rest: str) -> str:
    return f'name = "bench"\nstore = "store"\n\n[stages.rows]\nkind = "read"\n{rows}\n\n{rest}'


def stages() -> str:
    """The stages of cc3m-tokens.toml behind `rows`."""
    text = (ROOT / "manifests/cc3m-tokens.toml").read_text()
    return text[text.index("\n[stages.pixels]"):].replace("${tokenizer}", str(TOKENIZER))


def run(llavm: Path, text: str) -> dict:
    """One run into an empty store."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "bench.toml").write_text(text)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([str(llavm.resolve()), "run", "bench.toml", "--summary", "summary.json"], cwd=scratch, capture_output=True, text=True)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"llavm failed:\n{done.stderr}")
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        summary = json.loads(Path(scratch, "summary.json").read_text())
        return {"cpu": cpu, "seconds": seconds, "peak_rss_mib": summary["peak_rss_mib"], "rows": summary["stages"][0]["rows"]}


def many_entries(llavm: Path, entries: int, folder: Path) -> dict:
    """Reads one row whose picture is the last of many entries of a zip."""
    picture = next((ROOT / "data/photos").glob("*.jpg")).read_bytes()
    with zipfile.ZipFile(folder / "many.zip", "w") as archive:
        for n in range(entries):
            archive.writestr(f"images/{n:012}.jpg", picture[:200] if n + 1 < entries else picture)
    row = {"image": f"{entries - 1:012}.jpg", "input": "q", "output": "a"}
    (folder / "one.jsonl").write_text(json.dumps(row) + "\n")
    rows = f'files = "{folder}/one.jsonl"\nimages = "{folder}/many.zip"\n{PARQUET}'
    return run(llavm, manifest(rows, '[stages.pixels]\nkind = "decode-resize"\nfrom = "rows"\n'))


def many_rows(llavm: Path, rows: int, folder: Path) -> dict:
    """Filters a text-only file of many rows."""
    with (folder / "long.jsonl").open("w") as lines:
        for n in range(rows):
            lines.write(json.dumps({"input": f"What is number {n}?", "output": f"It is the number {n}, one more than {n - 1}."}) + "\n")
    columns = f'files = "{folder}/long.jsonl"\ncolumns = {{ prompt = "input", answer = "output" }}'
    return run(llavm, manifest(columns, '[stages.kept]\nkind = "filter"\nfrom = "rows"\nwhere = "answer_chars > 10"\n'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--llavm", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--zip-entries", type=int, default=100_000)
    parser.add_argument("--long-rows", type=int, default=0, help="rows of the long file, 0 to leave it out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows, formats = convert(args.data.resolve(), folder)
        os.sync()
        runs: dict[str, list[dict]] = {name: [] for name in formats}
        for _ in range(args.repeat):
            for name, lines in formats.items():
                runs[name].append(run(args.llavm, manifest(lines, stages())))
        rates = {name: rows / statistics.median(one["cpu"] for one in results) for name, results in runs.items()}
        for name, rate in rates.items():
            peak = max(one["peak_rss_mib"] for one in runs[name])
            print(f"{name}: {rate:.0f} rows per CPU second, {rate / rates['parquet']:.0%} of parquet, peak memory {peak:.0f} MiB")
        if args.zip_entries:
            many = many_entries(args.llavm, args.zip_entries, folder)
            print(f"zip of {args.zip_entries:,} entries: first row after {many['seconds']:.2f} s, {many['cpu']:.2f} s of CPU, {many['peak_rss_mib']:.0f} MiB")
        if args.long_rows:
            long = many_rows(args.llavm, args.long_rows, folder)
            print(f"{long['rows']:,} rows of text: {long['rows'] / long['cpu']:.0f} rows per CPU second, peak memory {long['peak_rss_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
