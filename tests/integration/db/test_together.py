"""Several threads that write to SQLite: committed together, each told when it is stored, and none paying for another."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from db.session import Database
from support.stack import until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'plait.db'}")
    with made.transaction() as session:
        session.execute(text("CREATE TABLE words (word TEXT PRIMARY KEY)"))
    yield made
    made.close()


def write(database: Database, word: str) -> None:
    with database.transaction() as session:
        session.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})


def stored(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(text("SELECT word FROM words")))


class Outcomes:
    """Runs writers behind one who is not done before all of them stand in line."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.errors: dict[str, Exception] = {}
        #: What each saw stored, right after it was told that its own was.
        self.seen: dict[str, set[str]] = {}

    def of(self, *words: str) -> None:
        line = self.database._together
        assert line is not None
        threads = [threading.Thread(target=self._one, args=(word,)) for word in words]
        with self.database.transaction():
            for number, thread in enumerate(threads, start=1):
                thread.start()
                until(lambda n=number: line.standing == n, bool, limit_s=10)
        for thread in threads:
            thread.join(20)

    def _one(self, word: str) -> None:
        try:
            write(self.database, word)
            self.seen[word] = stored(self.database)
        except Exception as error:
            self.errors[word] = error


def commits(database: Database) -> Callable[[], int]:
    counted: list[object] = []
    event.listen(database.engine, "commit", counted.append)
    return lambda: len(counted)


def test_those_who_stand_in_line_are_committed_together(database: Database) -> None:
    outcomes, count = Outcomes(database), commits(database)

    outcomes.of("a", "b", "c", "d")

    assert stored(database) == {"a", "b", "c", "d"}
    assert outcomes.errors == {}
    # Those of the four; the one before them wrote nothing.
    assert count() <= 2
    assert all(word in seen for word, seen in outcomes.seen.items())


def test_one_who_fails_takes_back_his_own_alone(database: Database) -> None:
    write(database, "twice")
    outcomes = Outcomes(database)

    outcomes.of("a", "twice", "b")

    assert stored(database) == {"twice", "a", "b"}
    assert [type(error) for error in outcomes.errors.values()] == [IntegrityError]


def test_a_commit_that_fails_is_the_error_of_all(database: Database) -> None:
    outcomes = Outcomes(database)

    def fail(_connection: object) -> None:
        raise OSError("the disk is gone")

    event.listen(database.engine, "commit", fail)
    outcomes.of("a", "b", "c")
    event.remove(database.engine, "commit", fail)

    assert stored(database) == set()
    assert {word: type(error) for word, error in outcomes.errors.items()} == dict.fromkeys(
        "abc", OperationalError
    )
    write(database, "later")
    assert stored(database) == {"later"}


def test_what_sqlite_takes_back_whole_is_the_error_of_all_who_wrote_in_it(database: Database) -> None:
    outcomes = Outcomes(database)

    said: list[str] = []

    def take_back(_connection: object, cursor: Any, statement: str, values: Any, *_: object) -> None:
        if statement.startswith("INSERT"):
            said.append(values[0])
            if len(said) == 3:
                cursor.connection.rollback()

    event.listen(database.engine, "before_cursor_execute", take_back)
    outcomes.of("a", "b", "c")
    event.remove(database.engine, "before_cursor_execute", take_back)

    assert set(outcomes.errors) >= set(said[:2])
    assert stored(database) & set(said[:2]) == set()
    write(database, "later")
    assert "later" in stored(database)


def test_many_threads_write_all_that_they_have(database: Database) -> None:
    def some(name: int) -> None:
        for number in range(20):
            write(database, f"{name}.{number}")

    threads = [threading.Thread(target=some, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(stored(database)) == 160
