"""Which packets are decoded for the frames that someone wants to see."""

from itertools import pairwise

import pytest

from engine.data.schedule import Schedule, Shot


def film(keys: int, frames: int = 60, **options: bool) -> Schedule:
    """One frame a tick, every `keys`-th a key frame, shown in the order of decoding."""
    return Schedule([Shot(n, n % keys == 0) for n in range(frames)], frames, **options)


def with_b_frames() -> Schedule:
    """Two groups of I P B B; the second's B-frames are shown before its key frame and need the first group."""
    stamps = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]
    return Schedule([Shot(stamp, stamp in (0, 6)) for stamp in stamps], 10)


def test_the_wanted_times_are_the_middles_of_equal_parts() -> None:
    assert film(10).times(3, "uniform") == [10, 30, 50]


def test_the_parts_begin_where_the_film_begins() -> None:
    late = Schedule([Shot(n, True) for n in range(-100, -60)], -60)

    assert late.times(2, "uniform") == [-90, -70]


def test_the_head_is_the_first_frames() -> None:
    assert film(10).times(3, "head") == [0, 1, 2]


@pytest.mark.parametrize("sampling", ["uniform", "head"])
def test_who_wants_more_frames_than_there_are_sees_each_once(sampling: str) -> None:
    few = Schedule([Shot(0, True), Shot(1, False), Shot(50, False)], 51)

    assert few.seen(few.times(16, sampling)) == [0, 1, 2]


def test_a_frame_is_on_the_screen_until_the_next_one() -> None:
    slow = Schedule([Shot(0, True), Shot(100, False)], 110)

    assert slow.seen([99, 100]) == [0, 1]
    assert slow.seen([10, 50, 99]) == [0]


def test_a_frame_that_is_decoded_for_others_only_is_never_seen() -> None:
    cut = Schedule([Shot(0, True, is_shown=False), Shot(1, False, is_shown=False), Shot(2, False)], 3)

    assert cut.seen([0, 2]) == [2]
    assert cut.ranges([2]) == [range(3)]


def test_few_frames_of_many_groups_are_reached_by_jumping() -> None:
    assert film(10).ranges([13, 44]) == [range(10, 14), range(40, 45)]


def test_frames_of_one_group_are_decoded_in_order_and_once() -> None:
    assert film(60).ranges([13, 44]) == [range(45)]


def test_a_group_that_follows_at_once_is_no_jump() -> None:
    assert film(10).ranges([19, 23]) == [range(10, 24)]


def test_a_decoder_that_cannot_jump_sees_everything_from_the_beginning() -> None:
    assert film(10, can_jump=False).ranges([44]) == [range(45)]


def test_a_frame_that_is_shown_before_its_key_frame_needs_the_one_before() -> None:
    leading, key, trailing = 5, 4, 8

    assert with_b_frames().ranges([leading]) == [range(6)]
    assert with_b_frames().ranges([key]) == [range(4, 5)]
    assert with_b_frames().ranges([trailing]) == [range(4, 9)]
    assert with_b_frames().ranges([leading, trailing]) == [range(9)]


@pytest.mark.parametrize("keys", [1, 7, 12, 30, 60])
@pytest.mark.parametrize("wanted", [1, 4, 16, 60])
def test_no_packet_is_decoded_twice_and_never_more_than_in_order(keys: int, wanted: int) -> None:
    schedule = film(keys)
    shots = schedule.seen(schedule.times(wanted, "uniform"))

    runs = schedule.ranges(shots)

    assert all(one.stop < other.start for one, other in pairwise(runs))
    assert sum(map(len, runs)) <= max(shots) + 1
    assert all(any(shot in run for run in runs) for shot in shots)
