"""The sound of films as a column of its own: it is missing where a film has no sound track. Loads no torch."""

from collections.abc import Collection
from dataclasses import replace

from engine.data.archive import Unreadable
from engine.data.manifest import Dataset, MediaRef, Row, Several, Value
from engine.data.references import is_data_url

#: Films of which it is known; of a larger set the others are opened again when someone asks.
_REMEMBERED = 2**18


def silenced(dataset: Dataset, row: Row, columns: Collection[str]) -> Row:
    """`row` without the sounds, of `columns`, that its films do not have. A film is opened once, by any thread."""
    sounds = [name for name in dataset.schema.sounds if name in columns]
    heard = {name: _heard(dataset, row.values.get(name)) for name in sounds}
    is_whole = all(value is row.values.get(name) for name, value in heard.items())
    return row if is_whole else replace(row, values={**row.values, **heard})


def _heard(dataset: Dataset, value: Value) -> Value:
    """Of several films those that have a sound track."""
    if not isinstance(value, Several):
        return None if _is_silent(dataset, value) else value
    parts = tuple(part for part in value.parts if not _is_silent(dataset, part))
    if len(parts) == len(value.parts):
        return value
    return Several(parts) if len(parts) > 1 else next(iter(parts), None)


def _is_silent(dataset: Dataset, ref: Value) -> bool:
    if not isinstance(ref, MediaRef):
        return False
    known = dataset.silent.get(ref)
    if known is None:
        try:
            known = dataset.media.is_silent(dataset.read(ref))
        except Unreadable:
            return False
        # A film in a data: URL is its own name, and not to be remembered whole.
        if len(dataset.silent) < _REMEMBERED and not is_data_url(ref.name):
            dataset.silent[ref] = known
    return known
