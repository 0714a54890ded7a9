"""Times training and answering of random models with `llavm bench` and with torch and transformers, in turn, and writes the README's line.

    python scripts/bench_train.py --llavm target/release/llavm [--runs 3] [--only align,lora,full,generate] [--write]

Both sides compute the same model (CLIP ViT-B/32, two linear layers, Qwen3) in f32 with the same threads on rows of the same lengths. The
peer is the straightforward step: logits of all tokens, padding to the longest row, AdamW over what is trainable. Each measurement is a
process of its own, ours and theirs in turn; the median of the runs counts. Prints a line for each and writes scripts/results/train.json;
--write puts the figures between `<!-- train -->` and `<!-- /train -->` of README.md and README.zh.md. Needs torch and transformers 5.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VISION = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
SIZES = {
    "tiny": (dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32, intermediate_size=384, vocab_size=4096),
             dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256)),
    "small": (dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, head_dim=64, intermediate_size=1536, vocab_size=151936), VISION),
    "0.6b": (dict(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, intermediate_size=3072, vocab_size=151936), VISION),
}
# Name, size, stage, rows of a step.
TRAINING = {"align": ("small", "align", 4), "lora": ("small", "lora", 4), "full": ("0.6b", "align", 2)}
LINES = {
    "README.md": "On the same {cores} cores in f32 beside transformers on torch: Qwen3-0.6B reads {prefill} tokens/s (torch {prefill_peer}) and answers with {decode} tokens/s ({decode_peer});\n"
                 "a small model's alignment step takes {align} s ({align_peer}), with LoRA {lora} s ({lora_peer}), of Qwen3-0.6B with two rows {full} s ({full_peer}). `scripts/bench_train.py` measures both sides.",
    "README.zh.md": "同样的 {cores} 个核、f32，与 torch 上的 transformers 对比：Qwen3-0.6B 读入 {prefill} token/秒（torch {prefill_peer}），生成 {decode} token/秒（{decode_peer}）；\n"
                    "小模型的对齐步 {align} 秒（{align_peer}），LoRA 步 {lora} 秒（{lora_peer}），Qwen3-0.6B 两行一步 {full} 秒（{full_peer}）。双方都由 `scripts/bench_train.py` 测量。",
}


def seconds(device):
    """The time at which everything that was asked of the device is done."""
    if device.startswith("cuda"):
        import torch
        torch.cuda.synchronize()
    return time.time()


def memory(device):
    """The most memory that torch held on a GPU, in MiB."""
    import torch
    return {"torch_mib": torch.cuda.max_memory_allocated() >> 20} if device.startswith("cuda") else {}


def peer_train(size, stage, batch, steps, device="cpu", dtype="float32"):
    """Samples/s of the median step in torch."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen3Config, Qwen3ForCausalLM

    class Lora(nn.Module):
        def __init__(self, base, r=8, alpha=16):
            super().__init__()
            self.base, self.scaling = base, alpha / r
            self.a, self.b = nn.Linear(base.in_features, r, bias=False), nn.Linear(r, base.out_features, bias=False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x):
            return self.base(x) + self.b(self.a(x)) * self.scaling

    class Vlm(nn.Module):
        def __init__(self):
            super().__init__()
            language, vision = SIZES[size]
            self.llm = Qwen3ForCausalLM(Qwen3Config(rope_theta=1e6, tie_word_embeddings=True, **language))
            self.vision = CLIPVisionModel(CLIPVisionConfig(image_size=224, patch_size=32, hidden_act="quick_gelu", **vision))
            self.requires_grad_(False)
            if stage == "lora":
                for layer in self.llm.model.layers:
                    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                        setattr(layer.self_attn, name, Lora(getattr(layer.self_attn, name)))
            hidden, width = language["hidden_size"], vision["hidden_size"]
            self.dense1, self.dense2 = nn.Linear(width, hidden), nn.Linear(hidden, hidden)

        def forward(self, ids, labels, mask, pixels):
            with torch.no_grad():
                features = self.vision(pixels).last_hidden_state[:, 1:]
            features = self.dense2(F.silu(self.dense1(features)))
            embeddings = self.llm.get_input_embeddings()(ids)
            embeddings = embeddings.masked_scatter((ids == 7).unsqueeze(-1), features.to(embeddings.dtype))
            logits = self.llm(inputs_embeds=embeddings, attention_mask=mask).logits
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1), ignore_index=-100)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    number = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))

    def rows():
        made = []
        for _ in range(batch):
            question, answer = number(8, 16), number(10, 26)
            ids = torch.randint(10, SIZES[size][0]["vocab_size"], (17 + question + 49 + 9 + answer,), generator=generator)
            ids[17 + question:17 + question + 49] = 7
            labels = torch.full_like(ids, -100)
            labels[-answer:] = ids[-answer:]
            made.append((ids[:-1], labels[1:]))
        tokens = (max(len(ids) for ids, _ in made) + 7) // 8 * 8
        ids, labels, mask = torch.zeros(batch, tokens, dtype=torch.long), torch.full((batch, tokens), -100), torch.zeros(batch, tokens, dtype=torch.long)
        for n, (one, label) in enumerate(made):
            ids[n, :len(one)], labels[n, :len(one)], mask[n, :len(one)] = one, label, 1
        return [made.to(device) for made in (ids, labels, mask, torch.randn(batch, 3, 224, 224, generator=generator).to(getattr(torch, dtype)))]

    model = Vlm().to(device, getattr(torch, dtype))
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4)
    times = []
    for step in range(steps + 1):
        made = rows()
        start = seconds(device)
        loss = model(*made)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(seconds(device) - start)
    return {"rate": batch / statistics.median(times[1:])} | memory(device)


def peer_generate(prompt, new, size="0.6b", device="cpu", dtype="float32"):
    """Tokens/s of a random Qwen3, by default of 0.6B, greedy, with its cache."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(rope_theta=1e6, tie_word_embeddings=True, **SIZES[size][0])).eval().to(device, getattr(torch, dtype))
    ids = torch.randint(10, SIZES[size][0]["vocab_size"], (1, prompt), device=device)
    prefill, decode = [], []
    with torch.no_grad():
        for _ in range(4):
            start = seconds(device)
            out = model(ids, use_cache=True, logits_to_keep=1)
            prefill.append(prompt / (seconds(device) - start))
            start = seconds(device)
            for _ in range(new):
                out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
            decode.append(new / (seconds(device) - start))
    return {"prefill": statistics.median(prefill[1:]), "decode": statistics.median(decode[1:])} | memory(device)


def ours(llavm, command):
    out = subprocess.run([llavm, "bench", *command], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    last = out.strip().splitlines()[-1]
    if command[0] == "train":
        return {"rate": float(re.search(r"([\d.]+) samples/s", last)[1])}
    return {"prefill": float(re.search(r"prefill ([\d.]+)", last)[1]), "decode": float(re.search(r"decode ([\d.]+)", last)[1])}


def theirs(arguments):
    out = subprocess.run([sys.executable, __file__, "--peer", json.dumps(arguments)], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def write(result):
    words = {"cores": os.cpu_count()}
    for name, (_, _, batch) in TRAINING.items():
        words[name], words[name + "_peer"] = (f"{batch / result[name][side]['rate']:.2f}" for side in ("llavm", "torch"))
    for key in ("prefill", "decode"):
        words[key], words[key + "_peer"] = (f"{result['generate'][side][key]:.3g}" for side in ("llavm", "torch"))
    for name, line in LINES.items():
        text = (ROOT / name).read_text(encoding="utf8")
        text, found = re.subn(r"<!-- train -->.*?<!-- /train -->", f"<!-- train -->\n{line.format(**words)}\n<!-- /train -->", text, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{name} has no place for the figures: <!-- train --> … <!-- /train -->")
        (ROOT / name).write_text(text, encoding="utf8")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--llavm", default="target/release/llavm")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--only", default="align,lora,full,generate")
    ap.add_argument("--write", action="store_true")
    ap.add_argument("--peer", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peer:
        what, *arguments = json.loads(a.peer)
        return print(json.dumps({"train": peer_train, "generate": peer_generate}[what](*arguments)))
    llavm, result = str(Path(a.llavm).resolve()), {}
    for name in a.only.split(","):
        if name == "generate":
            command, peer = ["generate", "--size", "0.6b", "--prompt", "128", "--new", "32"], ["generate", 128, 32]
        else:
            size, stage, batch = TRAINING[name]
            command = ["train", "--size", size, "--stage", stage, "--batch", str(batch), "--steps", str(a.steps)]
            peer = ["train", size, stage, batch, a.steps]
        runs = [(ours(llavm, command), theirs(peer)) for _ in range(a.runs)]
        median = lambda side: {key: statistics.median(run[side][key] for run in runs) for key in runs[0][side]}
        result[name] = {"llavm": median(0), "torch": median(1)}
        for key, rate in result[name]["llavm"].items():
            other = result[name]["torch"][key]
            print(f"{name} {key}: llavm {rate:.2f}, torch {other:.2f} a second: {rate / other:.2f}x; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    if a.write:
        (ROOT / "scripts/results/train.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
        write(result)


if __name__ == "__main__":
    main()
