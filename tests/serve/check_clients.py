"""Asks a running `llavm serve` with the clients that people use: openai, LangChain's ChatOpenAI, LiteLLM, curl.

    python tests/serve/check_clients.py MODEL --llavm target/release/llavm

Starts the server itself, with a key. All clients must get the answer that `llavm generate` gives, whole and streamed.
Needs `pip install openai langchain-openai litellm pillow`; a client that is not there fails the check.
"""

import argparse
import base64
import concurrent.futures
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

KEY = "sk-check"
QUESTION = "What is this? 这是什么？"
MOST = 16


def image() -> bytes:
    """A red square on blue, as PNG."""
    from PIL import Image, ImageDraw

    drawn = Image.new("RGB", (64, 48), "blue")
    ImageDraw.Draw(drawn).rectangle((16, 8, 40, 32), fill="red")
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


def generated(llavm: str, model: str, png: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        path.write_bytes(png)
        command = [llavm, "generate", model, "--image", str(path), "--prompt", QUESTION, "--max-new-tokens", str(MOST), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["text"]


def parts(uri: str) -> list:
    return [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": uri}}]


def ask_openai(base: str, model: str, uri: str) -> dict:
    import openai

    client = openai.OpenAI(base_url=base, api_key=KEY, max_retries=0)
    assert [each.id for each in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model
    asked = {"model": model, "messages": [{"role": "user", "content": parts(uri)}], "max_completion_tokens": MOST}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason in ("stop", "length") and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens and not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    refuse(openai.NotFoundError, lambda: client.chat.completions.create(**{**asked, "model": "other"}))
    refuse(openai.BadRequestError, lambda: client.chat.completions.create(**asked, n=2))
    wrong = openai.OpenAI(base_url=base, api_key="sk-wrong", max_retries=0)
    refuse(openai.AuthenticationError, lambda: wrong.models.list())
    with client.chat.completions.create(**{**asked, "max_completion_tokens": 400}, stream=True) as stopped:
        next(iter(stopped))  # and hang up
    plain = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=4, temperature=0.7, seed=1)
    assert plain.choices[0].message.role == "assistant"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = set(pool.map(lambda _: client.chat.completions.create(**asked).choices[0].message.content, range(16)))
    assert together == {whole.choices[0].message.content}, "16 at once get what one gets"
    return {"openai": whole.choices[0].message.content, "openai, streamed": streamed}


def refuse(error, call) -> None:
    try:
        call()
    except error as refused:
        assert refused.body["message"] and refused.code, refused
        return
    raise AssertionError(f"{error.__name__} was expected")


def ask_langchain(base: str, model: str, uri: str) -> dict:
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=base, api_key=KEY, model=model, max_tokens=MOST, temperature=0, max_retries=0)
    message = [HumanMessage(content=parts(uri))]
    whole = chat.invoke(message)
    assert whole.usage_metadata["total_tokens"] > 0
    return {"langchain": whole.content, "langchain, streamed": "".join(chunk.content for chunk in chat.stream(message))}


def ask_litellm(base: str, model: str, uri: str) -> dict:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would fetch prices
    import litellm

    litellm.suppress_debug_info = True
    asked = {"model": f"openai/{model}", "api_base": base, "api_key": KEY, "max_tokens": MOST, "messages": [{"role": "user", "content": parts(uri)}]}
    whole = litellm.completion(**asked).choices[0].message.content
    chunks = litellm.completion(**asked, stream=True)
    return {"litellm": whole, "litellm, streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks)}


def ask_curl(base: str, model: str, uri: str) -> dict:
    asked = {"model": model, "max_tokens": MOST, "messages": [{"role": "user", "content": parts(uri)}]}

    def curl(asked: dict) -> str:
        command = ["curl", "-sSN", f"{base}/chat/completions", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}", "--data-binary", "@-"]
        return subprocess.run(command, input=json.dumps(asked), check=True, capture_output=True, text=True).stdout

    whole = json.loads(curl(asked))["choices"][0]["message"]["content"]
    lines = [line.removeprefix("data: ") for line in curl({**asked, "stream": True}).splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = (json.loads(line)["choices"][0]["delta"] for line in lines[:-1])
    return {"curl": whole, "curl, streamed": "".join(delta.get("content", "") for delta in deltas)}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("--llavm", default="llavm")
    arguments = arguments.parse_args()
    png = image()
    expected = generated(arguments.llavm, arguments.model, png)
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    command = [arguments.llavm, "serve", arguments.model, "--port", "0", "--name", "org/model", "--api-key", KEY]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        base = server.stdout.readline().split("API: ")[1].strip(" )\n")
        answers = {}
        for ask in (ask_openai, ask_langchain, ask_litellm, ask_curl):
            answers |= ask(base, "org/model", uri)
        for client, answer in answers.items():
            print(f"{'same' if answer == expected else 'OTHER'}  {client}: {answer!r}")
        return 0 if all(answer == expected for answer in answers.values()) else 1
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0, "it stops with status 0"


if __name__ == "__main__":
    sys.exit(main())
