"""One chaos run: jobs and faults side by side, then peace, then the audit. `make chaos` runs this.

The same seed gives the same tasks and the same faults in the same order; whom they meet, the machine decides.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from chaos import audit, report, work
from chaos.faults import FAULTS, OF_A_SERVER, WISHES, Fault, Missed, Scene
from chaos.fleet import TENANTS, Fleet, fleet
from chaos.report import Report
from chaos.submitters import Submitters
from chaos.witness import Witness, said_in
from db.tables import Job
from domain.job import FINAL, State

TICK_S = 0.05
#: Faults that last go on side by side; more would leave nobody at work.
MOST_AT_ONCE = 4
#: Seconds from one fault to the next.
GAP_S = (0.1, 0.6)
#: One client process sends so many, one after the other.
MOST_IN_A_BATCH = 4
#: After the last fault, until all jobs are to be final.
REST_S = 180.0


@dataclass(frozen=True)
class Plan:
    """What is to happen, all of it from one seed."""

    kind: str
    seed: int
    jobs: int
    faults: int
    trainings: int = 0
    workers: int = 4
    fence: str = "fenced"
    #: The faults to choose from; None means all that this database can suffer.
    kinds: tuple[str, ...] | None = None

    @property
    def known(self) -> Mapping[str, tuple[Fault, str]]:
        return FAULTS | (OF_A_SERVER if self.kind == "postgresql" else {})

    def schedule(self, rng: random.Random) -> list[str]:
        """Each kind about equally often, in any order; a wish after every fourth."""
        kinds = sorted(self.kinds or self.known)
        drawn = (kinds * (self.faults // len(kinds) + 1))[: self.faults]
        rng.shuffle(drawn)
        if self.kinds is None:
            for place in range(len(drawn), 0, -4):
                drawn.insert(place, rng.choice(sorted(WISHES)))
        return drawn


class Storm:
    """Lets the faults of a schedule loose, some at once, and has the clients send jobs meanwhile."""

    def __init__(self, scene: Scene, plan: Plan) -> None:
        self.scene, self.plan = scene, plan
        self.waiting = plan.schedule(scene.rng)
        self.total = len(self.waiting)
        self.active: list[tuple[str, str, Iterator[None]]] = []
        self.struck: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.next_at = time.monotonic() + 1.0

    def turn(self) -> bool:
        """One tick; False once all is over and answered."""
        self.scene.fleet.revive()
        self.scene.clients.tend()
        self._send()
        for entry in list(self.active):
            self._step(entry)
        if self.waiting and time.monotonic() >= self.next_at and len(self.active) < MOST_AT_ONCE:
            self._begin()
        return bool(self.waiting or self.active or self.scene.clients.running or self._unsent)

    @property
    def _unsent(self) -> int:
        return len(self.scene.clients.tasks) - self.scene.clients.sent

    def _send(self) -> None:
        """Jobs come as faults do: the last are sent with the last fault, so that each fault finds some at work."""
        begun = max(0, self.total - len(self.waiting))
        wanted = math.ceil(len(self.scene.clients.tasks) * (begun + 1) / (self.total + 1))
        due = wanted - self.scene.clients.sent
        if due >= min(MOST_IN_A_BATCH, self._unsent) > 0:
            self.scene.clients.send(self.scene.clients.take(min(due, MOST_IN_A_BATCH)))

    def _begin(self) -> None:
        in_hand = {thing for _, thing, _ in self.active if thing}
        known = self.plan.known | WISHES
        kind = next((k for k in self.waiting if known[k][1] not in in_hand), None)
        if kind is not None:
            self.waiting.remove(kind)
            strike, thing = known[kind]
            self.active.append((kind, thing, strike(self.scene)))
            self.next_at = time.monotonic() + self.scene.rng.uniform(*GAP_S)

    def _step(self, entry: tuple[str, str, Iterator[None]]) -> None:
        kind, _, acting = entry
        try:
            next(acting)
        except StopIteration:
            self.active.remove(entry)
            self.struck[kind] += 1
        except Missed:
            self.active.remove(entry)
            self.missed[kind] += 1
            # It comes again, unless there is nobody left for it.
            if self.missed[kind] < 10 and self._unsent:
                self.waiting.append(kind)


def run(plan: Plan, folder: Path) -> Report:
    """The whole run in `folder`, which must be empty."""
    began, rng = time.monotonic(), random.Random(plan.seed)
    with fleet(folder, plan.kind, fence=plan.fence, cpu=plan.workers, train=bool(plan.trainings)) as made:
        files = work.make_files(folder, training=bool(plan.trainings))
        made.start()
        ids = {
            (tenant, name): work.upload(made.port, made.keys[tenant], path)
            for tenant in TENANTS
            for name, path in files.items()
        }
        tasks = work.tasks(rng, plan.jobs, plan.trainings, ids, TENANTS)
        clients, witness = Submitters(made, tasks, folder / "answers.jsonl"), Witness(made)
        scene = Scene(made, clients, witness, rng)
        storm = Storm(scene, plan)
        witness.start()
        try:
            while storm.turn():
                time.sleep(TICK_S)
            _rest(made, clients)
        finally:
            witness.stop()
            clients.stop()
        return _judge(plan, scene, storm, began)


def _rest(made: Fleet, clients: Submitters) -> None:
    """Until every job is final; whatever somebody has paused goes on."""
    limit = time.monotonic() + REST_S
    while time.monotonic() < limit:
        made.revive()
        clients.tend()
        if made.ask(lambda: _unfinished(made), otherwise=[("", "", "")]) == []:
            return
        time.sleep(TICK_S)


def _unfinished(made: Fleet) -> list[tuple[str, str, str]]:
    with made.database.reading() as session:
        unfinished = select(Job.tenant, Job.id, Job.state).where(Job.state.in_(set(State) - FINAL))
        return [(tenant, job, state) for tenant, job, state in session.execute(unfinished)]


def _judge(plan: Plan, scene: Scene, storm: Storm, began: float) -> Report:
    made, clients, witness = scene.fleet, scene.clients, scene.witness
    said = said_in(life for worker in made.workers for life in worker.lives)
    found = audit.gather(
        made, clients.tasks, clients.answers(), frozenset(scene.cancelled), said, witness.children
    )
    broken = {rule: holds(found) for rule, holds in audit.RULES.items()}
    broken["result files that differ"] = audit.unread(made, found)
    late, lost_answers = audit.refused(found)
    words = [what for rule in broken.values() for what in rule]
    return Report(
        database=plan.kind,
        seed=plan.seed,
        fence=plan.fence,
        seconds=time.monotonic() - began,
        struck={kind: storm.struck[kind] for kind in sorted(storm.struck) if kind not in WISHES},
        wished={kind: storm.struck[kind] for kind in sorted(WISHES)},
        outcomes=report.outcomes(found),
        deaths=sum(job.deaths for job in found.jobs.values()),
        claims=sum(event.name == "job.claimed" for events in found.events.values() for event in events),
        late_refused=late,
        answers_lost=lost_answers,
        orphans=len(audit.orphans(found)),
        broken=broken,
        details=report.details(found, words, made.logs) if words else "",
    )


def main() -> int:
    """The long form, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make chaos")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--trainings", type=int, default=10)
    parser.add_argument("--unfenced", action="store_true", help="switch the fence off: the run must fail")
    asked = parser.parse_args()
    kinds = ["sqlite", "postgresql"] if asked.database == "both" else [asked.database]
    return max(_one(kind, asked) for kind in kinds)


def _one(kind: str, asked: argparse.Namespace) -> int:
    fence = "unfenced" if asked.unfenced else "fenced"
    plan = Plan(kind, asked.seed, asked.jobs, asked.faults, asked.trainings, fence=fence)
    folder = Path(tempfile.mkdtemp(prefix="plait-chaos-"))
    found = run(plan, folder)
    sys.stdout.write(found.table() + "\n")
    (folder / "report.json").write_text(json.dumps(found.violations, indent=1))
    if found.violations:
        again = f"make chaos SEED={plan.seed} JOBS={plan.jobs} FAULTS={plan.faults} DATABASE={kind}"
        words = "\n".join(found.violations[:40])
        sys.stdout.write(f"{words}\n{found.details}\nAgain: {again}\nKept: {folder}\n")
    return int(bool(found.violations))


if __name__ == "__main__":
    sys.exit(main())
