"""The loss of an exported model on token shards, computed by transformers and PEFT (transformers 5, peft 0.21, pyarrow).

    python examples/loss_in_python.py EXPORT --clip CLIP --shards SHARDS --store .llavm [--qwen BASE]

EXPORT is a folder of the stage `export`, in any format: `peft` is put on BASE (default: its own `base/`), `merged` stands alone,
`projector` goes with BASE. SHARDS is the folder of a `shard` stage, whose rows point at stored `pixels` or `features`. Prints the
nats per answer token over all rows of a split, which is `loss` of the stage `evaluate` when it uses all of them.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CLIPVisionModel

IMAGE_PAD = 151655
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def language(export: Path, base: Path | None):
    load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if (export / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(load(base or export / "base"), export)
    return load(export if (export / "config.json").is_file() else base)


def projector(export: Path):
    weights = {name: tensor.float() for name, tensor in load_file(export / "projector.safetensors").items()}
    linear = lambda x, name: torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return lambda x: linear(torch.nn.functional.silu(linear(x, "dense1")), "dense2")


def table(path: Path):
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Pictures:
    """Patch states of a row's pictures, `[pictures, patches, width]`."""

    def __init__(self, shards: Path, store: Path, tower):
        self.groups, self.store, self.tower, self.open = json.loads((shards / "shards.json").read_text())["groups"], store, tower, {}

    def column(self, group: int, partition: int):
        if (group, partition) not in self.open:
            found = next(p for p in self.groups[group]["partitions"] if p["index"] == partition)
            tables = [table(self.store / file) for file in found["files"] if file]
            self.open[group, partition] = next((name, t[name]) for t in tables for name in ("features", "pixels") if name in t.column_names)
        return self.open[group, partition]

    def of(self, pointer: dict):
        name, column = self.column(pointer["group"], pointer["partition"])
        pictures = column[pointer["row"]].as_py()
        if not pictures:
            return None
        config = self.tower.config
        if name == "features":
            flat = np.frombuffer(b"".join(pictures), "<f2").astype("f4")
            return torch.from_numpy(flat).view(len(pictures), -1, config.hidden_size)
        flat = np.frombuffer(b"".join(pictures), "u1").astype("f4")
        pixels = torch.from_numpy(flat).view(len(pictures), 3, config.image_size, config.image_size)
        return self.tower((pixels / 255 - MEAN) / STD).last_hidden_state[:, 1:]


@torch.no_grad()
def loss(export: Path, clip: Path, shards: Path, store: Path, base: Path | None = None, split: str = "validation"):
    """Nats per answer token, answer tokens, rows."""
    qwen, project = language(export, base).eval(), projector(export)
    pictures = Pictures(shards, store, CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval())
    total, tokens, rows = 0.0, 0, 0
    for file in sorted((shards / split).glob("*.arrow")):
        for row in table(file).to_pylist():
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            x = qwen.get_input_embeddings()(ids)
            states = pictures.of(row["row"])
            if states is not None:
                x = x.masked_scatter((ids == IMAGE_PAD)[..., None], project(states))
            logits = qwen(inputs_embeds=x).logits[0]
            total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
            tokens, rows = tokens + int((labels >= 0).sum()), rows + 1
    return total / max(tokens, 1), tokens, rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("--qwen", type=Path)
    for name in ("--clip", "--shards", "--store"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--split", default="validation")
    a = parser.parse_args()
    print("loss %.6f, %d answer tokens, %d rows" % loss(a.export, a.clip, a.shards, a.store, a.qwen, a.split))
