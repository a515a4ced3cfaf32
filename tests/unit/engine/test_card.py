"""What users named stays text in a model card, and the card stays one that the Hub can read."""

import ast
from typing import Any

from huggingface_hub import ModelCard

from engine.models.card import LISTED, model_card


def config(columns: dict[str, tuple[str, str]], **more: Any) -> dict[str, Any]:
    """The config.json of a model with these columns: name -> type and encoder."""
    return {
        "spec": {"task": "classification", "family": "late-fusion", "fusion": {"type": "concat"}},
        "schema": {"columns": {name: {"type": kind} for name, (kind, _) in columns.items()}},
        "towers": {name: {"encoder": encoder} for name, (_, encoder) in columns.items()},
        "classes": ["cat", "dog"],
        "metrics": {"test_accuracy": 0.97, "test_loss": 0.1},
        **more,
    }


def test_a_card_has_front_matter_that_the_hub_reads() -> None:
    card = ModelCard(model_card(config({"photo": ("image", "google/vit")})))

    assert card.data.library_name == "plait"
    assert card.data.base_model == ["google/vit"]
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.metrics == ["accuracy"]
    assert "| test\\_accuracy | 0.97 |" in card.text


def test_no_name_of_a_user_becomes_markup_or_code() -> None:
    evil = "x](http://evil.example)<script>|`**\n---\nlicense: mit\n```\n#"

    card = ModelCard(model_card(config({evil: ("text", "a/b")}, classes=[evil, "b"])))

    assert "license" not in card.data.to_dict()
    fences = [line for line in card.text.splitlines() if line.startswith("```")]
    assert fences == ["```python", "```"]
    program = card.text.split("```python\n")[1].split("\n```\n")[0]
    ast.parse(program)
    prose = card.text.replace(program, "")
    assert "<script>" not in prose
    assert "](http" not in prose
    assert [line for line in prose.splitlines() if line.startswith("license")] == []


def test_folders_of_the_training_machine_are_no_base_models() -> None:
    card = ModelCard(model_card(config({"a": ("text", "/srv/encoders/mine")})))

    assert card.data.base_model is None


def test_no_value_of_a_category_leaves_the_example() -> None:
    evil = "x'}]))\n```\n---\n<script>\u2028\ud800"
    told = config({"shop": ("category", ""), "price": ("number", "")})
    told["towers"] = {"shop": {"statistics": {"values": [evil, "b"]}}, "price": {"statistics": {}}}

    card = ModelCard(model_card(told))

    program = card.text.split("```python\n")[1].split("\n```\n")[0]
    (row,) = ast.literal_eval(
        program.splitlines()[-1].removeprefix("print(model.predict(").removesuffix("))")
    )
    assert row == {"price": 3.5, "shop": evil}
    assert card.data.base_model is None
    assert "| price | number | trained here |" in card.text


def test_a_category_that_a_language_model_reads_as_text_has_an_example_of_a_word() -> None:
    told = config({"shop": ("category", "")}, language_model={"model": "a/b"})
    told["spec"] = {"task": "generation", "family": "vlm", "fusion": {"type": "concat"}}
    told["towers"] = {"shop": {"encoder": None}}

    card = ModelCard(model_card(told))

    assert "print(model.predict([{'shop': 'a word'}]))" in card.text


def test_thousands_of_classes_are_counted_and_not_listed() -> None:
    card = model_card(config({"a": ("text", "a/b")}, classes=[f"c{n}" for n in range(LISTED + 7)]))

    assert "and 7 more" in card


def test_a_regression_has_neither_classes_nor_a_classifiers_tag() -> None:
    regression = {"task": "regression", "family": "late-fusion", "fusion": {"type": "concat"}}

    card = ModelCard(model_card(config({"a": ("text", "a/b")}, classes=[], spec=regression)))

    assert "## Classes" not in card.text
    assert card.data.pipeline_tag is None
