"""Makes `exports.json`: what transformers and PEFT compute with the exports of the fixture models (`model/tests/fixtures`).

  python stages/tests/golden/make_exports.py --llavm target/release/llavm

Made with torch 2.15, transformers 5.24 and peft 0.21.2 on the CPU in f32. Each format is loaded by the class it is for; for each prompt
(token ids, with images for `llava`) the file has the logits after it and 64 greedy ids. Image n is the bytes
`(37 i + 11 n) % 251`, normalised as CLIP's are. `stages/tests/export.rs` compares.
"""
import argparse, json, os, pathlib, subprocess, tempfile
import torch

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent.parent / "model/tests/fixtures"
SHAPES, NEW, GAP = ["gqa", "untied", "biased"], 64, 1e-5
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def pixels(n, size):
    data = (37 * torch.arange(3 * size * size) + 11 * n) % 251
    return (data.view(3, size, size) / 255 - MEAN) / STD


def load(format, folder):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration
    if format == "llava":
        return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    if format == "merged":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    os.chdir(folder)  # `base` is named from there
    return AutoPeftModelForCausalLM.from_pretrained(".", dtype=torch.float32).eval()


def prompts(format, folder, shift):
    """Ids and number of images."""
    words = lambda seed, n: [(seed + shift + 13 * i) % 250 for i in range(n)]
    plain = [(words(1, 9), 0), (words(70, 17), 0)]
    if format != "llava":
        return plain
    config = json.loads((folder / "config.json").read_text())
    image = [config["image_token_index"]] * config["image_seq_length"]
    return plain + [(words(5, 3) + image + words(33, 6), 1), (image + words(8, 2) + image + words(90, 5), 2)]


@torch.no_grad()
def answer(model, ids, images, size):
    more = {"pixel_values": torch.stack([pixels(n, size) for n in range(images)])} if images else {}
    row, gap, first = torch.tensor([ids]), float("inf"), None
    for _ in range(NEW):  # a full forward pass each: no cache
        logits = model(input_ids=row, **more).logits[0, -1]
        first = logits if first is None else first
        top = logits.topk(2).values
        gap = min(gap, float((top[0] - top[1]) / logits.abs().max()))
        row = torch.cat([row, logits.argmax().view(1, 1)], 1)
    new = row[0, len(ids):].tolist()
    return dict(prompt=ids, images=images, logits=[round(x, 5) for x in first.tolist()], greedy=new) if gap > GAP else None


def first_clear(model, format, folder, n, size, pad):
    """The first variant of prompt `n` whose ids depend on no rounding and hold no image token that the model chose."""
    for shift in range(100):
        case = answer(model, *prompts(format, folder, shift)[n], size)
        if case and pad not in case["greedy"]:
            return case
    raise AssertionError(f"no prompt {n} of {folder} is clear")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llavm", type=pathlib.Path, required=True)
    llavm = parser.parse_args().llavm.resolve()
    torch.set_num_threads(1)
    golden = {}
    for name in SHAPES:
        for format in ("llava", "merged", "peft"):
            with tempfile.TemporaryDirectory() as work:
                folder = pathlib.Path(work) / "out"
                subprocess.run([llavm, "export", FIXTURES / name, "--format", format, "--out", folder], check=True, stdout=subprocess.DEVNULL)
                model = load(format, folder)
                size = model.config.vision_config.image_size if format == "llava" else 0
                pad = json.loads((folder / "config.json").read_text())["image_token_index"] if format == "llava" else None
                count = len(prompts(format, folder, 0))
                golden[f"{name} {format}"] = [first_clear(model, format, folder, n, size, pad) for n in range(count)]
                os.chdir(HERE)
    (HERE / "exports.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
