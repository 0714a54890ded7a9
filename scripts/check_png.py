"""Compares PNGs of every colour type, depth and kind of transparency with Pillow, pixel by pixel.

    python scripts/check_png.py --llavm target/release/llavm

Writes the files byte by byte, since Pillow writes few of these kinds, and compares decode-resize with `alpha = "white"` (what
Transformers' processors do) and `"drop"` (`Image.open(…).convert("RGB")`). Exits with 1 if any differs. Needs pyarrow, Pillow, numpy and transformers.
"""
import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from check_with_python import SIZE, clip_pixels, with_images
from PIL import Image

WIDTH, HEIGHT = 61, 47
MANIFEST = """
store = "{folder}/store"
[stages.rows]
kind = "read"
files = "{folder}/pictures.parquet"
columns = {{ image = "image", prompt = "text", answer = "text" }}
[stages.pixels]
kind = "decode-resize"
from = "rows"
alpha = "{alpha}"
max_rejects = 1.0
"""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def packed(row: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return row.astype("u1" if depth == 8 else ">u2").tobytes()
    bits = "".join(format(int(value), f"0{depth}b") for value in row)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits), 8))


def png(pixels: np.ndarray, depth: int, colour: int, transparent: bytes | None = None, palette: bytes | None = None, end: bool = True) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparent)] if transparent is not None else []
    rows = b"".join(b"\0" + packed(row.reshape(-1), depth) for row in pixels)
    return b"".join(parts + [chunk(b"IDAT", zlib.compress(rows))] + ([chunk(b"IEND", b"")] if end else []))


def pictures(rng: np.random.Generator) -> dict[str, bytes]:
    cases = {}
    for depth in (1, 2, 4, 8, 16):
        grey = rng.choice([0, 1, 255, 256, 257, 3000, 65535] if depth == 16 else min(2 ** depth, 6), (HEIGHT, WIDTH))
        for level in (None, *(level for level in (0, 1, 255, 256, 3000) if level < 2 ** depth)):
            cases[f"grey of {depth} bits, transparent {level}"] = png(grey, depth, 0, None if level is None else struct.pack(">H", level))
    for depth, levels in ((8, [0, 1, 255]), (16, [0, 1, 255, 256, 65535])):
        colours = rng.choice(levels, (HEIGHT, WIDTH, 3))
        for key in (None, (0, 0, 0), (255, 255, 255), (1, 0, 255), (0, 256, 65535)):
            if key is None or max(key) < 2 ** depth:
                cases[f"colours of {depth} bits, transparent {key}"] = png(colours, depth, 2, key and struct.pack(">HHH", *key))
        for colour, samples in ((4, 2), (6, 4)):
            cases[f"colour type {colour}, {depth} bits"] = png(rng.integers(0, 2 ** depth, (HEIGHT, WIDTH, samples)), depth, colour)
    for depth in (1, 2, 4, 8):
        places, palette = rng.integers(0, 2 ** depth, (HEIGHT, WIDTH)), rng.integers(0, 256, 3 * 2 ** depth).astype("u1").tobytes()
        for alpha in (None, b"\0", b"\x80\x10", rng.integers(0, 256, 2 ** depth).astype("u1").tobytes(), b"\xff" * 2 ** depth, b"\xff\0"):
            cases[f"palette of {depth} bits, transparent {alpha and alpha[:4].hex()}, {len(alpha or b'')} entries"] = png(places, depth, 3, alpha, palette)
        cases[f"palette of {depth} bits, no end"] = png(places, depth, 3, None, palette, end=False)
    return cases


def dropped(data: bytes) -> np.ndarray:
    """As `clip_pixels`, with transparency left out."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).save(out, "PNG")
    return clip_pixels(out.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llavm", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = pictures(np.random.default_rng(1))
    wrong = 0
    for alpha, expected in (("white", clip_pixels), ("drop", dropped)):
        with tempfile.TemporaryDirectory() as folder:
            text = ["x"] * len(cases)
            pq.write_table(pa.table({"image": pa.array(cases.values(), pa.binary()), "text": text}), f"{folder}/pictures.parquet")
            Path(folder, "m.toml").write_text(MANIFEST.format(folder=folder, alpha=alpha))
            run = lambda *command: subprocess.run([args.llavm, *command], check=True, capture_output=True, text=True).stdout
            run("run", f"{folder}/m.toml")
            status = json.loads(run("status", f"{folder}/m.toml", "--json"))
            files = next(stage for stage in status["stages"] if stage["name"] == "pixels")["files"]
            rows = with_images([pa.ipc.open_file(Path(folder, "store", file)).read_all().to_pylist() for file in files])
        for (name, data), row in zip(cases.items(), rows, strict=True):
            ours, theirs = (row["pixels"] or [b""])[0], expected(data)
            if ours != theirs.tobytes():
                wrong += 1
                print(f"{name}, alpha = {alpha}: ours {row['reject'] or 'decoded, to other pixels'}")
    print(f"{2 * len(cases) - wrong} of {2 * len(cases)} PNGs of {SIZE} pixels are Pillow's to the bit")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
