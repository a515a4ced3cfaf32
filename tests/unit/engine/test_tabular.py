"""Number and category columns as towers: learned from, missing, unseen, huge; kept and loaded. With real trainings."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.specs import Multimodal
from engine import infer
from engine.data.column_statistics import NumberStatistics, Vocabulary, read_statistics
from engine.data.profile import MOST_VALUES
from engine.models.store import load_model
from engine.models.tabular import UNSEEN_RATE, tabular_encoder
from engine.train.run import Finished, Progress, Stopped, train
from support.datasets import png, shape, zip_of
from support.encoders import IMAGE, VIT

SCHEMA = {"columns": {"shop": {"type": "category"}}}
SHOPS = ("north", "south", "east", "west")


def row(n: int, label: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Price and shop run through all their pairs; no column tells of another."""
    cells: dict[str, Any] = {"price": float(n * 37 % 97), "shop": SHOPS[n * 7 % 4]}
    return {**cells, "label": label(cells)}


def expensive(cells: dict[str, Any]) -> str:
    return "high" if 25 < cells["price"] < 70 else "low"


def coastal(cells: dict[str, Any]) -> str:
    return "coast" if cells["shop"] in ("north", "west") else "inland"


class Place:
    """A folder for trainings, and what they told."""

    def __init__(self, folder: Path, encoders: dict[str, Path]) -> None:
        self.folder, self.encoders = folder, encoders
        self.said: list[Progress] = []
        self.saved: list[Path] = []

    def table(self, rows: Sequence[dict[str, Any]]) -> Path:
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def train(
        self, data: Path, spec: dict[str, Any] | None = None, out: str = "out", **options: Any
    ) -> Finished | Stopped:
        hyper = {"n_epochs": 12, "batch_size": 16, "learning_rate": 0.01, "logging_steps": 1}
        asked = {"fusion": {"dim": 16}, "hyperparameters": hyper, "schema": SCHEMA, **(spec or {})}
        return train(
            Multimodal.model_validate(asked),
            **{"training": data, "cache": self.folder / "cache", "seed": 1, **options},
            encoders=self.encoders.__getitem__,
            out=self.folder / out,
            report=self.said.append,
            save=lambda path, _about: self.saved.append(path),
        )

    def finished(self, data: Path, spec: dict[str, Any] | None = None) -> Finished:
        ending = self.train(data, spec)
        assert isinstance(ending, Finished)
        return ending

    def losses(self) -> list[float]:
        return [p.metrics["train_loss"] for p in self.said if p.metrics and "train_loss" in p.metrics]

    def model(self, out: str = "out") -> infer.Predictor:
        return infer.load(self.folder / out / "model", self.encoders.__getitem__)

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out/model/config.json").read_text())
        return found


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> Place:
    """A model of price and shop, of which some cells are missing; the shop alone decides."""
    place = Place(tmp_path_factory.mktemp("shared"), encoders)
    rows = [row(n, coastal) for n in range(160)]
    for n in range(0, 160, 9):
        rows[n]["price"] = None
    for n in range(4, 160, 29):
        rows[n]["shop"] = None
    place.finished(place.table(rows))
    return place


@pytest.mark.parametrize("label", [expensive, coastal])
def test_what_one_column_alone_decides_is_learned_from_it(
    place: Place, label: Callable[[dict[str, Any]], str]
) -> None:
    ending = place.finished(place.table([row(n, label) for n in range(160)]))

    deciding = "price" if label is expensive else "shop"
    [answer] = place.model().predict([row(3, label) | {"label": None}])
    assert ending.metrics["valid_accuracy"] >= 0.9
    assert (answer.label, answer.error) == (label(row(3, label)), None)
    assert answer.modalities.weights is not None
    assert answer.modalities.weights[deciding] > 0.5


@pytest.mark.parametrize("fusion", ["concat", pytest.param("max", marks=pytest.mark.slow)])
def test_a_picture_and_a_number_that_only_together_decide_are_learned(place: Place, fusion: str) -> None:
    rng = np.random.default_rng(0)
    media = {f"{n}.png": png(shape(n, 32, rng)) for n in range(2)}
    prices = rng.permutation(160).tolist()
    rows = [
        {"image_file_name": f"{n % 2}.png", "price": prices[n], "label": str((n % 2) ^ (prices[n] > 79))}
        for n in range(160)
    ]

    ending = place.finished(
        zip_of(place.folder / "t.zip", rows, media),
        {
            "towers": {"image": {"encoder": VIT}, "price": {}},
            "schema": None,
            "hyperparameters": {"n_epochs": 20, "batch_size": 16, "learning_rate": 0.01},
            "fusion": {"dim": 32, "type": fusion, "modality_dropout": 0},
        },
    )

    assert ending.metrics["valid_accuracy"] >= 0.9


def test_a_regression_over_numbers_and_categories(place: Place) -> None:
    data = place.table([row(n, lambda c: c["price"] / 2 + 40.5 * (c["shop"] == "east")) for n in range(160)])

    ending = place.finished(data, {"task": "regression"})

    assert ending.metrics["valid_r2"] > 0.8


@pytest.mark.slow
def test_several_labels_over_numbers_and_categories(place: Place) -> None:
    data = place.table([row(n, lambda c: [expensive(c), coastal(c)]) for n in range(160)])

    ending = place.finished(data)

    assert ending.resolved["task"] == "multilabel"
    assert ending.metrics["valid_f1_macro"] > 0.8


def test_a_csv_of_numbers_needs_no_schema(place: Place) -> None:
    path = place.folder / "rows.csv"
    with path.open("w") as out:
        table = csv.DictWriter(out, ["price", "weight", "label"])
        table.writeheader()
        table.writerows(
            {"price": n * 37 % 97, "weight": n % 5, "label": "ab"[n * 37 % 97 > 50]} for n in range(120)
        )

    ending = place.finished(path, {"schema": None})

    assert sorted(ending.resolved["towers"]) == ["price", "weight"]
    assert ending.metrics["valid_accuracy"] >= 0.9


def test_a_row_without_a_number_or_a_category_is_answered_by_the_rest(shared: Place) -> None:
    no_price, no_shop, nothing = shared.model().predict(
        [{"shop": "west"}, {"price": 3}, {"price": None, "shop": ""}]
    )

    assert (no_price.label, no_price.modalities.missing) == ("coast", ["price"])
    assert (no_shop.error, no_shop.modalities.missing) == (None, ["shop"])
    assert nothing.error is not None
    assert nothing.error.code == "all_modalities_missing"


def test_a_missing_cell_s_place_in_memory_reaches_no_answer(shared: Place) -> None:
    model, _ = load_model(shared.folder / "out/model", shared.encoders.__getitem__)
    vectors = [
        model.encoder(name)(model.encoder(name).prepare(one))
        for name, one in (("price", [1.0]), ("shop", ["west"]))
    ]
    present = torch.tensor([[False, True]])

    with torch.no_grad():
        one = model.head(model.fusion(vectors, present))
        other = model.head(model.fusion([vectors[0] * math.nan, vectors[1]], present))

    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "shop", ["mars", "", "North", 7, True], ids=["a word", "nothing", "another case", "a number", "a flag"]
)
def test_a_value_that_training_did_not_see_is_answered_with_a_warning(shared: Place, shop: Any) -> None:
    [answer] = shared.model().predict([{"price": 50, "shop": shop}])

    assert answer.error is None
    assert answer.probabilities is not None
    # It tells nothing of the label.
    assert 0.02 < answer.probabilities["coast"] < 0.98
    warned = [word for word in answer.warnings if "training saw no" in word]
    assert len(warned) == (shop != "")


def test_an_unseen_value_is_told_in_characters_that_any_database_takes(shared: Place) -> None:
    [answer] = shared.model().predict([{"shop": "a\0\ud800" + "x" * 5000}])

    (warning,) = answer.warnings
    assert warning.isprintable()
    assert len(warning.encode()) < 400


@pytest.mark.parametrize(
    "price", [1e300, -1e300, 1.7e308, 10**40, 5e-324, np.float32(3.5), np.int64(3), "3.5", " -1e300 "]
)
def test_a_number_of_any_size_and_spelling_has_an_answer(shared: Place, price: Any) -> None:
    [answer] = shared.model().predict([{"price": price, "shop": "west"}])

    assert (answer.error, answer.warnings) == (None, ())
    assert answer.label == "coast"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("price", math.nan),
        ("price", math.inf),
        ("price", "1e999"),
        ("price", 10**400),
        ("price", "cheap"),
        ("price", True),
        ("price", b"3"),
        ("shop", 3.5),
        ("shop", ["north"]),
        ("shop", b"north"),
    ],
)
def test_a_cell_that_is_no_number_or_category_is_its_rows_error(
    shared: Place, column: str, value: Any
) -> None:
    bad = {"price": 3, "shop": "west"} | {column: value}

    refused, good = shared.model().predict([bad, {"price": 3, "shop": "west"}])
    [masked] = shared.model().predict([bad], on_bad_input="mask")

    assert refused.error is not None
    assert (refused.error.code, refused.error.param) == ("schema_mismatch", column)
    assert "or null if it is missing" in refused.error.message
    assert good.error is None
    assert masked.modalities.failed == [column]
    assert masked.error is None


def test_a_rows_answer_does_not_depend_on_its_neighbours(shared: Place) -> None:
    rows = [{"price": float(n), "shop": SHOPS[n % 4]} for n in range(40)]
    together = shared.model().predict(rows)
    alone = shared.model().predict([rows[7]])

    assert together[7].score == pytest.approx(alone[0].score, abs=1e-6)


def test_a_model_folder_keeps_what_its_columns_are_read_by(shared: Place) -> None:
    towers = shared.config()["towers"]

    _, card = load_model(shared.folder / "out/model", shared.encoders.__getitem__)
    assert towers["shop"] == {"statistics": {"values": sorted(SHOPS)}}
    assert towers["price"]["statistics"]["std"] == pytest.approx(28, abs=3)
    assert {name: asdict(known) for name, known in card.statistics.items()} == {
        "price": towers["price"]["statistics"],
        "shop": {"values": tuple(sorted(SHOPS))},
    }
    readme = (shared.folder / "out/model/README.md").read_text()
    assert "| price | number | trained here |" in readme
    assert "model.predict([{'price': 3.5, 'shop': 'east'}])" in readme


@pytest.mark.parametrize(
    "spoiled", [{}, {"statistics": {}}, {"statistics": {"mean": "x", "std": 1}}, {"statistics": None}]
)
def test_a_model_folder_that_lost_them_is_refused(
    shared: Place, tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (shared.folder / "out/model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = shared.config()
    config["towers"]["price"] = spoiled
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(EngineError) as refused:
        load_model(folder, shared.encoders.__getitem__)

    assert refused.value.code == "model_unreadable"


def test_statistics_are_those_of_the_training_rows_alone(place: Place) -> None:
    rows = [row(n, coastal) | {"split": "train" if n < 80 else "validation"} for n in range(100)]
    for n in range(80, 100):
        rows[n] |= {"price": 1e6, "shop": "abroad"}
    place.finished(place.table(rows))

    towers = place.config()["towers"]
    assert towers["price"]["statistics"]["mean"] < 100
    assert "abroad" not in towers["shop"]["statistics"]["values"]


def test_one_huge_number_does_not_make_all_others_equal(place: Place) -> None:
    rows = [row(n, expensive) for n in range(160)]
    rows[5]["price"], rows[80]["price"] = 1e300, -1.7e308

    ending = place.finished(place.table(rows))

    assert ending.metrics["valid_accuracy"] >= 0.9


@pytest.mark.parametrize(
    "values",
    [
        [],
        [3.0],
        [3.0] * 9,
        [0.1] * 7,
        [1e300] * 3,
        [-1.7e308, 1.7e308],
        [5e-324, 0.0],
        [0.0] * 99 + [1e300],
        [1e-310, 2e-310],
    ],
    ids=str,
)
def test_any_column_is_standardised_to_finite_numbers(values: list[float]) -> None:
    statistics = NumberStatistics.of(values)

    found = statistics.standardised([*values, 0.0, 1e300, -1e300, 1.7e308, -5e-324])

    assert statistics.std > 0
    assert np.isfinite(found).all()
    assert np.abs(found).max(initial=0) <= 3


def test_usual_numbers_get_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(0).normal(1e6, 5, 1000).tolist()

    statistics = NumberStatistics.of(values)

    assert (statistics.mean, statistics.std) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values)),
    )
    found = statistics.standardised([statistics.mean, statistics.mean + statistics.std / 10])
    assert found.tolist() == [0.0, pytest.approx(0.1, abs=1e-3)]


def test_statistics_are_read_back_as_they_were() -> None:
    number, words = NumberStatistics.of([0.1, 0.2, 1e300]), Vocabulary.of(["é", "a", "a", "7"])

    for statistics, kind in ((number, ColumnType.NUMBER), (words, ColumnType.CATEGORY)):
        stored = json.loads(json.dumps(asdict(statistics)))
        assert read_statistics(stored, kind) == statistics


def test_of_too_many_values_the_frequent_ones_have_vectors_of_their_own() -> None:
    rare = [f"rare-{n}" for n in range(MOST_VALUES + 50)]

    vocabulary = Vocabulary.of([*rare, "often", "often"])

    assert len(vocabulary.values) == MOST_VALUES
    assert vocabulary.places(["often"])[0] > 0
    assert vocabulary.places(["rare-99999", "never"]) == [0, 0]


def test_the_vector_of_unseen_values_is_trained_and_nothing_is_drawn_for_an_answer() -> None:
    encoder = tabular_encoder(ColumnType.CATEGORY, Vocabulary(("a", "b")))
    places = encoder.prepare(["a"] * 4000)
    torch.manual_seed(0)

    trained, asked = encoder.train()(places), encoder.eval()(places)

    unseen = (trained != asked).any(1).float().mean().item()
    assert unseen == pytest.approx(UNSEEN_RATE, abs=0.02)
    assert torch.equal(asked, asked[:1].expand_as(asked))


def test_these_towers_train_at_the_heads_rate_unless_they_have_their_own(place: Place) -> None:
    hyper = {"n_epochs": 1}
    spec = {"towers": {"price": {}, "shop": {"lr": 0.5}}, "hyperparameters": hyper}

    ending = place.finished(place.table([row(n, coastal) for n in range(40)]), spec)

    towers = ending.resolved["towers"]
    assert (towers["price"]["lr"], towers["shop"]["lr"]) == (1e-3, 0.5)
    # A batch as of towers whose vectors are cached: nothing has to be decoded.
    assert ending.resolved["hyperparameters"]["batch_size"] == 32
    assert "cached_epoch_speedup" not in ending.metrics


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_run_that_stops_and_goes_on_is_the_run_that_did_not_stop(place: Place, precision: str) -> None:
    rows = [row(n, coastal) for n in range(60)]
    rows[8]["price"] = rows[9]["shop"] = None
    data = place.table(rows)
    spec = {"hyperparameters": {"n_epochs": 3, "batch_size": 8, "logging_steps": 1, "precision": precision}}
    place.train(data, spec, out="whole")
    whole = place.losses()
    place.said.clear()

    stopped = place.train(
        data, spec, out="first", should_stop=lambda: "drain" if len(place.losses()) == 9 else None
    )
    place.train(data, spec, out="second", resume=place.saved[-1])

    assert isinstance(stopped, Stopped)
    assert place.losses() == whole
    assert place.model("second").predict([rows[0]]) == place.model("whole").predict([rows[0]])


def test_a_checkpoint_is_not_taken_for_a_run_with_other_values(place: Place) -> None:
    rows = [row(n, coastal) for n in range(60)]
    place.train(place.table(rows), {"hyperparameters": {"n_epochs": 1}})
    rows[0]["price"], rows[1]["price"] = 5000.0, 7000.0

    with pytest.raises(EngineError) as refused:
        place.train(place.table(rows), {"hyperparameters": {"n_epochs": 2}}, resume=place.saved[-1])

    assert refused.value.code == "checkpoint_mismatch"
    assert refused.value.param == "multimodal.towers.price.statistics"


@pytest.mark.parametrize(
    ("tower", "path"),
    [
        ({"encoder": IMAGE}, "encoder"),
        ({"freeze": 0.5}, "freeze"),
        ({"freeze": True}, "freeze"),
        ({"image_size": 64}, "image_size"),
        ({"num_frames": 4}, "num_frames"),
        ({"sampling": "head"}, "sampling"),
    ],
)
def test_what_makes_no_sense_for_a_number_is_refused_by_its_path(
    place: Place, tower: dict[str, Any], path: str
) -> None:
    with pytest.raises(EngineError) as refused:
        place.train(place.table([row(n, coastal) for n in range(40)]), {"towers": {"price": tower}})

    assert (refused.value.code, refused.value.param) == ("invalid_spec", f"multimodal.towers.price.{path}")


def test_without_towers_ids_counters_and_constants_get_none(place: Place) -> None:
    schema = {"columns": {"shop": {"type": "category"}, "user": {"type": "category"}}}
    rows = [
        row(n, coastal) | {"user": f"u{n}", "line_number": n + 7, "currency": 3, "is_new": n % 3 == 0}
        for n in range(40)
    ]

    ending = place.finished(place.table(rows), {"schema": schema})

    assert sorted(ending.resolved["towers"]) == ["is_new", "price", "shop"]
