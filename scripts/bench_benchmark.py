"""Asks the quick start's model a benchmark's questions with `llavm run` and with transformers' generate, and compares time and answers.

    python scripts/bench_benchmark.py --llavm target/release/llavm [--images 60] [--per-image 8] [--batch 32] [--new 16] [--runs 3]

A table in VLMEvalKit's layout is made: drawn shapes, several questions about each. Both sides read it, decode and prepare its images,
render the prompts and answer greedily, on the same cores, in f32, with the same batch size; loading the model is not timed on either
side. transformers gets the model as `export format = "llava"` writes it, prompts padded on the left and sorted by length. Prints
questions/s (median), their ratio, how many answers are the same and the load of the machine. Needs torch and transformers 5.
"""
import argparse
import base64
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POST = "\nAnswer the question using a single word or phrase."
COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
WORDS = ["What shape is it?", "What colour is it?", "Is it {}?", "What do you see?", "Describe the image.", "Is there a {} thing in the image?", "图中是什么？", "它是什么颜色的？", "Where is it?",
         "How large is it, and is it {}?"]

STAGES = """
[stages.llava]
kind = "export"
from = "lora"
format = "llava"
[stages.asked]
kind = "benchmark"
from = "lora"
name = "gqa"
files = ["%s"]
generate = { max_new_tokens = %d, batch_size = %d }
bootstrap = 0
gallery = 0
"""


def picture(rng):
    from PIL import Image, ImageDraw
    image = Image.new("RGB", (64, 64), "white")
    x, y, size = rng.randrange(0, 36), rng.randrange(0, 36), rng.randrange(10, 28)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + size, y + size), fill=rng.choice(COLOURS[:5]))
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def make_table(path, images, per_image):
    rng = random.Random(7)
    with open(path, "w", encoding="utf8", newline="\n") as file:
        file.write("index\timage\tquestion\tanswer\n")
        for n in range(images):
            for k in range(per_image):
                index = n * per_image + k
                question = WORDS[k % len(WORDS)].format(rng.choice(COLOURS))
                file.write(f"{index}\t{picture(rng) if k == 0 else index - k}\t{question} ({k})\tred\n")


def read_table(path):
    """VLMEvalKit's own way: an image of 64 characters or fewer is another row's index."""
    rows = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf8")][1:]
    images = {row[0]: row[1] for row in rows}
    return [(images.get(row[1], row[1]) if len(row[1]) <= 64 else row[1], row[2]) for row in rows]


def ours(llavm, work, manifest, stage="asked"):
    """Seconds from the first question to the last answer, and the answers."""
    subprocess.run([llavm, "run", manifest, "--force", stage], cwd=work, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = max((work / ".llavm/jobs" / stage).glob("*/timing.json"), key=os.path.getmtime).parent
    timing = json.load(open(folder / "timing.json"))
    lines = [json.loads(line) for line in open(folder / "answers.jsonl", encoding="utf8")]
    return timing, [line["prediction"] for line in lines]


def theirs(folder, table, batch, new):
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = CLIPImageProcessorPil.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    def run():
        rows = read_table(table)
        order = sorted(range(len(rows)), key=lambda n: -len(rows[n][1]))
        said = [None] * len(rows)
        for start in range(0, len(order), batch):
            part = order[start:start + batch]
            turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": rows[n][1] + POST}]}] for n in part]
            text = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
            images = [Image.open(io.BytesIO(base64.b64decode(rows[n][0]))).convert("RGB") for n in part]
            inputs = processor(text=text, images=images, return_tensors="pt", padding=True)
            with torch.no_grad():
                ids = model.generate(**inputs, do_sample=False, max_new_tokens=new)
            for n, answer in zip(part, processor.batch_decode(ids[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)):
                said[n] = answer.strip()
        return said
    return run


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--llavm", default="target/release/llavm")
    for name, default in (("images", 60), ("per-image", 8), ("batch", 32), ("new", 16), ("runs", 3)):
        ap.add_argument(f"--{name}", type=int, default=default)
    ap.add_argument("--work", help="keep and use this folder")
    a = ap.parse_args()
    llavm = str(Path(a.llavm).resolve())
    with tempfile.TemporaryDirectory() as made:
        work = Path(a.work or made).resolve()
        work.mkdir(exist_ok=True)
        (work / "data").exists() or (work / "data").symlink_to(ROOT / "data")
        make_table(work / "asked.tsv", a.images, a.per_image)
        text = (ROOT / "manifests/quickstart.toml").read_text(encoding="utf8")
        (work / "m.toml").write_text(text + STAGES % (work / "asked.tsv", a.new, a.batch), encoding="utf8")
        subprocess.run([llavm, "run", "m.toml", "--until", "llava"], cwd=work, check=True, stdout=subprocess.DEVNULL)
        folder = next(p.parent for p in (work / ".llavm/jobs/llava").glob("*/config.json"))
        seconds, said = [], None
        for _ in range(a.runs):
            for ledger in (work / ".llavm/ledgers").glob("*"):
                ledger.unlink()  # what is kept would not be asked
            timing, said = ours(llavm, work, "m.toml")
            assert timing["kept"] == 0, timing
            seconds.append(timing["seconds"])
        run, peer = theirs(str(folder), work / "asked.tsv", a.batch, a.new), []
        for _ in range(a.runs):
            start = time.time()
            theirs_said = run()
            peer.append(time.time() - start)
        count = a.images * a.per_image
        fast, slow = statistics.median(seconds), statistics.median(peer)
        same = sum(x == y for x, y in zip(said, theirs_said))
        print(f"llavm        {count / fast:8.1f} questions/s ({fast:.2f} s)")
        print(f"transformers {count / slow:8.1f} questions/s ({slow:.2f} s)")
        print(f"ratio {slow / fast:.2f}; {same} of {count} answers are the same; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        if same < count:
            for n in [n for n in range(count) if said[n] != theirs_said[n]][:5]:
                print(f"  {n}: {said[n]!r} {theirs_said[n]!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
