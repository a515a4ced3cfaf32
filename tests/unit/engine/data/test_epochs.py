"""Micro-batches that are made ahead, over the ends of epochs, in the same order and to the same end."""

import threading
from collections.abc import Iterator

import pytest

from engine.data.collate import Epochs


def pieces(epoch: int, step: int) -> Iterator[tuple[int, int]]:
    return ((epoch, n) for n in range(step, 4))


class Maker:
    """Notes what was begun, and can be waited for."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self._changed = threading.Condition()

    def __call__(self, piece: tuple[int, int]) -> tuple[int, int]:
        with self._changed:
            self.begun.append(piece)
            self._changed.notify_all()
        return piece

    def has_begun(self, piece: tuple[int, int]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: piece in self.begun, timeout=10)


def test_epochs_follow_one_another_each_to_its_end() -> None:
    epochs = Epochs(Maker(), pieces, n_epochs=3)

    found = [list(epochs(n, 0)) for n in range(3)]
    epochs.close()

    assert found == [[(epoch, n) for n in range(4)] for epoch in range(3)]


def test_the_next_epoch_is_begun_while_this_one_is_not_over() -> None:
    maker = Maker()
    epochs = Epochs(maker, pieces, n_epochs=2)
    running = epochs(0, 0)

    for _ in range(3):
        next(running)

    assert maker.has_begun((1, 0))
    epochs.close()


def test_after_the_last_epoch_nothing_is_made() -> None:
    maker = Maker()
    epochs = Epochs(maker, pieces, n_epochs=1)

    list(epochs(0, 0))
    epochs.close()

    assert sorted(maker.begun) == [(0, n) for n in range(4)]


def test_a_run_that_goes_on_begins_in_the_middle_and_the_next_epoch_at_its_start() -> None:
    epochs = Epochs(Maker(), pieces, n_epochs=3)

    assert list(epochs(1, 2)) == [(1, 2), (1, 3)]
    assert list(epochs(2, 0)) == [(2, n) for n in range(4)]
    epochs.close()


def test_whoever_leaves_an_epoch_early_or_asks_for_another_gets_what_was_asked_for() -> None:
    epochs = Epochs(Maker(), pieces, n_epochs=3)
    next(epochs(0, 0))

    assert list(epochs(0, 1)) == [(0, 1), (0, 2), (0, 3)]
    assert list(epochs(2, 3)) == [(2, 3)]
    epochs.close()


def test_an_epoch_without_pieces_is_over_at_once() -> None:
    epochs = Epochs(Maker(), lambda epoch, step: iter(()), n_epochs=2)

    assert list(epochs(0, 0)) == []
    epochs.close()


def test_what_making_raises_comes_where_its_piece_would_have_come() -> None:
    def make(piece: tuple[int, int]) -> tuple[int, int]:
        if piece == (1, 1):
            raise ValueError("no film")
        return piece

    epochs = Epochs(make, pieces, n_epochs=2)
    list(epochs(0, 0))
    running = epochs(1, 0)

    assert next(running) == (1, 0)
    with pytest.raises(ValueError, match="no film"):
        next(running)
    epochs.close()


def test_its_threads_end_when_it_is_closed() -> None:
    epochs = Epochs(Maker(), pieces, n_epochs=9)
    next(epochs(0, 0))

    epochs.close()
    epochs.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
