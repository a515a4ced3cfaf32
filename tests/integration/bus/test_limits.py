"""Rates with a real broker: one bucket for all processes, forgiving when it is emptied, local when it is away."""

import os
import signal
import threading
import time
from typing import Any

import pytest
import redis

from bus import limits as module
from bus.limits import Limits
from domain.rate import Rate

#: So slow that nothing comes back while a test runs.
SLOW = Rate(per_minute=1, burst=40)


def passed(limits: Limits, times: int, rate: Rate = SLOW, tenant: str = "a") -> int:
    return sum(limits.spend(tenant, rate).retry_s == 0 for _ in range(times))


def steps(url: str) -> int:
    """How many times the broker was asked for a tenant's bucket."""
    stats: Any = redis.Redis.from_url(url).info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def test_processes_share_one_bucket_to_the_last_request(url: str) -> None:
    processes = [Limits(url) for _ in range(3)]

    total = sum(passed(processes[n % 3], 1) for n in range(60))

    assert total == 40
    refusal = processes[0].spend("a", SLOW)
    assert refusal.remaining == 0
    assert 0 < refusal.retry_s <= 60


def test_threads_of_one_process_spend_no_more_than_there_is(url: str) -> None:
    limits, counts = Limits(url), []
    threads = [threading.Thread(target=lambda: counts.append(passed(limits, 20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(counts) == 40


def test_far_from_its_limit_a_tenant_costs_few_steps_and_near_it_each_request_is_one(url: str) -> None:
    limits, rate = Limits(url), Rate(per_minute=1, burst=1_000)

    assert passed(limits, 50, rate) == 50
    assert steps(url) <= 3

    assert passed(limits, 949, rate) == 949
    assert passed(limits, 5, rate) == 1


def test_each_answer_counts_down_by_one(url: str) -> None:
    limits = Limits(url)

    told = [limits.spend("a", SLOW) for _ in range(41)]

    assert [standing.remaining for standing in told] == [*range(39, -1, -1), 0]
    assert {standing.limit for standing in told} == {40}
    assert told[0].reset_s == pytest.approx(60, abs=5)
    assert told[-1].retry_s == pytest.approx(60, abs=5)


def test_what_a_process_did_not_spend_goes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_HAND_S", 0.0)
    limits = Limits(url)

    assert passed(limits, 100) == 40


def test_one_tenants_requests_are_not_anothers(url: str) -> None:
    limits = Limits(url)
    assert passed(limits, 50) == 40

    assert passed(limits, 50, tenant="b") == 40


def test_a_broker_that_is_emptied_only_forgives(url: str) -> None:
    limits = Limits(url)
    assert passed(limits, 50) == 40
    redis.Redis.from_url(url).flushall()
    redis.Redis.from_url(url).script_flush()

    assert passed(limits, 50) == 40


def test_a_rate_that_is_lowered_holds_at_once(url: str) -> None:
    limits = Limits(url)
    assert passed(limits, 10) == 10

    assert passed(limits, 10, Rate(per_minute=1, burst=5)) == 0


def test_a_bucket_that_is_full_again_leaves_nothing_in_the_broker(url: str) -> None:
    Limits(url).spend("a", Rate(per_minute=1_000_000, burst=1))

    left = redis.Redis.from_url(url).pttl("plait:rate:a")

    assert int(left) <= 1  # type: ignore[arg-type]


def test_without_a_broker_the_limit_holds_by_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passed(Limits(""), 50) == 40

    monkeypatch.setattr(module, "IN_HAND_S", 0.0)

    assert passed(Limits(""), 50) == 40


def test_a_broker_that_is_gone_refuses_nobody_but_who_is_over_the_limit_here(running: Any) -> None:
    process, url = running
    limits = Limits(url)
    assert passed(limits, 3) == 3
    process.kill()
    process.wait()

    assert 40 <= passed(limits, 60) <= 41


def test_a_broker_that_hangs_costs_one_request_a_second_its_hundred_milliseconds(running: Any) -> None:
    process, url = running
    limits = Limits(url)
    rate = Rate(per_minute=1, burst=10)
    limits.spend("a", rate)
    os.kill(process.pid, signal.SIGSTOP)
    took = []
    for _ in range(30):
        began = time.monotonic()
        limits.spend("b", rate)
        took.append(time.monotonic() - began)

    slow = [seconds for seconds in took if seconds > 0.05]
    assert len(slow) <= 2
    assert max(took) < 1


def test_a_broker_that_comes_back_counts_again(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process, url = running
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    limits = Limits(url)
    os.kill(process.pid, signal.SIGSTOP)
    limits.spend("a", SLOW)
    os.kill(process.pid, signal.SIGCONT)
    redis.Redis.from_url(url).flushall()
    before = steps(url)

    limits.spend("b", SLOW)

    assert steps(url) > before
