"""A check lists every problem of a data set by line, column and code."""

import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.manifest import Issue, Schema
from domain.specs import Multimodal
from engine.data.check import Report, check
from engine.data.manifest import open_dataset
from support import zoo
from support.datasets import png, tiny_av, tone, wav, zip_of

PICTURE = png(np.zeros((4, 4, 3), np.uint8))
SOUND = wav(tone(0, np.random.default_rng(0)))
Rows = list[dict[str, Any]]


def towers(*names: str, **options: Any) -> Multimodal:
    return Multimodal.model_validate({"towers": {name: {"encoder": "a/b", **options} for name in names}})


def checked(
    folder: Path,
    rows: Rows,
    media: Mapping[str, bytes] | None = None,
    spec: Multimodal | None = None,
    schema: dict[str, Any] | None = None,
    **options: Any,
) -> Report:
    path = zip_of(folder / "data.zip", rows, media or {})
    with open_dataset(path, schema=Schema.model_validate(schema or {})) as dataset:
        return check(dataset, spec or Multimodal(), **options)


def texts(count: int = 8) -> Rows:
    return [{"text": f"row {n}", "label": "ab"[n % 2]} for n in range(count)]


def found(report: Report) -> list[tuple[int | None, str | None, str]]:
    return [(issue.line, issue.column, str(issue.code)) for issue in report.issues]


def test_a_good_data_set_has_no_issues_and_says_what_it_is(tmp_path: Path) -> None:
    with open_dataset(tiny_av(tmp_path, missing=0.3)) as dataset:
        report = check(dataset, Multimodal())

    assert report.issues == []
    assert (report.rows, report.classes) == (48, ["class-0", "class-1", "class-2"])
    assert report.columns == {"image": "image", "audio": "audio", "text": "text"}
    assert report.counts == {"test": 9, "train": 30, "validation": 9}


def test_every_bad_row_is_listed_beside_the_others(tmp_path: Path) -> None:
    media = {f"{n}.png": PICTURE for n in range(10)} | {"3.png": b"no picture", "4.png": PICTURE[:45]}
    rows = [{"image_file_name": f"{n}.png", "label": "ab"[n % 2], "n": n} for n in range(10)]
    rows[1]["image_file_name"] = "gone.png"
    rows[2]["image_file_name"] = "../up.png"
    rows[5]["label"] = None
    rows[6]["label"] = 0.5
    rows[7]["label"] = ["a"]
    rows[8]["image_file_name"] = None
    rows[9]["image_file_name"] = 9

    report = checked(tmp_path, rows, media, towers("image"))

    assert sorted(found(report), key=str) == [
        (10, "image", "schema_mismatch"),
        (2, "image", "missing_media"),
        (3, "image", "path_escapes_archive"),
        (4, "image", "unreadable_media"),
        (5, "image", "unreadable_media"),
        (6, "label", "label_missing"),
        (7, "label", "label_type_mismatch"),
        (8, "label", "label_type_mismatch"),
        (9, None, "all_modalities_missing"),
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable_media"),
        (b"noise", "unreadable_media"),
        (b"\0\0\0\x20ftypM4A ", "unreadable_media"),
        (wav(np.zeros(0)), "zero_duration"),
        (wav(np.random.default_rng(0).uniform(-1, 1, 48_000), format="FLAC")[:20_000], "unreadable_media"),
        (wav(np.zeros(100), 400_000), "unsupported_codec"),
    ],
    ids=["empty", "noise", "half a header", "silent", "cut off", "odd rate"],
)
def test_a_sound_that_cannot_be_read_is_named(tmp_path: Path, data: bytes, code: str) -> None:
    rows = [{"audio_file_name": f"{n}.wav", "label": "ab"[n % 2], "n": n} for n in range(6)]

    report = checked(tmp_path, rows, {f"{n}.wav": SOUND for n in range(6)} | {"2.wav": data}, towers("audio"))

    assert (3, "audio", code) in found(report)
    assert len(report.errors) == 1


def test_a_column_of_sounds_may_hold_films_with_sound(tmp_path: Path) -> None:
    film = zoo.filmed(zoo.Film("mp4", "libx264", sound="aac"))
    silent = zoo.filmed(zoo.Film("mp4", "libx264", frames=2))
    names = [f"{n}.wav" for n in range(6)] + ["film.mp4", "silent.mp4"]
    rows = [{"audio_file_name": name, "label": "ab"[n % 2], "n": n} for n, name in enumerate(names)]
    media = dict.fromkeys(names, SOUND) | {"film.mp4": film, "silent.mp4": silent}

    report = checked(tmp_path, rows, media, towers("audio"))

    assert [(issue.line, issue.code) for issue in report.errors] == [(8, "zero_duration")]


def test_only_columns_that_a_tower_reads_are_looked_into(tmp_path: Path) -> None:
    rows = [{**row, "image_file_name": "gone.png", "price": "?" if n else 1} for n, row in enumerate(texts())]

    report = checked(tmp_path, rows, spec=towers("text"), schema={"columns": {"price": {"type": "number"}}})

    assert report.issues == []


def test_a_tower_without_its_column_is_told_which_columns_there_are(tmp_path: Path) -> None:
    rows = [{**row, "price": n} for n, row in enumerate(texts())]

    report = checked(tmp_path, rows, spec=towers("photo", "price", "text"))

    assert found(report) == [(None, "photo", "missing_column"), (None, "price", "schema_mismatch")]
    assert "price (number), text (text)" in report.issues[0].message
    assert report.issues[0].param == "multimodal.towers.photo"
    assert report.issues[1].param == "multimodal.towers.price.encoder"


def test_a_table_of_one_number_has_nothing_to_learn_from(tmp_path: Path) -> None:
    report = checked(tmp_path, [{"price": 3, "label": "ab"[n % 2]} for n in range(8)])

    assert (None, "price", "constant_column") in found(report)
    assert [(issue.column, issue.code) for issue in report.errors] == [(None, "missing_column")]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda rows: [row.pop("label") for row in rows], (None, None, "label_missing")),
        (lambda rows: [row.update(label="a") for row in rows], (None, "label", "single_class")),
        (lambda rows: rows.__delitem__(slice(3, None)), (None, None, "too_few_examples")),
        (lambda rows: rows[3].update(split="val", label="c"), (4, "label", "unknown_class")),
        (lambda rows: rows[3].update(split="later"), (4, "split", "unknown_split")),
        (lambda rows: rows[3].update(rows[1]), (4, None, "duplicate_row")),
        (lambda rows: [row.update(split="test") for row in rows], (None, None, "too_few_examples")),
    ],
    ids=["no label", "one class", "few", "unknown class", "unknown split", "repeated", "nothing to train on"],
)
def test_labels_and_splits_that_cannot_be_trained_on_are_named(
    tmp_path: Path, spoil: Callable[[Rows], Any], expected: tuple[int | None, str | None, str]
) -> None:
    rows = texts()
    spoil(rows)

    assert expected in found(checked(tmp_path, rows))


def test_a_repeated_row_is_a_warning(tmp_path: Path) -> None:
    report = checked(tmp_path, [*texts(), texts()[0]])

    assert [(i.code, i.severity) for i in report.issues] == [("duplicate_row", "warning")]
    assert report.errors == []


def test_classes_are_words_whole_numbers_or_flags_in_one_order(tmp_path: Path) -> None:
    rows = [{"text": f"{n}", "label": label} for n, label in enumerate([2, 10, True, "b"] * 2)]

    assert checked(tmp_path, rows).classes == ["10", "2", "b", "true"]


def test_a_validation_file_counts_whole_and_knows_the_trained_classes(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "a", "split": "train"}, {"text": "b", "label": "z", "split": "?"}]

    report = checked(tmp_path, rows, role="validation", trained=Report(0, {}, ["a", "b"]))

    assert found(report) == [(2, "label", "unknown_class")]
    assert (report.counts, report.classes) == ({"validation": 2}, ["a", "b"])


def test_one_group_cannot_be_held_out_of_itself(tmp_path: Path) -> None:
    rows = [{**row, "who": "ann"} for row in texts()]

    alone = checked(tmp_path, rows, schema={"group": "who"})
    beside_a_validation_file = checked(tmp_path, rows, schema={"group": "who"}, hold_out=False)

    assert found(alone) == [(None, None, "too_few_examples")]
    assert beside_a_validation_file.issues == []


def test_a_picture_that_many_rows_share_is_named_for_each(tmp_path: Path) -> None:
    rows = [{"image_file_name": "1.png", "label": "ab"[n % 2], "text": str(n)} for n in range(4)]

    report = checked(tmp_path, rows, {"1.png": b"no picture"})

    assert [line for line, column, _ in found(report) if column == "image"] == [1, 2, 3, 4]


def test_a_check_ends_soon_after_it_is_told_to_stop(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    rows = [{"image_file_name": f"{n}.png", "label": "a"} for n in range(50)]

    report = checked(tmp_path, rows, should_stop=lambda: next(asked))

    assert found(report) == [(1, "image", "missing_media"), (2, "image", "missing_media")]


def test_an_issue_that_ends_a_job_says_what_to_do(tmp_path: Path) -> None:
    rows = [{**row, "image_file_name": "gone.png"} for row in texts()]

    issue = checked(tmp_path, rows).issues[0]

    assert issue.message == "'gone.png': the zip has no such file; add it, or write null."
    assert issue.value == "gone.png"


def test_of_the_issues_that_reading_found_few_are_in_memory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Issue]] = []
    most = 0

    def of_each_row(*_: Any) -> Iterator[Issue]:
        nonlocal most
        for line in range(50):
            issue = Issue("label_missing", "a message", line)
            made.append(weakref.ref(issue))
            yield issue
            del issue
            most = max(most, sum(ref() is not None for ref in made))

    monkeypatch.setattr("engine.data.check.relevant", of_each_row)
    report = checked(tmp_path, texts())

    assert (len(made), report.issues.counts["error", "label_missing"]) == (50, 50)
    assert most <= 2


def test_checking_loads_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, engine.data.check, engine.data.decode; print({'torch', 'transformers'} & {*sys.modules})"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "set()"
