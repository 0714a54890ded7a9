"""`llavm run --on ray` on a cluster of three raylets on this machine, held to a local run, byte by byte.

    python tests/ray/check_ray.py --llavm target/release/llavm

One raylet is killed with SIGKILL while it works, then the driver, then the run is started again. Also what each mistake is told
as: no ray, no cluster, another version, a node without the folder. Needs `pip install ray`. Takes about two minutes.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # 127.0.0.1 stays what it is
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "manifests/cc3m-sample.toml"
PATIENCE = 240


def project(folder, name):
    """A copy of the sample in small partitions."""
    home = folder / name
    for path in ["data/cc3m", "data/qwen3-tokenizer"]:
        shutil.copytree(ROOT / path, home / path)
    (home / "manifests").mkdir()
    text = (ROOT / MANIFEST).read_text()
    assert text.count("partition_rows = 64") == 1
    (home / MANIFEST).write_text(text.replace("partition_rows = 64", "partition_rows = 4"))
    return home


def results(home):
    store = home / ".llavm"
    files = [path for top in ("tables", "jobs") for path in (store / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def llavm(program, home, *arguments, **environment):
    return subprocess.run([program, *arguments], cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, env={**os.environ, "LLAVM_RAY_PYTHON": sys.executable, **environment})


def summary(home, name="summary.json"):
    return {stage["name"]: stage for stage in json.loads((home / name).read_text())["stages"]}


def wait_for(what, so):
    end = time.monotonic() + PATIENCE
    while not (value := so()):
        assert time.monotonic() < end, f"waited for {what} in vain"
        time.sleep(0.02)
    return value


def driver_of(pid):
    """The Python that a run has started."""
    pids = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return next((child for child in pids if b"driver" in Path(f"/proc/{child}/cmdline").read_bytes()), None)


def records(home):
    return len(list((home / ".llavm" / "tables").rglob("*.json")))


def same_bytes_though_killed(program, folder, cluster, victim):
    local = project(folder, "local")
    run = llavm(program, local, "run", MANIFEST)
    assert run.returncode == 0, run.stderr
    home = project(folder, "ray")
    where = f"ray:{cluster.address}"
    environment = {**os.environ, "LLAVM_RAY_PYTHON": sys.executable}
    killed = subprocess.Popen([program, "run", MANIFEST, "--on", where], cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=environment)
    wait_for("a first result", lambda: killed.poll() is not None or records(home) > 0)
    os.kill(victim.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    before = records(home)
    wait_for("results without the raylet", lambda: killed.poll() is not None or records(home) > before + 20)
    assert killed.poll() is None, f"the run was over before its driver was killed:\n{killed.stdout.read()}"
    os.kill(wait_for("the driver", lambda: driver_of(killed.pid)), signal.SIGKILL)
    output = killed.communicate(timeout=PATIENCE)[0]
    assert killed.returncode == 1 and "the Ray driver is gone" in output, output
    again = llavm(program, home, "run", MANIFEST, "--on", where, "--summary", "summary.json")
    assert again.returncode == 0, again.stderr
    assert any(stage["ran"] for stage in summary(home).values()), "the driver was killed too late to prove anything"
    ours, theirs = results(home), results(local)
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    differ = [name for name in ours if ours[name] != theirs[name]]
    assert not differ, differ
    idle = llavm(program, home, "run", MANIFEST, "--on", where)
    assert idle.returncode == 0 and "nothing to do" in idle.stdout, idle.stdout + idle.stderr
    print(f"same bytes in {len(ours)} files, one raylet and the driver killed")


def counts_are_those_of_a_local_run(program, folder, cluster):
    home = project(folder, "undisturbed")
    run = llavm(program, home, "run", MANIFEST, "--on", f"ray:{cluster.address}", "--summary", "summary.json")
    assert run.returncode == 0, run.stderr
    run = llavm(program, folder / "local", "run", MANIFEST, "--summary", "summary.json")
    assert run.returncode == 0, run.stderr
    local = summary(folder / "local")
    for name, stage in summary(home).items():
        assert stage["rows"] == local[name]["rows"] and stage["rejected"] == local[name]["rejected"], (stage, local[name])
        assert stage["reused"] == 0, stage
    print("rows and rejects as in a local run")


def mistakes_are_told(program, folder, cluster):
    home = project(folder, "mistakes")
    stub = folder / "stub"
    stub.mkdir()
    (stub / "ray.py").write_text("def init(**_):\n    raise RuntimeError('Version mismatch: the cluster has Ray 1.0')\n")
    (folder / "none").mkdir()
    (folder / "none" / "ray.py").write_text("raise ImportError('no ray here')\n")
    cases = [
        ("ray", {"PYTHONPATH": str(folder / "none")}, "cannot import ray"),
        ("ray", {"LLAVM_RAY_PYTHON": "/no/such/python"}, "/no/such/python"),
        ("ray:127.0.0.1:1", {}, "no Ray cluster answers at 127.0.0.1:1"),
        ("ray", {"PYTHONPATH": str(stub)}, "Version mismatch"),
        ("spark", {}, "write ray, or ray:ADDRESS"),
    ]
    for where, environment, text in cases:
        run = llavm(program, home, "run", MANIFEST, "--on", where, **environment)
        assert run.returncode in (1, 2) and text in run.stderr, (where, run.returncode, run.stderr)
    driver = [sys.executable, "-c", (ROOT / "cli/ray/driver.py").read_text(), cluster.address, program, "/no/such/folder"]
    ask = json.dumps({"id": 1, "argv": ["work"], "stdin": "", "cpus": 1, "memory": 0, "gpus": 0}) + "\n"
    with subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        process.stdin.write(ask)
        process.stdin.flush()
        assert "nodes" in json.loads(process.stdout.readline())
        reply = json.loads(process.stdout.readline())
        process.stdin.close()
    assert reply["rc"] is None and "there is no folder /no/such/folder on this node" in reply["stderr"], reply
    print("mistakes are told by name")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llavm", default="target/release/llavm")
    program = str(Path(parser.parse_args().llavm).resolve())
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 256 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**node) for _ in range(2)]
        cluster.wait_for_nodes()
        with tempfile.TemporaryDirectory() as folder:
            same_bytes_though_killed(program, Path(folder), cluster, nodes[0])
            counts_are_those_of_a_local_run(program, Path(folder), cluster)
            mistakes_are_told(program, Path(folder), cluster)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
