"""Users and workers at random: whatever they do and in whichever order, the job protocol's promises hold.

Users come through the HTTP door, workers call the functions that a keeper calls. A small model of each job says
what is to come of every step; after each one the rows are compared with it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select, update

from db import claims, jobs, reports
from db.session import now
from db.tables import Checkpoint, Event, Job, JobLabel, Metric, Quota, TenantLoad
from domain.errors import Conflict
from domain.job import FINAL, WAITING, Lane, Stage, State, Want
from domain.retry import MAX_ATTEMPTS, MAX_DEATHS
from support.door import Door

JOBS = "/v1/fine_tuning/jobs"
TENANTS = {"a": 1, "b": 2}
MOST_RUNNING, MOST_QUEUED = 2, 4
TENANT = st.sampled_from(sorted(TENANTS))


@dataclass
class Known:
    """What a job's row should say. A lease is there exactly while it runs."""

    id: str
    tenant: str
    priority: int
    state: State = State.QUEUED
    stage: Stage = Stage.VALIDATE
    lane: Lane = Lane.CPU
    want: Want = Want.RUN
    attempt: int = 0
    deaths: int = 0
    fence: int = 0
    checkpoint: str | None = None
    sleeps: bool = False
    old_fences: list[int] = field(default_factory=list)

    def words(self) -> tuple[Any, ...]:
        return (self.state, self.stage, self.lane, self.want, self.attempt, self.deaths, self.fence)

    def leaves(self, state: State, **change: Any) -> None:
        """Its worker lets go of it."""
        self.old_fences.append(self.fence)
        self.state = state
        for name, value in change.items():
            setattr(self, name, value)


def _waits_for_its_time(known: Known) -> bool:
    """A job that was cancelled meanwhile does not."""
    return known.sleeps and known.state not in FINAL


class JobMachine(RuleBasedStateMachine):
    door: Door
    keys: dict[str, str]
    files: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Known] = {}
        self.by_key: dict[tuple[str, str], tuple[str, int]] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.woken = 0

    @initialize()
    def one_job_is_at_its_second_worker(self) -> None:
        for tenant in TENANTS:
            self.submit(tenant, None, 0, 1)
            self.claim(Lane.CPU)
        self._silence(next(iter(self.jobs.values())))
        self.claim(Lane.CPU)
        # One runs of each tenant and both wait: the next is of the one that weighs more.
        for tenant in TENANTS:
            self.submit(tenant, None, 0, 0)
        self.claim(Lane.CPU)

    # Users.

    @rule(
        tenant=TENANT,
        key=st.sampled_from([None, "k1", "k2"]),
        body=st.integers(0, 1),
        priority=st.integers(0, 1),
    )
    def submit(self, tenant: str, key: str | None, body: int, priority: int) -> None:
        sent = {"model": "late-fusion", "training_file": self.files[tenant], "seed": body}
        headers = {"Idempotency-Key": f"{key}-{priority}"} if key else {}
        answer = self._send(tenant, JOBS, json=sent | {"priority": priority}, headers=headers)
        earlier = self.by_key.get((tenant, headers["Idempotency-Key"])) if key else None
        waiting = sum(known.state in WAITING for known in self._of(tenant))
        if earlier is not None:
            same = earlier[1] == body
            assert answer.status_code == (200 if same else 422)
            assert not same or answer.json["id"] == earlier[0]
        elif waiting >= MOST_QUEUED:
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
        else:
            assert answer.status_code == 200
            job_id = answer.json["id"]
            assert job_id not in self.jobs
            self.jobs[job_id] = Known(job_id, tenant, priority)
            if key:
                self.by_key[tenant, headers["Idempotency-Key"]] = (job_id, body)

    @rule(data=st.data(), word=st.sampled_from(["pause", "resume", "cancel"]))
    @precondition(lambda self: self.jobs)
    def ask(self, data: st.DataObject, word: str) -> None:
        known = self._one(data, lambda _: True)
        answer = self._send(known.tenant, f"{JOBS}/{known.id}/{word}")
        expected = self._asked(known, word)
        assert answer.status_code == (200 if expected else 409), (word, known, answer.text)

    @rule(data=st.data(), word=st.sampled_from(["pause", "resume", "cancel"]))
    @precondition(lambda self: self.jobs)
    def ask_as_a_stranger(self, data: st.DataObject, word: str) -> None:
        known = self._one(data, lambda _: True)
        stranger = "b" if known.tenant == "a" else "a"
        assert self._send(stranger, f"{JOBS}/{known.id}/{word}").status_code == 404

    def _asked(self, known: Known, word: str) -> bool:
        """Whether the word is taken, and what it makes of the job."""
        is_running = known.state == State.RUNNING
        if known.state in FINAL:
            return False
        if word == "cancel":
            known.want = Want.CANCEL
            known.state = known.state if is_running else State.CANCELLED
            return True
        if known.want == Want.CANCEL or (word == "pause" and known.state == State.PAUSED):
            return False
        if word == "pause":
            known.want = Want.PAUSE
            known.state = known.state if is_running else State.PAUSED
            return True
        taken = known.want == Want.PAUSE
        if known.state == State.PAUSED:
            known.state, known.sleeps = State.QUEUED, False
        known.want = Want.RUN
        return taken

    # Workers.

    @rule(lane=st.sampled_from([Lane.CPU, Lane.TRAIN]))
    def claim(self, lane: Lane) -> None:
        ready = [k for k in self.jobs.values() if k.state == State.QUEUED and k.lane == lane and not k.sleeps]
        running = self._running()
        served = sorted(
            {k.tenant for k in ready if running[k.tenant, lane] < MOST_RUNNING},
            key=lambda tenant: (running[tenant, lane] / TENANTS[tenant], tenant),
        )
        job = claims.claim(self.door.database, lane, "worker", 60.0)
        if not served:
            assert job is None
            return
        assert job is not None
        known = self.jobs[job.id]
        assert known.tenant == served[0]
        assert known in ready
        assert known.priority == max(k.priority for k in ready if k.tenant == known.tenant)
        known.state = State.RUNNING
        known.attempt += 1
        known.fence += 1

    @rule(data=st.data())
    @precondition(lambda self: self._has(State.RUNNING))
    def tell(self, data: st.DataObject) -> None:
        known = self._running_one(data)
        event = {"name": "note", "message": "told", "data": {}}
        with self.door.database.transaction() as session:
            ref = f"ref-{known.fence}"
            words = reports.Words(events=[event, event], metrics=[("train_loss", 1, float(known.fence))])
            heard = [
                claims.renew(session, known.id, known.fence, 60.0),
                reports.report(session, known.id, known.fence, words),
                reports.checkpoint(session, known.id, known.fence, ref=ref, step=1, metrics={}),
            ]
        assert heard == [known.want] * 3
        known.checkpoint = ref

    @rule(data=st.data(), how=st.sampled_from(["done", "failed", "retryable", "stopped"]))
    @precondition(lambda self: self._has(State.RUNNING))
    def end(self, data: st.DataObject, how: str) -> None:
        """As `worker.outcome` decides: a cancel wins, then a finish, then a pause."""
        known = self._running_one(data)
        back = known.attempt - 1
        if known.want == Want.CANCEL:
            self._move(known, "job.stopped")
        elif how == "done" and known.stage == Stage.VALIDATE:
            stage = {"stage": Stage.RUN, "lane": Lane.TRAIN, "attempt": 0}
            self._move(known, "job.validated", left_lane=Lane.CPU, **stage)
            if known.want == Want.PAUSE:
                self._move(known, "job.paused", fenced=False)
        elif how == "done":
            self._move(known, "job.succeeded")
        elif how == "failed" or (how == "retryable" and known.attempt >= MAX_ATTEMPTS):
            self._move(known, "job.failed", error={"code": "c", "message": "m", "param": None})
        elif known.want == Want.PAUSE:
            self._move(known, "job.paused", attempt=known.attempt if how == "retryable" else back)
        elif how == "retryable":
            self._move(known, "job.retried", available_at=now() + 3600)
            known.sleeps = True
        else:
            self._move(known, "job.drained", attempt=back, available_at=now())

    @rule(data=st.data())
    @precondition(lambda self: self._has(State.RUNNING))
    def fall_silent(self, data: st.DataObject) -> None:
        self._silence(self._running_one(data))

    def _silence(self, known: Known) -> None:
        self._set(known, lease_until=now() - 3600)
        lanes = claims.reap(self.door.database, grace=5)
        deaths = known.deaths + 1
        state, back = State.QUEUED, known.attempt - 1
        if known.want == Want.CANCEL:
            state = State.CANCELLED
        elif deaths >= MAX_DEATHS:
            state = State.FAILED
        elif known.want == Want.PAUSE:
            state = State.PAUSED
        known.leaves(state, deaths=deaths, attempt=back, fence=known.fence + 1)
        assert lanes == ([known.lane] if state == State.QUEUED else [])

    @rule(data=st.data())
    @precondition(lambda self: any(map(_waits_for_its_time, self.jobs.values())))
    def let_time_pass(self, data: st.DataObject) -> None:
        known = self._one(data, _waits_for_its_time)
        # Long ago, one after the other: the same steps must give the same order, however long they take.
        self.woken += 1
        self._set(known, available_at=float(self.woken))
        known.sleeps = False

    @rule(data=st.data(), name=st.sampled_from(["job.succeeded", "job.paused", "job.drained", "job.failed"]))
    @precondition(lambda self: any(known.old_fences for known in self.jobs.values()))
    def write_late(self, data: st.DataObject, name: str) -> None:
        late = [known for known in self.jobs.values() if known.old_fences]
        # A job that runs again is where a late write could do harm.
        known = data.draw(st.sampled_from([k for k in late if k.state == State.RUNNING] or late))
        fence = data.draw(st.sampled_from(known.old_fences))
        words = reports.Words(events=[{"name": "late", "message": "late", "data": {}}], progress={"late": 1})
        with self.door.database.transaction() as session:
            assert claims.renew(session, known.id, fence, 60.0) is None
            assert reports.report(session, known.id, fence, words) is None
            assert reports.checkpoint(session, known.id, fence, ref="late", step=9, metrics={}) is None
        with pytest.raises(Conflict), self.door.database.transaction() as session:
            jobs.move(session, known.id, name, fence=fence, message="late", error={"late": 1})
        # What it would be given is another's claim, and it would lose that one's job.
        with pytest.raises(Conflict), self.door.database.transaction() as session:
            claims.held(session, known.id, fence)

    # Promises.

    @invariant()
    def the_rows_are_as_they_should_be(self) -> None:
        with self.door.database.reading() as session:
            rows = {row.id: row for row in session.scalars(select(Job))}
            loads = Counter(
                {(row.tenant, row.lane): row.running for row in session.scalars(select(TenantLoad))}
            )
            told: dict[str, list[int]] = {}
            for job_id, seq in session.execute(select(Event.job, Event.seq).order_by(Event.job, Event.seq)):
                told.setdefault(job_id, []).append(seq)
            points = session.execute(select(Checkpoint.job, Checkpoint.ref)).all()
        # Told again, as after a commit that was never answered, a checkpoint has one row still.
        assert len(points) == len(set(points))
        assert rows.keys() == self.jobs.keys()
        assert +loads == self._running()
        for job_id, row in rows.items():
            known = self.jobs[job_id]
            seen = (row.state, row.stage, row.lane, row.want, row.attempt, row.deaths, row.fence)
            assert seen == known.words()
            assert row.checkpoint_ref == known.checkpoint
            assert (
                (row.lease_until is not None) == (row.lease_owner is not None) == (row.state == State.RUNNING)
            )
            assert (row.finished_at is not None) == (row.state in FINAL)
            assert told[job_id] == list(range(1, row.event_seq + 1))
            if row.state in FINAL:
                whole = {name: value for name, value in vars(row).items() if not name.startswith("_")}
                assert self.ended.setdefault(job_id, whole) == whole

    def teardown(self) -> None:
        with self.door.database.transaction() as session:
            for table in (Event, Metric, Checkpoint, JobLabel, Job, TenantLoad):
                session.execute(delete(table))

    # How rules speak.

    def _send(self, tenant: str, path: str, **more: Any) -> Any:
        return self.door.send("POST", path, key=self.keys[tenant], **more)

    def _of(self, tenant: str) -> list[Known]:
        return [known for known in self.jobs.values() if known.tenant == tenant]

    def _running(self) -> Counter[tuple[str, str]]:
        return Counter((k.tenant, k.lane) for k in self.jobs.values() if k.state == State.RUNNING)

    def _has(self, state: State) -> bool:
        return any(known.state == state for known in self.jobs.values())

    def _one(self, data: st.DataObject, which: Callable[[Known], bool]) -> Known:
        drawn: Known = data.draw(st.sampled_from([known for known in self.jobs.values() if which(known)]))
        return drawn

    def _running_one(self, data: st.DataObject) -> Known:
        return self._one(data, lambda known: known.state == State.RUNNING)

    def _set(self, known: Known, **values: Any) -> None:
        with self.door.database.transaction() as session:
            session.execute(update(Job).where(Job.id == known.id).values(**values))

    def _move(self, known: Known, name: str, *, fenced: bool = True, **values: Any) -> None:
        fence = known.fence if fenced else None
        with self.door.database.transaction() as session:
            row = jobs.move(session, known.id, name, fence=fence, message="moved", **values)
        stays = {word: values[word] for word in ("stage", "lane", "attempt") if word in values}
        if fenced:
            known.leaves(State(row.state), **stays)
        known.state = State(row.state)


def run(door: Door, **how: Any) -> None:
    class Bound(JobMachine):
        pass

    Bound.door = door
    Bound.keys = {tenant: door.new_key(tenant) for tenant in TENANTS}
    Bound.files = {tenant: door.file(key=key) for tenant, key in Bound.keys.items()}
    with door.database.transaction() as session:
        for tenant, weight in TENANTS.items():
            limits = {"weight": weight, "max_running": MOST_RUNNING, "max_queued": MOST_QUEUED}
            session.execute(update(Quota).where(Quota.tenant == tenant).values(**limits))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Bound, settings=settings(deadline=None, database=None, suppress_health_check=checks, **how)
    )


def test_no_order_of_steps_breaks_a_promise(door: Door) -> None:
    run(door, max_examples=15, stateful_step_count=25, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_order_of_many_steps_breaks_a_promise(door: Door) -> None:
    run(door, max_examples=150, stateful_step_count=60)
