"""A model that writes starts from one that wrote before: projectors, the language model, and what stands in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from domain.errors import EngineError
from domain.specs import Multimodal
from engine.infer import Writer, load
from engine.train.run import Finished, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE
from support.language import LANGUAGE, tiny_language_model

WHOLE = {"model": LANGUAGE, "freeze": False, "media_tokens": 4, "max_length": 16, "max_answer_length": 4}
ADAPTED = {**WHOLE, "freeze": True, "lora": {"r": 2, "alpha": 4}}
SEEN: dict[str, Any] = {"image": {"encoder": IMAGE}, "text": {}}
#: A rate at which a step changes nothing that a float32 can tell.
STILL = {"learning_rate": 1e-12, "weight_decay": 0}


class Place:
    def __init__(self, folder: Path, parts: dict[str, Path]) -> None:
        self.folder, self.parts = folder, parts
        self.data = tiny_av(folder, rows=12)

    def train(self, out: str, language: dict[str, Any] | None, **options: Any) -> Path:
        towers, hyper = options.pop("towers", SEEN), options.pop("hyper", {"learning_rate": 1e-2})
        told: dict[str, Any] = {
            "towers": towers,
            "hyperparameters": {"n_epochs": 1, "batch_size": 8} | hyper,
            **({"family": "vlm", "language_model": language} if language else {}),
            **options.pop("spec", {}),
        }
        ending = train(
            Multimodal.model_validate(told),
            training=self.data,
            encoders=self.parts.__getitem__,
            cache=self.folder / "cache",
            out=self.folder / out,
            seed=len(out),
            **options,
        )
        assert isinstance(ending, Finished)
        return self.folder / out / "model"

    def started(self, out: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / out / "results/report.json").read_text())["start"]
        return found


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, {**encoders, LANGUAGE: tiny_language_model(tmp_path / "language")})


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


@pytest.mark.parametrize("language", [WHOLE, ADAPTED])
def test_all_of_a_model_that_writes_is_taken_over(place: Place, language: dict[str, Any]) -> None:
    still = {**language, "lr": 1e-12}
    first = place.train("first", language)

    second = place.train("another", still, start=first, hyper=STILL)

    assert weights(first).keys() == weights(second).keys()
    for name, weight in weights(first).items():
        torch.testing.assert_close(weights(second)[name], weight, msg=name)
    told = place.started("another")
    assert told["columns"] == {"image": "image"}
    assert told["left"] == []
    assert "trained weights of the language model" in told["taken"]
    assert "what stands in for missing media" in told["taken"]
    assert "fusion" not in told["taken"]


def test_a_language_model_that_was_trained_is_kept_where_it_is_adapted_now(place: Place) -> None:
    first = place.train("first", WHOLE)

    second = place.train("another", ADAPTED, start=first)

    old = {n: w for n, w in weights(first).items() if n.startswith("language.")}
    new = {n.replace(".base_layer", ""): w for n, w in weights(second).items() if "lora_" not in n}
    assert old
    assert all(torch.equal(new[name], weight) for name, weight in old.items())
    model = load(second, place.parts.__getitem__)
    assert isinstance(model, Writer)
    assert len(model.predict([{"text": "a red shape"}])) == 1


def test_what_stands_in_and_projectors_go_by_column(place: Place) -> None:
    """Audio comes before image: places differ."""
    first = place.train("first", WHOLE)
    towers = {"audio": {"encoder": AUDIO, "max_seconds": 0.5}, "image": {"encoder": IMAGE}}

    second = place.train("another", {**WHOLE, "lr": 1e-12}, start=first, towers=towers, hyper=STILL)

    torch.testing.assert_close(weights(second)["missing"][1], weights(first)["missing"][0])
    projector = "pool.project.0.weight"
    torch.testing.assert_close(
        weights(second)[f"encoders.1.{projector}"], weights(first)[f"encoders.0.{projector}"]
    )
    assert place.started("another")["left"] == ["column 'audio'"]


def test_texts_alone_are_enough(place: Place) -> None:
    first = place.train("first", WHOLE, towers={"text": {}})

    place.train("another", WHOLE, start=first, towers={"text": {}})

    assert place.started("another")["taken"] == ["trained weights of the language model"]


@pytest.mark.parametrize(("before", "now"), [(WHOLE, None), (None, WHOLE)])
def test_a_model_that_writes_and_one_that_does_not_share_nothing(
    place: Place, before: dict[str, Any] | None, now: dict[str, Any] | None
) -> None:
    towers = {"image": {"encoder": IMAGE}}
    first = place.train("first", before, towers=towers)

    with pytest.raises(EngineError, match="another vlm only") as refused:
        place.train("another", now, towers=towers, start=first)

    assert (refused.value.code, refused.value.param) == ("start_mismatch", "model")


def test_adapters_that_have_no_place_or_count_otherwise_are_refused(place: Place) -> None:
    first = place.train("first", ADAPTED)
    other = {**ADAPTED, "lora": {"r": 2, "alpha": 8}}

    for language, word in ((other, "alpha 4"), (WHOLE, "the same lora")):
        with pytest.raises(EngineError, match=word) as refused:
            place.train("another", language, start=first)
        assert (refused.value.code, refused.value.param) == (
            "start_mismatch",
            "multimodal.language_model.lora",
        )


def test_another_language_model_is_refused(place: Place, tmp_path: Path) -> None:
    first = place.train("first", ADAPTED)
    place.parts["tiny/other"] = tiny_language_model(tmp_path / "other", width=16)

    with pytest.raises(EngineError, match=LANGUAGE) as refused:
        place.train("another", {**ADAPTED, "model": "tiny/other"}, start=first)

    assert (refused.value.code, refused.value.param) == ("encoder_changed", "multimodal.language_model")
