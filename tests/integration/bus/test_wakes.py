"""Wakes with a real broker: heard at once, without one after a look's time, and again when it is back."""

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from bus import wakes as module
from bus.bells import Bells
from bus.wakes import Wakes
from ops import broker
from support.stack import until


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are so rare that only a wake can end a wait in time."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 60.0)


def woken(wakes: Wakes, bells: Bells, job_id: str, heard: int = 0) -> int:
    """The count with which a waiter comes back; the bell is rung until it does."""
    back: list[int] = []
    waiter = threading.Thread(target=lambda: back.append(wakes.wait(job_id, heard, 60)))
    waiter.start()

    def ring() -> bool:
        bells.wake(job_id)
        waiter.join(0.05)
        return bool(back)

    until(ring, bool, limit_s=20)
    return back[0]


@pytest.mark.usefixtures("patient")
def test_who_waits_for_a_job_is_woken_by_its_bell_and_not_by_anothers(running: Any) -> None:
    _, url = running
    wakes, bells = Wakes(url), Bells(url)
    first = woken(wakes, bells, "ftjob-a")
    others: list[int] = []
    other = threading.Thread(target=lambda: others.append(wakes.wait("ftjob-b", 0, 60)), daemon=True)
    other.start()

    assert woken(wakes, bells, "ftjob-a", first) > first

    assert others == []
    woken(wakes, bells, "ftjob-b")
    other.join(10)
    assert len(others) == 1


@pytest.mark.usefixtures("patient")
def test_many_waiters_share_one_subscription(running: Any) -> None:
    _, url = running
    wakes, bells = Wakes(url), Bells(url)
    waiters = [threading.Thread(target=wakes.wait, args=(f"ftjob-{n}", 0, 60)) for n in range(5)]
    for waiter in waiters:
        waiter.start()

    def ring() -> bool:
        for n in range(5):
            bells.wake(f"ftjob-{n}")
        return not any(waiter.is_alive() for waiter in waiters)

    until(ring, bool, limit_s=20)
    assert bells._client().pubsub_numpat() == 1


@pytest.mark.usefixtures("patient")
def test_wakes_come_again_after_the_broker_died_and_returned(running: Any, tmp_path: Path) -> None:
    process, url = running
    wakes, bells = Wakes(url), Bells(url)
    heard = woken(wakes, bells, "ftjob-a")
    process.kill()
    process.wait()
    path = url.removeprefix("unix://")
    command = [
        str(broker.binary()),
        "--port",
        "0",
        "--unixsocket",
        path,
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]

    again = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        assert woken(wakes, bells, "ftjob-a", heard) > heard
    finally:
        again.kill()
        again.wait()


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1"])
def test_without_a_broker_a_wait_ends_after_a_looks_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)

    assert Wakes(url).wait("ftjob-a", 0, 60) == 0


def test_a_count_that_was_forgotten_keeps_nobody_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COUNTS", 3)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 60.0)
    wakes = Wakes("")
    for _ in range(5):
        wakes.note("ftjob-a")
    heard = wakes.wait("ftjob-a", 0, 60)
    for n in range(5):
        wakes.note(f"ftjob-other-{n}")

    wakes.note("ftjob-a")

    assert wakes.wait("ftjob-a", heard, 60) > heard
