"""The spec: what is refused says where and what is allowed."""

from typing import Any

import pytest

from domain.errors import InvalidSpec
from domain.specs import FineTune, parse

GOOD = {"model": "late-fusion", "training_file": "file-1"}


def problems(**changes: Any) -> dict[str, dict[str, Any]]:
    with pytest.raises(InvalidSpec) as refused:
        parse(FineTune, GOOD | changes)
    return {p["path"]: p for p in refused.value.problems}


def test_a_bare_spec_gets_defaults() -> None:
    spec = parse(FineTune, GOOD).merged()

    assert (spec.version, spec.fusion.type, spec.hyperparameters.n_epochs) == (1, "concat", "auto")


def test_every_wrong_path_is_listed_at_once() -> None:
    found = problems(
        multimodal={"towers": {"a": {"encoder": "../x", "fooo": 1}}, "hyperparameters": {"batch_size": -1}}
    )

    assert set(found) == {
        "multimodal.towers.a.encoder",
        "multimodal.towers.a.fooo",
        "multimodal.hyperparameters.batch_size",
    }


def test_an_unknown_field_lists_what_is_allowed_there() -> None:
    found = problems(multimodal={"fusion": {"kind": "concat"}})

    assert found["multimodal.fusion.kind"]["allowed"] == ["dim", "modality_dropout", "type"]


def test_an_unknown_model_is_a_problem_of_the_model() -> None:
    assert "late-fusion" in problems(model="gpt-4")["model"]["message"]


def test_openai_hyperparameters_are_laid_under_ours() -> None:
    spec = parse(
        FineTune,
        GOOD
        | {
            "hyperparameters": {"n_epochs": 3, "batch_size": 8},
            "multimodal": {"hyperparameters": {"batch_size": 16}},
        },
    ).merged()

    assert (spec.hyperparameters.n_epochs, spec.hyperparameters.batch_size) == (3, 16)


def test_a_newer_spec_is_refused() -> None:
    assert "multimodal.version" in problems(multimodal={"version": 2})
