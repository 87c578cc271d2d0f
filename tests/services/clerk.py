"""A file of functions that do as the rows say, and requests of them, for tests."""

from __future__ import annotations

import os
import select
from typing import Any

import numpy as np

PREPARE = '''
import os
import subprocess
import sys
import time

import numpy as np

import penstock as ps

print("a function may print")


@ps.function(takes={"amount": "FP64[*]", "country": "BYTES[*]"}, gives={"x": "FP32[*, 3]"})
def prepare(amount, country):
    if (country == "??").any():
        raise ps.PenstockError("nobody knows the country ??")
    amount[np.isnan(amount)] = -1  # its own copy
    return {"x": np.stack([amount, country == "NL", np.full(len(amount), len(amount))], axis=1).astype(np.float32)}


@ps.function(takes={"y": "FP32[*, 3]", "country": "BYTES[*]"}, gives={"total": "FP64[*]", "said": "BYTES[*]"})
def finish(y, country):
    total = y[:, :2].sum(axis=1, dtype=np.float64)
    return {"total": total, "said": np.array([f"{c} {t:g}" for c, t in zip(country, total)], object)}


@ps.function(takes={"do": "BYTES[*]"}, gives={"pid": "INT64[*]"})
def obey(do):
    """Does what the rows say."""
    for word in do:
        if word == "raise":
            raise ValueError("secret inner words")
        if word == "hang":
            time.sleep(60)
        if word == "spin":
            while True:
                pass
        if word == "die":
            os.kill(os.getpid(), 9)
        if word == "exit":
            os._exit(3)
        if word == "leave":
            sys.exit("farewell")
        if word == "hoard":
            np.ones(1 << 40)
        if word == "float":
            return {"pid": np.zeros(len(do))}
        if word == "short":
            return {"pid": np.zeros(len(do) + 1, np.int64)}
        if word == "deep":
            return {"pid": np.zeros((len(do), 1), np.int64)}
        if word == "list":
            return {"pid": [1] * len(do)}
        if word == "other":
            return {"other": np.zeros(len(do), np.int64)}
        if word == "none":
            return None
        if word == "bare":
            return np.zeros(len(do), np.int64)
    return {"pid": np.full(len(do), os.getpid())}


@ps.function(takes={"do": "BYTES[*]"}, gives={"said": "BYTES[*]"})
def say(do):
    """Says what cannot be said, or leaves it to another process."""
    if do[0] == "half":
        return {"said": np.array(["\\ud800"], object)}
    if do[0] == "refuse":
        raise ps.PenstockError("\\ud800")
    if do[0] == "delegate":
        with open(do[1], "w") as place:
            place.write(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)
    return {"said": do}


@ps.function(takes={"n": "INT64[1]"}, gives={"names": "BYTES[*]"})
def environment(n):
    return {"names": np.array(sorted(os.environ) + os.listdir("/proc/self/fd"), object)}
'''


def words(*said: str) -> dict[str, Any]:
    return {"do": np.array(said, object)}


def texts(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "BYTES", "data": list(values)}


def payments(*amounts: float | None, country: str = "NL", **more: Any) -> dict[str, Any]:
    amount = {"name": "amount", "shape": [len(amounts)], "datatype": "FP64", "data": list(amounts)}
    return {"inputs": [amount, texts("country", *[country] * len(amounts))], **more}


def ends(pid: int, within: float = 5.0) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within)[0])
    finally:
        os.close(watched)
