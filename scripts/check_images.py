"""Compares many kinds of JPEG and lossy WebP with Pillow, pixel by pixel.

    python scripts/check_images.py --llavm target/release/llavm [--count 2000] [--seed 0]

Writes pictures of random size, quality, subsampling, colours and coding (baseline or progressive, with restarts, optimised), some with
bytes changed in the scan, runs decode-resize on them and compares each square with what CLIPImageProcessorPil makes of the same bytes.
Exits with 1 if an undamaged one differs or is rejected; of damaged ones it only tells. Needs pyarrow, Pillow, numpy and transformers.
"""
import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from check_with_python import clip_pixels, with_images
from PIL import Image

PHOTOS = Path(__file__).parent.parent / "data/photos"
MANIFEST = """
store = "{folder}/store"
[stages.rows]
kind = "read"
files = "{folder}/pictures.parquet"
columns = {{ image = "image", prompt = "input", answer = "output" }}
max_rejects = 1.0
[stages.pixels]
kind = "decode-resize"
from = "rows"
max_rejects = 1.0
"""


def picture(photo: Image.Image, rng: np.random.Generator) -> bytes:
    width, height = (int(size) for size in rng.integers(1, 400, 2))
    left, top = int(rng.integers(0, photo.width - 64)), int(rng.integers(0, photo.height - 64))
    part = photo.crop((left, top, left + 64, top + 64)).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    if rng.integers(0, 4) == 0:
        part.save(out, "WEBP", quality=int(rng.integers(1, 101)), method=int(rng.integers(0, 5)))
        return out.getvalue()
    part = part.convert(str(rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"])))
    # Subsampled inks go to another decoder.
    subsampling = 0 if part.mode == "CMYK" else int(rng.integers(0, 3))
    options = {"quality": int(rng.integers(1, 101)), "subsampling": subsampling, "progressive": bool(rng.integers(0, 2)),
               "optimize": bool(rng.integers(0, 2))}
    if rng.integers(0, 3) == 0:
        options["restart_marker_blocks"] = int(rng.integers(1, 9))
    part.save(out, "JPEG", **options)
    return out.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One byte of the last quarter, which is scan data, is another."""
    at = int(rng.integers(len(data) * 3 // 4, len(data) - 2))
    return data[:at] + bytes([int(rng.integers(0, 255))]) + data[at + 1:]


def expected(data: bytes) -> bytes | None:
    try:
        return clip_pixels(data).tobytes()
    except (OSError, ValueError, SyntaxError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llavm", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    whole = [picture(photos[n % len(photos)], rng) for n in range(args.count)]
    images = whole + [damaged(data, rng) for data in whole[:: 10]]
    text = [str(n) for n in range(len(images))]
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "input": text, "output": text}), f"{folder}/pictures.parquet")
        Path(folder, "m.toml").write_text(MANIFEST.format(folder=folder))
        subprocess.run([args.llavm, "run", f"{folder}/m.toml"], check=True, capture_output=True)
        status = subprocess.run([args.llavm, "status", f"{folder}/m.toml", "--json"], check=True, capture_output=True, text=True)
        files = next(stage for stage in json.loads(status.stdout)["stages"] if stage["name"] == "pixels")["files"]
        found = with_images([pa.ipc.open_file(Path(folder, "store", file)).read_all().to_pylist() for file in files])
    assert len(found) == len(images), (len(found), len(images))
    by_row = {row["row"] if "row" in row else n: row for n, row in enumerate(found)}
    wrong = []
    for n, data in enumerate(images):
        ours, theirs = by_row[n]["pixels"], expected(data)
        if (ours[0] if ours else None) != theirs:
            wrong.append((n, "whole" if n < len(whole) else "damaged", by_row[n]["reject"], theirs is None))
    for n, kind, reject, refused in wrong[:20]:
        print(f"{n} ({kind}): ours {reject or 'decoded'}, Pillow {'refused' if refused else 'decoded'}")
    print(f"{len(images) - len(wrong)} of {len(images)} pictures are Pillow's to the bit")
    sys.exit(bool([1 for n, *_ in wrong if n < len(whole)]))


if __name__ == "__main__":
    main()
