"""What a run came to, as a table, and what is needed to look into a run that failed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.evidence import Evidence
from db.tables import Job


@dataclass(frozen=True)
class Report:
    database: str
    seed: int
    fence: str
    seconds: float
    struck: Mapping[str, int]
    wished: Mapping[str, int]
    outcomes: Mapping[str, int]
    deaths: int
    claims: int
    #: Children that the witness saw with a job in hand: the others were too quick for it.
    seen_at_work: int
    late_refused: int
    answers_lost: int
    orphans: int
    #: Rule -> what breaks it.
    broken: Mapping[str, Sequence[str]]
    #: For a failure: the jobs' histories and the ends of the logs.
    details: str = ""

    @property
    def violations(self) -> list[str]:
        return [f"{rule}: {what}" for rule, found in self.broken.items() for what in found]

    def table(self) -> str:
        faults, jobs = sum(self.struck.values()), sum(self.outcomes.values())
        head = f"{self.database}, seed {self.seed}, {self.fence}: {jobs} jobs, {faults} faults, {self.seconds:.0f} s"
        return "\n".join(
            [
                head,
                *_rows("faults", self.struck),
                *_rows("asked of the API meanwhile", self.wished),
                *_rows("jobs by outcome", self.outcomes),
                *_rows(
                    "work", {"claims": self.claims, "seen at work": self.seen_at_work, "deaths": self.deaths}
                ),
                *_rows(
                    "the fence",
                    {
                        "late writes refused": self.late_refused,
                        "ends whose answer was lost": self.answers_lost,
                        "orphan folders that the sweep took": self.orphans,
                    },
                ),
                *_rows("must be 0", {rule: len(found) for rule, found in self.broken.items()}),
            ]
        )


def _rows(title: str, counts: Mapping[str, int]) -> list[str]:
    return [f"  {title}", *(f"    {name:<36}{count:>6}" for name, count in counts.items())]


def outcomes(found: Evidence) -> dict[str, int]:
    return dict(sorted(Counter(_outcome(job) for job in found.jobs.values()).items()))


def _outcome(job: Job) -> str:
    code = f" ({job.error['code']})" if job.error else ""
    return f"{job.kind} {job.state}{code}"


def details(found: Evidence, broken: Iterable[str], logs: Path) -> str:
    """Histories of the jobs that are named in what is broken, and the last words of every process."""
    said = "\n".join(broken)
    named = [job for job in found.jobs if job in said][:5]
    histories = [
        f"-- {job} ({found.jobs[job].state}, fence {found.jobs[job].fence})\n"
        + "\n".join(f"   {e.seq} fence {e.fence} {e.name}: {e.message}" for e in found.events.get(job, ()))
        for job in named
    ]
    lines = [
        line
        for log in sorted(logs.glob("*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if any(job in line for job in named)
    ]
    tails = [f"-- {log.name}\n{log.read_text(errors='replace')[-600:]}" for log in sorted(logs.glob("*.log"))]
    return "\n".join([*histories, *lines[-80:], *tails[-12:]])
