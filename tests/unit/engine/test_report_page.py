"""report.html: a page that says what report.json says, needs nothing else, and runs nothing of what users named."""

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from domain.specs import Multimodal
from engine.report import charts
from engine.report.page import page
from engine.train.results import write_report
from engine.train.run import train

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title><b>",
    "a\u202eb\u0007c",
    "javascript:alert(1)",
]
_VOID = {"meta", "br", "line", "rect", "circle", "polyline"}


class Checked(HTMLParser):
    """Tags in their order, and what does not belong together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The report of a run whose classes and columns have hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    number, word = HOSTILE[:2]
    lines = [
        {
            number: n * 7 % 13 / 2,
            word: HOSTILE[n % 5],
            "label": HOSTILE[n % 6],
            "split": ("train", "train", "train", "validation", "test")[n // 6 % 5],
        }
        for n in range(180)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "schema": {"columns": {number: {"type": "number"}, word: {"type": "category"}}},
        "towers": {number: {}, word: {}},
        "hyperparameters": {"n_epochs": 3},
        "fusion": {"dim": 8},
    }
    train(
        Multimodal.model_validate(spec),
        training=folder / "rows.jsonl",
        encoders=Path,
        cache=folder / "cache",
        out=folder / "out",
    )
    results = folder / "out/results"
    return json.loads((results / "report.json").read_text()), (results / "report.html").read_text()


def test_hostile_names_are_words_and_nothing_else(made: tuple[dict[str, Any], str]) -> None:
    _, text = made

    found = Checked(text)

    assert found.wrong == []
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(found.tags)
    # The headline's own.
    assert found.tags.count("b") == 1
    assert not [
        name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href", "style")
    ]
    assert HOSTILE[0] in found.words
    assert any("{{ 7 * 7 }}" in words for words in found.words)
    assert "\u202e" not in text
    assert "\u0007" not in text


def test_the_policy_allows_the_pages_own_style_and_no_script(made: tuple[dict[str, Any], str]) -> None:
    _, text = made

    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policies = [value for name, value in Checked(text).attributes if name == "content" and value]
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" in policies
    assert "url(" not in style[1]
    assert "://" not in text


def test_the_page_has_the_numbers_of_the_report(made: tuple[dict[str, Any], str]) -> None:
    report, text = made

    found = " ".join(Checked(text).words)

    assert charts.number(report["test"]["metrics"]["accuracy"]) in found
    assert charts.number(report["calibration"]["ece"]) in found
    assert "95 % bootstrap intervals" in found
    for heading in ("Metrics", "Training", "Robustness", "By class", "Calibration", "Cost", "Settings"):
        assert heading in found


def test_every_picture_and_table_has_words(made: tuple[dict[str, Any], str]) -> None:
    _, text = made
    found = Checked(text)

    assert found.tags.count("svg") == found.tags.count("figure") == found.tags.count("figcaption") >= 4
    assert all(value for name, value in found.attributes if name == "aria-label")
    assert found.tags.count("table") == found.tags.count("caption")


@pytest.mark.parametrize("task", ["contrastive", "generation"])
def test_a_task_without_classes_has_a_page_without_their_sections(
    made: tuple[dict[str, Any], str], task: str
) -> None:
    report = copy.deepcopy(made[0])
    for name in ("calibration", "robustness", "unimodal_baselines"):
        report.pop(name)
    report |= {"task": task, "classes": [], "test": {"metrics": {"i2t_recall@1": 0.25, "loss": 2.0}}}

    text = page(report, [{"step": 1, "epoch": 1.0, "train_loss": 2.0}])

    assert Checked(text).wrong == []
    assert "i2t_recall@1" in text
    assert "Calibration" not in text


@pytest.mark.parametrize("classes", [31, 1000])
def test_of_many_classes_the_most_confused_are_told(made: tuple[dict[str, Any], str], classes: int) -> None:
    report, names = copy.deepcopy(made[0]), [f"class {n}" for n in range(classes)]
    report["classes"] = names
    report["test"] |= {
        "confusion_matrix": [[int(n == m) for m in range(classes)] for n in range(classes)],
        "most_confused": [{"true": "class 1", "predicted": "class 2", "rows": 3, "share_of_true": 0.5}],
        "per_class": [{"class": n, "precision": 1.0, "recall": 1.0, "f1": 1.0, "rows": 1} for n in names],
    }

    text = page(report, [])

    assert "class 1 taken for class 2" in text
    assert 'class="confusion"' not in text
    assert len(text) < 100_000


def test_half_of_a_surrogate_pair_in_a_name_loses_no_report(
    made: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    report = copy.deepcopy(made[0])
    report["classes"][0] = "a\ud800"

    write_report(tmp_path, report, [])

    assert json.loads((tmp_path / "report.json").read_text())["classes"][0] == "a\ud800"
    assert "a\ufffd" in page(report | {"towers": {"a\ud800": {"type": "text", "encoder": None}}}, [])


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1e-300, 0.0], [1e300, -1e300], list(range(5000))])
def test_curves_of_any_numbers_can_be_drawn(values: list[float]) -> None:
    drawn = charts.curves({"x": list(enumerate(values))}, x="step", y="loss")

    assert "nan" not in drawn
    assert "inf" not in drawn
    assert len(drawn) < 20_000


@pytest.mark.parametrize("odd", [float("inf"), float("-inf"), float("nan"), 1.7e308, -1.7e308])
def test_points_that_no_picture_has_room_for_are_left_out(odd: float) -> None:
    line = [(1.0, 2.0), (2.0, odd), (3.0, 4.0)]

    assert charts.curves({"x": line}, x="step", y="loss") == charts.curves(
        {"x": [line[0], line[2]]}, x="step", y="loss"
    )
    assert charts.curves({"x": [(1.0, odd)]}, x="step", y="loss") == ""
    assert charts.scatter(line, x="true", y="said").count("<circle") == 2
    assert charts.scatter([(odd, 1.0)], x="true", y="said") == ""


def test_the_smallest_numbers_have_a_picture() -> None:
    assert "polyline" in charts.curves({"x": [(0.0, 0.0), (1.0, 5e-324)]}, x="step", y="loss")


def test_points_and_bins_without_numbers_are_left_out() -> None:
    """What overflowed is null in report.json, which the page is made of."""
    whole = {"from": 0.0, "to": 0.5, "count": 2, "confidence": 0.2, "accuracy": 0.5}

    assert charts.scatter([(None, 1.0), (1.0, 2.0)], x="true", y="said").count("<circle") == 1
    assert charts.reliability([whole, whole | {"confidence": None}]).count("<circle") == 1


def test_a_metric_below_zero_is_a_bar_to_the_left() -> None:
    drawn = charts.bars(
        [{"name": "a", "value": -1.0, "interval": None}, {"name": "b", "value": 2.0, "interval": [1, 3]}]
    )

    assert 'width="-' not in drawn


def test_what_overflowed_is_null_in_json_and_a_dash_on_the_page(
    made: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    report = copy.deepcopy(made[0])
    report["unimodal_baselines"]["fused"] |= {"value": float("inf"), "interval": [0.0, float("nan")]}
    report["test"]["metrics"]["loss"] = float("inf")

    write_report(tmp_path, report, [])

    told = json.loads((tmp_path / "report.json").read_text())
    assert told["test"]["metrics"]["loss"] is None
    assert "–" in (tmp_path / "report.html").read_text()
