"""Uploaded files named by their ids in a table's cells: asked for some at a time, and read one by one."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from domain.errors import EngineError
from domain.ids import new_id
from domain.manifest import Code
from domain.specs import Multimodal
from engine.data import uploads
from engine.data.archive import Unreadable
from engine.data.check import check
from engine.data.dataset import announce
from engine.data.manifest import open_dataset
from engine.data.splits import open_splits
from engine.data.uploads import AT_ONCE, Uploads
from support.datasets import png, zip_of

PICTURE = png(np.zeros((4, 4, 3), np.uint8))


class Service:
    """Knows some files, notes every question, and can forget a file."""

    def __init__(self, count: int) -> None:
        self.files = {new_id("file-"): PICTURE for _ in range(count)}
        self.asked: list[int] = []
        self.read: list[str] = []

    @property
    def ids(self) -> list[str]:
        return list(self.files)

    def __call__(self, ids: Sequence[str]) -> Mapping[str, Callable[[], bytes]]:
        self.asked.append(len(ids))
        return {id_: partial(self._bytes, id_) for id_ in ids if id_ in self.files}

    def _bytes(self, id_: str) -> bytes:
        self.read.append(id_)
        if id_ not in self.files:
            raise Unreadable(Code.MISSING_MEDIA, "deleted meanwhile")
        return self.files[id_]


def table(folder: Path, cells: Sequence[Any], key: str = "image_file_name") -> Path:
    path = folder / "rows.jsonl"
    rows = [{key: cell, "label": "ab"[n % 2]} for n, cell in enumerate(cells)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def found(path: Path, service: Service | None) -> list[tuple[int | None, str | None, str]]:
    with open_dataset(path, uploads=service) as dataset:
        report = check(dataset, Multimodal())
    return [(i.line, i.column, str(i.code)) for i in report.issues if i.severity == "error"]


def test_a_bare_table_brings_media_by_their_ids_and_asks_for_many_at_once(tmp_path: Path) -> None:
    service = Service(600)

    assert found(table(tmp_path, service.ids), service) == []

    assert service.asked == [AT_ONCE, AT_ONCE, 600 - 2 * AT_ONCE]
    assert service.read == service.ids


def test_several_ids_in_a_cell_are_several_files(tmp_path: Path) -> None:
    service = Service(8)
    cells = [service.ids[n : n + 2] for n in range(0, 8, 2)]

    assert found(table(tmp_path, cells, "image_file_names"), service) == []

    assert service.asked == [8]


def test_an_id_that_nobody_knows_is_named_by_its_line(tmp_path: Path) -> None:
    service = Service(6)
    cells = [*service.ids, new_id("file-"), service.ids[0].upper()]

    with open_dataset(table(tmp_path, cells), uploads=service) as dataset:
        errors = check(dataset, Multimodal()).errors

    assert [(i.line, i.column, i.code) for i in errors] == [
        (7, "image", Code.MISSING_MEDIA),
        (8, "image", Code.MISSING_MEDIA),
    ]
    assert "no uploaded file of that id" in errors[0].message
    assert "small letters" in errors[1].message


def test_without_a_service_an_id_is_told_to_need_one(tmp_path: Path) -> None:
    with open_dataset(table(tmp_path, [new_id("file-")] * 4)) as dataset:
        (error, *_) = check(dataset, Multimodal()).errors

    assert error.code == Code.MISSING_MEDIA
    assert "plait data check" in error.message


def test_an_archives_file_of_that_very_name_wins(tmp_path: Path) -> None:
    service = Service(1)
    (id_,) = service.ids
    rows = [{"image_file_name": id_, "label": "a"}]

    with open_dataset(zip_of(tmp_path / "d.zip", rows, {id_: b"beside"}), uploads=service) as dataset:
        ref = dataset.rows[0].values["image"]
        assert dataset.read(ref) == b"beside"  # type: ignore[arg-type]
        dataset.announce([ref])

    assert service.asked == []


def test_a_column_of_ids_is_told_by_its_name_and_else_left_to_the_schema(tmp_path: Path) -> None:
    id_ = new_id("file-")
    (tmp_path / "rows.csv").write_text(f'left_photo,thing,text,label\n{id_};{id_},{id_},"a, text",a\n')

    with open_dataset(tmp_path / "rows.csv") as dataset:
        kinds = {name: str(column.type) for name, column in dataset.schema.columns.items()}

        assert kinds == {"left_photo": "image", "text": "text"}
        assert [(i.column, i.severity) for i in dataset.issues] == [("thing", "warning")]


def test_a_file_deleted_between_check_and_training_is_named_by_its_line(tmp_path: Path) -> None:
    service = Service(6)
    spec = Multimodal.model_validate({"towers": {"image": {"encoder": "a/b"}}})

    with ExitStack() as files:
        splits = open_splits(files, spec, table(tmp_path, service.ids), None, None, 0, uploads=service)
        gone = next(e for e in splits.all if e.row.line == 3)
        announce(splits.all, "image")
        service.files.pop(service.ids[2])

        with pytest.raises(EngineError, match=r"line 3, column 'image': .*deleted meanwhile") as caught:
            gone.content_key("image")

    assert caught.value.code == Code.MISSING_MEDIA
    assert service.asked == [6]


def test_a_table_of_text_asks_for_nothing(tmp_path: Path) -> None:
    service = Service(1)

    assert found(table(tmp_path, ["one", "two", "three", "four"], "text"), service) == []

    assert service.asked == []


class Contended:
    """A lock; when it is let go for the first time, another thread has its turn before its owner goes on."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self.lock, self.turns = threading.Lock(), [turn]

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if self.turns:
            other = threading.Thread(target=self.turns.pop())
            other.start()
            other.join()


def test_an_answer_that_other_threads_push_out_at_once_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = Contended(lambda: made.announce(["another"]))
    monkeypatch.setattr(uploads, "threading", SimpleNamespace(Lock=lambda: lock))
    monkeypatch.setattr(uploads, "_REMEMBERED", 1)
    made = Uploads(lambda ids: {id_: id_.encode for id_ in ids})

    assert made.read("mine") == b"mine"
    assert lock.turns == []
