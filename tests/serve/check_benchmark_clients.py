"""Lets lmms-eval's and VLMEvalKit's own OpenAI clients ask a served model our sample of POPE, and score it by their own code.

    python tests/serve/check_benchmark_clients.py --llavm target/release/llavm --lmms-eval DIR --vlmevalkit DIR [--rows 6000]

DIR: checkouts of github.com/EvolvingLMMs-Lab/lmms-eval and github.com/open-compass/VLMEvalKit; without one, that side is left out.
`llavm init benchmark` gives the manifest; its model is trained on --rows images, and the stage `benchmark` asks it. Then
`llavm serve` answers the clients. Every answer, and every number of the score, must be the stage's.

What runs is theirs: the client classes (lmms-eval's two, VLMEvalKit's), the prompts, the encoding of images, the scorers. Packages
of theirs that asking and scoring POPE does not need are stood in for where they are not installed (torch, transformers, accelerate,
evaluate, validators, sty); what was is printed. VLMEvalKit's `__init__` files, which import every model they know, are not run.
Two things differ between the two projects, and the table is written so that both sides are asked the same: VLMEvalKit's POPE asks
without lmms-eval's closing line, so that the line stands in its table; and its client sends images as JPEG, enlarged to 100
pixels, so that the stage is asked those.

Needs `pip install openai pillow pyarrow pandas requests loguru tqdm pydantic python-dotenv pyyaml jinja2 pytz openpyxl filelock huggingface_hub`.
"""

import argparse
import base64
import csv
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

KEY = "sk-check"
MOST = 128  # lmms-eval's max_new_tokens of POPE
POST = "\nAnswer the question using a single word or phrase."
STAGES = """generate = { max_new_tokens = %d }

[stages.jpeg]
kind  = "benchmark"
from  = ["lora"]
name  = "pope"
files = ["POPE.tsv"]
generate = { max_new_tokens = %d }
"""


class StandIn(types.ModuleType):
    """A package that is imported and not used: any name in it is a class that takes anything."""

    __path__: list = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *_, **__: None, "__class_getitem__": classmethod(lambda kind, _: kind)})


def stand_in(*names) -> None:
    """Stands in for packages that are not installed."""
    known = [isinstance(sys.modules.get(name.split(".")[0]), StandIn) or importlib.util.find_spec(name.split(".")[0]) is None for name in names]
    missing = [name for name, missing in zip(names, known) if missing and name not in sys.modules]
    for name in missing:
        sys.modules[name] = StandIn(name)
    for name in missing:
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, sys.modules[name])
    if missing:
        print(f"stood in for: {', '.join(missing)}")


def bare(name: str, folder: Path) -> types.ModuleType:
    """A package whose `__init__` is not run."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return module


def pope(folder: Path) -> list:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "pope/pope.parquet").to_pylist()


# lmms-eval


def lmms_eval(source: Path, base: str, model: str, rows: list) -> dict:
    """Answers by client, and its score."""
    import yaml
    from PIL import Image

    sys.path.insert(0, str(source))
    stand_in("torch", "torch.nn", "transformers", "accelerate", "evaluate")
    accelerate = sys.modules.get("accelerate")
    if isinstance(accelerate, StandIn):  # one process
        accelerate.Accelerator = lambda: types.SimpleNamespace(num_processes=1, local_process_index=0, device="cpu", is_local_main_process=True)
    task = source / "lmms_eval/tasks/pope"
    spec = importlib.util.spec_from_file_location("pope_utils", task / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    yaml.SafeLoader.add_constructor("!function", lambda loader, node: getattr(utils, loader.construct_scalar(node).split(".")[1]))
    config = yaml.safe_load((task / "pope.yaml").read_text())
    words = config["lmms_eval_specific_kwargs"]["default"]
    docs = [{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"]))} for row in rows]

    def text(doc):
        return config["doc_to_text"](doc, words)

    def messages(doc):  # as its ConfigurableMessagesTask builds a turn
        shown = [{"type": "image", "url": image} for image in config["doc_to_visual"](doc)]
        return [{"role": "user", "content": [*shown, {"type": "text", "text": text(doc)}]}]

    found = {}
    for kind in ("chat", "simple"):
        module = importlib.import_module(f"lmms_eval.models.{kind}.openai")
        client = module.OpenAICompatible(model=model, base_url=base, api_key=KEY, max_retries=1, num_concurrent=4)
        client.task_dict = {"pope": {"test": docs}}
        given = dict(config["generation_kwargs"])
        requests = []
        for n, doc in enumerate(docs):
            arguments = (text(doc), messages, given, n, "pope", "test") if kind == "chat" else (text(doc), given, config["doc_to_visual"], n, "pope", "test")
            requests.append(types.SimpleNamespace(args=arguments))
        answers = [answer.text for answer in client.generate_until(requests)]
        judged = [config["process_results"](doc, [answer]) for doc, answer in zip(docs, answers)]
        score = {metric["metric"]: metric["aggregation"]([each[metric["metric"]] for each in judged]) for metric in config["metric_list"]}
        found[f"lmms-eval, models/{kind}/openai.py"] = (answers, score)
    return found


# VLMEvalKit


def load_vlmevalkit(source: Path) -> None:
    stand_in("validators", "sty")
    root = source / "vlmeval"
    bare("vlmeval", root)
    bare("vlmeval.api", root / "api")
    bare("vlmeval.dataset", root / "dataset")
    judges = bare("vlmeval.dataset.utils", root / "dataset/utils")
    judges.DEBUG_MESSAGE, judges.build_judge = "", None  # POPE is scored without a judge
    bare("vlmeval.utils", root / "utils").track_progress_rich = None  # of the judge's


def write_table(folder: Path, rows: list) -> None:
    """POPE.tsv as its client sends it, for the stage, and in lmu/ as VLMEvalKit reads it."""
    from vlmeval.smp import decode_base64_to_image, encode_image_to_base64

    (folder / "lmu").mkdir()
    for path, sent in ((folder / "POPE.tsv", True), (folder / "lmu/POPE.tsv", False)):
        with open(path, "w", encoding="utf8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["index", "image", "question", "answer", "category"])
            for row in rows:
                encoded = base64.b64encode(row["image"]["bytes"]).decode()
                image = encode_image_to_base64(decode_base64_to_image(encoded)) if sent else encoded
                table.writerow([row["id"], image, row["question"] + ("" if sent else POST), row["answer"].title(), row["category"]])


def vlmevalkit(folder: Path, base: str, model: str) -> dict:
    os.environ["LMUData"] = str(folder / "lmu")
    from vlmeval.api.gpt import GPT4V
    from vlmeval.dataset.image_yorn import ImageYORNDataset
    from vlmeval.smp import dump

    ImageYORNDataset.DATASET_MD5 = {}  # ours is a sample
    dataset = ImageYORNDataset("POPE")
    found = {}
    for stream in (False, True):
        client = GPT4V(model=model, key=KEY, api_base=f"{base}/chat/completions", max_tokens=MOST, retry=1, stream=stream, verbose=False)
        data = dataset.data.copy()
        answers = [client.generate(message=dataset.build_prompt(data.iloc[n]), dataset="POPE") for n in range(len(data))]
        data["prediction"] = ["" if answer == client.fail_msg else answer for answer in answers]  # what it makes of an empty answer
        file = folder / f"predictions_{int(stream)}.tsv"
        dump(data.drop(columns="image"), str(file))
        table = dataset.evaluate(str(file))
        score = {}
        for row in table.to_dict("records"):
            name = row.pop("split")
            score |= {(key if name == "Overall" else f"{name} {key}"): value for key, value in row.items()}
        found[f"VLMEvalKit, api/gpt.py{', streamed' if stream else ''}"] = (list(data["prediction"]), score)
    return found


# Ours


def train_and_ask(llavm: str, folder: Path, rows: int, tables: bool) -> None:
    manifest = folder / "benchmark.toml"
    text = manifest.read_text().replace("rows   = 6000", f"rows   = {rows}")
    text += STAGES % (MOST, MOST) if tables else STAGES.split("\n")[0] % MOST
    manifest.write_text(text)
    for stage in ("pope", "jpeg") if tables else ("pope",):
        subprocess.run([llavm, "run", "benchmark.toml", "--until", stage], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def ours(folder: Path, stage: str, rule: str) -> tuple:
    """The stage's answers, and its numbers by a rule."""
    made = folder / ".llavm/latest/benchmark" / stage
    answers = [json.loads(line)["prediction"] for line in (made / "answers.jsonl").read_text().splitlines()]
    report = json.loads((made / "report.json").read_text())
    score = next(score for score in report["scores"] if score["rule"] == rule)
    return answers, {number["name"]: number["value"] for number in score["numbers"]}


def same(client: str, theirs: tuple, ours: tuple) -> bool:
    answers = [(their.strip(), our.strip()) for their, our in zip(theirs[0], ours[0], strict=True)]
    other = [pair for pair in answers if pair[0] != pair[1]]
    numbers = {name: (value, ours[1].get(name)) for name, value in theirs[1].items()}
    wrong = {name: pair for name, pair in numbers.items() if pair[1] is None or abs(pair[0] - pair[1]) > 1e-9}
    print(f"{'OTHER' if other or wrong else 'same'}  {client}: {len(answers)} answers ({len({our for _, our in answers})} different), {len(numbers)} numbers: "
          + ", ".join(f"{name} {pair[0]:.4g}" for name, pair in list(numbers.items())[:4]))
    for pair in [*other, *wrong.items()]:
        print(f"    theirs, ours: {pair!r}")
    return not other and not wrong


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--llavm", default="llavm")
    arguments.add_argument("--lmms-eval", type=Path)
    arguments.add_argument("--vlmevalkit", type=Path)
    arguments.add_argument("--rows", type=int, default=6000)
    arguments = arguments.parse_args()
    llavm = str(Path(arguments.llavm).resolve()) if os.sep in arguments.llavm else arguments.llavm
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        subprocess.run([llavm, "init", "benchmark", str(folder)], check=True, stdout=subprocess.DEVNULL)
        rows = pope(folder)
        if arguments.vlmevalkit:
            load_vlmevalkit(arguments.vlmevalkit.resolve())
            sys.path.insert(0, str(arguments.vlmevalkit.resolve()))
            write_table(folder, rows)
        train_and_ask(llavm, folder, arguments.rows, bool(arguments.vlmevalkit))
        server = subprocess.Popen([llavm, "serve", "benchmark.toml:lora", "--port", "0", "--name", "org/model", "--api-key", KEY], cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            base = server.stdout.readline().split("API: ")[1].strip(" )\n")
            results = []
            if arguments.lmms_eval:
                expected = ours(folder, "pope", "lmms-eval")
                results += [same(client, found, expected) for client, found in lmms_eval(arguments.lmms_eval.resolve(), base, "org/model", rows).items()]
            if arguments.vlmevalkit:
                expected = ours(folder, "jpeg", "vlmevalkit")
                results += [same(client, found, expected) for client, found in vlmevalkit(folder, base, "org/model").items()]
            return 0 if results and all(results) else 1
        finally:
            server.terminate()
            assert server.wait(timeout=30) == 0, "it stops with status 0"


if __name__ == "__main__":
    sys.exit(main())
