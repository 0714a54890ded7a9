"""Trains a small model through `llavm run`, exports it three times, and compares each export's loss in Python with `evaluate`'s.

    python tests/export/check_with_transformers.py --llavm target/release/llavm

Qwen3's tokenizer, a random CLIP and Qwen3 of small size, the CC3M sample; alignment of all parts, then LoRA from there. The
losses come from examples/loss_in_python.py (transformers, PEFT). What the training wrote down is read as well: `metrics.parquet` with
polars, the event file with TensorBoard where that is installed. Exit status 1 when a loss differs by more than a ten-thousandth.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polars

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from loss_in_python import loss  # noqa: E402

QWEN = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=151936, hidden_size=64, intermediate_size=160,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=2048,
            rms_norm_eps=1e-6, rope_theta=1e6, attention_bias=False, tie_word_embeddings=True, eos_token_id=151645)
CLIP = dict(architectures=["CLIPVisionModel"], model_type="clip_vision_model", hidden_size=48, intermediate_size=96,
            num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=32)
MANIFEST = """
name = "exports"
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
[stages.pads]
kind = "image-pads"
from = "chat"
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
[stages.align]
kind         = "train"
from         = "shards"
qwen         = "qwen"
clip         = "clip"
from_scratch = ["language", "vision"]
trainable    = ["projector", "language", "vision"]
learning_rate = 1e-3
max_steps    = 8
[stages.lora]
kind          = "train"
from          = "shards"
init_from     = "align"
qwen          = "qwen"
clip          = "clip"
trainable     = ["projector", "lora"]
learning_rate = 1e-2
max_steps     = 8
[stages.report]
kind       = "evaluate"
from       = ["lora", "shards"]
generate   = { max_new_tokens = 1 }
[stages.peft]
kind   = "export"
from   = "lora"
format = "peft"
[stages.merged]
kind   = "export"
from   = "lora"
format = "merged"
[stages.projector]
kind   = "export"
from   = "lora"
format = "projector"
"""


def check_records(trained: Path):
    """Every step once, with the same loss in both records."""
    metrics = polars.read_parquet(trained / "metrics.parquet")
    assert metrics["step"].to_list() == list(range(1, 9)), metrics
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        return print("TensorBoard is not installed: its event file was not read")
    events = EventAccumulator(str(trained / "runs"))
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [s.step for s in scalars] == metrics["step"].to_list()
    assert all(abs(s.value - loss) < 1e-5 * loss for s, loss in zip(scalars, metrics["loss"])), scalars


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llavm", type=Path, required=True)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        for name, config in (("qwen", QWEN), ("clip", CLIP)):
            (work / name).mkdir()
            (work / name / "config.json").write_text(json.dumps(config))
        for file in (ROOT / "data/qwen3-tokenizer").glob("*.json"):
            shutil.copy(file, work / "qwen")
        (work / "m.toml").write_text(MANIFEST.replace("DATA", str(ROOT / "data")))
        llavm = lambda *args: subprocess.run([a.llavm.resolve(), *args], cwd=work, check=True, capture_output=True, text=True).stdout
        llavm("run", "m.toml")
        stages = {stage["name"]: stage["files"] for stage in json.loads(llavm("status", "m.toml", "--json"))["stages"]}
        folder = lambda stage, file: next(Path(path).parent for path in stages[stage] if path.endswith("/" + file))
        ours = json.loads((folder("report", "report.json") / "report.json").read_text())["loss"]
        check_records(folder("lora", "model.toml"))
        trained, shards = folder("lora", "model.toml"), folder("shards", "shards.json")
        apart = False
        for export, base in (("peft", None), ("merged", None), ("projector", trained / "qwen")):
            where = folder(export, "projector.safetensors")
            theirs, tokens, rows = loss(where, trained / "clip", shards, work / ".llavm", base)
            wrong = abs(theirs - ours) > 1e-4 * ours
            # The projector's export knows nothing of the adapter, so that its loss must differ.
            apart |= wrong != (export == "projector")
            print(f"{export}: {theirs:.6f} over {tokens} answer tokens of {rows} rows; evaluate: {ours:.6f}")
        sys.exit(apart)


if __name__ == "__main__":
    main()
