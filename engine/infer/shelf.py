"""Loaded models, a few at once: the one used longest ago makes room. Knows no device."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

M = TypeVar("M")


class Shelf(Generic[M]):
    """Keyed by what never changes under its name, such as the folder of one claim of one job."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._models: OrderedDict[str, M] = OrderedDict()

    def get(self, key: str, load: Callable[[], M]) -> M:
        """The model of `key`, loaded unless it stands here. Room is made first: two large ones may not fit."""
        if key in self._models:
            self._models.move_to_end(key)
            return self._models[key]
        while len(self._models) >= self._places:
            self._models.popitem(last=False)
        self._models[key] = load()
        return self._models[key]
