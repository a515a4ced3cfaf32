"""One chaos run: jobs and faults side by side, then peace, then the audit. `make chaos` runs this.

The same seed gives the same tasks and the same faults in the same order; whom they meet, the machine decides.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

from chaos import audit, evidence, report, work
from chaos.faults import WISHES
from chaos.fleet import TENANTS, Fleet, fleet
from chaos.report import Report
from chaos.scene import Scene
from chaos.storm import Plan, Storm
from chaos.submitters import Submitters
from chaos.witness import Witness, said_in
from db.logs import Logs
from db.tables import Job
from domain.job import UNFINISHED, State
from worker.upkeep import orphans

TICK_S = 0.05
#: After the last fault: a run in which no job has become final for so long is over, and what is left is lost.
STANDSTILL_S = 90.0


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
    left, limit = sys.maxsize, time.monotonic() + STANDSTILL_S
    while time.monotonic() < limit:
        made.revive()
        clients.tend()
        unfinished = made.ask(lambda: _unfinished(made), otherwise=None)
        if unfinished is not None and len(unfinished) < left:
            left, limit = len(unfinished), time.monotonic() + STANDSTILL_S
        if unfinished == {} and not clients.running:
            return
        if not clients.running:
            for job in [job for job, state in (unfinished or {}).items() if state == State.PAUSED]:
                clients.ask(job, "resume")
        time.sleep(TICK_S)


def _unfinished(made: Fleet) -> dict[str, str]:
    with made.database.reading() as session:
        unfinished = select(Job.id, Job.state).where(Job.state.in_(UNFINISHED))
        return dict(session.execute(unfinished).all())


def _judge(plan: Plan, scene: Scene, storm: Storm, began: float) -> Report:
    made, clients, witness = scene.fleet, scene.clients, scene.witness
    said = said_in(life for worker in made.workers for life in worker.lives)
    found = evidence.gather(
        made, clients.tasks, clients.answers(), frozenset(scene.cancelled), said, witness.children
    )
    broken = {rule: holds(found) for rule, holds in audit.RULES.items()}
    broken["result files that differ"] = audit.unread(made, found)
    left = len(audit.orphans(found))
    orphans.sweep(made.database, found.artifacts, Logs(made.settings.data.absolute()))
    broken["folders that the sweep left"] = audit.orphans(found)
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
        seen_at_work=sum(bool(child.samples) for child in witness.children),
        late_refused=late,
        answers_lost=lost_answers,
        orphans=left,
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
    parser.add_argument(
        "--trainings", type=int, help="real trainings among the jobs; one in fifty if not said"
    )
    parser.add_argument("--unfenced", action="store_true", help="switch the fence off: the run must fail")
    asked = parser.parse_args()
    # Whoever ends the run ends all that it has started, what is frozen included.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds = ["sqlite", "postgresql"] if asked.database == "both" else [asked.database]
    return max(_one(kind, asked) for kind in kinds)


def _one(kind: str, asked: argparse.Namespace) -> int:
    fence = "unfenced" if asked.unfenced else "fenced"
    trainings = asked.jobs // 50 if asked.trainings is None else asked.trainings
    plan = Plan(kind, asked.seed, asked.jobs, asked.faults, trainings, fence=fence)
    folder = Path(tempfile.mkdtemp(prefix="plait-chaos-"))
    found = run(plan, folder)
    sys.stdout.write(found.table() + "\n")
    (folder / "report.json").write_text(json.dumps(found.violations, indent=1))
    if found.violations:
        words = "\n".join(found.violations[:40])
        sys.stdout.write(f"{words}\n{found.details}\n{again(plan)}\nKept: {folder}\n")
    return int(bool(found.violations))


def again(plan: Plan) -> str:
    """How to run it again."""
    return f"Again: make chaos SEED={plan.seed} JOBS={plan.jobs} FAULTS={plan.faults} DATABASE={plan.kind}"


if __name__ == "__main__":
    sys.exit(main())
