"""Which rows train, validate and test."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import EngineError
from domain.manifest import Split
from engine.data.holdout import assign_splits
from engine.data.ledger import Book
from engine.data.manifest import Row

TENTH = {Split.VALIDATION: 0.1}


def row(n: int, *, split: str | None = None, group: str | None = None, label: str = "a") -> Row:
    return Row(line=n + 1, id=f"r{n}", values={}, label=label, split=split, group=group)


def test_rows_keep_the_split_that_they_name() -> None:
    names = ["train", "validation", "test", None]

    splits = assign_splits([row(n, split=name) for n, name in enumerate(names)], seed=0)

    assert splits == {Split.TRAIN: [0, 3], Split.VALIDATION: [1], Split.TEST: [2]}


def test_a_tenth_of_the_training_rows_is_held_out_if_none_validates() -> None:
    rows = [row(n, split="test" if n < 20 else None, label="ab"[n % 2]) for n in range(120)]

    splits = assign_splits(rows, 0, TENTH)

    assert {split: len(numbers) for split, numbers in splits.items()} == {
        Split.TRAIN: 90,
        Split.VALIDATION: 10,
        Split.TEST: 20,
    }


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    assert assign_splits([row(n) for n in range(20)], 0)[Split.VALIDATION] == []


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others() -> None:
    rows = [row(n) for n in range(100)]

    first, again, other = (assign_splits(rows, seed, TENTH) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_what_is_held_out_depends_on_ids_and_not_on_their_order() -> None:
    rows = [row(n) for n in range(50)]

    def held(given: list[Row]) -> set[str]:
        return {given[n].id for n in assign_splits(given, 0, TENTH)[Split.VALIDATION]}

    assert held(rows) == held(rows[::-1])


def test_the_last_example_of_a_class_is_not_held_out() -> None:
    rows = [row(n, label="rare" if n == 7 else "ab"[n % 2]) for n in range(12)]

    for seed in range(30):
        assert {rows[n].label for n in assign_splits(rows, seed, TENTH)[Split.TRAIN]} == {"a", "b", "rare"}


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(EngineError) as error:
        assign_splits([row(n, group="one") for n in range(9)], 0, TENTH)

    assert error.value.code == "too_few_examples"


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda g: len(set(g)) > 1),
    classes=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_no_group_straddles_and_no_split_is_empty(groups: list[int], classes: int, seed: int) -> None:
    rows = [row(n, group=f"g{g}", label=str(n % classes)) for n, g in enumerate(groups)]

    splits = assign_splits(rows, seed, TENTH)

    train, validation = splits[Split.TRAIN], splits[Split.VALIDATION]
    assert train
    assert validation
    assert Counter(train + validation) == Counter(range(len(rows)))
    assert not {rows[n].group for n in train} & {rows[n].group for n in validation}


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_held_out_by_its_share(seed: int) -> None:
    counts = {"often": 700, "seldom": 250, "rare": 50}
    labels = [name for name, count in counts.items() for _ in range(count)]
    rows = [row(n, label=label) for n, label in enumerate(labels)]

    splits = assign_splits(rows, seed, {Split.TEST: 0.2, Split.VALIDATION: 0.1})

    def held(split: Split) -> Counter[object]:
        return Counter(rows[n].label for n in splits[split])

    assert held(Split.TEST) == {"often": 140, "seldom": 50, "rare": 10}
    assert held(Split.VALIDATION) == {"often": 70, "seldom": 25, "rare": 5}


def test_the_test_rows_stay_the_same_when_the_validations_share_changes() -> None:
    rows = [row(n, label="ab"[n % 2]) for n in range(200)]

    small, large = (
        assign_splits(rows, 0, {Split.TEST: 0.1, Split.VALIDATION: share}) for share in (0.1, 0.3)
    )

    assert small[Split.TEST] == large[Split.TEST]
    assert set(small[Split.VALIDATION]) < set(large[Split.VALIDATION])


def test_rows_that_name_their_test_rows_have_no_others_held_out_for_it() -> None:
    rows = [row(n, split="test" if n < 5 else None) for n in range(100)]

    assert len(assign_splits(rows, 0, {Split.TEST: 0.5})[Split.TEST]) == 5


def test_measured_numbers_are_held_out_by_the_number_of_rows() -> None:
    rows = [Row(n, f"r{n}", {}, n / 7, None, None) for n in range(100)]

    assert len(assign_splits(rows, 0, TENTH)[Split.VALIDATION]) == 10


@given(
    groups=st.lists(st.none() | st.integers(0, 4), min_size=4, max_size=24),
    labels=st.sampled_from(["one", "two", "numbers"]),
    shares=st.tuples(st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.3, 0.5])),
    seed=st.integers(0, 99),
)
def test_rows_are_left_to_train_on_or_it_is_said_that_there_are_too_few_groups(
    groups: list[int | None], labels: str, shares: tuple[float, float], seed: int
) -> None:
    def label(n: int) -> str | float:
        return n / 7 if labels == "numbers" else "ab"[n % 2] if labels == "two" else "a"

    # Ids that are the names of groups, too: they are no groups.
    rows = [Row(n, str(n), {}, label(n), None, None if g is None else str(g)) for n, g in enumerate(groups)]
    book = Book([], Split.TRAIN)
    for made in rows:
        book.add(made, b"")
    wanted = {Split.TEST: shares[1], Split.VALIDATION: shares[0]}
    held_out = sum(share > 0 for share in wanted.values())

    if book.closed().parts <= held_out:
        with pytest.raises(EngineError):
            assign_splits(rows, seed, wanted)
        return
    splits = assign_splits(rows, seed, wanted)

    assert splits[Split.TRAIN]
    assert splits[Split.VALIDATION]
    assert bool(splits[Split.TEST]) == (shares[1] > 0)


def test_a_group_that_is_almost_all_is_not_held_out_for_a_tenth() -> None:
    rows = [row(n, group="large" if n else "small") for n in range(20)]

    for seed in range(20):
        assert assign_splits(rows, seed, TENTH)[Split.VALIDATION] == [0]
