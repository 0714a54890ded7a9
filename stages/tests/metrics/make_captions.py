"""Makes captions.json: what pycocoevalcap (Java's PTB tokenizer, Bleu, Rouge, Cider) and jieba say of some captions.

    pip install pycocoevalcap==1.2 jieba==0.42.1 pyarrow     (and a Java runtime)
    python make_captions.py

English captions come from the sample data (data/cc3m, data/instruct) with seeded damage for candidates, beside
hand-written ones; Chinese ones are written here. Chinese words are made by AI Challenger's rule: strip, remove the
full stop, jieba.cut, join by spaces.
"""

import glob
import json
import os
import random

import jieba
import pyarrow.parquet as pq
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "../../../data")

WRITTEN = [
    ("a small red circle in the top-left corner.", ["There is a small red circle in the top left corner."]),
    ("A man riding a wave on top of a surfboard.", [
        "A man riding a wave on a surfboard.", "The surfer's riding a big wave!",
        "A person on a surf board rides on the wave.", "Someone is surfing, isn't he?",
        "A surfer in a black-and-white suit rides the waves (alone)."]),
    ("Two dogs play in the park; one's brown.", ["2 dogs are playing at the park", "Dogs play in a park. They don't stop."]),
    ("", ["nothing to see here"]),
    ("Yes", ["Yes, there are 3,000 people at 10:30 a.m."]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("It costs $5.99 -- 50% off... U.S. and U.K. citizens only", ["It's $5.99, 50 % off for U.S. citizens."]),
    ("red", ["red"]),
    ("a blue square", ["a blue square"]),
]
PROBES = [
    "Don't it's they're I've we'll he'd can't won't cannot gonna wanna",
    "A black-and-white cat (on a mat) [sic] {x}", "wait... what -- no - yes — hmm – ok…",
    "“curly” ‘single’ it’s", "U.S. and U.K. e.g. Mr. Smith vs. Dr. Who, etc.", "1,2,3 and 1, 2, 3", "no. 5 is no.",
    "end of sentence. Another one? Yes!! no?!",
    "zero\u200bwidth re\u200dd soft\u00adhyphen \ufeffmark", "a 😀 smile, I ❤️ NY ☕ café naïve", "£5 or 5€, 3¢; ½ cup ⅓",
    "x²+y³ ≤ 10° ±1 №5 ™", "「quoted」 、 。", "हिन्दी ภาษาไทย Ελληνικά русский", "non\u2011breaking e\u0301 n\u0303 \u00a0space",
    "•bullet ►item ✓done ©2020", "rock 'n' roll in the '80s, 'tis fun", "AT&T R&B rock & roll",
    "Hello,world foo:bar foo;bar", "<image> <b>bold</b>", "me@x.com http://a.b/c?d=1 #tag @you #1", "I'm at 5 p.m.",
]
CHINESE = [
    ("图中有一个红色的圆形。", ["图片中有一个小的红色圆形。"]),
    ("左上角是一个蓝色的正方形，背景是白色的。", ["一个蓝色正方形在白色背景的左上角。", "白色背景上有一个蓝色的正方形。"]),
    ("一个穿着红色衣服的女孩在公园里骑自行车", ["公园的小路上有一个穿着红衣服的女孩在骑自行车", "一个女孩骑着自行车"]),
    ("不是", ["不是，是三角形。"]),
    ("绿色", ["绿色"]),
    ("房间里有一张桌子和两把椅子，墙上挂着一幅画。", ["屋子里的桌子旁边摆着两把椅子，墙上有画。"]),
]


# Five captions of each image, as COCO and COCO-CN have them, and what a model might say.
FIVE = [
    ("A man in a red shirt rides a horse on the beach.", [
        "A man riding a brown horse along the beach.", "A person in red on horseback near the ocean.",
        "The rider's horse is walking on wet sand.", "a man wearing a red shirt riding a horse", "Someone rides a horse by the sea."]),
    ("two cats sleeping on a couch", [
        "Two cats are sleeping on a pink couch.", "A pair of cats lying on a sofa next to remote controls.",
        "Cats asleep on the couch, stretched out.", "Two tabby cats nap on a red blanket.", "Two cats laying down on a couch."]),
    ("a plate of food with rice and vegetables", [
        "A plate with rice, broccoli and meat.", "A white plate topped with rice & vegetables.", "Dinner: rice and steamed broccoli.",
        "There's a plate of food on the table", "A meal of rice, meat, and green vegetables is served."]),
    ("a train", [
        "A yellow-and-blue train pulls into the station.", "A commuter train at a platform.", "The train is stopping at the station.",
        "People wait for the train to arrive.", "A train on the tracks next to a platform"]),
    ("A stop sign is on the corner of the street with a stop sign", [
        "A red stop sign at a street corner.", "The stop sign has graffiti on it.", "A stop sign stands in front of a building.",
        "a street corner with a stop sign and a car", "A STOP sign by the road."]),
    ("three people standing in the snow with skis", [
        "Three skiers pose for a photo in the snow.", "A group of three people on skis.", "Skiers standing on a snowy slope.",
        "Three people with ski gear on a mountain", "People are standing on top of a snow covered hill."]),
]
FIVE_CHINESE = [
    ("一个男人在海滩上骑马。", ["一个穿红衣服的男人在海边骑马。", "一名男子骑着棕色的马走在沙滩上", "有人在海边骑马", "沙滩上有一个骑马的人。", "海边的沙滩上，一个男人骑着一匹马。"]),
    ("两只猫在沙发上睡觉", ["两只猫躺在粉色的沙发上睡觉。", "沙发上有两只正在睡觉的猫", "两只花猫睡在红色的毯子上。", "沙发上躺着两只猫，旁边是遥控器。", "两只小猫在沙发上休息"]),
    ("一盘米饭和蔬菜", ["一个白色的盘子里装着米饭和西兰花。", "盘子里有米饭、蔬菜和肉", "桌子上放着一盘食物。", "一盘米饭配蔬菜", "晚餐是米饭和绿色的蔬菜。"]),
    ("火车", ["一列黄蓝相间的火车驶进车站。", "站台旁停着一列火车", "人们在等火车。", "一列火车停在铁轨上", "火车正在进站。"]),
    ("三个人拿着滑雪板站在雪地里。", ["三个滑雪的人在雪地里合影。", "三个人站在雪山上", "一群滑雪者站在山坡上。", "雪地上有三个带着滑雪板的人", "几个人在雪山上滑雪。"]),
]


def damaged(text, rng):
    """Some words dropped, doubled or moved."""
    words = text.split()
    for _ in range(max(1, len(words) // 5)):
        at = rng.randrange(len(words))
        rng.choice([lambda: words.insert(at, words[at]), lambda: words.insert(0, words.pop(at)),
                    lambda: len(words) > 1 and words.pop(at)])()
    return " ".join(words)


def samples():
    """The assistant texts of the sample data."""
    for path in sorted(glob.glob(os.path.join(DATA, "cc3m/*.parquet"))):
        yield from pq.read_table(path, columns=["output"]).column("output").to_pylist()
    for path in sorted(glob.glob(os.path.join(DATA, "instruct/*.parquet"))):
        for turns in pq.read_table(path, columns=["completion"]).column("completion").to_pylist():
            yield turns[-1]["content"]


def scores(rows):
    """rows: [(candidate, references)] in words joined by spaces."""
    gts = {n: references for n, (_, references) in enumerate(rows)}
    res = {n: [candidate] for n, (candidate, _) in enumerate(rows)}
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, rouges = Rouge().compute_score(gts, res)
    cider, ciders = Cider().compute_score(gts, res)
    return {"bleu": bleu, "rouge_l": float(rouge), "rouge_l_rows": [float(x) for x in rouges],
            "cider_d": float(cider), "cider_d_rows": [float(x) for x in ciders]}


def ptb(texts):
    found = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    return [found[n][0] for n in range(len(texts))]


def main():
    rng = random.Random(7)
    texts = sorted({" ".join(text.split()) for text in samples() if text and text.isascii()})
    chosen = rng.sample(texts, min(60, len(texts)))
    english = WRITTEN + [(damaged(text, rng), [text]) for text in chosen]
    flat = PROBES + [text for candidate, references in english + FIVE for text in [candidate, *references]]
    words = dict(zip(flat, ptb(flat)))
    english_words = [(words[c], [words[r] for r in rs]) for c, rs in english]
    cut = lambda text: " ".join(" ".join(jieba.cut(text.strip().replace("。", ""))).split())
    chinese_words = [(cut(c), [cut(r) for r in rs]) for c, rs in CHINESE]
    characters = lambda text: " ".join(letter for letter in text if letter.isalnum())
    chinese_characters = [(characters(c), [characters(r) for r in rs]) for c, rs in CHINESE]
    five_words = [(words[c], [words[r] for r in rs]) for c, rs in FIVE]
    five_chinese_words = [(cut(c), [cut(r) for r in rs]) for c, rs in FIVE_CHINESE]
    pack = lambda texts, words: [{"candidate": c, "references": rs, "candidate_words": cw, "reference_words": rw}
                                 for (c, rs), (cw, rw) in zip(texts, words)]
    result = {
        "probes": [{"text": text, "words": words[text]} for text in PROBES],
        "english": {"rows": pack(english, english_words), **scores(english_words)},
        "chinese": {"rows": pack(CHINESE, chinese_words), **scores(chinese_words)},
        "characters": {"rows": pack(CHINESE, chinese_characters), **scores(chinese_characters)},
        "five_english": {"rows": pack(FIVE, five_words), **scores(five_words)},
        "five_chinese": {"rows": pack(FIVE_CHINESE, five_chinese_words), **scores(five_chinese_words)},
        "one_row": {"rows": pack(english[:1], english_words[:1]), **scores(english_words[:1])},
    }
    with open(os.path.join(HERE, "captions.json"), "w") as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
