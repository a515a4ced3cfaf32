"""A decoder: `python -m engine.data.decoders.process FD PARENT MEMORY MODULE:FUNCTION`. One request after the other.

Little is imported before it is tied to its parent: what takes long comes after.
"""

import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import lifeline
from engine.data.decoders.framing import Gone, Line

#: What was asked and the bytes -> what to say, and the bytes behind it.
Answer = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], Any]]

_MEGABYTE = 2**20
#: Below whoever trains or answers: a decoder may wait, they should not.
_NICE = 1
#: Modules and libraries that a kind of media needs are opened one by one when it first comes.
_OPEN_FILES = 32


def main(fd: int, parent: int, memory: int, name: str) -> None:
    lifeline.die_with_parent(parent)
    # Who asks also decides when to end: neither Ctrl-C nor a signal to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    module, function = name.split(":")
    answer: Answer = getattr(import_module(module), function)
    _confine()
    line = Line(socket.socket(fileno=fd))
    line.send({"ready": True})
    with suppress(Gone):
        _serve(line, answer, memory)


def _confine() -> None:
    """No core dumps, no bytes into files, few open files; who runs out of memory first is a decoder."""
    os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(kind, (most, most))


def _serve(line: Line, answer: Answer, memory: int) -> None:
    from engine.data.limits import Undecodable

    most, allowed = _mapped() + memory, 0
    while True:
        request = line.header()
        size = request["bytes"]
        # The bytes themselves are there twice for a moment.
        if allowed != (allowed := most + 2 * (size // _MEGABYTE + 1) * _MEGABYTE):
            _allow(allowed)
        try:
            data = bytearray(size)
            line.into(data)
            said, body = answer(request, bytes(data))
        except Undecodable as refusal:
            if _lacks_memory(refusal):
                line.send({"failed": "memory"})
                return
            said, body = {"refused": str(refusal.code), "message": refusal.message[:1000]}, b""
        except MemoryError:
            # What a library held when it failed is not given back by all of them.
            line.send({"failed": "memory"})
            return
        except Exception as error:
            # For the job's log, unless that is a file: a fault of ours, or of a library's, that costs one cell its value.
            with suppress(OSError):
                traceback.print_exc()
            said, body = {"failed": f"{type(error).__name__}: {error}"[:500]}, b""
        line.send(said, body)
        del said, body


def _lacks_memory(refusal: Exception) -> bool:
    return isinstance(refusal.__cause__, MemoryError)


def _mapped() -> int:
    """Address space in bytes: all that can be limited, and more than memory by what is mapped and not touched."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def _allow(most: int) -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    os._exit(0)
