"""The door of the SDK: one object with files, data, jobs, models, predictions and webhooks."""

import time
from types import TracebackType

from plait import config
from plait.data import Data
from plait.files import Files
from plait.jobs import Jobs
from plait.models import Models
from plait.predictions import Predictions
from plait.retries import MAX_RETRIES
from plait.transport import Transport, Wait
from plait.webhooks import Webhooks


class Client:
    """A connection to one Plait server.

    Address and key: arguments, else PLAIT_BASE_URL and PLAIT_API_KEY, else the nearest `.plait/plait.json`
    or `plait.json` upwards from the current folder. `wait` is called to pause, between tries and looks;
    `timeout_s` bounds each read and write of a request, whose default is made for large uploads.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        wait: Wait = time.sleep,
        timeout_s: float | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self.config = config.discover(base_url, api_key)
        self._transport = Transport(self.config, wait=wait, timeout_s=timeout_s, max_retries=max_retries)
        self.files = Files(self._transport)
        self.data = Data(self.files)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.predictions = Predictions(self._transport)
        self.webhooks = Webhooks(self._transport)

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
