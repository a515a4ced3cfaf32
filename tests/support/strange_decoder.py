"""Decoders that misbehave, for `Decoders(work="support.strange_decoder:...")`. Run in processes of their own."""

import ctypes
import json
import os
import pickle
import resource
import signal
import sys
from typing import Any

import numpy as np

from domain.manifest import Code
from engine.data.limits import Undecodable

_answered = 0


def obey(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], Any]:
    """Does what the item says, as a picture of one pixel that holds how many items came before."""
    global _answered
    word, *rest = data.decode().split(" ", 1)
    match word:
        case "loop":
            while True:
                pass
        case "hang":
            # A FIFO is no file: whoever waits at its other end learns that the item is under way.
            with open(rest[0], "wb") as out:
                out.write(b"here")
            while True:
                signal.pause()
        case "crash":
            ctypes.string_at(0)
        case "crash-unless-first" if _answered:
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave":
            os._exit(3)
        case "grow":
            bytearray(int(rest[0]))
        case "grow-unless-first" if _answered:
            raise MemoryError
        case "fail":
            raise KeyError("a fault\0 of ours")
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        case "tell":
            raise Undecodable(Code.TOO_LARGE, json.dumps(_told(rest[0])))
    _answered += 1
    return {"dtype": "|u1", "shape": [1, 1, 3]}, np.array([_answered % 256, 0, 0], np.uint8)


def _told(path: str) -> dict[str, Any]:
    """What this process can and knows."""
    try:
        with open(path, "wb", buffering=0) as out:
            written = out.write(b"mine")
    except OSError as error:
        written = -(error.errno or 0)
    names = ("CORE", "FSIZE", "NOFILE")
    return {
        "torch": "torch" in sys.modules,
        "environment": sorted(os.environ),
        "written": written,
        "limits": [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in names],
        "nice": os.nice(0),
    }


def pickled(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], Any]:
    """An answer that would make a file if anybody unpickled it."""

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (data.decode(),)

    trap = pickle.dumps(Trap())
    return {"dtype": "|O", "shape": [1, 1, 3]}, trap
