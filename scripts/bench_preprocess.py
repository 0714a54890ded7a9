"""Measures preprocessing: parquet rows to stored pixels and token shards, ours beside what a user would run in Python.

    python scripts/make_bench_data.py /tmp/bench --rows 16384
    python scripts/bench_preprocess.py /tmp/bench --llavm target/release/llavm [--rows N] [--repeat 3] [--out FILE.json]

Ours: `llavm run` of manifests/cc3m-tokens.toml's stages on DATA into an empty store, the time of the whole process. The peer:
scripts/peer_preprocess.py with this Python, two processes, the time after its imports. It writes f32 where ours writes u8: with a quarter
of the rows (`--rows`), both write as many bytes, and disk and page cache treat them alike. The runs alternate; the median counts.
`--bare PROGRAM` also runs PROGRAM DATA, which prints "N rows/s" for decoding and resizing alone. `--out` writes the numbers
for scripts/bench_table.py.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "data/qwen3-tokenizer"


def ours(llavm: Path, data: Path, jobs: int) -> dict:
    """Rows per second and peak memory of one run into an empty store."""
    with tempfile.TemporaryDirectory() as scratch:
        text = (ROOT / "manifests/cc3m-tokens.toml").read_text()
        manifest, summary = Path(scratch, "bench.toml"), Path(scratch, "summary.json")
        manifest.write_text(f'store = "{scratch}/store"\n{text}')
        command = [llavm, "run", manifest, "--jobs", str(jobs), "--summary", summary,
                   "--set", f"raw={data}", "--set", f"tokenizer={TOKENIZER}"]
        start = time.perf_counter()
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            sys.exit(f"llavm failed:\n{done.stderr}")
        result = json.loads(summary.read_text())
        rows = next(stage["rows"] for stage in result["stages"] if stage["name"] == "labels")
        return {"rows": rows, "seconds": seconds, "rate": rows / seconds, "peak_rss_mib": result["peak_rss_mib"]}


def peer(data: Path, images: str, rows: int, procs: int) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, ROOT / "scripts/peer_preprocess.py", data, TOKENIZER, "--images", images,
                   "--procs", procs, "--rows", rows, "--out", scratch]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        found = re.search(r"(\d+) rows ([\d.]+) s", done.stdout)
        if found is None:
            sys.exit(f"the peer failed:\n{done.stdout}{done.stderr}")
        return {"rows": int(found[1]), "seconds": float(found[2]), "rate": int(found[1]) / float(found[2])}


def bare(program: str, data: Path) -> dict:
    done = subprocess.run([program, str(data)], capture_output=True, text=True, check=True)
    return {"rate": float(re.search(r"([\d.]+) rows/s", done.stdout)[1])}


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {model[1] if model else platform.processor()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--llavm", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4096, help="rows the peer works on")
    parser.add_argument("--procs", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--images", nargs="*", default=["torchvision", "rust"], help="image processors of the peer")
    parser.add_argument("--bare", help="program that decodes and resizes alone")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    for file in args.data.glob("*.parquet"):
        file.read_bytes()  # all runs find the data in the page cache
    runs: dict[str, list[dict]] = {}
    for _ in range(args.repeat):
        runs.setdefault("llavm", []).append(ours(args.llavm, args.data, args.procs))
        for images in args.images:
            runs.setdefault(f"python, {images}", []).append(peer(args.data, images, args.rows, args.procs))
        if args.bare:
            runs.setdefault("decode and resize alone", []).append(bare(args.bare, args.data))
    medians = {name: {key: statistics.median(run[key] for run in results) for key in results[0]} for name, results in runs.items()}
    rate = medians["llavm"]["rate"]
    for name, median in medians.items():
        print(f"{name}: {median['rate']:.0f} rows/s, ours is {rate / median['rate']:.2f} x")
    print(f"peak memory: {medians['llavm']['peak_rss_mib']:.0f} MiB")
    if args.out:
        args.out.write_text(json.dumps({"machine": machine(), "repeat": args.repeat, "medians": medians}, indent=1) + "\n")


if __name__ == "__main__":
    main()
