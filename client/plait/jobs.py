"""Jobs: making fine-tunes; listing, following and ending jobs of all kinds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plait import paging, waiting
from plait.job_shapes import FINE_TUNE, Checkpoint, Event, Job, Log, Series, Update
from plait.transport import Transport
from plait.waiting import PATIENCE_S, OnTrouble
from plait.watching import Watch

_PATH, _ALL_KINDS = "/fine_tuning/jobs", "/jobs"
#: Ids of jobs that are no fine-tunes begin so.
_OTHERS = ("check_", "pred_")


class Jobs:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submits the create body. The same key and body give the same job; without a key, each call is a new one."""
        return Job.of(self._transport.post(_PATH, dict(spec), idempotency_key=idempotency_key))

    def list(
        self,
        *,
        kind: str | None = FINE_TUNE,
        status: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Newest first, at most `limit` in all; pages are fetched as they are needed.

        The server filters: `kind` is fine_tune, check or predict, None for all; `status` is one of STATUSES.
        """
        params = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        path = _PATH
        if kind != FINE_TUNE or status:
            path = _ALL_KINDS
            params |= {name: word for name, word in (("kind", kind), ("status", status)) if word}
        return map(Job.of, paging.walk(self._transport, path, after=after, limit=limit, params=params))

    def get(self, job_id: str) -> Job:
        return Job.of(self._transport.get(_path(job_id)))

    def wait(self, job_id: str, wait: bool | float = True) -> Job:
        """The job once it is final, or as it stands after `wait` seconds. Waits through a restart of the server."""
        path = _path(job_id)
        raw = waiting.patiently(lambda: self._transport.get(path), self._transport.wait)
        return Job.of(waiting.until_final(self._transport, path, raw, waiting.seconds_of(wait)))

    def cancel(self, job_id: str) -> Job:
        """Asks for the end of the job; a running one stops within seconds and keeps its last checkpoint."""
        return Job.of(self._transport.post(f"{_path(job_id)}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Takes the job from its queue; a running one makes a checkpoint first, and is paused within seconds."""
        return Job.of(self._transport.post(f"{_path(job_id)}/pause"))

    def resume(self, job_id: str) -> Job:
        """Queues a paused job again; a fine-tune goes on from its last checkpoint."""
        return Job.of(self._transport.post(f"{_path(job_id)}/resume"))

    def events(self, job_id: str, *, after: str | None = None, limit: int | None = None) -> Iterator[Event]:
        """Newest first, at most `limit` in all; `after` goes on with those older than that id."""
        pages = paging.walk(self._transport, f"{_tuned(job_id)}/events", after=after, limit=limit)
        return map(Event.of, pages)

    def checkpoints(self, job_id: str, *, limit: int | None = None) -> Iterator[Checkpoint]:
        """Newest first, at most `limit` in all."""
        pages = paging.walk(self._transport, f"{_tuned(job_id)}/checkpoints", limit=limit)
        return map(Checkpoint.of, pages)

    def metrics(
        self, job_id: str, names: Sequence[str] = (), *, max_points: int | None = None
    ) -> dict[str, Series]:
        """The curves by name, all unless some are named; each thinned by the server to `max_points`."""
        asked: dict[str, str | int] = {"names": ",".join(names)} if names else {}
        asked |= {"max_points": max_points} if max_points else {}
        series = self._transport.get(f"{_tuned(job_id)}/metrics", asked).get("series") or {}
        return {name: Series(list(one["steps"]), list(one["values"])) for name, one in series.items()}

    def logs(self, job_id: str, *, tail: int | None = None) -> tuple[Log, ...]:
        """What the attempts at the job wrote, oldest first; `tail` bounds the lines."""
        answer = self._transport.get(f"{_tuned(job_id)}/logs", {"tail": tail} if tail else None)
        told = answer.get("data") or ()
        return tuple(Log(one.get("attempt_fence") or 0, one.get("text") or "") for one in told)

    def watch(
        self, job_id: str, *, patience_s: float = PATIENCE_S, on_trouble: OnTrouble | None = None
    ) -> Iterator[Update]:
        """Looks at the job whenever something happens, until it is final; each event comes once and in order.

        Events arrive as the server streams them; one that streams none is asked every second. A server that
        restarts is waited for, up to `patience_s`; `on_trouble` hears of each failed look.
        """
        events_path = f"{_tuned(job_id)}/events" if _is_tuned(job_id) else None
        return Watch(self._transport, _path(job_id), events_path, patience_s, on_trouble).updates()


def _is_tuned(job_id: str) -> bool:
    return not job_id.startswith(_OTHERS)


def _path(job_id: str) -> str:
    return _tuned(job_id) if _is_tuned(job_id) else paging.one(_ALL_KINDS, job_id)


def _tuned(job_id: str) -> str:
    return paging.one(_PATH, job_id)
