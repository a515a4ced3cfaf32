"""The bucket's rule: a burst at once, then as many as come back, never more."""

from hypothesis import given
from hypothesis import strategies as st

from domain.rate import Rate, draw, standing

RATE = Rate(per_minute=600, burst=5)
SECOND = 1_000_000


def test_a_full_bucket_gives_its_burst_and_then_one_as_each_comes_back() -> None:
    full_at, taken = 0, []
    for _ in range(7):
        drawn = draw(full_at, SECOND, RATE)
        taken.append(drawn.taken)
        full_at = SECOND + drawn.full_in

    assert taken == [1] * 5 + [0] * 2
    assert draw(full_at, SECOND + 100_000, RATE).taken == 1
    assert draw(full_at, SECOND + 99_999, RATE).taken == 0


def test_who_was_refused_is_told_when_the_next_comes_back() -> None:
    empty = 5 * RATE.interval

    told = standing(RATE, empty - 30_000, passed=False)

    assert (told.limit, told.remaining) == (5, 0)
    assert told.retry_s == 0.07
    assert told.reset_s == 0.47
    assert standing(RATE, 2 * RATE.interval, passed=True).remaining == 3


@given(
    rate=st.builds(Rate, per_minute=st.integers(1, 100_000), burst=st.integers(1, 1_000)),
    waits=st.lists(st.integers(0, 10 * SECOND), min_size=1, max_size=60),
)
def test_in_any_time_no_more_pass_than_the_burst_and_what_came_back(rate: Rate, waits: list[int]) -> None:
    began = now = SECOND
    full_at, passed = 0, 0
    for wait in waits:
        now += wait
        drawn = draw(full_at, now, rate)
        full_at, passed = now + drawn.full_in, passed + drawn.taken

        assert passed <= rate.burst + (now - began) // rate.interval
        assert drawn.full_in <= rate.burst * rate.interval
