"""Runs tasks of `llavm run --on ray` on a Ray cluster; needs the standard library and ray.

Arguments: the address of the cluster, the llavm program, the folder to work in.
Standard output, a line of JSON each: {"nodes": [{"cpus", "gpus", "memory"}]} once, then for every line of standard input
    {"id", "argv", "stdin", "cpus", "memory", "gpus"}  ->  {"id", "rc", "node", "seconds", "tail", "stderr"}
`argv` are arguments of llavm, which travels to each node once, by its digest. "rc" is null where Ray gave a task up. The end of
standard input ends the driver, and with it what is still running.
"""
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading

replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else is printed is no reply
lock = threading.Lock()


def reply(**message):
    with lock:
        replies.write(json.dumps(message) + "\n")
        replies.flush()


def give_up(error, help):
    reply(error=str(error).strip(), help=help)
    os._exit(1)


try:
    import ray
except ImportError as error:
    give_up(f"{sys.executable} cannot import ray: {error}",
            "Install it (pip install ray, the version of the cluster), or name another Python in LLAVM_RAY_PYTHON.")

address, program, folder = sys.argv[1:]
with open(program, "rb") as file:
    binary = file.read()
digest = hashlib.sha256(binary).hexdigest()


class Killed(Exception):
    """The task's process was killed; Ray tries again."""


def place(digest, blob):
    """The path of the program on this node; fetched when it is not there."""
    import tempfile
    home = os.path.join(tempfile.gettempdir(), f"llavm-{os.getuid()}")
    os.makedirs(home, mode=0o700, exist_ok=True)
    if os.stat(home).st_uid != os.getuid():
        raise RuntimeError(f"{home} belongs to somebody else")
    path = os.path.join(home, digest)
    if not os.path.exists(path):
        content = ray.get(blob[0])
        if hashlib.sha256(content).hexdigest() != digest:
            raise RuntimeError("the program arrived damaged")
        handle, part = tempfile.mkstemp(dir=home)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o700)
        os.replace(part, path)
    return path


def work(digest, blob, argv, stdin, folder):
    """One task, on a node: exit status, node, seconds, standard output, end of standard error."""
    import ctypes, signal, time
    node, start = socket.gethostname(), time.monotonic()
    if not os.path.isdir(folder):
        return None, node, 0, "", f"there is no folder {folder} on this node"

    def end_with_parent():  # PR_SET_PDEATHSIG: a lost worker's process makes nothing that is made elsewhere again
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    process = subprocess.Popen([place(digest, blob), *argv], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, preexec_fn=end_with_parent)
    out, err = process.communicate(stdin.encode())
    if process.returncode < 0:
        raise Killed(f"on node {node} the process was killed by signal {-process.returncode}; of 9, out of memory is the usual cause")
    seconds = time.monotonic() - start
    return process.returncode, node, seconds, out.decode(errors="replace"), err[-4000:].decode(errors="replace")


PATIENCE = 90  # seconds: Ray itself tries to connect for many minutes
NO_CLUSTER = "Start a cluster (`ray start --head`), or name its address: --on ray:HOST:PORT."
where = address or os.environ.get("RAY_ADDRESS") or "this machine"


def connect():
    if address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    watchdog = threading.Timer(PATIENCE, give_up, (f"the Ray cluster at {where} did not answer for {PATIENCE} s", NO_CLUSTER))
    watchdog.daemon = True
    watchdog.start()
    ray.init(address=address or "auto", namespace="llavm", log_to_driver=False, logging_level="ERROR")
    watchdog.cancel()


try:
    connect()
except (ConnectionError, OSError, ValueError) as error:
    give_up(f"no Ray cluster answers at {where}: {error}", NO_CLUSTER)
except Exception as error:
    versions = "ersion mismatch" in str(error)
    give_up(f"Ray: {error}", "Use the Python and the ray of the cluster; LLAVM_RAY_PYTHON names them." if versions else NO_CLUSTER)

blob = [ray.put(binary)]  # in a list: a task that has the program does not fetch it
del binary
task = ray.remote(max_retries=3, retry_exceptions=[Killed])(work)
alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
reply(nodes=[{"cpus": int(node.get("CPU", 0)), "gpus": int(node.get("GPU", 0)), "memory": int(node.get("memory", 0))} for node in alive])
running = {}


def finish(id, future):
    running.pop(id, None)
    try:
        rc, node, seconds, tail, stderr = future.result()
        reply(id=id, rc=rc, node=node, seconds=seconds, tail=tail, stderr=stderr)
    except Exception as error:  # ray.exceptions of all kinds: the node is gone, out of memory
        cause = getattr(error, "cause", None) or error
        reply(id=id, rc=None, node="", seconds=0, tail="", stderr=str(cause).strip()[-4000:])


for line in sys.stdin:
    asked = json.loads(line)
    options = {"num_cpus": asked["cpus"], "scheduling_strategy": "SPREAD", "name": " ".join(["llavm", *asked["argv"][:2]])}
    options.update({key: asked[name] for key, name in (("memory", "memory"), ("num_gpus", "gpus")) if asked.get(name)})
    ref = task.options(**options).remote(digest, blob, asked["argv"], asked["stdin"], folder)
    running[asked["id"]] = ref
    ref.future().add_done_callback(lambda future, id=asked["id"]: finish(id, future))
for ref in list(running.values()):
    ray.cancel(ref, force=True)
ray.shutdown()
