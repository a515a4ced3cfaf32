"""What a job's processes printed: one file a claim, kept when the claim's folder goes, as it does when a job fails."""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Most bytes of one claim's log: its end counts, so its beginning goes.
MOST_BYTES = 1024 * 1024
#: Logs of a job's last claims; a job that is drained every night must not fill the disk either.
MOST_CLAIMS = 20
#: Bytes of a message's tail.
_LAST_WORDS = 2000
_ID = re.compile(r"[a-z]+[-_][a-z0-9]+")
#: What may open a door: our keys, tokens of the Hub, cloud keys, passwords in addresses, headers.
_SECRETS = re.compile(
    r"plait-[\w-]{20,}|hf_\w{16,}|sk-[\w-]{16,}|AKIA[0-9A-Z]{16}|(?<=://)[^\s/@]*:[^\s/@]+(?=@)"
    r"|(?i:(?<=bearer )\S{8,})"
)
#: Control characters can make a terminal do things; only the two that lay out text stay.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class ClaimLog:
    fence: int
    text: str


class Logs:
    """The logs of jobs below `root`; the child of a claim writes `<job>/<fence>.log`."""

    def __init__(self, data: Path) -> None:
        self.root = data / "logs" / "jobs"

    def path(self, job_id: str, fence: int) -> Path:
        """Where a claim's log is (or will be)."""
        if not _ID.fullmatch(job_id):
            raise ValueError(f"not a job: {job_id!r}")
        return self.root / job_id / f"{fence}.log"

    def make(self, job_id: str, fence: int) -> Path:
        """Where a new claim's log goes, folder and all once there are words; the oldest go when there are many."""
        path = self.path(job_id, fence)
        for old in self._claims(job_id)[: -(MOST_CLAIMS - 1)]:
            self.path(job_id, old).unlink(missing_ok=True)
        return path

    def owners(self) -> Mapping[str, float]:
        """The jobs that have logs, and when the last claim of each began to write (seconds since 1970)."""
        found: dict[str, float] = {}
        for folder in self.root.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if _ID.fullmatch(folder.name):
                    found[folder.name] = folder.stat().st_mtime
        return found

    def delete(self, job_id: str) -> None:
        """Nothing that the job's processes printed is left."""
        shutil.rmtree(self.path(job_id, 0).parent, ignore_errors=True)

    def tail(self, job_id: str, lines: int) -> list[ClaimLog]:
        """The last `lines` of the job, over all its claims, oldest claim first; without secrets."""
        found: list[ClaimLog] = []
        for fence in reversed(self._claims(job_id)):
            if lines <= 0:
                break
            kept = self._text(job_id, fence).splitlines()[-lines:]
            lines -= len(kept)
            found.append(ClaimLog(fence, "\n".join(kept)))
        return found[::-1]

    def last_words(self, job_id: str, fence: int) -> str:
        """The end of one claim's log, short enough for a message; a log that cannot be read says nothing."""
        try:
            return self._text(job_id, fence)[-_LAST_WORDS:].strip()
        except OSError:
            return ""

    def _claims(self, job_id: str) -> list[int]:
        return sorted(self._fences(self.path(job_id, 0).parent))

    def _fences(self, folder: Path) -> Iterator[int]:
        for path in folder.glob("*.log"):
            if path.stem.isdigit():
                yield int(path.stem)

    def _text(self, job_id: str, fence: int) -> str:
        try:
            raw = self.path(job_id, fence).read_bytes()
        except FileNotFoundError:
            return ""
        text = raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        return _SECRETS.sub("[secret]", _CONTROL.sub("", text))
