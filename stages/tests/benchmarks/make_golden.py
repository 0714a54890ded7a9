"""Makes golden.json: what lmms-eval's and VLMEvalKit's own code says of crafted answers.

    git clone https://github.com/EvolvingLMMs-Lab/lmms-eval && git clone https://github.com/open-compass/VLMEvalKit
    pip install pandas numpy loguru requests tqdm pycocoevalcap==1.2     (and a Java runtime)
    python make_golden.py lmms-eval VLMEvalKit

Of each project only the files of its scorers are run, out of the folder that is given; nothing of them is kept here. What
they import beside those (loggers, tables on disk, judge models) is stood in for by a few lines below.
"""

import ast
import importlib
import json
import os
import pickle
import random
import statistics
import string
import sys
import types

import numpy as np
import pandas as pd

HERE = os.path.dirname(os.path.abspath(__file__))
LMMS, VLM = (os.path.abspath(path) for path in sys.argv[1:3])


def package(name, path=None, **fields):
    module = types.ModuleType(name)
    module.__path__ = [path] if path else []
    for key, value in fields.items():
        setattr(module, key, value)
    sys.modules[name] = module
    return module


def functions(path, names, **scope):
    """Single functions out of a file that imports more than they need."""
    tree = ast.parse(open(path, encoding="utf8").read())
    chosen = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in chosen:
        node.decorator_list = []
    exec(compile(ast.Module(chosen, []), path, "exec"), scope)
    return [scope[name] for name in names]


# lmms-eval
for name in ["", ".tasks", ".filters", ".api"]:
    package("lmms_eval" + name, os.path.join(LMMS, "lmms_eval", *name.strip(".").split(".")) if name else
            os.path.join(LMMS, "lmms_eval"))
for task in ["pope", "mme", "mmstar", "mmbench", "scienceqa", "seedbench", "textvqa", "ai2d", "realworldqa", "_task_utils",
             "hallusion_bench"]:
    package("lmms_eval.tasks." + task, os.path.join(LMMS, "lmms_eval/tasks", task))
lmms = {task: importlib.import_module(f"lmms_eval.tasks.{task}.utils")
        for task in ["pope", "mme", "mmstar", "scienceqa", "seedbench", "textvqa", "ai2d", "realworldqa"]}
lmms_mmbench = importlib.import_module("lmms_eval.tasks.mmbench.mmbench_evals").MMBench_Evaluator()
[lmms_hallusion] = functions(os.path.join(LMMS, "lmms_eval/tasks/hallusion_bench/evaluate_hb.py"),
                             ["hb_aggregation_result_intern"])
[lmms_exact] = functions(os.path.join(LMMS, "lmms_eval/api/metrics.py"), ["exact_match_hf_evaluate"], np=np, string=string)


# VLMEvalKit
class Quiet:
    def __getattr__(self, _):
        return lambda *_args, **_kwargs: None


TABLES = {}


def load(name):
    return TABLES[name].copy() if isinstance(name, str) else name.copy()


def dump(table, name):
    TABLES[name] = table


def in_order(function, arguments, nproc, chunksize, save, keys):
    results = [function(**one) for one in arguments]
    TABLES[save] = {**TABLES.get(save, {}), **dict(zip(keys, results))}
    return results


[punctuation] = functions(os.path.join(VLM, "vlmeval/smp/misc.py"), ["process_punctuation"])
package("vlmeval", os.path.join(VLM, "vlmeval"))
package("vlmeval.smp", None, process_punctuation=punctuation, get_logger=lambda *_: Quiet(), load=load, dump=dump,
        d2df=lambda d: pd.DataFrame({key: [d[key]] for key in d}), cn_string=lambda _: False, timestr=lambda: "now",
        get_pred_file_format=lambda: "pkl", istype=lambda s, t: isinstance(s, t) or is_python(s, t),
        listinstr=lambda names, text: any(name in text for name in names))
package("vlmeval.smp.log", None, get_logger=lambda *_: Quiet())
package("vlmeval.smp.vlm", None, build_option_str=lambda _: "")
package("vlmeval.utils", os.path.join(VLM, "vlmeval/utils"))
matching = importlib.import_module("vlmeval.utils.matching_util")
package("vlmeval.utils", None, can_infer=matching.can_infer, can_infer_lego=matching.can_infer_lego,
        track_progress_rich=in_order)
package("vlmeval.dataset", None)
package("vlmeval.dataset.utils", os.path.join(VLM, "vlmeval/dataset/utils"))
mcq = importlib.import_module("vlmeval.dataset.utils.multiple_choice")
yorn = importlib.import_module("vlmeval.dataset.utils.yorn")
vqa = importlib.import_module("vlmeval.dataset.utils.vqa_eval")


def is_python(text, kind):
    try:
        return isinstance(eval(text), kind)
    except Exception:
        return False


# Every way a model answers.
LETTERS = [
    "A", "B", "C", "D", "a", "b", "A.", "B.", "(A)", "(B)", "(b)", "A)", "B:", "**B**", "B. dog", "A. cat", "The answer is A",
    "The answer is B.", "the answer is b", "Answer: B", "The correct answer is **C**. Here is why: it is so.", "Answer is a dog",
    "cat", "dog", "Dog.", "The cat is on the mat", "It is a dog, not a cat", "A cat and a dog", "A and B", "A or B", "B, C", "Both",
    "A dog is in the image", "I choose B because A is wrong", "Option B", "[B]", "B\n", " B ", "B dog", "E", "F", "Z", "",
    " ", ".", "I cannot answer this question.", "Cannot determine the answer", "I'm sorry, but without the image provided",
    "I can't process this file.", "Failed to obtain answer via API", "答案是B", "答案是 B。", "选B", "选项A", "是猫", "图中是狗", "B。狗",
    "我不知道", "None of the above", "nan", "banana", "The best option is: (D)", "AB", "ABCD", "Because of A. B. C. it is D",
    "A very long answer that names dog and that goes on and on and on, so that it is much longer than all options together, by far",
    "<think>A</think>B", "1", "2", "Yes", "no",
]
YES_NO = [
    "yes", "no", "Yes", "No", "YES", "NO", "Yes.", "No.", "yes, it is", "No, it is not", "No!", "Yes!!", "y", "n", "Y.", "N", "x", "",
    " ", "It is", "There is no dog", "There is a dog. Yes.", "yes no", "Yes and no", "I don't know", "not sure", "No doubt, yes",
    "Not yes", "nope", "yeah", "Yes/No", "no,", "(yes)", "Answer: yes", "The answer is no", "eyes", "knows", "是", "不是", "是的",
    "没有。", "Yes\n", "  no  ", "unknown", "Nothing there", "noyes", "y e s",
]
WORDS = [
    "red", "Red", "red.", "a red", "the Red car", "two", "2", "Two.", "none", "0", "stop", "STOP!", "stop sign", "it's", "its", "dont",
    "don't", "1,000", "1, 000", "1000", "3.5", "3.", ".5", "a.b", "a/b", "red/blue", "red / blue", "red-blue", "red - blue", "Coca-Cola",
    "coca cola", "", " ", "\n", "new\nline", "12:30", "12:30 pm", "$5", "5%", "u.s.a.", "U.S.", "dakota's", "men's", "what?", "why not?!",
    "one two", "an apple", "café", "红色", "“red”", "\"red\"", "(red)", "ten 10", "yes", "no", "..." * 20, "x_y", "a+b=c",
]


def rng(name):
    return random.Random(name)


def expected(judged, numbers):
    plain = lambda value: None if value is None else float(value)
    return {"scores": [int(score) if score == int(score) else float(score) for score in judged], "numbers": {name: plain(value) for name, value in numbers.items()}}


CASES = []


def case(benchmark, rule, rows, answers, judged, numbers):
    CASES.append({"benchmark": benchmark, "rule": rule, "rows": rows, "answers": answers, **expected(judged, numbers)})


def of_all(benchmark, rule, rows, answers, judge, name):
    """A rule whose number is the mean."""
    judged = [judge(row, answer) for row, answer in zip(rows, answers)]
    case(benchmark, rule, rows, answers, judged, {name: float(np.mean(judged))})


def pope():
    kinds = ["adversarial", "popular,random", "random"]
    lmms_rows = [{"question_id": str(n), "question": "Is there a dog?", "answer": "yes" if n % 3 else "no"} for n in range(len(YES_NO) * 2)]
    answers = [YES_NO[n % len(YES_NO)] for n in range(len(lmms_rows))]
    results = [lmms["pope"].pope_process_results(row, [answer]) for row, answer in zip(lmms_rows, answers)]
    numbers = {name: getattr(lmms["pope"], f"pope_aggregate_{name[5:]}")([result[name] for result in results]) for name in results[0]}
    case("pope", "lmms-eval", lmms_rows, answers, [result["pope_accuracy"]["score"] for result in results], numbers)
    rows = [{"index": n, "question": "Is there a dog?", "answer": "Yes" if n % 3 else "No", "category": kinds[n % 3]} for n in range(len(answers))]
    table, judged = yes_no_table(rows, answers)
    rating = yorn.POPE_rating(table)
    numbers = {(f"{row['split']} " if row["split"] != "Overall" else "") + name: row[name]
               for _, row in rating.iterrows() for name in ["Overall", "acc", "precision", "recall"]}
    case("pope", "vlmevalkit", rows, answers, judged, numbers)


def yes_no_table(rows, answers):
    table = pd.DataFrame(rows)
    table["prediction"] = answers
    table["extracted"] = [yorn.YOrN_Extraction(answer) for answer in answers]
    table["score"] = table["answer"] == table["extracted"]
    return table, [float(score) for score in table["score"]]


def mme():
    categories = sum(lmms["mme"].eval_type_dict.values(), [])
    pick = rng("mme")
    rows, answers = [], []
    for category in categories:
        for image in range(4):
            for truth in ["Yes", "No"]:
                rows.append({"question_id": f"{category}/{image}.png", "image_path": f"{category}/{image}.png", "question": f"{truth}?",
                             "answer": truth, "category": category, "index": len(rows)})
                answers.append(truth if pick.random() < 0.5 else pick.choice(YES_NO))
    lmms_rows = [{key: value for key, value in row.items() if key not in ["index", "image_path"]} for row in rows]
    results = [lmms["mme"].mme_process_results(row, [answer]) for row, answer in zip(lmms_rows, answers)]
    numbers = {name: lmms["mme"].mme_aggregate_results([result[name] for result in results if name in result])
               for name in ["mme_perception_score", "mme_cognition_score"]}
    case("mme", "lmms-eval", lmms_rows, answers, [next(iter(result.values()))["score"] for result in results], numbers)
    table, judged = yes_no_table(rows, answers)
    rating = yorn.MME_rating(table).iloc[0].to_dict()
    case("mme", "vlmevalkit", rows, answers, judged, rating)


def hallusion():
    pick = rng("hallusion")
    rows, answers = [], []
    for category, kind in [("VD", "figure"), ("VD", "illusion"), ("VS", "chart")]:
        for group in range(3):
            for figure in range(3):
                for question in range(2):
                    truth = pick.choice(["Yes", "No"])
                    rows.append({"index": f"{category}_{kind}_x_{group}_{figure}_{question}", "question": "?", "answer": truth,
                                 "category": category, "l2-category": kind, "subcategory": kind, "set_id": str(group),
                                 "figure_id": str(figure), "question_id": str(question), "gt_answer": "1" if truth == "Yes" else "0"})
                    answers.append(truth if pick.random() < 0.7 else pick.choice(YES_NO))
    table, judged = yes_no_table([{key: row[key] for key in ["index", "question", "answer", "category", "l2-category"]} for row in rows], answers)
    rating = yorn.Hallusion_rating(table)
    numbers = {(f"{row['split']} " if row["split"] != "Overall" else "") + name: row[name]
               for _, row in rating.iterrows() for name in ["aAcc", "fAcc", "qAcc"]}
    case("hallusionbench", "vlmevalkit", rows, answers, judged, numbers)
    results = [{**row, "model_prediction": answer} for row, answer in zip(rows, answers)]
    numbers = {name: lmms_hallusion(results, name) for name in ["aAcc", "qAcc", "fAcc"]}
    judged = [float(result["answer"] == result["gt_answer"]) for result in results]
    case("hallusionbench", "lmms-eval", rows, answers, judged, numbers)


OPTIONS = [
    {"A": "cat", "B": "dog", "C": "bird", "D": "fish"},
    {"A": "2", "B": "3", "C": "", "D": ""},
    {"A": "a cat on a mat", "B": "a dog", "C": "Both", "D": "None of the above"},
    {"A": "猫", "B": "狗", "C": "鸟", "D": "鱼"},
]


def choices():
    """Every answer to every question."""
    rows, answers = [], []
    for answer in LETTERS:
        for n, options in enumerate(OPTIONS):
            rows.append({"index": len(rows), "question": "?", **options, "answer": "AB"[(n + len(answer)) % 2],
                         "category": f"c{n % 2}", "l2_category": f"f{n % 3}"})
            answers.append(answer)
    return rows, answers


def vanilla(benchmark, rows, answers):
    table = pd.DataFrame([{("l2-category" if key == "l2_category" else key): (np.nan if value == "" else value)
                           for key, value in row.items()} for row in rows])
    table["prediction"] = answers
    TABLES.clear()
    mcq.osp = types.SimpleNamespace(exists=lambda _: False)
    scored = mcq.mcq_vanilla_eval(None, table, table, 1, "result", benchmark)
    numbers = mcq.report_acc(scored).iloc[0].to_dict()
    numbers.pop("split")
    case(benchmark, "vlmevalkit", rows, answers, list(scored["hit"]), numbers)


def multiple_choice():
    rows, answers = choices()
    vanilla("mmstar", rows, answers)
    results = [lmms["mmstar"].mmstar_process_results(row, [answer]) for row, answer in zip(rows, answers)]
    names = ["average"] + sorted({row["category"] for row in rows})
    numbers = {name: lmms["mmstar"].mmstar_aggregate_results([result[name] for result in results if name in result]) for name in names}
    case("mmstar", "lmms-eval", rows, answers, [result["average"]["score"] for result in results], numbers)
    listed = [{"question": row["question"], "choices": [row[c] for c in "ABCD" if row[c]], "answer": "ABCD".index(row["answer"]),
               "hint": ""} for row in rows]
    of_all("scienceqa-img", "lmms-eval", listed, answers,
           lambda row, answer: lmms["scienceqa"].sqa_process_results(row, [answer])["exact_match"], "exact_match")
    seed = [{"question_id": str(n), "question": row["question"], **{f"choice_{c.lower()}": row[c] for c in "ABCD"}, "answer": row["answer"],
             "data_type": ["image", "video"][n % 2]} for n, row in enumerate(rows)]
    results = [lmms["seedbench"].seed_process_result(row, [answer]) for row, answer in zip(seed, answers)]
    numbers = {name: lmms["seedbench"].seed_aggregation_result([result[name] for result in results if name in result])
               for name in ["seed_all", "seed_image", "seed_video"]}
    judged = [float(result["seed_all"]["pred"].lower().strip() == result["seed_all"]["answer"].lower().strip()) for result in results]
    case("seed-bench", "lmms-eval", seed, answers, judged, numbers)
    real = [{"question": "Which?", "answer": row["answer"] if n % 2 else ["Dog", "0", "2", "yes"][n // 2 % 4]} for n, row in enumerate(rows)]
    of_all("realworldqa", "lmms-eval", real, answers,
           lambda row, answer: lmms["realworldqa"].realworldqa_process_results(row, [answer])["exact_match"], "exact_match")
    read = lmms["ai2d"].MultiChoiceRegexFilter(regex_pattern="([A-Z])\\.", ignore_case=True, ignore_punctuation=True)
    diagrams = [{"question": row["question"], "options": [row[c] for c in "ABCD" if row[c]], "answer": str("ABCD".index(row["answer"]))}
                for row in rows]
    target = lambda row: lmms["ai2d"].ai2d_doc_to_target(row, "mcq")
    of_all("ai2d", "lmms-eval", diagrams, answers, lambda row, answer: exact(read.apply([[answer]], [row])[0], target(row)), "exact_match")


def exact(answer, reference):
    return lmms_exact(predictions=[answer], references=[reference], ignore_case=True, ignore_punctuation=True)["exact_match"]


def mmbench():
    pick = rng("mmbench")
    rows, answers = [], []
    for question in range(60):
        options = [text for text in OPTIONS[question % len(OPTIONS)].values() if text]
        right = options[question % len(options)]
        for rotation in range(len(options)):
            turned = options[rotation:] + options[:rotation]
            letter = "ABCD"[turned.index(right)]
            cells = dict(zip("ABCD", turned + [""] * 4))
            rows.append({"index": rotation * 1_000_000 + question, "question": "Which?", **cells, "answer": letter,
                         "category": ["coarse_perception", "logic_reasoning"][question % 2], "l2-category": f"fine {question % 3}"})
            ways = [letter, f"{letter}.", f"({letter})", f"{letter}. {right}", right, f"The answer is {letter}", f"{letter} because it is"]
            answers.append(pick.choice(ways) if pick.random() < 0.93 else pick.choice(LETTERS))
    table = pd.DataFrame([{key: np.nan if value == "" else value for key, value in row.items()} for row in rows])
    table["prediction"] = answers
    TABLES.clear()
    scored = mcq.mcq_circular_eval(None, table.copy(), table, 1, "result", "MMBench_DEV_EN")
    numbers = mcq.report_acc(scored).iloc[0].to_dict()
    numbers.pop("split")
    judged = [float(mcq.prefetch_answer(item) == item["answer"]) for _, item in table.iterrows()]
    case("mmbench-en", "vlmevalkit", rows, answers, judged, numbers)
    nan_rows = [{key: "nan" if value == "" else value for key, value in row.items()} for row in rows]
    results = [{**row, "prediction": answer.strip()} for row, answer in zip(nan_rows, answers)]
    overall, _, _ = lmms_mmbench.eval_result([dict(result) for result in results], eval_method="static")
    judged = []
    for result in results:
        one = pd.DataFrame([result])
        judged.append(float(lmms_mmbench.eval_sub_data(one, {result["index"]: result["answer"]}, static_only=True)))
    case("mmbench-en", "lmms-eval", nan_rows, answers, judged, {"static_score": overall * 100})


def words():
    references = ["red", "Red.", "two", "stop sign", "3.5", "it's", "1,000", "Coca-Cola"]
    rows, answers = [], []
    for n, answer in enumerate(WORDS):
        for k, reference in enumerate(references):
            rows.append({"question_id": f"{n}-{k}", "question": "What?", "answer": reference, "category": f"kind {k % 3}"})
            answers.append(answer)
    of_all("gqa", "lmms-eval", rows, answers, lambda row, answer: exact(answer, row["answer"]), "exact_match")
    results = [vqa.process_line({"answer": row["answer"], "prediction": answer}, method="accuracy") for row, answer in zip(rows, answers)]
    hits = vqa.hit_calculate(results, "GQA_TestDev_Balanced")
    numbers = {"Overall": np.mean(hits) * 100}
    for kind in sorted({row["category"] for row in rows}):
        numbers[kind] = np.mean([hit for row, hit in zip(rows, hits) if row["category"] == kind]) * 100
    case("gqa", "vlmevalkit", rows, answers, hits, numbers)

    pick = rng("textvqa")
    rows, answers = [], []
    for n, answer in enumerate(WORDS):
        for share in [0, 1, 3, 10]:
            ten = [answer] * share + [pick.choice(WORDS) for _ in range(10 - share)]
            pick.shuffle(ten)
            rows.append({"question_id": f"{n}-{share}", "answers": ten})
            answers.append(answer)
    score = lambda row, answer: lmms["textvqa"].textvqa_process_results({**row, "answers": list(row["answers"])}, [answer])["exact_match"]
    of_all("textvqa-val", "lmms-eval", rows, answers, score, "exact_match")
    tsv = [{"index": n, "answer": str(row["answers"])} for n, row in enumerate(rows)]
    results = [vqa.process_line({**row, "prediction": answer}, method="vqa_score") for row, answer in zip(tsv, answers)]
    hits = vqa.hit_calculate(results, "TextVQA_VAL")
    case("textvqa-val", "vlmevalkit", tsv, answers, hits, {"Overall": np.mean(hits) * 100})


def main():
    for make in [pope, mme, hallusion, multiple_choice, mmbench, words]:
        make()
    with open(os.path.join(HERE, "golden.json"), "w", encoding="utf8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in CASES) + "\n]\n")


if __name__ == "__main__":
    main()
