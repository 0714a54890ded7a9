"""Measures how fast each raw format is read: the same rows and pictures as parquet, jsonl + images folder, jsonl + zip, webdataset.

    python scripts/make_bench_data.py /tmp/bench --rows 4096
    python scripts/bench_formats.py /tmp/bench --llavm target/release/llavm [--repeat 3] [--zip-entries 100000] [--long-rows 290000 2900000]

Each run is `llavm run` of manifests/cc3m-tokens.toml's stages into an empty store, the files in the page cache. A rate is rows a
second of CPU time (user and system), which other programs on the machine disturb less than wall time. Also: the seconds until a
zip of many entries is open and its first row is read (it is never extracted), and the peak memory of files with many rows.
Needs pyarrow, Pillow.
"""
import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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


def many_rows(llavm: Path, rows: int, folder: Path, pictures: int) -> dict:
    """Reads one parquet file in the layout of minimind-v to token shards: JSON text, and pictures that come again and again.

    With `pictures` of them differing they are kept in the file's dictionary, as that set keeps them; with 0 each row has its own
    bytes. A tenth of the rows has the black picture that means none, which is told by looking at it.
    """
    name, per_group = folder / "long.parquet", 290_000
    schema = pa.schema([("conversations", pa.string()), ("image_bytes", pa.binary())])
    made = [padded_picture(n, 7_000 if pictures else 1_600) for n in range(min(pictures, per_group) or 64)]
    black = io.BytesIO()
    Image.new("RGB", (8, 8)).save(black, "PNG")
    options = {"use_dictionary": ["image_bytes"], "dictionary_pagesize_limit": 2**31 - 1} if pictures else {"use_dictionary": False}
    with pq.ParquetWriter(name, schema, **options) as out:
        for start in range(0, rows, per_group):
            numbers = range(start, min(rows, start + per_group))
            talk = lambda n: [{"role": "user", "content": f"图中的第{n}个物体是什么？" + "<image>" * (n % 10 > 0)},
                              {"role": "assistant", "content": f"这是第{n}个物体，它的编号比{n + 1}小一。"}]
            cells = [black.getvalue() if n % 10 == 0 else made[n % len(made)] for n in numbers]
            out.write_table(pa.table([[json.dumps(talk(n), ensure_ascii=False) for n in numbers], pa.array(cells, pa.binary())], schema=schema),
                            row_group_size=per_group)
    reading = f'files = "{name}"\nconversation = "llava"\nplaceholder_images = "drop"\n' \
              'columns = { image = "image_bytes", conversations = "conversations" }'
    text = stages()
    without_pixels = text[text.index("[stages.chat]"):].replace('["labels", "pixels"]', '["labels"]')
    done = run(llavm, manifest(reading, without_pixels))
    done["file"] = name.stat().st_size
    name.unlink()
    return done


def padded_picture(n: int, size: int) -> bytes:
    """A small JPEG, made `size` bytes long and unlike any other by bytes behind its end, which no decoder reads."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (n % 256, n // 256 % 256, 90)).save(data, "JPEG")
    return data.getvalue() + random.Random(n).randbytes(size - len(data.getvalue()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--llavm", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--zip-entries", type=int, default=100_000)
    parser.add_argument("--long-rows", type=int, nargs="*", default=[], help="rows of the long parquet files (minimind-v has 2900000)")
    parser.add_argument("--long-pictures", type=int, default=0, help="different pictures in their dictionaries, by row group; 0: no dictionary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows, formats = convert(args.data.resolve(), folder)
        os.sync()
        runs: dict[str, list[dict]] = {name: [] for name in formats}
        for _ in range(args.repeat):
            for name, lines in formats.items():
                runs[name].append(run(args.llavm, manifest(lines, stages())))
        rates = {} if args.repeat == 0 else {name: rows / statistics.median(one["cpu"] for one in results) for name, results in runs.items()}
        for name, rate in rates.items():
            peak = max(one["peak_rss_mib"] for one in runs[name])
            print(f"{name}: {rate:.0f} rows per CPU second, {rate / rates['parquet']:.0%} of parquet, peak memory {peak:.0f} MiB")
        if args.zip_entries:
            many = many_entries(args.llavm, args.zip_entries, folder)
            print(f"zip of {args.zip_entries:,} entries: first row after {many['seconds']:.2f} s, {many['cpu']:.2f} s of CPU, {many['peak_rss_mib']:.0f} MiB")
        for rows in args.long_rows:
            long = many_rows(args.llavm, rows, folder, args.long_pictures)
            print(f"{long['rows']:,} rows in a parquet file of {long['file'] / 1e9:.1f} GB: {long['rows'] / long['cpu']:.0f} rows per CPU second, "
                  f"{long['seconds']:.0f} s, peak memory {long['peak_rss_mib']:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
