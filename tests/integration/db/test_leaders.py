"""One process at a time leads a duty; who falls silent is followed by another."""

from db import leaders
from db.session import Database


def test_a_duty_has_one_leader_who_may_prolong_it(database: Database) -> None:
    with database.transaction() as session:
        asked = [leaders.lead(session, "upkeep", who, ttl=60) for who in ("a", "b", "a")]

    assert asked == [True, False, True]


def test_duties_have_leaders_of_their_own(database: Database) -> None:
    with database.transaction() as session:
        assert leaders.lead(session, "upkeep", "a", ttl=60)
        assert leaders.lead(session, "webhooks", "b", ttl=60)


def test_the_duty_of_one_who_fell_silent_or_resigned_goes_to_the_next(database: Database) -> None:
    with database.transaction() as session:
        assert leaders.lead(session, "upkeep", "a", ttl=-1)
        assert leaders.lead(session, "upkeep", "b", ttl=60)
        leaders.resign(session, "upkeep", "a")
        assert not leaders.lead(session, "upkeep", "c", ttl=60)
        leaders.resign(session, "upkeep", "b")

        assert leaders.lead(session, "upkeep", "c", ttl=60)
