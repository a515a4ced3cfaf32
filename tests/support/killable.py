"""Real trainings that can be killed at a chosen point: `Killable` starts them, this module run as a program is them.

The program forks one process a training, before torch has made a thread. A training stops at each of its points
(a report, a file of a checkpoint about to be written) until it is told to go on, so that a kill lands exactly there.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.stack import ROOT

#: What a run measures that is the same in each run; times are not.
Series = dict[tuple[str, int], float]
_TIMES = ("seconds", "speedup", "fraction", "hit_rate")


class Killable:
    """Runs trainings one after the other, each to its end or to its death."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.killable"],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *, kill_at: int | None = None, **asked: Any) -> tuple[Series, int | None]:
        """What a training told, and how many points it passed; killed at point `kill_at`, None instead of those.

        `asked`: spec, training, cache, out, encoders, resume.
        """
        series: Series = {}
        self._tell(asked)
        for place, told in enumerate(self._points()):
            series |= {(name, told["step"]): value for name, value in told.get("metrics", {}).items()}
            if place == kill_at:
                os.kill(told["pid"], signal.SIGKILL)
                assert self._read() == {"ended": -signal.SIGKILL}
                return series, None
            self._tell("go on")
        return series, place + 1

    def _points(self) -> Iterator[dict[str, Any]]:
        while "ended" not in (told := self._read()):
            yield told
        assert told["ended"] == 0, told

    def _tell(self, what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def newest_checkpoint(*outs: Path) -> Path | None:
    """The last whole one, of whichever process."""
    found = [path for out in outs for path in out.glob("checkpoints/step-*")]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def _serve() -> None:
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            _train(**json.loads(line))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        _say(ended=os.waitstatus_to_exitcode(status))


def _say(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _point(**told: Any) -> None:
    _say(pid=os.getpid(), **told)
    assert sys.stdin.readline() == '"go on"\n'


def _train(
    spec: dict[str, Any], training: str, cache: str, out: str, encoders: dict[str, str], resume: str | None
) -> None:
    def report(progress: Progress) -> None:
        metrics = {k: v for k, v in (progress.metrics or {}).items() if not any(t in k for t in _TIMES)}
        _point(step=progress.step, stage=progress.stage, metrics=metrics)

    write = checkpoint.write_durably

    def announced(path: Path, data: bytes) -> None:
        _point(step=0, writes=path.name)
        write(path, data)

    checkpoint.write_durably = announced  # type: ignore[attr-defined]
    train(
        Multimodal.model_validate(spec),
        training=Path(training),
        encoders=lambda name: Path(encoders[name]),
        cache=Path(cache),
        out=Path(out),
        seed=1,
        resume=Path(resume) if resume else None,
        report=report,
    )


if __name__ == "__main__":
    import transformers.utils.logging

    from domain.specs import Multimodal
    from engine.train import checkpoint
    from engine.train.run import Progress, train

    transformers.utils.logging.disable_progress_bar()
    _serve()
