"""Loads a model folder of this project with transformers and PEFT: python examples/load_in_python.py FOLDER

Prints the shape of the projected features of a grey picture and of the first logits (transformers 5, peft 0.21).
"""
import pathlib, sys, tomllib
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CLIPVisionModel

folder = pathlib.Path(sys.argv[1])
about = tomllib.loads((folder / "model.toml").read_text())
place = lambda part: about[part].removeprefix("hub:") if about[part].startswith("hub:") else folder / about[part]
qwen, clip = AutoModelForCausalLM.from_pretrained(place("qwen")), CLIPVisionModel.from_pretrained(place("clip"))
if (folder / "adapter").is_dir():
    qwen = PeftModel.from_pretrained(qwen, folder / "adapter")
weights = load_file(folder / "projector.safetensors")
dense = {n: torch.nn.Linear(*weights[f"{n}.weight"].T.shape, dtype=qwen.dtype) for n in ("dense1", "dense2")}
[dense[n].load_state_dict({k: weights[f"{n}.{k}"] for k in ("weight", "bias")}) for n in dense]
project = lambda x: dense["dense2"](torch.nn.functional.silu(dense["dense1"](x)))

size = clip.config.image_size
with torch.no_grad():
    features = project(clip(pixel_values=torch.zeros(1, 3, size, size, dtype=clip.dtype)).last_hidden_state[:, 1:])
    print(tuple(features.shape), tuple(qwen(inputs_embeds=features).logits[:, -1].shape))
