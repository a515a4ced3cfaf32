"""Which number and category columns become towers, and what a check says of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import InvalidSpec
from domain.manifest import ColumnType, Schema
from domain.shapes import parse
from domain.specs import FineTune, Multimodal
from domain.towers import Tower, settled_towers
from engine.data.check import Report, check
from engine.data.column_statistics import NumberStatistics
from engine.data.manifest import open_dataset
from engine.data.profile import MOST_VALUES, Profile
from engine.infer.cells import category


def report(
    folder: Path,
    rows: list[dict[str, Any]],
    spec: dict[str, Any] | None = None,
    schema: dict[str, Any] | None = None,
) -> Report:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "label": "ab"[n % 2]}) + "\n" for n, row in enumerate(rows)))
    asked = Multimodal.model_validate(spec or {})
    columns = {name: {"type": "category"} for name in rows[0] if name.startswith("kind")}
    told = Schema.model_validate({"columns": columns, **(schema or {})})
    with open_dataset(path, schema=told) as dataset:
        return check(dataset, asked)


def problems(multimodal: dict[str, Any]) -> set[str]:
    with pytest.raises(InvalidSpec) as refused:
        parse(FineTune, {"model": "late-fusion", "training_file": "file-1", "multimodal": multimodal})
    return {problem["path"] for problem in refused.value.problems}


def test_numbers_and_categories_are_among_the_towers_that_are_made(tmp_path: Path) -> None:
    found = report(tmp_path, [{"text": f"t {n}", "price": n / 2, "kind": "xyz"[n % 3]} for n in range(30)])

    assert list(found.used) == ["kind", "price", "text"]
    assert found.issues == []


@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [
        ("price", lambda n: 3.5, "constant_column"),
        ("price", lambda n: None if n else 3.5, "constant_column"),
        ("kind", lambda n: "x", "constant_column"),
        ("kind", lambda n: f"user-{n}", "high_cardinality"),
        ("number", lambda n: n + 1, "high_cardinality"),
    ],
)
def test_a_column_that_teaches_nothing_gets_none_and_the_check_says_why(
    tmp_path: Path, column: str, cell: Any, code: str
) -> None:
    rows = [{"text": f"t {n}", column: cell(n)} for n in range(30)]

    alone = report(tmp_path, rows)
    named = report(tmp_path, rows, {"towers": {"text": {}, column: {}}})

    assert list(alone.used) == ["text"]
    assert [(i.column, i.severity) for i in alone.issues if i.code == code] == [(column, "warning")]
    assert list(named.used) == sorted([column, "text"])
    assert named.errors == []


@pytest.mark.parametrize(
    ("role", "name"), [("id", "who"), ("group", "who"), ("split", "split"), ("label", "label")]
)
def test_what_has_another_role_is_no_tower(tmp_path: Path, role: str, name: str) -> None:
    rows = [{"price": n * 7 % 30, "who": n % 5, "split": "train"} for n in range(30)]

    found = report(tmp_path, rows, schema={role: name})

    assert name not in found.used


def test_a_broken_number_of_a_tower_is_an_error_of_its_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"price": float(n), "text": f"t {n}"} for n in range(30)]
    rows[3]["price"] = "cheap"

    strict = report(tmp_path, rows)
    masked = report(tmp_path, rows, {"on_bad_row": "mask", "max_bad_fraction": 0.1})
    idle = report(tmp_path, rows, {"towers": {"text": {}}})

    assert [(i.line, i.column, i.code) for i in strict.errors] == [(4, "price", "schema_mismatch")]
    assert (masked.errors, masked.bad.masked) == ([], {"price": frozenset({4})})
    assert idle.issues == []


@pytest.mark.parametrize("cell", ["x" * 201, 3.5, ["a"]])
def test_a_category_is_a_short_word(tmp_path: Path, cell: Any) -> None:
    rows: list[dict[str, Any]] = [{"kind": "xyz"[n % 3]} for n in range(30)]
    rows[3]["kind"] = cell

    found = report(tmp_path, rows)

    assert [(i.line, i.column, i.code) for i in found.errors] == [(4, "kind", "schema_mismatch")]


def test_equal_rows_of_numbers_and_categories_are_no_duplicates(tmp_path: Path) -> None:
    found = report(tmp_path, [{"kind": "xy"[n % 2], "price": n % 4} for n in range(40)])

    assert found.issues == []


def test_more_columns_than_a_model_takes_are_an_error_that_says_how_many(tmp_path: Path) -> None:
    found = report(tmp_path, [{f"n{c}": (n * 7 + c) % 11 for c in range(70)} for n in range(30)])

    assert [(i.code, i.param) for i in found.errors] == [("schema_mismatch", "multimodal.towers")]
    assert found.errors[0].message.startswith(
        "70 columns can be learned from, and a model has at most 64 towers"
    )


def test_what_is_remembered_of_a_million_values_is_bounded() -> None:
    profile = Profile(ColumnType.CATEGORY)

    for n in range(3 * MOST_VALUES):
        profile.add(f"user {n // 2}")

    assert len(profile.distinct) == MOST_VALUES + 1
    assert profile.has_many_values


def test_a_schema_lets_the_door_refuse_what_a_column_cannot_have() -> None:
    columns = {"price": {"type": "number"}, "shop": {"type": "category"}, "photo": {"type": "image"}}
    towers = {
        "price": {"encoder": "a/b", "num_frames": 3},
        "shop": {"freeze": True},
        "photo": {"freeze": True},
    }

    found = problems({"schema": {"columns": columns}, "towers": towers})

    # The first of them; the check tells them all.
    assert found == {"multimodal.towers.price.encoder"}
    assert problems({"schema": {"columns": columns}, "towers": {"shop": {"freeze": True}}}) == {
        "multimodal.towers.shop.freeze"
    }


def test_settled_towers_have_an_encoder_or_are_trained_and_stay_as_they_are() -> None:
    types = {"photo": ColumnType.IMAGE, "price": ColumnType.NUMBER, "note": ColumnType.TEXT}
    towers = {"photo": Tower(freeze=0.5), "price": Tower(lr=0.1), "note": Tower(), "gone": Tower()}

    settled = settled_towers(towers, types)

    assert (settled["photo"].encoder, settled["photo"].freeze) == ("google/mobilenet_v2_1.0_224", 0.5)
    assert (settled["price"].encoder, settled["price"].freeze, settled["price"].lr) == (None, False, 0.1)
    assert settled["note"].freeze is True
    assert settled["gone"] == Tower()
    assert settled_towers(settled, types) == settled
    assert list(settled["price"].misfits(ColumnType.NUMBER)) == []


def test_one_wild_number_leaves_those_apart_that_are_mostly_zero() -> None:
    usual = [0.0] * 80 + [float(n) for n in range(1, 20)]

    plain, wild = NumberStatistics.of(usual), NumberStatistics.of([*usual, 1e9])

    one, nineteen = wild.standardised([1.0, 19.0])
    assert nineteen - one > 0.5 * np.subtract(*plain.standardised([19.0, 1.0]))


def test_a_category_of_true_and_false_is_the_same_in_csv_and_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("new,text,label\nTrue,a,x\nFalse,b,y\n")
    schema = Schema.model_validate({"columns": {"new": {"type": "category"}}})

    with open_dataset(tmp_path / "a.csv", schema=schema) as dataset:
        words = [row.values["new"] for row in dataset.rows]

    assert words == ["true", "false"] == [category(True), category("False")]
