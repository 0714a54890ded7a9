"""Makes CC3M-like rows for benchmarks: parquet files of JPEGs of about 300 x 400 pixels and 30 KB.

    python scripts/make_bench_data.py FOLDER [--rows 8192] [--seed 0]

FOLDER should lie outside the project. Each picture is a crop of another place of one of data/photos, scaled so that its area is
about 120,000 pixels (CC3M's usual size), JPEG quality 84 to 94; columns as in llava-cc3m-pretrain-595K (`image` binary, `input`,
`output`). The same arguments give the same bytes. Needs Pillow, numpy and pyarrow.
"""
import argparse
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DATA = Path(__file__).parent.parent / "data"
sys.path.insert(0, str(DATA))
from make_samples import DESCRIBE_EN, with_image  # noqa: E402
from photo_facts import REGIONS  # noqa: E402

ROWS_PER_FILE = 4096
COLOUR = ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
SCHEMA = pa.schema([("image", pa.binary()), ("input", pa.string()), ("output", pa.string())])


def picture(photo: Image.Image, rng: np.random.Generator) -> bytes:
    """A random crop (55% to 95% of each side), scaled to about 300 x 400 or 400 x 300."""
    width, height = (photo.width * rng.uniform(0.55, 0.95), photo.height * rng.uniform(0.55, 0.95))
    left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    scale = (rng.uniform(100_000, 140_000) / (width * height)) ** 0.5
    size = (round(width * scale), round(height * scale))
    part = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    out = io.BytesIO()
    part.save(out, "JPEG", quality=int(rng.integers(84, 95)))
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rng, size = np.random.default_rng(args.seed), 0
    regions = [region for region in REGIONS if region.part == "whole" and region.photo in COLOUR]
    photos = [Image.open(DATA / "photos" / region.photo).convert("RGB") for region in regions]
    files = -(-args.rows // ROWS_PER_FILE)
    for file in range(files):
        table = {"image": [], "input": [], "output": []}
        for row in range(file * ROWS_PER_FILE, min(args.rows, (file + 1) * ROWS_PER_FILE)):
            which = row % len(regions)
            table["image"].append(picture(photos[which], rng))
            table["input"].append(with_image(DESCRIBE_EN[row % len(DESCRIBE_EN)], row))
            table["output"].append(regions[which].en[row % len(regions[which].en)])
        size += sum(len(image) for image in table["image"])
        pq.write_table(pa.table(table, SCHEMA), args.folder / f"train-{file:05d}-of-{files:05d}.parquet", row_group_size=1024)
    print(f"{args.rows} rows, {size / args.rows / 1024:.1f} KiB an image, in {files} files under {args.folder}")


if __name__ == "__main__":
    main()
