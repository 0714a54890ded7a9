"""What a model folder says of itself, read by Transformers: tokenizer, chat template, image preprocessing, processor, end tokens.

    python tests/processor/check_with_transformers.py MODEL [--llavm PATH]

Every file is read by the class that owns it. Prompts rendered by AutoProcessor, with the image where the model was trained to
have it, must have the ids that `llavm generate` asks with: their number is compared for several questions, in English and Chinese,
and pixels with those of the Pillow image processor are compared elsewhere (scripts/check_images.py).
"""

import argparse
import json
import subprocess
import tomllib
from pathlib import Path

from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, GenerationConfig

QUESTIONS = ["What is this?", "Which colour has it?\nAnswer in a word.", "这是什么？", "Is it red? 是红色吗？"]


def asked(llavm: str, model: Path, image: Path, question: str) -> int:
    command = [llavm, "generate", str(model), "--image", str(image), "--prompt", question, "--json", "--max-new-tokens", "1"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer)["prompt_tokens"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--llavm", default="llavm")
    arguments = parser.parse_args()
    model = arguments.model
    about = tomllib.loads((model / "model.toml").read_text())
    settings = about.get("processor", {})
    tokenizer = AutoTokenizer.from_pretrained(model)
    processor = AutoProcessor.from_pretrained(model, use_fast=False)
    images = AutoImageProcessor.from_pretrained(model, use_fast=False)
    assert type(processor).__name__ == "LlavaProcessor", type(processor)
    assert tokenizer.chat_template == (model / "chat_template.jinja").read_text()
    assert processor.chat_template == tokenizer.chat_template
    ends = GenerationConfig.from_pretrained(model).eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    assert ends[0] == tokenizer.eos_token_id, (ends, tokenizer.eos_token_id)

    size = json.loads((model / "preprocessor_config.json").read_text())["crop_size"]["height"]
    picture = Image.linear_gradient("L").resize((3 * size, 2 * size)).convert("RGB")
    file = model.parent / "gradient.png"
    picture.save(file)
    assert images(picture, return_tensors="np")["pixel_values"].shape == (1, 3, size, size)

    token, separator = processor.image_token, settings.get("separator", "\n")
    for question in QUESTIONS:
        before = settings.get("placement", "append") == "prepend"
        text = token + separator + question if before else question + separator + token
        messages = [{"role": "user", "content": text}]
        if about.get("system"):
            messages.insert(0, {"role": "system", "content": about["system"]})
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, enable_thinking=settings.get("enable_thinking", False)
        )
        ids = processor(images=picture, text=prompt, return_tensors="np")["input_ids"][0]
        assert (ids == tokenizer.convert_tokens_to_ids(token)).sum() == about["image_pad_num"]
        assert len(ids) == asked(arguments.llavm, model, file, question), question
    file.unlink()
    print(f"{model}: tokenizer, template, image preprocessing, processor and end tokens {ends} as Transformers reads them")


if __name__ == "__main__":
    main()
