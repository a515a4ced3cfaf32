"""What cells hold, by name: equal contents have equal keys. Decodes nothing."""

from collections.abc import Sequence

from engine.data.dataset import Example, announce
from engine.data.uploads import AT_ONCE
from engine.train.words import ShouldStop, heed

#: Names no content.
MISSING = 0


def key_of(digest: str | None) -> int:
    """Of a cell's content by its sha256 in hex: 63 bits of it; None is a cell without content."""
    return MISSING if digest is None else (int(digest[:16], 16) >> 1) or 1


def content_keys(examples: Sequence[Example], column: str, should_stop: ShouldStop) -> list[str | None]:
    """The sha256 of each row's cell, or None. Media are read once, and not decoded. Raises StopAsked."""
    keys: list[str | None] = []
    for number, example in enumerate(examples):
        heed(should_stop)
        if number % AT_ONCE == 0:
            announce(examples[number : number + AT_ONCE], column)
        keys.append(example.content_key(column) if example.has(column) else None)
    return keys
