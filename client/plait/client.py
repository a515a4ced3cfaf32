"""The door of the SDK: one object with files, jobs and models."""

import time
from types import TracebackType

from plait import config
from plait.files import Files
from plait.jobs import Jobs
from plait.models import Models
from plait.transport import Transport, Wait


class Client:
    """A connection to one Plait server.

    Address and key: arguments, else PLAIT_BASE_URL and PLAIT_API_KEY, else the nearest `.plait/plait.json`
    or `plait.json` upwards from the current folder. `wait` is called to pause, between tries and looks.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, wait: Wait = time.sleep
    ) -> None:
        self.config = config.discover(base_url, api_key)
        self._transport = Transport(self.config, wait=wait)
        self.files = Files(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
