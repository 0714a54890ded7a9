"""Makes samples/: a few rows of each public data set that manifests/ names, in exactly that set's layout, odd values included.

    python data/make_sets.py

Needs Pillow, numpy and pyarrow (made with Pillow 13.0, pyarrow 26.0); writes the same bytes each time. The pictures are crops of
photos/, the texts those of photo_facts.py: no row of any of these sets is in here. What must become of each row is in
tests/pipeline/sets.rs.
"""
import base64
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from make_samples import DESCRIBE_EN, crop, encode
from photo_facts import REGIONS

SAMPLES = Path(__file__).parent / "samples"
BOM = "\ufeff"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])


def region(n: int):
    return REGIONS[(n * 5) % len(REGIONS)]


def jpeg(n: int) -> bytes:
    """A picture of 72 pixels that shows region `n`."""
    return encode(crop(region(n), np.random.default_rng(n), (72, 73)).image, "jpeg", 55)


def folder(name: str) -> Path:
    path = SAMPLES / name
    path.mkdir(parents=True)
    return path


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def dump(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def zip_of(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name, data in members.items():
            out.writestr(zipfile.ZipInfo(name, (2023, 5, 1, 0, 0, 0)), data)


def parquet(path: Path, columns: dict, types: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, pa.schema(types)), path, compression="snappy", row_group_size=4)


def said(*turns: str) -> list[dict]:
    """LLaVA's form: human and gpt in turn."""
    return [{"from": ["human", "gpt"][n % 2], "value": text} for n, text in enumerate(turns)]


def chat(*turns: str) -> list[dict]:
    return [{"role": ["user", "assistant"][n % 2], "content": text} for n, text in enumerate(turns)]


def qa(n: int, language: str, count: int) -> list[str]:
    """`count` questions about region `n`, each with its answer; the first is asked again where there are fewer."""
    pairs = region(n).qa_en if language == "en" else region(n).qa_zh
    return [text for turn in range(count) for text in pairs[turn % len(pairs)]]


# English


def llava_cc3m_pretrain_595k() -> None:
    """chat.json and images.zip; written with a byte-order mark and Windows line ends, as some copies are."""
    names = [f"GCC_train_{n:09d}.jpg" for n in range(8)]
    asks = [f"{DESCRIBE_EN[n]}\n<image>" if n % 2 else f"<image>\n{DESCRIBE_EN[n]}" for n in range(8)]
    asks[3] = "Look at <image> and say what it shows."
    rows = [{"id": name[:-4], "image": name, "conversations": said(asks[n], region(n).en[0])} for n, name in enumerate(names)]
    rows[6]["image"] = "GCC_train_999999999.jpg"  # not in the zip
    out = folder("llava-cc3m-pretrain-595k")
    write(out / "chat.json", BOM + json.dumps(rows, indent=2).replace("\n", "\r\n"))
    zip_of(out / "images.zip", {name: jpeg(n) for n, name in enumerate(names) if n != 6})


def llava_pretrain_558k() -> None:
    """blip_laion_cc_sbu_558k.json; pictures in numbered folders of the zip."""
    names = [f"{n:05d}/{n:05d}{n:04d}.jpg" for n in range(8)]
    rows = [{"id": name[6:-4], "image": name, "conversations": said(f"{DESCRIBE_EN[n]}\n<image>", region(n).en[-1])}
            for n, name in enumerate(names)]
    rows[2]["conversations"] = said("<image>\nWhat is this? 🤔", "a cat 😺, “half asleep”")
    del rows[5]["image"]
    rows[5]["conversations"] = said("What is 2 + 3?", "2 + 3 = 5.")
    out = folder("llava-pretrain-558k")
    write(out / "blip_laion_cc_sbu_558k.json", dump(rows))
    zip_of(out / "images.zip", {name: jpeg(n) for n, name in enumerate(names) if n != 5})


def llava_instruct_150k() -> None:
    """llava_instruct_150k.json and COCO's train2017 folder."""
    out = folder("llava-instruct-150k")
    (out / "train2017").mkdir()
    rows = []
    for n in range(8):
        name = f"{33471 + n:012d}.jpg"
        (out / "train2017" / name).write_bytes(jpeg(n))
        turns = qa(n, "en", 1 + n % 3)
        turns[0] = f"{turns[0]}\n<image>" if n % 2 else f"<image>\n{turns[0]}"
        rows.append({"id": name[:-4], "image": name, "conversations": said(*turns)})
    rows[1]["conversations"].insert(0, {"from": "system", "value": "Answer in one sentence."})
    rows[4]["conversations"][-1]["value"] = ""  # no answer
    write(out / "llava_instruct_150k.json", json.dumps(rows))


def llava_instruct_mix() -> None:
    """trl-lib: `images` list<struct<bytes, path>>, `prompt` and `completion` lists of messages, no placeholder."""
    turns = [chat(*qa(n, "en", 1 + n % 3)) for n in range(8)]
    turns[5] = [{"role": "system", "content": "Be brief."}, *turns[5]]
    images = [[{"bytes": jpeg(n), "path": None}] for n in range(8)]
    images[2], images[6] = [], None
    columns = {"images": images, "prompt": [turn[:-1] for turn in turns], "completion": [turn[-1:] for turn in turns]}
    types = [("images", pa.list_(IMAGE)), ("prompt", pa.list_(MESSAGE)), ("completion", pa.list_(MESSAGE))]
    parquet(SAMPLES / "llava-instruct-mix/data/train-00000-of-00001.parquet", columns, types)


def llava_instruct_mix_vsft() -> None:
    """HuggingFaceH4: `messages` whose content is a list of parts, `images` beside them."""
    text = lambda content: {"index": None, "text": content, "type": "text"}
    picture = lambda index: {"index": index, "text": None, "type": "image"}
    rows, images = [], []
    for n in range(8):
        turns = qa(n, "en", 1 + n % 3)
        parts = [[text(turn)] for turn in turns]
        parts[0] = [text(turns[0] + "\n"), picture(0)] if n % 2 else [picture(0), text(turns[0])]
        rows.append([{"content": part, "role": ["user", "assistant"][i % 2]} for i, part in enumerate(parts)])
        images.append([{"bytes": jpeg(n), "path": None}])
    rows[3][0]["content"] = [text("Compare "), picture(0), text(" with "), picture(1), text("")]
    images[3].append({"bytes": jpeg(30), "path": None})
    rows[4][0]["content"] = [text("What is 2 + 3?")]
    rows[4] = [rows[4][0], {"content": [text("5")], "role": "assistant"}]
    images[4] = []
    part = pa.struct([("index", pa.int64()), ("text", pa.string()), ("type", pa.string())])
    messages = pa.list_(pa.struct([("content", pa.list_(part)), ("role", pa.string())]))
    columns = {"messages": rows, "images": images}
    parquet(SAMPLES / "llava-instruct-mix-vsft/data/train-00000-of-00001.parquet", columns, [("messages", messages), ("images", pa.list_(IMAGE))])


def pairs(n: int, count: int, **more: str) -> list[dict]:
    turns = qa(n, "en", count)
    return [{"user": turns[2 * i], "assistant": turns[2 * i + 1], **more} for i in range(count)]


def the_cauldron() -> None:
    """One folder for each subset; `images`, `texts` list<struct<user, assistant, source>>."""
    texts = [pairs(n, 1 + n % 3, source="VQAv2") for n in range(6)]
    images = [[{"bytes": jpeg(n), "path": None}] for n in range(6)]
    images[1].append({"bytes": jpeg(31), "path": "gone.jpg"})
    texts[4][0]["user"] = "这是什么？ Answer in English。"
    pair = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    path = SAMPLES / "the-cauldron/vqav2/train-00000-of-00001.parquet"
    parquet(path, {"images": images, "texts": texts}, [("images", pa.list_(IMAGE)), ("texts", pa.list_(pair))])


def finevision() -> None:
    """As the_cauldron, with a `source` beside the texts and four ratings of each answer with their least; some subsets are text only."""
    texts = [pairs(n, 1 + n % 3) for n in range(6)]
    images = [[{"bytes": jpeg(n), "path": f"{n}.jpg"}] for n in range(6)]
    images[2] = []
    texts[2] = [{"user": "What is 2 + 3?", "assistant": "5"}]
    columns = {"images": images, "texts": texts, "source": ["chartqa"] * 6} | ratings(texts)
    columns["relevance_ratings"][3], columns["relevance_min"][3] = [1] * len(texts[3]), 1
    parquet(SAMPLES / "finevision/chartqa/train-00000-of-00001.parquet", columns, FINEVISION)


RATINGS = ["relevance", "image_correspondence", "visual_dependency", "formatting"]
FINEVISION = [("images", pa.list_(IMAGE)), ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))),
              ("source", pa.string()), *[column for name in RATINGS for column in
                                         [(f"{name}_ratings", pa.list_(pa.int64())), (f"{name}_min", pa.int64())]]]


def ratings(texts: list[list]) -> dict:
    """The best ratings for every answer."""
    each = {f"{name}_ratings": [[5] * len(pairs) for pairs in texts] for name in RATINGS}
    return each | {f"{name}_min": [5] * len(texts) for name in RATINGS}


# Chinese


def chinese_llava_vision_instructions() -> None:
    """LLaVA-CC3M-Pretrain-595K/chat-translated.json over the pictures of the English set."""
    out = folder("chinese-llava-vision-instructions")
    (out / "LLaVA-CC3M-Pretrain-595K").mkdir()
    names = [f"GCC_train_{n:09d}.jpg" for n in range(8)]
    asks = ["<image>\n请简要描述这张图片。", "请提供给定图像的简短描述。\n<image>", "用一句话描述<image>里的内容。", "图中有什么？\n<image>"]
    rows = [{"id": name[:-4], "image": name, "conversations": said(asks[n % 4], region(n).zh[0])} for n, name in enumerate(names)]
    rows[3]["conversations"] = said("图中有什么？\n<image>", "一隻貓😺，正看著鏡頭。")
    rows[6]["conversations"] = said("<image>\n图中有什么？", " \n")  # the translation is missing
    write(out / "LLaVA-CC3M-Pretrain-595K/chat-translated.json", dump(rows))
    zip_of(out / "images.zip", {name: jpeg(n) for n, name in enumerate(names)})


def llava_en_zh() -> None:
    """BUAADreamer: en/ and zh/, `messages` with `<image>` in the user's text, `images`."""
    types = [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))), ("images", pa.list_(IMAGE))]
    for language in ("en", "zh"):
        messages, images = [], []
        for n in range(8):
            turns = qa(n, language, 1 + n % 3)
            turns[0] = f"<image>{turns[0]}" if n % 2 else f"{turns[0]}\n<image>"
            messages.append(chat(*turns))
            images.append([{"bytes": jpeg(n + 40), "path": None}])
        if language == "zh":
            messages[2].insert(0, {"role": "system", "content": "请用中文回答。"})
            messages[5] = chat("１＋１等于几？", "２。")
            images[5] = []
        parquet(SAMPLES / f"llava-en-zh/{language}/train-00000-of-00001.parquet", {"messages": messages, "images": images}, types)


def minimind_v() -> None:
    """`conversations` as JSON text; `image_bytes` binary (pretrain) or a list (sft); 8 x 8 black pictures in text-only rows."""
    black = io.BytesIO()
    Image.new("RGB", (8, 8)).save(black, "PNG")
    captions = [chat("<image>\n图中有什么？", region(n).zh[0]) for n in range(6)]
    talks = [chat(*[f"<image>{text}" if i == 0 else text for i, text in enumerate(qa(n, "zh", 1 + n % 3))]) for n in range(6)]
    talks[1] = chat("介绍一下你自己。", "我是一个小助手😊。")
    talks[4] = chat("<image>这是什么？", "看不到图片。")  # asks about a picture that is none
    pictures = [[jpeg(n)] for n in range(6)]
    pictures[1] = pictures[4] = [black.getvalue()]
    text = ("conversations", pa.string())
    parquet(SAMPLES / "minimind-v/pretrain_i2t.parquet",
            {"conversations": [dump(turns) for turns in captions], "image_bytes": [jpeg(n) for n in range(6)]}, [text, ("image_bytes", pa.binary())])
    parquet(SAMPLES / "minimind-v/sft_i2t.parquet",
            {"conversations": [dump(turns) for turns in talks], "image_bytes": pictures}, [text, ("image_bytes", pa.list_(pa.binary()))])


def coco_cn() -> None:
    """Lines of picture#number, a tab and a caption; the pictures in COCO's two folders."""
    out = folder("coco-cn")
    lines = []
    for n in range(6):
        split = ["train2014", "val2014"][n % 2]
        name = f"COCO_{split}_{217153 + n:012d}"
        (out / split).mkdir(exist_ok=True)
        (out / split / f"{name}.jpg").write_bytes(jpeg(n))
        lines += [f"{name}#{i}\t{caption}" for i, caption in enumerate(region(n).zh)]
    lines.insert(2, 'COCO_train2014_000000217153#9\t"引号没有闭合，全角标点：（）！')
    lines += ["COCO_val2014_000000999999#0\t没有这张图片。", "COCO_val2014_000000217154#8\t", "COCO_val2014_000000217154#7"]
    write(out / "imageid.human-written-caption.txt", BOM + "\r\n".join(lines) + "\r\n")


def flickr30k_cna() -> None:
    """Lines of a number, a tab and a caption."""
    out = folder("flickr30k-cna")
    (out / "flickr30k-images").mkdir()
    lines = []
    for n in range(6):
        number = 6228559981 + n
        (out / f"flickr30k-images/{number}.jpg").write_bytes(jpeg(n))
        lines += [f"{number}\t{caption}" for caption in region(n).zh]
    lines += ["6228559981\t一個穿著橙色太空服的女人😊。", "", "6228559982\tＡＢＣ１２３"]
    (out / "train").mkdir()
    write(out / "train/flickr30k_cna_train.txt", "\n".join(lines))


def ai_challenger() -> None:
    """A JSON array of pictures with five captions each."""
    out = folder("ai-challenger")
    images = out / "caption_train_images_20170902"
    images.mkdir()
    rows = []
    for n in range(5):
        name = f"{n:040x}.jpg"
        (images / name).write_bytes(jpeg(n))
        rows.append({"url": f"http://m4.biz.itc.cn/{n}.jpg", "image_id": name, "caption": [*region(n).zh, *region(n + 1).zh, *region(n + 2).zh][:5]})
    rows[1]["caption"] = rows[1]["caption"][:1]
    rows[3]["caption"] = rows[3]["caption"][0]
    rows[4]["caption"] = []
    write(out / "caption_train_annotations_20170902.json", dump(rows))


def muge() -> None:
    """MR_train_imgs.tsv (number, tab, base64) and MR_train_queries.jsonl, each query with the numbers of its pictures."""
    out = folder("muge")
    table = [f"{1000002 + n}\t{base64.b64encode(jpeg(n)).decode()}" for n in range(6)]
    write(out / "MR_train_imgs.tsv", "\n".join(table) + "\n")
    rows = [{"query_id": 8426 + n, "query_text": region(n).zh[0], "item_ids": [1000002 + n]} for n in range(6)]
    rows[1]["item_ids"] = [1000003, 1000005]
    rows[2]["query_text"] = "高级感ins风👜斜挎包２０２４"
    rows[4]["item_ids"] = [999]  # not in the table
    write(out / "MR_train_queries.jsonl", "\r\n".join(dump(row) for row in rows))


def wukong() -> None:
    """What img2dataset makes of Wukong's lists of URLs: a tar of 000000000.jpg, .txt and .json."""
    with tarfile.open(folder("wukong") / "00000.tar", "w", format=tarfile.USTAR_FORMAT) as out:
        for n in range(6):
            key, caption = f"{n:09d}", region(n).zh[0]
            about = {"caption": caption, "url": f"http://example.org/{n}.jpg", "key": key, "status": "success", "width": 72}
            members = [(f"{key}.jpg", jpeg(n)), (f"{key}.json", dump(about).encode()), (f"{key}.txt", caption.encode())]
            if n == 3:
                members[2] = (f"{key}.txt", "  ".encode())  # a URL without a caption
            if n == 4:
                members[2] = (f"{key}.txt", "<person>在舞台上，看更多 http://t.cn/x".encode())
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))


def text_only() -> None:
    """Chats without pictures, English and Chinese, for mixing."""
    rows = [{"language": "en", "messages": chat("What is 2 + 3?", "2 + 3 = 5.")}, {"language": "zh", "messages": chat("天空为什么是蓝色的？", "因为空气散射蓝光。")},
            {"language": "en", "messages": chat("Name a colour.", "Red.", "Another one.", "Blue.")}, {"language": "zh", "messages": chat("说一种水果。", "苹果。")}]
    write(folder("text-only") / "chat.jsonl", "".join(dump(row) + "\n" for row in rows))


def main() -> None:
    shutil.rmtree(SAMPLES, ignore_errors=True)
    for make in (llava_cc3m_pretrain_595k, llava_pretrain_558k, llava_instruct_150k, llava_instruct_mix, llava_instruct_mix_vsft,
                 the_cauldron, finevision, chinese_llava_vision_instructions, llava_en_zh, minimind_v, coco_cn, flickr30k_cna,
                 ai_challenger, muge, wukong, text_only):
        make()


if __name__ == "__main__":
    main()
