"""Completes ids with those that the server knows; without a server, with nothing and without a word."""

from collections.abc import Callable, Iterable
from itertools import islice

import click
from click.shell_completion import CompletionItem

from plait.client import Client
from plait.errors import PlaitError

#: A shell that waits for the server at every press of Tab is worse than one that knows no ids.
_TIMEOUT_S = 1.0
_MOST = 100

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _ids(ask: Callable[[Client], Iterable[str]]) -> Completer:
    """Completes with what `ask` finds on the server; whatever goes wrong, with nothing."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with Client(timeout_s=_TIMEOUT_S, max_retries=0) as client:
                found = [id_ for id_ in islice(ask(client), _MOST) if id_.startswith(incomplete)]
        except (PlaitError, LookupError, TypeError, ValueError):
            return []
        # An id with blanks or commas would break the shell's line; ours have none.
        return [CompletionItem(id_) for id_ in found if id_.isprintable() and not set(id_) & set(" ,'\"\\$`")]

    return complete


def paths_or(ids: Completer) -> Completer:
    """Ids where they fit what is typed, else files and folders."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = ids(ctx, param, incomplete) if incomplete.startswith("file-") else []
        return found or [CompletionItem(incomplete, type="file")]

    return complete


models = _ids(lambda client: (model.id for model in client.models.list()))
tuned_models = _ids(lambda client: (model.id for model in client.models.list() if not model.is_family))
files = _ids(lambda client: (file.id for file in client.files.list(limit=_MOST)))
fine_tunes = _ids(lambda client: (job.id for job in client.jobs.list(limit=_MOST)))
webhooks = _ids(lambda client: (one.id for one in client.webhooks.list(limit=_MOST)))
jobs = _ids(lambda client: (job.id for job in client.jobs.list(kind=None, limit=_MOST)))
