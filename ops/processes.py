"""The processes that `plait-server up` supervises: started, watched, started again, stopped in order."""

import logging
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import settings as configuration

log = logging.getLogger(__name__)

#: A process that keeps dying is started again ever more slowly, up to this.
SLOWEST_S = 10.0
#: One that lived this long starts afresh without delay.
HEALTHY_S = 30.0


@dataclass
class Service:
    """One supervised process and how to start it again."""

    name: str
    arguments: list[str]
    settings: configuration.Settings
    log_file: Path
    pass_fds: tuple[int, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    delay_s: float = 0.0
    started: float = 0.0
    start_at: float = field(default=0.0)

    def start(self) -> None:
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env=configuration.environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.pass_fds,
                cwd=Path(__file__).parent.parent,
                # Ctrl-C goes to the supervisor, which stops the others in order.
                process_group=0,
            )
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def revive(self) -> bool:
        """Starts it again if it died and its delay is over; True when it was started."""
        if self.process is None or self.process.poll() is None:
            return False
        instant = time.monotonic()
        if not self.start_at:
            if instant - self.started > HEALTHY_S:
                self.delay_s = 0.0
            self.start_at = instant + self.delay_s
            self.delay_s = min(SLOWEST_S, max(0.5, self.delay_s * 2))
            log.warning("%s ended with code %s; see %s", self.name, self.process.returncode, self.log_file)
        if instant < self.start_at:
            return False
        self.start_at = 0.0
        self.start()
        return True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, limit_s: float) -> None:
        """Waits for its end; kills it when the time is up."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop in time and was killed", self.name)
            self.process.kill()
            self.process.wait()
