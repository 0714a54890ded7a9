"""Makes data/benchmarks: a few rows of VLMEvalKit's and of lmms-eval's layouts, about drawn shapes, and answers to them.

    pip install pillow pyarrow openpyxl
    python data/make_benchmarks.py
"""

import base64
import io
import json
import os

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "benchmarks")
SHAPES = [("red", "circle"), ("blue", "square"), ("green", "triangle")]


def image(colour, shape):
    picture = Image.new("RGB", (48, 40), "white")
    draw = ImageDraw.Draw(picture)
    if shape == "circle":
        draw.ellipse((10, 6, 36, 32), fill=colour)
    elif shape == "square":
        draw.rectangle((10, 6, 36, 32), fill=colour)
    else:
        draw.polygon([(23, 6), (36, 32), (10, 32)], fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def mmbench():
    """Options rotated; a rotation names the row that has its image."""
    colours = [colour for colour, _ in SHAPES]
    rows = []
    for n, (colour, shape) in enumerate(SHAPES):
        for rotation in range(3):
            turned = colours[rotation:] + colours[:rotation]
            encoded = base64.b64encode(image(colour, shape)).decode() if rotation == 0 else str(n)
            rows.append([rotation * 1_000_000 + n, encoded, f"Which colour is the {shape}?", "", *turned, "", "ABC"[turned.index(colour)],
                         "attribute_reasoning", "coarse", "dev"])
    return ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split"], rows


def pope():
    rows = []
    for n, (colour, shape) in enumerate(SHAPES):
        for k, (_, other) in enumerate(SHAPES):
            rows.append({"id": str(len(rows)), "question_id": str(len(rows)), "question": f"Is there a {other} in the image?",
                         "answer": "yes" if n == k else "no", "image_source": f"shape_{n}", "category": "adversarial",
                         "image": {"bytes": image(colour, shape), "path": f"{n}.png"}})
    return rows


COLOURS = [colour for colour, _ in SHAPES]


def picture(n):
    return {"bytes": image(*SHAPES[n]), "path": f"{n}.png"}


def layouts():
    """lmms-eval's other layouts by file name: options in a list, in columns, in the question; several answers; images apart."""
    asked = [(n, f"Which colour is the {shape}?", colour) for n, (colour, shape) in enumerate(SHAPES)]
    listed = [{"image": picture(n), "question": q, "choices": COLOURS, "answer": COLOURS.index(c), "hint": "Shapes." if n else "",
               "task": "closed choice", "grade": "grade1", "subject": "natural science", "topic": "shapes", "category": "colour",
               "skill": "see", "lecture": "", "solution": ""} for n, q, c in asked]
    columns = [{"answer": "ABC"[COLOURS.index(c)], "choice_a": COLOURS[0], "choice_b": COLOURS[1], "choice_c": COLOURS[2], "choice_d": "white",
                "data_id": f"{n}", "data_type": "image", "question": q, "question_id": str(100 + n), "question_type_id": 1, "image": [picture(n)],
                "segment": None} for n, q, c in asked]
    numbered = [{"question": q, "options": COLOURS, "answer": str(COLOURS.index(c)), "image": picture(n)} for n, q, c in asked]
    inside = [{"index": n, "question": f"{q}\nOptions: " + ", ".join(f"{letter}: {name}" for letter, name in zip("ABC", COLOURS)), "image": picture(n),
               "answer": "ABC"[COLOURS.index(c)], "category": "coarse perception", "l2_category": "image style"} for n, q, c in asked]
    questions = [{"id": f"0{n}", "imageId": f"n{n}", "question": q, "answer": c, "fullAnswer": f"It is {c}.", "isBalanced": True} for n, q, c in asked]
    images = [{"id": f"n{n}", "image": picture(n)} for n in range(3)]
    ten = [{"image_id": f"t{n}", "question_id": 34600 + n, "question": f"what colour is the {SHAPES[n][1]}?", "image": picture(n),
            "answers": [SHAPES[n][0]] * 7 + ["a " + SHAPES[n][0], "colour", ""]} for n in range(3)]
    captions = [[f"A {c} {s}.", f"A {c} {s} on white.", f"One {s}, {c}.", f"There is a {c} {s}.", f"a drawing of a {s}"] for c, s in SHAPES]
    coco = [{"question_id": f"{n}.jpg", "image": picture(n), "question": "Please carefully observe the image and come up with a caption for the image",
             "answer": captions[n], "id": n, "license": 1, "file_name": f"{n}.jpg", "coco_url": ""} for n in range(3)]
    flickr = [{"image": picture(n), "caption": captions[n], "sentids": [str(5 * n + k) for k in range(5)], "split": "test", "img_id": str(n),
               "filename": f"{n}.jpg"} for n in range(3)]
    figures = [{"category": "VD", "subcategory": "figure", "visual_input": "1", "set_id": "0", "figure_id": str(n), "sample_note": "shapes",
                "question_id": str(k), "question": f"Is the {SHAPES[n][1]} {SHAPES[k][0]}?", "gt_answer_details": "", "gt_answer": str(int(n == k)),
                "filename": f"./{n}.png", "image": picture(n)} for n in range(3) for k in range(2)]
    return {"scienceqa_img": listed, "seedbench": columns, "ai2d": numbered, "mmstar": inside, "gqa_instructions": questions, "gqa_images": images,
            "textvqa": ten, "coco_captions": coco, "flickr30k": flickr, "hallusion_image": figures}


def tables():
    """VLMEvalKit's other tables by file name: two questions about an image, several answers in a cell, no options."""
    encoded = [base64.b64encode(image(*shape)).decode() for shape in SHAPES]
    mme = [[2 * n + k, encoded[n] if k == 0 else str(2 * n), f"color/{n}.png", f"Is the {SHAPES[n][1]} {SHAPES[(n + k) % 3][0]}? Please answer yes or no.",
            "Yes" if k == 0 else "No", "color"] for n in range(3) for k in range(2)]
    coco = [[n, encoded[n], str([f"A {c} {s}.", f"It's a {s}, {c}."])] for n, (c, s) in enumerate(SHAPES)]
    return {"MME": (["index", "image", "image_path", "question", "answer", "category"], mme), "COCO_VAL": (["index", "image", "answer"], coco)}


def main():
    os.makedirs(OUT, exist_ok=True)
    names, rows = mmbench()
    with open(os.path.join(OUT, "MMBench_DEV_EN.tsv"), "w", encoding="utf8", newline="\n") as file:
        file.write("\n".join("\t".join(map(str, row)) for row in [names, *rows]) + "\n")
    pq.write_table(pa.Table.from_pylist(pope()), os.path.join(OUT, "pope.parquet"))
    for name, listed in layouts().items():
        pq.write_table(pa.Table.from_pylist(listed), os.path.join(OUT, f"{name}.parquet"))
    for name, (columns, lines) in tables().items():
        with open(os.path.join(OUT, f"{name}.tsv"), "w", encoding="utf8", newline="\n") as file:
            file.write("\n".join("\t".join(map(str, row)) for row in [columns, *lines]) + "\n")
    # VLMEvalKit's predictions: every column but the image, and the answer. One rotation of the last question is wrong.
    book = openpyxl.Workbook()
    kept = [n for n, name in enumerate(names) if name != "image"]
    book.active.append([names[n] for n in kept] + ["prediction"])
    for row in rows:
        wrong = row[0] == 2_000_002
        answer = "D" if wrong else f"{row[8]}. {row['_ABC'.index(row[8]) + 3]}"
        book.active.append([row[n] for n in kept] + [answer])
    book.save(os.path.join(OUT, "model_MMBench_DEV_EN.xlsx"))
    # lmms-eval's samples: a document without its image, and what the model said.
    with open(os.path.join(OUT, "samples_pope.jsonl"), "w", encoding="utf8", newline="\n") as file:
        for n, row in enumerate(pope()):
            doc = {key: value for key, value in row.items() if key != "image"}
            said = "Yes" if n % 2 == 0 else row["answer"]
            file.write(json.dumps({"doc_id": n, "doc": doc, "target": row["answer"], "filtered_resps": [said], "resps": [[said]]}) + "\n")


if __name__ == "__main__":
    main()
