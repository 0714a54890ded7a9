"""Compares `llavm generate --json` (greedy, f32, CPU) with transformers and PEFT on random models and real pictures.

  python check_with_transformers.py --llavm BINARY --tokenizer QWEN3_TOKENIZER_DIR --images FILE... [--seeds 3] [--keep DIR]

For each seed: a random Qwen3 (full vocabulary), CLIP tower, projector and, for every other seed, a PEFT adapter are saved
as a model folder; each picture is asked about once. Prints one line per seed; exit status 1 when any id differs.
Pictures must be PNG for equality: JPEG decoders differ by a few grey levels. Made for transformers 5.23 and peft 0.21.2.
"""
import argparse, json, pathlib, shutil, subprocess, sys, tempfile
import torch
from PIL import Image
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, Qwen3Config, Qwen3ForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SYSTEM = "You are a helpful assistant."
QUESTIONS = ["What is in the picture?", "请描述这张图片。", "<image>\nName three colours.", "Is there a cat? 🐱 Answer yes or no."]
NEW = 40


class Projector(torch.nn.Module):
    def __init__(self, vision, hidden):
        super().__init__()
        self.dense1, self.dense2 = torch.nn.Linear(vision, hidden), torch.nn.Linear(hidden, hidden)

    def forward(self, x):
        return self.dense2(torch.nn.functional.silu(self.dense1(x)))


def randomise(module):
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.copy_(1.5 * torch.randn_like(p) / p[0].numel() ** 0.5)


def make(seed, folder, tokenizer, large):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    size = dict(hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, head_dim=128, num_key_value_heads=8, intermediate_size=3072) if large else \
        dict(hidden_size=64 + 32 * (seed % 3), num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=[1, 2, 4][seed % 3], head_dim=32, intermediate_size=160)
    qwen = Qwen3ForCausalLM(Qwen3Config(vocab_size=151936, tie_word_embeddings=seed % 2 == 0, rope_theta=1e6, eos_token_id=151645, **size))
    clip = CLIPVisionModel(CLIPVisionConfig(hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, patch_size=[32, 16][seed % 2]))
    projector = Projector(96, size["hidden_size"])
    for part in (qwen, clip, projector):
        randomise(part), part.eval()
    qwen.save_pretrained(folder / "qwen", **({"max_shard_size": "20MB"} if seed % 3 == 1 else {}))
    clip.save_pretrained(folder / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / "qwen" / name)
    save_file({k: v.contiguous() for k, v in projector.state_dict().items()}, folder / "projector.safetensors")
    pads = (224 // clip.config.patch_size) ** 2
    (folder / "model.toml").write_text(f'qwen = "qwen"\nclip = "clip"\nimage_pad_num = {pads}\ndtype = "f32"\nsystem = "{SYSTEM}"\n')
    if seed % 2:
        peft = get_peft_model(qwen, LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, p in peft.named_parameters():
                if "lora_B" in name:
                    p.copy_(0.2 * torch.randn_like(p))
        peft.save_pretrained(folder / "adapter")
        qwen = peft.eval()
    return qwen, clip, projector, pads


@torch.no_grad()
def theirs(parts, tokenizer, image, question):
    qwen, clip, projector, pads = parts
    pixels = CLIPImageProcessorPil()(images=Image.open(image).convert("RGB"), return_tensors="pt")["pixel_values"]
    question = question if "<image>" in question else question + "\n<image>"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    ids = tokenizer(text.replace("<image>", "<|image_pad|>" * pads), return_tensors="pt")["input_ids"]
    x = qwen.get_input_embeddings()(ids)
    patches = projector(clip(pixel_values=pixels).last_hidden_state[:, 1:, :])
    x = x.masked_scatter((ids == tokenizer.convert_tokens_to_ids("<|image_pad|>"))[..., None], patches)
    out = qwen.generate(inputs_embeds=x, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
                        eos_token_id=151645, pad_token_id=151643)
    return ids.shape[1], out[0].tolist()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--llavm", required=True)
    ap.add_argument("--tokenizer", type=pathlib.Path, required=True)
    ap.add_argument("--images", type=pathlib.Path, nargs="+", required=True)
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--large", action="store_true", help="Qwen3-0.6B's width, 4 layers")
    ap.add_argument("--keep", type=pathlib.Path)
    a = ap.parse_args()
    torch.set_num_threads(1)
    work = a.keep or pathlib.Path(tempfile.mkdtemp())
    tokenizer = AutoTokenizer.from_pretrained(a.tokenizer)
    failed = False
    for seed in range(a.seeds):
        folder = work / f"model-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        parts = make(seed, folder, a.tokenizer, a.large)
        asked = [(image.resolve(), QUESTIONS[i % len(QUESTIONS)]) for i, image in enumerate(a.images)]
        lines = work / "questions.jsonl"
        lines.write_text("".join(json.dumps({"image": str(i), "prompt": q}) + "\n" for i, q in asked))
        for batch in (1, 3):
            run = subprocess.run([a.llavm, "generate", "--model", folder, "--jsonl", lines, "--json", "--max-new-tokens", str(NEW),
                                  "--batch-size", str(batch)], capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            ours = [json.loads(line) for line in run.stdout.splitlines()]
            expected = [theirs(parts, tokenizer, *q) for q in asked] if batch == 1 else expected
            wrong = [q[0].name for q, o, (n, ids) in zip(asked, ours, expected) if (o["prompt_tokens"], o["generated_ids"]) != (n, ids)]
            distinct = len({i for _, ids in expected for i in ids})
            print(f"seed {seed}{' with adapter' if seed % 2 else ''}, batch {batch}: {len(asked) - len(wrong)} of {len(asked)} equal, {distinct} distinct ids"
                  + (f"; differ: {', '.join(wrong)}" if wrong else ""), flush=True)
            failed |= bool(wrong) or len(ours) != len(asked)
            texts = [o["text"] == tokenizer.decode(o["generated_ids"], skip_special_tokens=True) for o in ours]
            if not all(texts):
                print("  texts differ from the tokenizer's decoding")
                failed = True
        if not a.keep:
            shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
