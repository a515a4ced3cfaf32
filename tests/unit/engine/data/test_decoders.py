"""Decoding in other processes gives what decoding here gives, and whatever an item does costs that item alone."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from domain.errors import EngineError
from domain.manifest import ColumnType
from engine.data.decoders import media
from engine.data.decoders.framing import Gone, Line, Nonsense, Overdue
from engine.data.decoders.pool import Decoders
from engine.data.limits import Undecodable
from engine.data.probe import probe_media
from engine.data.values import Reading, read_value
from support.datasets import png, wav
from support.stack import ROOT
from support.zoo import Film, filmed

PICTURE = Reading(ColumnType.IMAGE)
SOUND = Reading(ColumnType.AUDIO, sampling_rate=16_000, max_seconds=2)
FILM = Reading(ColumnType.VIDEO, num_frames=4, frame_size=32)
STRANGE = "support.strange_decoder:"


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(2) as opened:
        yield opened


@pytest.fixture(scope="module")
def strange() -> Iterator[Decoders]:
    with Decoders(1, work=STRANGE + "obey") as opened:
        yield opened


def noise(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def refused(decoders: Decoders, data: bytes, reading: Reading = PICTURE) -> tuple[str, str]:
    with pytest.raises(Undecodable) as caught:
        decoders.read(data, reading)
    return str(caught.value.code), caught.value.message


def before(decoders: Decoders) -> int:
    """How many items its process has had."""
    return int(decoders.read(b"count", PICTURE)[0, 0, 0])


def test_what_is_decoded_elsewhere_is_the_same_to_the_last_bit(decoders: Decoders) -> None:
    film = filmed(Film("mp4", "libx264"))
    cases = [
        (png(noise(0)), PICTURE),
        (wav(np.random.default_rng(0).uniform(-1, 1, 44_100), 44_100), SOUND),
        (film, FILM),
        (b"a text", Reading(ColumnType.TEXT)),
    ]

    for data, reading in cases:
        mine, theirs = read_value(data, reading), decoders.read(data, reading)
        assert type(mine) is type(theirs)
        if not isinstance(mine, str):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert mine.tobytes() == theirs.tobytes()
    assert decoders.probe(film, ColumnType.VIDEO, 1.0) == probe_media(film, ColumnType.VIDEO, 1.0)
    assert decoders.probe(cases[1][0], ColumnType.AUDIO) == probe_media(cases[1][0], ColumnType.AUDIO)
    assert decoders.probe(cases[0][0], ColumnType.IMAGE) == probe_media(cases[0][0], ColumnType.IMAGE)


def test_what_is_no_good_is_refused_in_the_same_words(decoders: Decoders) -> None:
    for data, reading in [(b"no media", PICTURE), (b"no media", SOUND), (png(noise(0))[:900], PICTURE)]:
        with pytest.raises(Undecodable) as here:
            read_value(data, reading)
        assert refused(decoders, data, reading) == (str(here.value.code), here.value.message)


def test_a_thousand_items_of_many_threads_go_through_two_processes_and_none_is_swapped(
    decoders: Decoders,
) -> None:
    items = [np.full((2, 2, 3), (n % 256, n // 256, 7), np.uint8) for n in range(1000)]
    data = [png(item) for item in items]

    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda item: decoders.read(item, PICTURE), data))

    assert all((mine == theirs).all() for mine, theirs in zip(items, found, strict=True))
    assert 1 <= len(decoders.pids) <= 2


def test_no_process_is_started_before_there_is_a_medium() -> None:
    with Decoders() as decoders:
        assert decoders.read(b"a text", Reading(ColumnType.TEXT)) == "a text"

        assert decoders.pids == []


def test_a_process_that_is_warm_is_the_one_that_is_used() -> None:
    with Decoders(2, work=STRANGE + "obey") as decoders:
        decoders.warm()
        decoders.warm()
        started = decoders.pids

        assert before(decoders) == 1
        assert decoders.pids == started
        assert len(started) == 1


@pytest.mark.parametrize("word", ["loop", "hang /dev/null"])
def test_an_item_that_never_ends_is_too_large_and_the_next_one_has_a_new_process(word: str) -> None:
    with Decoders(1, seconds=0.3, work=STRANGE + "obey") as decoders:
        assert before(decoders) == 1

        code, message = refused(decoders, word.encode())

        assert code == "too_large"
        assert "0.3 s" in message
        assert before(decoders) == 1


def test_a_larger_item_has_more_time() -> None:
    with Decoders(1, seconds=0.1, work=STRANGE + "obey") as decoders:
        _, small = refused(decoders, b"loop")
        _, large = refused(decoders, b"loop" + b" " * 2**19)
        _, frames = refused(decoders, b"loop", Reading(ColumnType.VIDEO, num_frames=1))

    assert [message.split(" s;")[0].split()[-1] for message in (small, large, frames)] == [
        "0.1",
        "0.6",
        "1.1",
    ]


@pytest.mark.parametrize(
    ("word", "code", "words"),
    [
        ("crash", "unreadable_media", "SIGSEGV"),
        ("leave", "unreadable_media", "exit code 3"),
        (f"grow {2**40}", "too_large", "memory"),
    ],
)
def test_an_item_that_its_process_dies_of_is_refused_and_the_next_one_is_read(
    strange: Decoders, word: str, code: str, words: str
) -> None:
    refusal = refused(strange, word.encode())

    assert refusal[0] == code
    assert words in refusal[1]
    assert before(strange) == 1


@pytest.mark.parametrize("word", ["crash-unless-first", "grow-unless-first"])
def test_an_item_that_pays_for_the_one_before_is_read_in_a_new_process(strange: Decoders, word: str) -> None:
    before(strange)

    assert strange.read(word.encode(), PICTURE)[0, 0, 0] == 1


def test_a_fault_in_a_decoder_costs_one_item_and_no_process(strange: Decoders) -> None:
    count = before(strange)

    code, message = refused(strange, b"fail")

    assert code == "unreadable_media"
    assert "KeyError" in message
    assert message.isprintable()
    assert before(strange) == count + 1


def test_a_decoder_leaves_signals_to_whoever_started_it(strange: Decoders) -> None:
    count = before(strange)

    strange.read(b"interrupt", PICTURE)

    assert before(strange) == count + 2


def test_a_decoder_has_no_torch_no_secrets_no_files_and_no_core(
    strange: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_DATABASE_URL", "a secret")

    with Decoders(1, work=STRANGE + "obey") as decoders:
        told = json.loads(refused(decoders, f"tell {tmp_path / 'file'}".encode())[1])

    assert told["torch"] is False
    assert told["written"] < 0
    assert told["limits"] == [0, 0, 32]
    assert told["nice"] >= 1
    assert not {name for name in told["environment"] if name.startswith("PLAIT") or "SECRET" in name}


def test_what_decodes_loads_no_torch() -> None:
    program = "import sys, engine.data.decoders.process, engine.data.decoders.media; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert not {"torch", "transformers", "av", "scipy.signal"} & set(done.stdout.split())


ONE_PIXEL = {"dtype": "|u1", "shape": [1, 1, 3]}


def framed(words: bytes) -> bytes:
    return struct.pack(">I", len(words)) + words


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">I", 2**32 - 1),
        framed(b"\x80\x04no JSON"),
        framed(b"[" * 60_000),
        framed(b"[1]"),
        framed(b"{}"),
        framed(b'{"bytes": -1}'),
        framed(b'{"bytes": 1e3}'),
        framed(b'{"bytes": 1}')[:-1],
        b"",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_bytes_that_are_no_message_end_the_talk(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    theirs.close()
    line = Line(ours)

    with pytest.raises(Gone):
        line.header(time.monotonic() + 10)
    line.close()


def test_a_message_that_stays_half_is_overdue() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(framed(b'{"bytes": 9}') + b"half")
    line = Line(ours)

    assert line.header(time.monotonic() + 10) == {"bytes": 9}
    with pytest.raises(Overdue):
        line.into(bytearray(9), time.monotonic() + 0.05)
    line.close()
    theirs.close()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({**ONE_PIXEL, "dtype": "|O", "bytes": 24}, "image"),
        ({**ONE_PIXEL, "dtype": "<f4", "bytes": 12}, "image"),
        ({**ONE_PIXEL, "bytes": 2}, "image"),
        ({**ONE_PIXEL, "bytes": 4}, "image"),
        ({**ONE_PIXEL, "bytes": 3}, "audio"),
        ({**ONE_PIXEL, "bytes": 3}, "video"),
        ({"dtype": "|u1", "shape": [1, 1, 4], "bytes": 4}, "image"),
        ({"dtype": "|u1", "shape": [-1, -1, 3], "bytes": 3}, "image"),
        ({"dtype": "|u1", "shape": [True, 1, 3], "bytes": 3}, "image"),
        ({"dtype": "|u1", "shape": [0, 5, 3], "bytes": 0}, "image"),
        ({"dtype": "|u1", "shape": [2**14, 2**14, 3], "bytes": 3 * 2**28}, "image"),
        ({"dtype": "|u1", "shape": [2**11, 2**10, 2**10, 3], "bytes": 3 * 2**31}, "video"),
        ({"dtype": "<f4", "shape": [2**28], "bytes": 2**30}, "audio"),
        ({"dtype": "<f4", "shape": "1", "bytes": 4}, "audio"),
        ({"bytes": 0}, "image"),
    ],
    ids=str,
)
def test_no_array_is_made_that_is_not_of_the_kind_asked_for(said: dict[str, Any], kind: str) -> None:
    with pytest.raises(Nonsense):
        media.room(said, ColumnType(kind))


@pytest.mark.parametrize(
    "found",
    [
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"frames": -1},
        {"width": 1.5},
        {"has_audio": "yes"},
        {"codec": "x"},
        [1],
        None,
    ],
    ids=str,
)
def test_a_probe_that_cannot_be_true_is_not_believed(found: Any) -> None:
    with pytest.raises(Nonsense):
        media.probed({"found": found})


@pytest.mark.parametrize(
    "said",
    [
        {"refused": "no_such_code", "message": "x"},
        {"refused": "too_large", "message": {"a": 1}},
        {"refused": "too_large"},
        {"failed": 1},
    ],
    ids=str,
)
def test_a_refusal_that_no_decoder_gives_is_not_believed(said: dict[str, Any]) -> None:
    with pytest.raises(Nonsense):
        media.refusal(said)


def test_an_answer_is_never_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    with Decoders(1, work=STRANGE + "pickled") as decoders:
        code, message = refused(decoders, str(trap).encode())

    assert code == "unreadable_media"
    assert "crashed" in message
    assert not trap.exists()


def under_way(decoders: Decoders, path: Path) -> tuple[Future[Any], ThreadPoolExecutor]:
    """An item that hangs in its process by now."""
    os.mkfifo(path)
    caller = ThreadPoolExecutor(1)
    future = caller.submit(decoders.read, f"hang {path}".encode(), PICTURE)
    # Opening waits for the decoder to open it, too.
    assert path.read_bytes() == b"here"
    return future, caller


def test_a_decoder_killed_in_the_middle_of_its_first_item_refuses_it(tmp_path: Path) -> None:
    with Decoders(1, work=STRANGE + "obey") as decoders:
        future, caller = under_way(decoders, tmp_path / "fifo")

        os.kill(decoders.pids[0], signal.SIGKILL)

        with pytest.raises(Undecodable, match="out of memory") as caught:
            future.result()
        assert caught.value.code == "too_large"
        assert before(decoders) == 1
        caller.shutdown()


def test_closed_while_an_item_is_under_way_the_caller_hears_of_it_and_no_process_is_left(
    tmp_path: Path,
) -> None:
    decoders = Decoders(1, work=STRANGE + "obey")
    future, caller = under_way(decoders, tmp_path / "fifo")
    processes = [psutil.Process(pid) for pid in decoders.pids]

    decoders.close()
    decoders.close()

    with pytest.raises(EngineError) as caught:
        future.result()
    assert (caught.value.code, caught.value.retryable) == ("decoders_unavailable", True)
    with pytest.raises(EngineError):
        decoders.read(b"count", PICTURE)
    assert not any(process.is_running() for process in processes)
    assert decoders.pids == []
    caller.shutdown()


def test_who_waits_for_a_process_hears_of_the_end_too(tmp_path: Path) -> None:
    with Decoders(1, work=STRANGE + "obey") as decoders:
        future, caller = under_way(decoders, tmp_path / "fifo")
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(decoders.read, b"count", PICTURE)

            decoders.close()

            for ended in (future, waiting):
                with pytest.raises(EngineError):
                    ended.result()
        caller.shutdown()


def test_a_decoder_that_cannot_be_started_is_said_so() -> None:
    with Decoders(1, work="support.no_such_module:obey") as decoders, pytest.raises(EngineError) as caught:
        decoders.read(b"count", PICTURE)

    assert caught.value.code == "decoders_unavailable"
    assert decoders.pids == []


def test_decoders_outlive_the_thread_that_first_asked() -> None:
    with Decoders(1, work=STRANGE + "obey") as decoders:
        for count in (1, 2):
            with ThreadPoolExecutor(1) as caller:
                assert caller.submit(before, decoders).result() == count


_OWNER = """
import sys, threading
from engine.data.decoders import media
from engine.data.decoders.framing import Gone, Line, Nonsense, Overdue
from engine.data.decoders.pool import Decoders
from engine.data.values import Reading
from domain.manifest import ColumnType
decoders = Decoders(1, work="support.strange_decoder:obey")
decoders.read(b"count", Reading(ColumnType.IMAGE))
print(*decoders.pids, flush=True)
decoders.read(sys.argv[1].encode(), Reading(ColumnType.IMAGE))
"""


@pytest.mark.parametrize("word", ["hang", "loop"])
def test_a_decoder_dies_with_its_owner_even_in_the_middle_of_an_item(word: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, f"{word} {fifo}"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    decoder = psutil.Process(int(owner.stdout.readline()))
    if word == "hang":
        fifo.read_bytes()

    owner.kill()
    owner.communicate()

    assert psutil.wait_procs([decoder], timeout=30)[1] == []
