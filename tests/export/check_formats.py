"""Trains small models through `llavm run`, exports them, and asks each export with the library it is for.

    python tests/export/check_formats.py --llavm target/release/llavm [--old-python PYTHON] [--keep FOLDER]

Random towers of a few hundred thousand values beside Qwen3's tokenizer; projector and LoRA are trained for a few steps, once with images
behind the question and a system prompt, once with images before it. Then, for questions without, with one and with two
images, in English and Chinese:

- `llava` in `LlavaForConditionalGeneration` with its processor, `merged` in `AutoModelForCausalLM` and `peft` in
  `AutoPeftModelForCausalLM` (both without images) give the prompt and the 64 greedy ids of `llavm generate`, and logits
  within 1e-4 of the trained parts put together by hand (CLIP, projector, PEFT);
- what transformers saves of the loaded LLaVA gives the same ids in `llavm generate --model`, and trains as `init_from`;
- with `--old-python` (transformers 4), `llava` and `merged` give the same there.

Made for transformers 5.24 and peft 0.21.2. Exit status 1 when anything differs.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NEW, BOUND = 64, 1e-4
QUESTIONS = [  # images, question
    (0, "Name three colours."), (0, "请说出三种颜色。"), (1, "What is in the image?"), (1, "请描述这张图片。"),
    (2, "What differs between <image> and <image>?"), (2, "这两张图片有什么不同？"),
]
IMAGES = ["data/photos/horse.png", "data/photos/text.png"]
SETTINGS = {
    "behind": dict(chat='system = "You are a helpful assistant.\\n你好"', pads="", eos="", tied=True),
    "before": dict(chat="", pads='missing = "prepend"', eos="", tied=False),
}
MANIFEST = """
name = "formats"
[stages.rows]
kind    = "read"
files   = "DATA/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }
[stages.pixels]
kind = "decode-resize"
from = "rows"
[stages.chat]
kind      = "chat-template"
from      = "rows"
tokenizer = "qwen"
CHAT
[stages.pads]
kind = "image-pads"
from = "chat"
PADS
[stages.tokens]
kind      = "tokenize"
from      = "pads"
tokenizer = "qwen"
[stages.labels]
kind = "shift-labels"
from = "tokens"
[stages.shards]
kind       = "shard"
from       = ["labels", "pixels"]
validation = 0.1
[stages.trained]
kind          = "train"
from          = "shards"
qwen          = "qwen"
clip          = "clip"
trainable     = ["projector", "lora"]
learning_rate = 2e-2
max_steps     = 6
per_device_train_batch_size = 4
TRAINED
"""
EXPORTS = "".join('[stages.%s]\nkind = "export"\nfrom = "trained"\nformat = "%s"\n' % (f, f) for f in ("llava", "merged", "peft"))


# --- In the Python that asks -----------------------------------------------------------------------------------------

def turns(count, question):
    return [{"role": "user", "content": [{"type": "image"}] * count + [{"type": "text", "text": question}]}]


def ask_llava(folder, images):
    """Prompt ids, greedy ids and the logits after the prompt, question by question."""
    import torch
    from transformers import LlavaForConditionalGeneration
    model = LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype="float32").eval()
    processor = load_processor(folder)
    for count, question in QUESTIONS:
        text = processor.apply_chat_template(turns(count, question), add_generation_prompt=True, tokenize=False)
        inputs = processor(text=text, images=images[:count] or None, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)[0]
        prompt = inputs["input_ids"][0].tolist()
        yield prompt, ids[len(prompt):].tolist(), logits


def load_processor(folder):
    """With images prepared by Pillow: torchvision, version 5's choice, resizes to other bits."""
    import transformers
    if transformers.__version__.startswith("4."):
        from transformers import CLIPImageProcessor as Pillow
    else:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Pillow
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == "LlavaProcessor", type(processor)
    processor.image_processor = Pillow.from_pretrained(folder)
    return processor


def ask_language(folder, load):
    import torch
    from transformers import AutoTokenizer
    model, tokenizer = load(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for count, question in QUESTIONS:
        if count:
            continue
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = prompt["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)[0]
        yield ids[0].tolist(), out[ids.shape[1]:].tolist(), logits


def ask_merged(folder, _images):
    from transformers import AutoModelForCausalLM
    return ask_language(folder, lambda folder: AutoModelForCausalLM.from_pretrained(folder, torch_dtype="float32"))


def ask_peft(folder, _images):
    from peft import AutoPeftModelForCausalLM
    os.chdir(folder)  # `base` is named from there
    return ask_language(folder, lambda folder: AutoPeftModelForCausalLM.from_pretrained(folder))


ASK = {"llava": ask_llava, "merged": ask_merged, "peft": ask_peft}


def answers(format, folder):
    from PIL import Image
    images = [Image.open(ROOT / file).convert("RGB") for file in IMAGES]
    return [(prompt, ids, logits.tolist()) for prompt, ids, logits in ASK[format](folder, images)]


# --- In the Python that compares -------------------------------------------------------------------------------------

def randomise(module):
    import torch
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif p.dim() == 1:
                p.copy_(0.2 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * (0.3 if "embed" in name else 1.5 / p[0].numel() ** 0.5))


def make_towers(work, tied):
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen3Config, Qwen3ForCausalLM
    torch.manual_seed(5)
    qwen = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=151680, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=64,
        tie_word_embeddings=tied, max_position_embeddings=2048, rope_parameters={"rope_theta": 1e6, "rope_type": "default"}))
    clip = CLIPVisionModel(CLIPVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=32))
    for model, name in ((qwen, "qwen"), (clip, "clip")):
        randomise(model)
        model.save_pretrained(work / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "data/qwen3-tokenizer" / file, work / "qwen" / file)


def by_hand(trained, export, prompts):
    """Logits after each prompt, of the trained parts as they lie in the model folder."""
    import torch
    from PIL import Image
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    qwen = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained / "qwen", dtype=torch.float32), trained / "adapter").eval()
    clip = CLIPVisionModel.from_pretrained(trained / "clip", dtype=torch.float32).eval()
    weights = load_file(trained / "projector.safetensors")
    assert all(t.dtype == torch.float32 for t in weights.values())
    linear = lambda x, name: torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    images = [Image.open(ROOT / file).convert("RGB") for file in IMAGES]
    pad = json.loads((export / "config.json").read_text())["image_token_index"]
    with torch.no_grad():
        states = clip(pixel_values=CLIPImageProcessorPil()(images, return_tensors="pt")["pixel_values"]).last_hidden_state[:, 1:]
        patches = linear(torch.nn.functional.silu(linear(states, "dense1")), "dense2")
        for (count, _), prompt in zip(QUESTIONS, prompts):
            ids = torch.tensor([prompt])
            x = qwen.get_input_embeddings()(ids)
            x = x.masked_scatter((ids == pad)[..., None], patches[:count])
            yield qwen(inputs_embeds=x).logits[0, -1]


class Project:
    def __init__(self, llavm, work):
        self.llavm, self.work = llavm, work

    def call(self, *args):
        done = subprocess.run([self.llavm, *map(str, args)], cwd=self.work, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"llavm {' '.join(map(str, args))}: {done.stderr}")
        return done.stdout

    def run(self, manifest):
        self.call("run", manifest)
        stages = json.loads(self.call("status", manifest, "--json"))["stages"]
        files = {stage["name"]: stage["files"] for stage in stages}
        return lambda stage, file: (self.work / next(path for path in files[stage] if path.endswith("/" + file))).parent

    def generate(self, folder):
        """Prompt lengths and ids."""
        lines = self.work / "questions.jsonl"
        question = lambda count, text: {"prompt": text} | ({"image": [str(ROOT / file) for file in IMAGES[:count]]} if count else {})
        lines.write_text("".join(json.dumps(question(*q)) + "\n" for q in QUESTIONS))
        out = self.call("generate", "--model", folder, "--jsonl", lines, "--json", "--max-new-tokens", NEW)
        return [(a["prompt_tokens"], a["generated_ids"]) for a in map(json.loads, out.splitlines())]


class Report:
    failed = False

    def compare(self, what, ours, theirs, expected=None):
        pairs = list(zip(ours, theirs))
        same = sum((n, ids) == (len(prompt), got) for (n, ids), (prompt, got, _) in pairs)
        apart = max((max(abs(a - b) for a, b in zip(logits, e)) / max(map(abs, e)) for (_, _, logits), e in zip(theirs, expected or [])), default=0.0)
        ok = same == len(pairs) == len(theirs) and apart <= BOUND
        self.failed |= not ok
        print(f"{'ok  ' if ok else 'FAIL'} {what}: {same} of {len(theirs)} answers equal" + (f", logits {apart:.1e} apart" if expected else ""), flush=True)
        if same < len(theirs):
            for (n, ids), (prompt, got, _) in pairs:
                if (n, ids) != (len(prompt), got):
                    print(f"     prompt of {n} and {len(prompt)} tokens; {ids[:8]} and {got[:8]}")


def in_python(python, format, folder):
    """What `answers` gives in another Python."""
    code = subprocess.run([python, __file__, "--ask", format, folder], capture_output=True, text=True)
    if code.returncode:
        sys.exit(f"{format} in {python}: {code.stderr[-2000:]}")
    return json.loads(code.stdout.splitlines()[-1])


def check(name, a, report):
    setting = SETTINGS[name]
    work = (a.keep or Path(tempfile.mkdtemp())) / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    make_towers(work, setting["tied"])
    project = Project(a.llavm.resolve(), work)
    text = MANIFEST.replace("DATA", str(ROOT / "data")).replace("CHAT", setting["chat"]).replace("PADS", setting["pads"])
    (work / "m.toml").write_text(text.replace("TRAINED", "") + EXPORTS)
    folder = project.run("m.toml")
    trained, llava = folder("trained", "model.toml"), folder("llava", "config.json")
    ours = project.generate(trained)
    distinct = len({id for _, ids in ours for id in ids})
    assert distinct > 60, f"{distinct} distinct ids show little"

    theirs = answers("llava", llava)
    expected = [logits.tolist() for logits in by_hand(trained, llava, [prompt for prompt, _, _ in theirs])]
    report.compare(f"{name}: llava", ours, theirs, expected)
    for format, file in (("merged", "config.json"), ("peft", "adapter_config.json")):
        got = in_python(sys.executable, format, folder(format, file))
        report.compare(f"{name}: {format}", ours[:2], got, expected[:2])
    if a.old_python:
        report.compare(f"{name}: llava in transformers 4", ours, in_python(a.old_python, "llava", llava), expected)
        report.compare(f"{name}: merged in transformers 4", ours[:2], in_python(a.old_python, "merged", folder("merged", "config.json")), expected[:2])

    from transformers import LlavaForConditionalGeneration
    again = work / "again"
    LlavaForConditionalGeneration.from_pretrained(llava).save_pretrained(again)
    load_processor(llava).save_pretrained(again)
    for what, model in (("what was exported, asked here", llava), ("what transformers saved, asked here", again)):
        report.compare(f"{name}: {what}", project.generate(model), theirs)
    (work / "on.toml").write_text(text.replace("TRAINED", 'init_from = "./again"') + EXPORTS)
    folder = project.run("on.toml")
    trained, llava = folder("trained", "model.toml"), folder("llava", "config.json")
    report.compare(f"{name}: trained on from it", project.generate(trained), answers("llava", llava))
    if not a.keep:
        shutil.rmtree(work.parent)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llavm", type=Path)
    parser.add_argument("--old-python", type=Path, help="a Python with transformers 4")
    parser.add_argument("--keep", type=Path, help="where to work, and leave everything")
    parser.add_argument("--ask", nargs=2, metavar=("FORMAT", "FOLDER"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.ask:
        return print(json.dumps(answers(a.ask[0], Path(a.ask[1]))))
    import torch
    torch.set_num_threads(1)
    report = Report()
    for name in SETTINGS:
        check(name, a, report)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
