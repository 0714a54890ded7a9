"""Trains the tokenizer of the quick start: byte-level BPE over the texts of the stage `shapes`.

    python data/shapes-model/make_tokenizer.py

Writes qwen3/tokenizer.json and qwen3/tokenizer_config.json beside itself, the same bytes each time. Needs tokenizers 0.23.
Every English word of the texts becomes one token, with and without a space before it, and every Chinese character; whatever
else is typed falls back to bytes. The special tokens are Qwen3's, as far as they are used.
"""

import json
import pathlib
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = [HERE.parents[1] / "stages/src/shapes" / name for name in ("words.rs", "scene.rs")]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
# What Qwen3's template renders for a conversation without tools and reasoning, less the empty think block.
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def words():
    """English words and Chinese characters in the string literals of the stage's texts, in a fixed order."""
    literals = [text for source in SOURCES for text in re.findall(r'"([^"\n]*)"', source.read_text("utf-8"))]
    texts = [re.sub(r"\{[^}]*\}", " ", text) for text in literals] + ["system user assistant"]
    found = {word for text in texts for word in re.findall(r"[A-Za-z]+|[^\x00-\x7f]", text)}
    plurals = {word + "s" for word in ("circle", "square", "triangle")} | {"crosses"}
    return sorted(found | plurals)


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for word in words() for text in (word, " " + word)], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def main():
    tokenizer = train()
    for word in words():
        for text in (word, " " + word) if word.isascii() else (word,):
            assert len(tokenizer.encode(text).ids) == 1, text
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token, "lstrip": False, "normalized": False,
                "rstrip": False, "single_word": False, "special": True,
            }
            for token in SPECIAL
        },
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    folder = HERE / "qwen3"
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, "utf-8")
    print(tokenizer.get_vocab_size(), "tokens")


if __name__ == "__main__":
    main()
