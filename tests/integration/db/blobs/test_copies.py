"""Copies of blobs on this machine's disk: bounded, whole, and there while they are read."""

import io
import os
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from db.blobs.copies import Copies
from domain.errors import Unavailable
from support.stack import ROOT

BYTES = bytes(1000)


class Source:
    """Counts how often it is fetched."""

    def __init__(self, data: bytes = BYTES) -> None:
        self.data, self.fetched = data, 0

    def __call__(self) -> BinaryIO:
        self.fetched += 1
        return io.BytesIO(self.data)


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path / "copies", most=2500)


def names(copies: Copies) -> list[str]:
    return sorted(path.name for path in copies.root.glob("[!.]*"))


def take(copies: Copies, key: str) -> None:
    with copies.hold(key, Source(), None):
        pass


def test_a_blob_is_fetched_once(copies: Copies) -> None:
    source = Source()
    for _ in range(2):
        with copies.hold("a", source, sha256(BYTES).hexdigest()) as path:
            assert path.read_bytes() == BYTES

    assert source.fetched == 1


def test_many_that_want_it_at_once_fetch_it_once(copies: Copies) -> None:
    source, start = Source(), threading.Barrier(8)

    def want() -> None:
        start.wait()
        with copies.hold("a", source, None) as path:
            assert path.read_bytes() == BYTES

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert source.fetched == 1


def test_the_copy_that_was_longest_not_asked_for_makes_room(copies: Copies) -> None:
    for age, key in enumerate(("a", "b")):
        take(copies, key)
        os.utime(copies.root / key, (age, age))

    take(copies, "c")

    assert names(copies) == ["b", "c"]


def test_a_copy_in_use_is_not_evicted_even_if_all_are_too_many(copies: Copies) -> None:
    with copies.hold("a", Source(), None) as a, copies.hold("b", Source(), None):
        take(copies, "c")
        take(copies, "d")

        assert a.read_bytes() == BYTES
        assert names(copies) == ["a", "b", "d"]


def test_another_process_s_copy_is_in_use_too(copies: Copies) -> None:
    take(copies, "a")
    code = (
        "import sys; from pathlib import Path; from db.blobs.copies import Copies\n"
        "with Copies(Path(sys.argv[1]), 0).hold('a', None, None):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(copies.root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    take(copies, "b")
    take(copies, "c")
    held = names(copies)
    holder.kill()
    holder.communicate()
    take(copies, "d")

    assert held == ["a", "c"]
    assert "a" not in names(copies)


def test_damaged_bytes_are_not_kept(copies: Copies) -> None:
    with pytest.raises(Unavailable, match="not those that were stored"):
        with copies.hold("a", Source(), sha256(b"other").hexdigest()):
            pass

    assert [path.name for path in copies.root.iterdir() if not path.name.startswith(".lock")] == []


def test_what_a_killed_process_was_fetching_goes_after_a_while(copies: Copies) -> None:
    copies.root.mkdir()
    left = copies.root / ".part-x"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))

    take(copies, "a")

    assert not left.exists()
