"""As much of Ray as `cli/ray/driver.py` uses: one node, whose tasks run in threads of this process.

STUB_RAY_ERROR   what joining the cluster fails with
STUB_RAY_FOLDER  the folder that tasks run in, on a node that does not see the project's
STUB_RAY_NODE    the resources of the node, as JSON
"""
import json
import os
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(4)


def init(**_):
    if "STUB_RAY_ERROR" in os.environ:
        raise RuntimeError(os.environ["STUB_RAY_ERROR"])


def put(value):
    return value


get = put


def nodes():
    return [{"Alive": True, "Resources": json.loads(os.environ.get("STUB_RAY_NODE", '{"CPU": 2.0, "memory": 4e9}'))}]


class Ref:
    def __init__(self, future):
        self.future = lambda: future


class Task:
    def __init__(self, work):
        self.work = work

    def options(self, **_):
        return self

    def remote(self, digest, blob, argv, stdin, folder):
        return Ref(pool.submit(self.work, digest, blob, argv, stdin, os.environ.get("STUB_RAY_FOLDER", folder)))


def remote(**_):
    return Task


def cancel(*_, **__):
    pass


def shutdown():
    pass
