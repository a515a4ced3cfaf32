"""Entries on disk: whole or none, bounded, safe under writers that are killed and readers that are in the way."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.data import entries
from engine.data.entries import ENVELOPE, Entries
from support.stack import ROOT

KEYS = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(64)]
GIB = 2**30


@pytest.fixture
def kept(tmp_path: Path) -> Entries:
    return Entries(tmp_path / "media", limit=GIB)


def got(kept: Entries, key: str) -> bytes | None:
    found = kept.get(key)
    return None if found is None else found.tobytes()


def age(kept: Entries, key: str, seconds: float) -> None:
    """As if it was used last so long ago."""
    instant = time.time() - seconds
    os.utime(kept.path(key), (instant, instant))


def files(kept: Entries) -> list[Path]:
    return [path for path in kept.root.rglob("*") if path.is_file() and path.name != ".room"]


@pytest.mark.parametrize("data", [b"", b"x", bytes(4096), os.urandom(100_001)])
def test_an_entry_comes_back_as_it_was_put(kept: Entries, data: bytes) -> None:
    kept.put(KEYS[0], [data[:7], data[7:]])

    assert got(kept, KEYS[0]) == data
    assert got(kept, KEYS[1]) is None


def test_what_is_read_is_the_readers_own(kept: Entries) -> None:
    kept.put(KEYS[0], [b"abc"])
    first = kept.get(KEYS[0])
    assert first is not None

    first[:] = 0

    assert got(kept, KEYS[0]) == b"abc"


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGE = {
    "empty": lambda data: b"",
    "cut in its envelope": lambda data: data[: ENVELOPE - 1],
    "cut behind its envelope": lambda data: data[:ENVELOPE],
    "cut in the middle": cut,
    "short of a byte": lambda data: data[:-1],
    "longer by a byte": lambda data: data + b"\0",
    "zeros, as a power cut leaves": lambda data: bytes(len(data)),
    "another first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "another last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another blank of the envelope": lambda data: data[: ENVELOPE - 2] + b"x" + data[ENVELOPE - 1 :],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_not_used_and_can_be_made_anew(kept: Entries, how: str) -> None:
    data = os.urandom(1000)
    kept.put(KEYS[0], [data])
    path = kept.path(KEYS[0])
    path.write_bytes(DAMAGE[how](path.read_bytes()))

    damaged = kept.get(KEYS[0])
    kept.put(KEYS[0], [data])

    assert damaged is None
    assert got(kept, KEYS[0]) == data


def test_any_single_byte_that_is_altered_is_noticed(kept: Entries) -> None:
    kept.put(KEYS[0], [b"some bytes"])
    path = kept.path(KEYS[0])
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert kept.get(KEYS[0]) is None, place


def test_an_entry_in_anothers_place_is_not_used(kept: Entries) -> None:
    kept.put(KEYS[0], [b"one"])
    kept.put(KEYS[1], [b"other"])
    kept.path(KEYS[0]).rename(kept.path(KEYS[1]))

    assert kept.get(KEYS[1]) is None


def test_what_lies_where_an_entry_belongs_and_is_no_file_is_no_entry(kept: Entries) -> None:
    kept.path(KEYS[0]).mkdir(parents=True)

    assert kept.get(KEYS[0]) is None
    assert kept.make_room() == 0


def test_entries_that_were_used_longest_ago_go_first(tmp_path: Path) -> None:
    kept = Entries(tmp_path, GIB)
    for place, key in enumerate(KEYS[:12]):
        kept.put(key, [b"x"])
        age(kept, key, seconds=1000 - place)
    assert got(kept, KEYS[0]) == b"x"

    dropped = Entries(tmp_path, limit=10 * 4096).make_room()

    assert dropped == 3
    assert {key for key in KEYS[:12] if kept.get(key) is not None} == {KEYS[0], *KEYS[4:12]}


def test_within_the_limit_nothing_goes(tmp_path: Path) -> None:
    kept = Entries(tmp_path, GIB)
    for key in KEYS[:3]:
        kept.put(key, [bytes(4096 - ENVELOPE)])

    assert Entries(tmp_path, limit=3 * 4096).make_room() == 0
    assert len(files(kept)) == 3


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    kept = Entries(tmp_path, limit=0)
    Entries(tmp_path, GIB).put(KEYS[0], [b"x"])

    assert kept.make_room() == 1
    assert files(kept) == []


def test_writing_makes_room_by_itself(tmp_path: Path) -> None:
    kept = Entries(tmp_path, limit=40 * 4096)

    for key in KEYS:
        kept.put(key, [b"x"])
    for thread in threading.enumerate():
        if thread.name == "make-room":
            thread.join()
    kept.make_room()

    assert len(files(kept)) <= 40
    assert got(kept, KEYS[-1]) == b"x"


def test_one_process_makes_room_at_a_time(kept: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Event()
    go_on = threading.Event()
    real = entries._make_room

    def slow(root: Path, limit: int) -> int:
        inside.set()
        assert go_on.wait(10)
        return real(root, limit)

    monkeypatch.setattr(entries, "_make_room", slow)
    Entries(kept.root, GIB).put(KEYS[0], [b"x"])
    first = threading.Thread(target=kept.make_room)
    first.start()
    assert inside.wait(10)

    second = Entries(kept.root, limit=0).make_room()
    go_on.set()
    first.join()

    assert second == 0
    assert got(kept, KEYS[0]) == b"x"


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_are_not(kept: Entries) -> None:
    kept.put(KEYS[0], [b"x"])
    folder = kept.path(KEYS[0]).parent
    dead, living = folder / ".dead.draft", folder / ".living.draft"
    dead.write_bytes(b"half")
    living.write_bytes(b"half")
    os.utime(dead, (1, 1))

    kept.make_room()

    assert not dead.exists()
    assert living.exists()


def test_a_full_disk_leaves_no_draft(kept: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 200:
            return real(handle, data[:200])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        kept.put(KEYS[0], [bytes(1000)])

    assert files(kept) == []
    assert kept.get(KEYS[0]) is None


def test_a_reader_is_never_disturbed_while_room_is_made(tmp_path: Path) -> None:
    kept, data = Entries(tmp_path, limit=8 * 4096), {key: os.urandom(3000) for key in KEYS}
    over, wrong = threading.Event(), []

    def read() -> None:
        chance = random.Random(0)
        while not over.is_set():
            key = chance.choice(KEYS)
            found = got(kept, key)
            if found not in (None, data[key]):
                wrong.append(key)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        for key in KEYS:
            kept.put(key, [data[key]])
        kept.make_room()
    over.set()
    for reader in readers:
        reader.join()

    assert not wrong


_WRITER = """
import hashlib, sys
from pathlib import Path
from engine.data.entries import Entries
kept = Entries(Path(sys.argv[1]), 2**30)
print("begun", flush=True)
while True:
    for n in range(64):
        key = hashlib.sha256(str(n).encode()).hexdigest()
        kept.put(key, [key.encode() * 5000])
        kept.path(key).unlink(missing_ok=True)
"""


def test_writers_that_are_killed_leave_whole_entries_or_none(tmp_path: Path) -> None:
    kept, chance = Entries(tmp_path, limit=GIB), random.Random(1)
    for _ in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
        seen = 0
        while seen < chance.randrange(20, 60):
            key = chance.choice(KEYS)
            found = got(kept, key)
            assert found in (None, key.encode() * 5000)
            seen += found is not None
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        for path in tmp_path.glob("??/[!.]*"):
            whole = np.fromfile(path, np.uint8)
            assert entries.opened(path.parent.name + path.name, whole) is not None
    for path in tmp_path.glob("??/.*.draft"):
        os.utime(path, (1, 1))

    kept.make_room()

    assert not [path for path in files(kept) if path.name.endswith(".draft")]
