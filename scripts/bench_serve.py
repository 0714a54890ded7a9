"""Tokens a second and time to the first token of an OpenAI-compatible server, for 1, 4 and 16 clients at once.

    python scripts/bench_serve.py http://127.0.0.1:8080/v1 [--model NAME] [--tokens 64] [--seconds 20] [--image FILE]

Needs nothing but Python. Each client asks one question after the other, streamed; of the same prompt no two begin alike, so that
no cache answers for the model. Works against any server that streams chat completions.
"""

import argparse
import base64
import http.client
import json
import statistics
import threading
import time
import urllib.parse


def ask(base, model, question, tokens, uri) -> tuple[float, float, int]:
    """Seconds to the first token and to the last, and tokens."""
    content = [{"type": "text", "text": question}]
    if uri:
        content.append({"type": "image_url", "image_url": {"url": uri}})
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 1.0, "seed": 1,
            "stream": True, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", base.path.rstrip("/") + "/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    first, count = None, 0
    for line in response:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        chunk = json.loads(line[6:])
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content") and first is None:
            first = time.perf_counter() - start
        if chunk.get("usage"):
            count = chunk["usage"]["completion_tokens"]
    connection.close()
    end = time.perf_counter() - start
    return first if first is not None else end, end, count


def run(clients, base, arguments, uri) -> dict:
    results, lock, end = [], threading.Lock(), time.perf_counter() + arguments.seconds

    def client(number):
        asked = 0
        while time.perf_counter() < end:
            asked += 1
            result = ask(base, arguments.model, f"{number * 1000 + asked}: tell me about the image, please.", arguments.tokens, uri)
            with lock:
                results.append(result)

    start = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    seconds = time.perf_counter() - start
    firsts = sorted(first for first, _, _ in results)
    return {"clients": clients, "requests": len(results), "tokens_per_second": round(sum(count for _, _, count in results) / seconds, 1),
            "first_token_median_s": round(statistics.median(firsts), 3), "first_token_p95_s": round(firsts[int(len(firsts) * 0.95)], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--image")
    arguments = parser.parse_args()
    base = urllib.parse.urlsplit(arguments.base)
    if not arguments.model:
        connection = http.client.HTTPConnection(base.hostname, base.port)
        connection.request("GET", base.path.rstrip("/") + "/models")
        arguments.model = json.load(connection.getresponse())["data"][0]["id"]
    uri = None
    if arguments.image:
        with open(arguments.image, "rb") as file:
            kind = "png" if arguments.image.endswith("png") else "jpeg"
            uri = f"data:image/{kind};base64," + base64.b64encode(file.read()).decode()
    ask(base, arguments.model, "warm up", 2, uri)
    for clients in (1, 4, 16):
        print(json.dumps(run(clients, base, arguments, uri)), flush=True)


if __name__ == "__main__":
    main()
