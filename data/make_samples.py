"""Makes every sample in this folder from data/photos: the same bytes each time.

    python data/make_samples.py

Needs Pillow, numpy and pyarrow (made with Pillow 13.0, pyarrow 26.0). Each picture is a crop of a photo around a region of
photo_facts.py, at another size and in another encoding; each caption says what that region shows.
"""
import base64
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from make_broken import make_broken
from photo_facts import REGIONS, Region

HERE = Path(__file__).parent
CC3M_FILES = [(128, "train-00000-of-00003.parquet"), (128, "train-00001-of-00003.parquet"), (64, "train-00002-of-00003.parquet")]
INSTRUCT_FILES = [(64, "train-00000-of-00002.parquet"), (64, "train-00001-of-00002.parquet")]

# LLaVA's instructions for brief descriptions (haotian-liu/LLaVA, Apache-2.0).
DESCRIBE_EN = ["Describe the image concisely.", "Provide a brief description of the given image.",
               "Offer a succinct explanation of the picture presented.", "Summarize the visual content of the image.",
               "Give a short and clear explanation of the subsequent image.", "Share a concise interpretation of the image provided.",
               "Present a compact description of the photo's key features.", "Relay a brief, clear account of the picture shown.",
               "Render a clear and concise summary of the photo.", "Write a terse but informative summary of the picture.",
               "Create a compact narrative representing the image presented."]
DESCRIBE_ZH = ["请简要描述这张图片。", "用一句话概括图片内容。", "图中有什么？", "请对这张照片作一个简短的说明。", "写出这张图片的主要内容："]


@dataclass(frozen=True)
class Picture:
    region: Region
    image: Image.Image


def crop(region: Region, rng: np.random.Generator, long_side: tuple[int, int]) -> Picture:
    """The region with each side moved in by up to 5%, scaled to a drawn long side."""
    photo = Image.open(HERE / "photos" / region.photo)
    left, top, right, bottom = region.box
    in_by = rng.uniform(0.0, 0.05, 4) * [right - left, bottom - top, right - left, bottom - top]
    box = ((left + in_by[0]) * photo.width, (top + in_by[1]) * photo.height,
           (right - in_by[2]) * photo.width, (bottom - in_by[3]) * photo.height)
    part = photo.crop(tuple(round(v) for v in box))
    scale = int(rng.integers(*long_side)) / max(part.size)
    size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    return Picture(region, part.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def encode(image: Image.Image, how: str, quality: int = 70) -> bytes:
    """`image` in one of the encodings that real data sets hold."""
    out = io.BytesIO()
    match how:
        case "jpeg": image.save(out, "JPEG", quality=quality)
        case "progressive": image.save(out, "JPEG", quality=quality, progressive=True)
        case "grey-jpeg": image.convert("L").save(out, "JPEG", quality=quality)
        case "cmyk-jpeg": image.convert("CMYK").save(out, "JPEG", quality=quality)
        case "exif-rotated":  # tag 274 = 6: a viewer turns it upright, Pillow's convert("RGB") does not
            exif = Image.Exif()
            exif[274] = 6
            image.save(out, "JPEG", quality=quality, exif=exif)
        case "png": small(image).save(out, "PNG", optimize=True)
        case "palette-png": image.quantize(64).save(out, "PNG", optimize=True)
        case "grey-png": small(image).convert("L").save(out, "PNG", optimize=True)
        case "rgba-png":
            clear = small(image).convert("RGBA")
            clear.putalpha(Image.linear_gradient("L").resize(clear.size))
            clear.save(out, "PNG", optimize=True)
        case "grey16-png":
            grey = np.asarray(small(image).convert("L"), dtype=np.uint16)
            Image.fromarray(grey).save(out, "PNG", optimize=True)
        case "gif": image.quantize(32).save(out, "GIF")
        case "webp": image.save(out, "WEBP", quality=quality)
        case "bmp": small(image).resize((64, 48)).save(out, "BMP")
    return out.getvalue()


def small(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((96, 96))
    return image


ENCODINGS = ["png", "grey-jpeg", "progressive", "cmyk-jpeg", "exif-rotated", "palette-png", "grey-png", "rgba-png",
             "grey16-png", "gif", "webp", "bmp"]


def encoding_of(row: int) -> str:
    """Every fifth row takes the next of the rare encodings, the others are plain JPEG."""
    return ENCODINGS[(row // 5) % len(ENCODINGS)] if row % 5 == 4 else "jpeg"


def with_image(text: str, row: int) -> str:
    """The placeholder behind the text, before it, or left out, as the public sets do."""
    return [f"{text}\n<image>", f"<image>\n{text}", text][row % 3]


def cc3m() -> None:
    """llava-cc3m-pretrain-595K: `image` raw binary (no struct), `input`, `output`."""
    rng, row = np.random.default_rng(595), 0
    for rows, name in CC3M_FILES:
        table = {"image": [], "input": [], "output": []}
        for _ in range(rows):
            picture = crop(REGIONS[row % len(REGIONS)], rng, (160, 300))
            table["image"].append(encode(picture.image, encoding_of(row)))
            table["input"].append(with_image(DESCRIBE_EN[row % len(DESCRIBE_EN)], row))
            table["output"].append(picture.region.en[int(rng.integers(len(picture.region.en)))])
            row += 1
        schema = pa.schema([("image", pa.binary()), ("input", pa.string()), ("output", pa.string())])
        write_parquet(pa.table(table, schema), folder("cc3m") / name, row_group_size=50)


def instruct() -> None:
    """llava-instruct-mix: `images` list<struct<bytes, path>>, `prompt` and `completion` list<struct<role, content>>."""
    rng, row = np.random.default_rng(665), 0
    message = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    schema = pa.schema([("images", image), ("prompt", message), ("completion", message)])
    features = {"info": {"features": {"images": {"feature": {"_type": "Image"}, "_type": "List"}}}}
    schema = schema.with_metadata({"huggingface": json.dumps(features)})
    for rows, name in INSTRUCT_FILES:
        table = {"images": [], "prompt": [], "completion": []}
        for _ in range(rows):
            picture = crop(REGIONS[(row * 7) % len(REGIONS)], rng, (120, 240))
            turns = dialogue(picture.region.qa_en, rng)
            table["images"].append([{"bytes": encode(picture.image, "jpeg", 65), "path": None}])
            table["prompt"].append(turns[:-1])
            table["completion"].append(turns[-1:])
            row += 1
        write_parquet(pa.table(table, schema), folder("instruct") / name, row_group_size=32)


def dialogue(qa: tuple[tuple[str, str], ...], rng: np.random.Generator) -> list[dict]:
    """One to three questions about the picture, each with its answer."""
    chosen = rng.permutation(len(qa))[: int(rng.integers(1, 4))]
    turns = []
    for index in chosen:
        question, answer = qa[index]
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns


def llava() -> None:
    """LLaVA's chat.json and its folder of pictures; text-only rows have no `image` key."""
    rng, rows, images = np.random.default_rng(150), [], folder("llava/images")
    for row in range(40):
        region, name = REGIONS[(row * 3) % len(REGIONS)], f"GCC_train_{row:09d}.jpg"
        if row % 10 == 9:
            rows.append({"id": f"text_{row:09d}", "conversations": [
                {"from": "human", "value": "What is 2 + 3?"}, {"from": "gpt", "value": "2 + 3 = 5."}]})
            continue
        picture = crop(region, rng, (120, 220))
        (images / name).write_bytes(encode(picture.image, "progressive" if row % 4 == 3 else "jpeg", 65))
        turns = [{"role": "user", "content": DESCRIBE_EN[row % 11]}, {"role": "assistant", "content": region.en[0]}]
        turns += dialogue(region.qa_en, rng) if row % 2 else []
        turns[0]["content"] = with_image(turns[0]["content"], row)
        speaker = {"user": "human", "assistant": "gpt"}
        rows.append({"id": name.removesuffix(".jpg"), "image": name,
                     "conversations": [{"from": speaker[t["role"]], "value": t["content"]} for t in turns]})
    (HERE / "llava/chat.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def zh() -> None:
    """Chinese rows: captions with base64 pictures, and conversations with a folder of pictures."""
    rng, images = np.random.default_rng(86), folder("zh/images")
    with open(HERE / "zh/captions.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for row in range(32):
            picture = crop(REGIONS[row % len(REGIONS)], rng, (110, 180))
            line = {"id": f"zh-{row:04d}", "image": base64.b64encode(encode(picture.image, "jpeg", 60)).decode(),
                    "prompt": DESCRIBE_ZH[row % len(DESCRIBE_ZH)], "answer": picture.region.zh[row % len(picture.region.zh)]}
            print(json.dumps(line, ensure_ascii=False), file=out)
    with open(HERE / "zh/chat.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for row in range(32):
            region, name = REGIONS[(row * 11) % len(REGIONS)], f"{row:04d}.jpg"
            (images / name).write_bytes(encode(crop(region, rng, (110, 180)).image, "jpeg", 60))
            turns = dialogue(region.qa_zh, rng)
            turns[0]["content"] = with_image(turns[0]["content"], row)
            if row % 8 == 3:  # emoji and traditional characters occur in real captions
                turns += [{"role": "user", "content": "謝謝你！再用一個表情符號形容它。"}, {"role": "assistant", "content": "好的：😀👍"}]
            print(json.dumps({"messages": turns, "images": [f"images/{name}"]}, ensure_ascii=False), file=out)


def folder(name: str) -> Path:
    path = HERE / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_parquet(table: pa.Table, path: Path, row_group_size: int) -> None:
    pq.write_table(table, path, row_group_size=row_group_size, compression="snappy")


def main() -> None:
    for name in ["cc3m", "instruct", "llava", "zh", "broken"]:
        shutil.rmtree(HERE / name, ignore_errors=True)
    cc3m()
    instruct()
    llava()
    zh()
    make_broken(folder("broken"), lambda region, side: crop(REGIONS[region], np.random.default_rng(region), (side, side + 1)).image, encode)


if __name__ == "__main__":
    main()
