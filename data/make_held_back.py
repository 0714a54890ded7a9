"""Makes held-back/: for each public data set that manifests/ names, rows with odd but legal values, one oddity a row.

    python data/make_held_back.py

The odd values: no picture (null, missing or empty), a list of one where the set has one value, `<image>` in the middle, Windows
line ends in texts and files, a byte-order mark in texts and files, full-width marks, emoji, three questions, a system turn, an
empty answer. Where a layout has no place for one (a caption has no turns) it is left out. The samples that the manifests show are
made by make_sets.py; these are for tests/pipeline/held_back.rs alone. Needs and keeps to what make_sets.py does.
"""
import base64
import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa

from make_sets import BOM, FINEVISION, IMAGE, MESSAGE, chat, dump, jpeg, parquet, ratings, said, write, zip_of

HELD_BACK = Path(__file__).parent / "held-back"

# What is said, with `<image>` wherever the set puts it.
SAID = {
    "none": ("What is 2 + 3?", "5"),
    "list": ("<image>\nWhat is this?", "a list of one"),
    "middle": ("Look at <image> and say what it shows.", "in the middle"),
    "crlf": ("First line.\r\n<image>\r\nLast line.", "one\r\ntwo"),
    "bom": (f"{BOM}<image>\nWhat is this?", f"{BOM}marked"),
    "wide": ("<image>\n这是什么？（用一句话）", "“猫”，１只！"),
    "emoji": ("<image>\n👩‍🚀?", "🚀🌕"),
    "turns": ("<image>\nOne?", "1", "Two?", "2", "Three?", "3"),
    "system": ("<image>\nWhat is this?", "after a system turn"),
    "empty": ("<image>\nWhat is this?", ""),
}
# A caption has no turns; these are Chinese, as the sets are.
CAPTIONS = {
    "none": "没有图片的说明",
    "list": "只有一项的列表",
    "middle": "写着<image>的牌子",
    "crlf": "第一行\r\n第二行",
    "bom": f"{BOM}带标记的猫",
    "wide": "“猫”，１只！",
    "emoji": "🚀飞向🌕了",
    "empty": "",
}


def folder(name: str) -> Path:
    path = HELD_BACK / name
    path.mkdir(parents=True)
    return path


def llava(name: str, file: str, zipped: bool) -> None:
    """LLaVA's JSON array with a byte-order mark and Windows line ends; no picture is `null`, or the key is missing."""
    rows = []
    for key, turns in SAID.items():
        row = {"id": key, "image": f"{key}.jpg", "conversations": said(*turns)}
        if key == "none":
            row["image"] = None
        elif key == "list":
            row["image"] = ["list.jpg"]
        elif key == "system":
            row["conversations"].insert(0, {"from": "system", "value": "Be brief."})
        rows.append(row)
    rows.append({"id": "missing", "conversations": said(*SAID["none"])})
    out = folder(name)
    path = out / file
    path.parent.mkdir(exist_ok=True)
    write(path, BOM + json.dumps(rows, indent=1, ensure_ascii=False).replace("\n", "\r\n"))
    pictures = {f"{key}.jpg": jpeg(0) for key in SAID if key != "none"}
    if zipped:
        zip_of(out / "images.zip", pictures)
    else:
        (out / "train2017").mkdir()
        for picture, data in pictures.items():
            (out / "train2017" / picture).write_bytes(data)


def pictures_of(key: str) -> list | None:
    """The cell of a column of lists: null for no picture, and a list of one is what the others have."""
    return None if key == "none" else [{"bytes": jpeg(0), "path": None}]


def with_system(key: str, turns: list[dict]) -> list[dict]:
    return [{"role": "system", "content": "Be brief."}, *turns] if key == "system" else turns


def instruct_mix() -> None:
    turns = [with_system(key, chat(*text)) for key, text in SAID.items()]
    columns = {"images": [pictures_of(key) for key in SAID], "prompt": [turn[:-1] for turn in turns], "completion": [turn[-1:] for turn in turns]}
    types = [("images", pa.list_(IMAGE)), ("prompt", pa.list_(MESSAGE)), ("completion", pa.list_(MESSAGE))]
    parquet(HELD_BACK / "llava-instruct-mix/data/train-00000-of-00001.parquet", columns, types)


def parts(turn: dict) -> dict:
    """A turn whose content is a list of parts; `<image>` is a part of its own."""
    content = []
    for n, text in enumerate(turn["content"].split("<image>")):
        if n:
            content.append({"index": 0, "text": None, "type": "image"})
        content.append({"index": None, "text": text, "type": "text"})
    return {"content": content, "role": turn["role"]}


def instruct_mix_vsft() -> None:
    rows = [[parts(turn) for turn in with_system(key, chat(*text))] for key, text in SAID.items()]
    part = pa.struct([("index", pa.int64()), ("text", pa.string()), ("type", pa.string())])
    messages = pa.list_(pa.struct([("content", pa.list_(part)), ("role", pa.string())]))
    columns = {"messages": rows, "images": [pictures_of(key) for key in SAID]}
    parquet(HELD_BACK / "llava-instruct-mix-vsft/data/train-00000-of-00001.parquet", columns, [("messages", messages), ("images", pa.list_(IMAGE))])


def pairs(key: str) -> list[dict]:
    """Pairs of user and assistant, which have no system turn; the sets hold no `<image>` but in the middle."""
    turns = list(SAID[key])
    if key != "middle":
        turns[0] = turns[0].replace("<image>\r\n", "").replace("<image>\n", "")
    return [{"user": user, "assistant": answer} for user, answer in zip(turns[::2], turns[1::2])]


def cauldrons() -> None:
    keys = [key for key in SAID if key != "system"]
    images = [pictures_of(key) for key in keys]
    texts = [[pair | {"source": "VQAv2"} for pair in pairs(key)] for key in keys]
    pair = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    parquet(HELD_BACK / "the-cauldron/vqav2/train-00000-of-00001.parquet", {"images": images, "texts": texts},
            [("images", pa.list_(IMAGE)), ("texts", pa.list_(pair))])
    texts = [pairs(key) for key in keys]
    columns = {"images": images, "texts": texts, "source": ["chartqa"] * len(keys)} | ratings(texts)
    parquet(HELD_BACK / "finevision/chartqa/train-00000-of-00001.parquet", columns, FINEVISION)


def en_zh() -> None:
    types = [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))), ("images", pa.list_(IMAGE))]
    columns = {"messages": [with_system(key, chat(*text)) for key, text in SAID.items()], "images": [pictures_of(key) for key in SAID]}
    parquet(HELD_BACK / "llava-en-zh/zh/train-00000-of-00001.parquet", columns, types)


def minimind_v() -> None:
    """Bytes in one file, lists of bytes in the other; a null cell, and Windows line ends in the JSON text itself."""
    text = ("conversations", pa.string())
    talks = [json.dumps(with_system(key, chat(*said_)), indent=1, ensure_ascii=False).replace("\n", "\r\n") for key, said_ in SAID.items()]
    cells = [None if key == "none" else jpeg(0) for key in SAID]
    parquet(HELD_BACK / "minimind-v/pretrain_i2t.parquet", {"conversations": talks, "image_bytes": cells}, [text, ("image_bytes", pa.binary())])
    cells = [None if cell is None else [cell] for cell in cells]
    parquet(HELD_BACK / "minimind-v/sft_i2t.parquet", {"conversations": talks, "image_bytes": cells}, [text, ("image_bytes", pa.list_(pa.binary()))])


def one_line(text: str) -> str:
    """What a line of a table can hold of a text."""
    return text.replace("\r\n", " ")


def tables() -> None:
    """COCO-CN and Flickr30k-CNA: lines of a name, a tab and a caption, with a byte-order mark and Windows line ends."""
    coco, flickr = folder("coco-cn"), folder("flickr30k-cna")
    for made in (coco / "train2014", coco / "val2014", flickr / "flickr30k-images", flickr / "train"):
        made.mkdir()
    coco_lines, flickr_lines = [], []
    for n, (key, caption) in enumerate(CAPTIONS.items()):
        split = "train2014" if n % 2 else "val2014"
        name = "" if key == "none" else f"COCO_{split}_{n:012d}"
        coco_lines.append(f"{name}#0\t{one_line(caption)}" if name else f"\t{one_line(caption)}")
        flickr_lines.append(f"{'' if key == 'none' else n}\t{one_line(caption)}")
        if name:
            (coco / split / f"{name}.jpg").write_bytes(jpeg(0))
            (flickr / "flickr30k-images" / f"{n}.jpg").write_bytes(jpeg(0))
    write(coco / "imageid.human-written-caption.txt", BOM + "\r\n".join(coco_lines) + "\r\n")
    write(flickr / "train/flickr30k_cna_train.txt", BOM + "\r\n".join(flickr_lines))


def ai_challenger() -> None:
    """The captions are lists of one, but for one text and one empty list."""
    out = folder("ai-challenger")
    (out / "caption_train_images_20170902").mkdir()
    rows = [{"url": "", "image_id": f"{key}.jpg", "caption": [caption]} for key, caption in CAPTIONS.items()]
    rows[0]["image_id"] = None
    rows.append({"url": "", "image_id": "list.jpg", "caption": "不是列表"})
    rows.append({"url": "", "image_id": "list.jpg", "caption": []})
    for key in CAPTIONS:
        (out / "caption_train_images_20170902" / f"{key}.jpg").write_bytes(jpeg(0))
    write(out / "caption_train_annotations_20170902.json", BOM + json.dumps(rows, indent=1, ensure_ascii=False).replace("\n", "\r\n"))


def muge() -> None:
    """Lists of one picture, an empty list, null, and a number without a list; base64 with the alphabet for addresses and without padding."""
    out = folder("muge")
    picture = base64.urlsafe_b64encode(jpeg(0)).decode().rstrip("=")
    write(out / "MR_train_imgs.tsv", BOM + f"17\t{picture}\r\n18\t{base64.b64encode(jpeg(0)).decode()}\r\n")
    rows = [{"query_id": n, "query_text": caption, "item_ids": [17 + n % 2]} for n, caption in enumerate(CAPTIONS.values())]
    rows[0]["item_ids"] = []
    rows.append({"query_id": 90, "query_text": "空值", "item_ids": None})
    rows.append({"query_id": 91, "query_text": "不是列表", "item_ids": 18})
    write(out / "MR_train_queries.jsonl", BOM + "\r\n".join(dump(row) for row in rows) + "\r\n\r\n")


def wukong() -> None:
    """A tar of img2dataset; the row without a picture is one whose download failed."""
    with tarfile.open(folder("wukong") / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as out:
        for n, (key, caption) in enumerate(CAPTIONS.items()):
            members = [("json", dump({"caption": caption, "key": f"{n:09d}"}).encode()), ("txt", f"{caption}\r\n".encode())]
            if key != "none":
                members.insert(0, ("jpg", jpeg(0)))
            for extension, data in members:
                info = tarfile.TarInfo(f"{n:09d}.{extension}")
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))


def main() -> None:
    shutil.rmtree(HELD_BACK, ignore_errors=True)
    llava("llava-cc3m-pretrain-595k", "chat.json", zipped=True)
    llava("llava-pretrain-558k", "blip_laion_cc_sbu_558k.json", zipped=True)
    llava("llava-instruct-150k", "llava_instruct_150k.json", zipped=False)
    llava("chinese-llava-vision-instructions", "LLaVA-CC3M-Pretrain-595K/chat-translated.json", zipped=True)
    for make in (instruct_mix, instruct_mix_vsft, cauldrons, en_zh, minimind_v, tables, ai_challenger, muge, wukong):
        make()


if __name__ == "__main__":
    main()
