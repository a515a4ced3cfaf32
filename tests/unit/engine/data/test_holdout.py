"""Which rows train, validate and test."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import EngineError
from domain.manifest import Split
from engine.data.holdout import assign_splits
from engine.data.manifest import Row


def row(n: int, *, split: str | None = None, group: str | None = None, label: str = "a") -> Row:
    return Row(line=n + 1, id=f"r{n}", values={}, label=label, split=split, group=group)


def test_rows_keep_the_split_that_they_name() -> None:
    names = ["train", "validation", "test", None]

    splits = assign_splits([row(n, split=name) for n, name in enumerate(names)], seed=0)

    assert splits == {Split.TRAIN: [0, 3], Split.VALIDATION: [1], Split.TEST: [2]}


def test_a_tenth_of_the_training_rows_is_held_out_if_none_validates() -> None:
    rows = [row(n, split="test" if n < 20 else None, label="ab"[n % 2]) for n in range(120)]

    splits = assign_splits(rows, seed=0)

    assert {split: len(numbers) for split, numbers in splits.items()} == {
        Split.TRAIN: 90,
        Split.VALIDATION: 10,
        Split.TEST: 20,
    }


def test_nothing_is_held_out_beside_a_validation_file() -> None:
    assert assign_splits([row(n) for n in range(20)], 0, hold_out=False)[Split.VALIDATION] == []


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others() -> None:
    rows = [row(n) for n in range(100)]

    first, again, other = (assign_splits(rows, seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_what_is_held_out_depends_on_ids_and_not_on_their_order() -> None:
    rows = [row(n) for n in range(50)]

    def held(given: list[Row]) -> set[str]:
        return {given[n].id for n in assign_splits(given, 0)[Split.VALIDATION]}

    assert held(rows) == held(rows[::-1])


def test_the_last_example_of_a_class_is_not_held_out() -> None:
    rows = [row(n, label="rare" if n == 7 else "ab"[n % 2]) for n in range(12)]

    for seed in range(30):
        assert {rows[n].label for n in assign_splits(rows, seed)[Split.TRAIN]} == {"a", "b", "rare"}


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(EngineError) as error:
        assign_splits([row(n, group="one") for n in range(9)], 0)

    assert error.value.code == "too_few_examples"


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_no_group_straddles_and_no_split_is_empty(groups: list[int], classes: int, seed: int) -> None:
    rows = [row(n, group=f"g{g}", label=str(n % classes)) for n, g in enumerate(groups)]

    splits = assign_splits(rows, seed)

    train, validation = splits[Split.TRAIN], splits[Split.VALIDATION]
    assert train
    assert validation
    assert Counter(train + validation) == Counter(range(len(rows)))
    assert not {rows[n].group for n in train} & {rows[n].group for n in validation}
