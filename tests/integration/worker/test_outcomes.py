"""How a job stands after its hold: what its child said last, against what its user wanted by then."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from db import claims, events, jobs, tenants
from db.session import Database, now
from db.tables import Job
from domain.job import Lane, Stage, State
from settings import Settings
from support.commits import lose_the_answer_to_the_next_commit
from worker.hold import Ending
from worker.keeper import Keeper
from worker.outcome import Outcome

STOPPED = {"say": "stopped"}
AGAIN = {"say": "failed", "retryable": True, "error": {"code": "c", "message": "Bad luck.", "param": None}}
FOR_GOOD = AGAIN | {"retryable": False}
VALIDATED = {"say": "done", "skipped": 0, "masked": 0, "issues": [], "issues_total": 0, "resolved": {}}


@pytest.fixture
def keeper(database: Database, tmp_path: Path) -> Iterator[Keeper]:
    url = database.engine.url.render_as_string(hide_password=False)
    made = Keeper(Settings(data=tmp_path / "data", database_url=url), Lane.CPU)
    made.settings.data.mkdir()
    with database.transaction() as session:
        tenants.ensure(session, "a")
    yield made
    made.close()
    made.database.close()
    for end in (made._bell, made._rope):
        end.close()


@pytest.fixture
def after(
    keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Job, list[str]]]:
    """One claim of a new job, during which its user asks for `words`: the job then, and its history."""

    def run(
        *words: str,
        stage: Stage = Stage.RUN,
        spec: dict[str, Any] | None = None,
        before: Callable[[Job], Any] | None = None,
        **ending: Any,
    ) -> tuple[Job, list[str]]:
        with database.transaction() as session:
            new = jobs.Submission(tenant="a", spec={"model": "late-fusion", **(spec or {})}, stage=stage)
            made = jobs.submit(session, new)

        def hold(_: Keeper, job: Job, *__: Any) -> Ending:
            for word in words:
                with database.transaction() as session:
                    getattr(jobs, word)(session, "a", job.id)
            if before:
                before(job)
            return Ending(heard=True, **{"writable_until": float("inf"), "exit_code": -9, **ending})

        monkeypatch.setattr(Keeper, "_run", hold)
        assert keeper.work() >= 1
        with database.reading() as session:
            told = [event.name for event in events.since(session, made.id, 0)]
            return jobs.get(session, "a", made.id), told

    return run


def standing(job: Job) -> tuple[str, int, int]:
    return job.state, job.attempt, job.deaths


def test_a_child_that_stopped_for_a_pause_leaves_its_job_paused_on_the_same_attempt(after: Any) -> None:
    job, told = after("pause", verdict=STOPPED, asked="pause")

    assert standing(job) == (State.PAUSED, 0, 0)
    assert told[-2:] == ["job.pause_requested", "job.paused"]


def test_a_frozen_child_that_is_killed_for_a_pause_counts_no_death(after: Any) -> None:
    job, _ = after("pause", asked="pause", overdue=True)

    assert standing(job) == (State.PAUSED, 0, 0)


def test_a_child_that_dies_by_itself_while_a_pause_is_asked_for_counts_a_death(after: Any) -> None:
    job, _ = after("pause", asked="pause")

    assert standing(job) == (State.PAUSED, 0, 1)


def test_a_cancel_overtakes_a_pause(after: Any) -> None:
    job, told = after("pause", "cancel", verdict=STOPPED, asked="cancel")

    assert job.state == State.CANCELLED
    assert told[-1] == "job.stopped"


def test_a_pause_of_a_job_whose_worker_drains_is_a_pause(after: Any) -> None:
    job, _ = after("pause", verdict=STOPPED, asked="drain")

    assert standing(job) == (State.PAUSED, 0, 0)


def test_a_job_whose_pause_was_taken_back_too_late_waits_again_and_lost_nothing(
    after: Any, keeper: Keeper
) -> None:
    # One claim is enough: the job is ready at once, and this keeper would take it for ever.
    job, told = after("pause", "resume", before=lambda _: keeper.drain(), verdict=STOPPED, asked="pause")

    assert standing(job) == (State.QUEUED, 0, 0)
    assert told[-3:] == ["job.pause_requested", "job.resumed", "job.drained"]


def test_a_drained_job_waits_again_and_used_no_attempt(after: Any, keeper: Keeper) -> None:
    job, _ = after(before=lambda _: keeper.drain(), verdict=STOPPED, asked="drain")

    assert standing(job) == (State.QUEUED, 0, 0)


def test_a_check_that_drains_is_checked_anew_elsewhere(after: Any, keeper: Keeper) -> None:
    job, _ = after(before=lambda _: keeper.drain(), stage=Stage.VALIDATE, verdict=STOPPED, asked="drain")

    assert (*standing(job), job.stage) == (State.QUEUED, 0, 0, Stage.VALIDATE)


def test_a_pause_that_comes_as_the_check_ends_pauses_the_job_before_its_training(after: Any) -> None:
    job, told = after("pause", stage=Stage.VALIDATE, verdict=VALIDATED, asked="pause")

    assert (*standing(job), job.stage, job.lane) == (State.PAUSED, 0, 0, Stage.RUN, Lane.TRAIN)
    assert told[-2:] == ["job.validated", "job.paused"]


def test_a_job_that_failed_for_good_has_failed_whatever_was_asked(after: Any) -> None:
    for words in ((), ("pause",)):
        job, _ = after(*words, verdict=FOR_GOOD, overdue=bool(words), asked="pause" if words else None)

        assert job.state == State.FAILED
        assert job.error["message"] == "Bad luck."


def test_a_job_that_would_be_tried_again_is_paused_and_its_attempt_is_used(after: Any) -> None:
    job, _ = after("pause", verdict=AGAIN, asked="pause")

    assert standing(job) == (State.PAUSED, 1, 0)


def test_what_fails_for_now_is_tried_again_later_and_fails_after_the_last_attempt(
    after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.retry.backoff_s", lambda attempt: 0.0)

    job, told = after(verdict=AGAIN)

    assert standing(job) == (State.FAILED, job.max_attempts, 0)
    assert job.error["code"] == "c"
    assert told.count("job.retried") == job.max_attempts - 1


def test_three_deaths_end_a_job_with_its_last_words(after: Any, keeper: Keeper) -> None:
    def say(job: Job) -> None:
        path = keeper.logs.make(job.id, job.fence)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Segmentation fault, the {job.deaths + 1}. time\n")

    job, told = after(before=say)

    assert (job.state, job.deaths) == (State.FAILED, 3)
    assert job.error["code"] == "worker_died"
    assert job.error["message"].endswith("Segmentation fault, the 3. time")
    assert told.count("job.reaped") == 2


def test_silent_workers_end_a_job_with_the_last_words_of_the_third(
    after: Any, keeper: Keeper, database: Database
) -> None:
    def go_silent(job: Job) -> None:
        path = keeper.logs.make(job.id, job.fence)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Out of memory, the {job.deaths + 1}. time\n")
        with database.transaction() as session:
            session.execute(update(Job).where(Job.id == job.id).values(lease_until=now() - 3600))
        claims.reap(database, grace=5, last_words=keeper.logs.last_words)

    job, told = after(before=go_silent, verdict=FOR_GOOD)

    assert (job.state, job.deaths, told.count("job.reaped")) == (State.FAILED, 3, 2)
    assert "went silent" in job.error["message"]
    assert job.error["message"].endswith("Out of memory, the 3. time")


def test_a_job_over_its_time_is_told_its_limit_and_what_to_do(after: Any) -> None:
    job, _ = after(timed_out=True, spec={"timeout_s": 90})

    assert (*standing(job), job.error["code"]) == (State.FAILED, 1, 0, "timeout")
    assert "90 s" in job.error["message"]
    assert "larger `timeout_s`" in job.error["message"]


def test_a_job_that_was_done_as_its_time_ran_out_is_done(after: Any) -> None:
    verdict = {"say": "done", "model": "model", "metrics": {}, "steps": 1, "resolved": {}}

    job, _ = after(stage=Stage.RUN, verdict=verdict, timed_out=True, spec={"timeout_s": 90})

    assert job.state == State.SUCCEEDED


def test_results_that_cannot_be_stored_use_an_attempt_and_count_no_death(after: Any) -> None:
    job, told = after(stage=Stage.VALIDATE, verdict=VALIDATED | {"files": ["results/none.csv"]})

    assert (*standing(job), told[-1]) == (State.QUEUED, 1, 0, "job.retried")


def test_a_finish_after_a_pause_was_asked_for_stands(after: Any) -> None:
    verdict = {"say": "done", "model": "model", "metrics": {}, "steps": 1, "resolved": {}}

    job, told = after("pause", stage=Stage.RUN, verdict=verdict, asked="pause")

    assert (job.state, told[-1]) == (State.SUCCEEDED, "job.succeeded")


@pytest.mark.parametrize("verdict", [FOR_GOOD, AGAIN, STOPPED])
def test_an_outcome_whose_commit_was_never_answered_counts_once(
    after: Any, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, verdict: dict[str, Any]
) -> None:
    def before(_: Job) -> None:
        keeper.drain()  # no second claim
        lose_the_answer_to_the_next_commit(keeper.database, monkeypatch)

    job, told = after(before=before, verdict=verdict, asked="drain" if verdict is STOPPED else None)

    assert job.state == (State.FAILED if verdict is FOR_GOOD else State.QUEUED)
    assert len(told) == 3
    assert told[:2] == ["job.created", "job.claimed"]


def test_a_claim_whose_commit_was_never_answered_is_forgotten_and_its_lease_runs_out(
    keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.transaction() as session:
        job_id = jobs.submit(session, jobs.Submission(tenant="a", spec={}, stage=Stage.RUN)).id
    lose_the_answer_to_the_next_commit(keeper.database, monkeypatch)

    assert keeper.work() == 0

    with database.transaction() as session:
        taken = jobs.get(session, "a", job_id)
        assert (taken.state, taken.lease_owner) == (State.RUNNING, keeper.name)
        session.execute(update(Job).values(lease_until=now() - 3600))
    assert claims.reap(database, grace=5) == [Lane.CPU]
    with database.reading() as session:
        assert standing(jobs.get(session, "a", job_id)) == (State.QUEUED, 0, 1)


def test_a_fenced_keeper_writes_nothing(after: Any, database: Database) -> None:
    def reaped(job: Job) -> None:
        with database.transaction() as session:
            claims.lose(session, claims.held(session, job.id, job.fence), "it was frozen")

    job, told = after("pause", before=reaped, verdict=STOPPED, asked="pause")

    assert (*standing(job), told.count("job.paused")) == (State.PAUSED, 0, 1, 1)


def test_a_keeper_outlives_a_failure_that_nobody_foresaw(
    after: Any, keeper: Keeper, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its idle thread is the one that finds work when no bell rings, and no other takes its place."""

    def fail(_: Outcome) -> None:
        raise ZeroDivisionError

    with database.transaction() as session:
        job_id = jobs.submit(session, jobs.Submission(tenant="a", spec={}, stage=Stage.RUN)).id
    monkeypatch.setattr(Keeper, "_run", lambda *_: Ending(verdict=FOR_GOOD, writable_until=float("inf")))
    monkeypatch.setattr(Outcome, "_sweep", fail)

    assert keeper.work() == 0

    with database.reading() as session:
        assert jobs.get(session, "a", job_id).state == State.FAILED
    assert keeper.work() == 0
