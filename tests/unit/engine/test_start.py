"""Training starts from a model: what is taken over, what is not, and that the new model stands by itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from domain.errors import EngineError
from domain.specs import Multimodal
from engine.infer import load
from engine.models.build import build_model
from engine.models.fusion import FUSIONS
from engine.models.joint import JointSpace
from engine.models.store import load_model
from engine.train.optimiser import make_optimiser
from engine.train.plan import make_plan
from engine.train.projections import read_projection, write_projection
from engine.train.run import Finished, train
from engine.train.start import open_start, take_over
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, VIT

FROZEN = {"image": {"encoder": IMAGE}, "text": {"encoder": TEXT}}
TRAINED = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}, "text": {"encoder": TEXT}}


class Place:
    def __init__(self, folder: Path, encoders: dict[str, Path]) -> None:
        self.folder, self.encoders = folder, encoders
        self.data = tiny_av(folder, rows=30)
        self.told: list[str] = []

    def train(self, out: str, towers: dict[str, Any], **options: Any) -> Path:
        hyper = {"n_epochs": 2, "batch_size": 6} | options.pop("hyper", {})
        spec = {"towers": towers, "fusion": {"dim": 8}, "hyperparameters": hyper, **options.pop("spec", {})}
        ending = train(
            Multimodal.model_validate(spec),
            **{"training": self.data, "seed": 1, **options},
            encoders=self.encoders.__getitem__,
            cache=self.folder / "cache",
            out=self.folder / out,
            report=lambda progress: self.told.append(progress.message or ""),
        )
        assert isinstance(ending, Finished)
        return self.folder / out / "model"

    def encoders_by_column(self, spec: Multimodal) -> dict[str, Path]:
        return {name: self.encoders[tower.encoder] for name, tower in spec.towers.items() if tower.encoder}

    def pretrain(self, towers: dict[str, Any], out: str = "pre", **options: Any) -> Path:
        return self.train(out, towers, spec={"task": "contrastive"}, **options)

    def started(self, out: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / out / "results/report.json").read_text())["start"]
        return found


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders)


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


#: A rate at which a step changes nothing that a float32 can tell.
STILL = {"learning_rate": 1e-12, "n_epochs": 1, "weight_decay": 0}


@pytest.mark.parametrize("fusion", ["concat", "mean", "gated", "film", "low_rank_tensor", "cnn"])
def test_projections_that_were_pretrained_are_what_a_fine_tune_begins_with(place: Place, fusion: str) -> None:
    pre = place.pretrain(FROZEN)

    tuned = place.train("tuned", FROZEN, start=pre, hyper=STILL, spec={"fusion": {"type": fusion, "dim": 8}})

    old = {n.removeprefix("fusion."): w for n, w in weights(pre).items()}
    new = {n.removeprefix("fusion."): w for n, w in weights(tuned).items()}
    for column in (0, 1):
        given, found = read_projection(old, column), read_projection(new, column)
        assert given is not None
        assert found is not None
        torch.testing.assert_close(found.linear[0], given.linear[0])
        torch.testing.assert_close(found.before, given.before)
    told = place.started("tuned")
    assert told["columns"] == {"image": "image", "text": "text"}
    assert told["taken"] == ["projections of 'image', 'text'"]
    assert told["left"] == ["all else of the fusion", "head"]
    assert any("Taken over: projections" in message for message in place.told)


def test_projections_that_were_taught_before_learn_at_a_tenth_of_the_heads_rate(place: Place) -> None:
    pre = place.pretrain(FROZEN)
    start = open_start(pre)
    spec = Multimodal.model_validate({"towers": FROZEN, "task": "classification", "fusion": {"dim": 8}})
    model = build_model(spec, start.schema, 2, place.encoders_by_column(spec), {})

    take_over(start, model, spec, start.schema, ["a", "b"], {})
    groups = make_optimiser(model, make_plan(spec, 10)).param_groups

    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.trained()}
    assert named["fusion.weight"] == pytest.approx(1e-4)
    assert named["fusion.norms.1.weight"] == pytest.approx(1e-4)
    assert named["head.1.weight"] == named["fusion.norm.weight"] == pytest.approx(1e-3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_projection_that_does_not_fit_changes_nothing(fusion: str) -> None:
    made = FUSIONS[fusion]([6, 5], 8, 0.1)
    before = {name: w.clone() for name, w in made.state_dict().items()}
    other = read_projection(JointSpace([6, 5], 7, has_bias=False).state_dict(), 0)
    assert other is not None

    assert not write_projection(made.state_dict(), 0, other)

    assert all(torch.equal(w, before[name]) for name, w in made.state_dict().items())


def test_a_concat_fusion_of_taken_projections_is_their_sum() -> None:
    space, concat = JointSpace([6, 5], 8, has_bias=False), FUSIONS["concat"]([6, 5], 8, 0.0)
    nn.init.zeros_(concat.bias)
    for column in (0, 1):
        projection = read_projection(space.state_dict(), column)
        assert projection is not None
        assert write_projection(concat.state_dict(), column, projection)
    xs, present = [torch.randn(3, 6), torch.randn(3, 5)], torch.ones(3, 2, dtype=torch.bool)

    summed = sum(tower[:2](x) for tower, x in zip(space.towers, xs, strict=True))

    torch.testing.assert_close(concat(xs, present), nn.functional.gelu(concat.norm(summed)))


def test_a_model_of_the_same_kind_is_taken_over_whole(place: Place) -> None:
    first = place.train("first", TRAINED)

    still = {**TRAINED, "image": {**TRAINED["image"], "lr": 1e-12}}
    second = place.train("second", still, start=first, hyper=STILL)

    for name, weight in weights(first).items():
        torch.testing.assert_close(weights(second)[name], weight)
    assert place.started("second")["taken"] == ["trained weights of tower 'image'", "fusion", "head"]
    assert place.started("second")["left"] == []


def test_a_head_of_other_classes_begins_anew(place: Place, tmp_path: Path) -> None:
    first = place.train("first", FROZEN)
    (tmp_path / "two").mkdir()

    place.train("second", FROZEN, start=first, training=tiny_av(tmp_path / "two", rows=30, classes=2))

    assert place.started("second")["left"] == ["head"]


@pytest.mark.slow
def test_a_tower_that_was_trained_and_is_frozen_now_is_kept_in_the_new_model(place: Place) -> None:
    """Its features are made anew, and the folder needs neither the model that it started from nor its weights."""
    rows = [{"image": np.full((32, 32, 3), 80, np.uint8), "text": "a red shape"}]
    cold = place.train("cold", FROZEN)
    pre = place.pretrain(TRAINED, hyper={"learning_rate": 1e-2})

    tuned = place.train("tuned", FROZEN, start=pre)
    again = place.train("again", FROZEN, start=pre)
    given = {n: w for n, w in weights(pre).items() if n.startswith("encoders.")}
    shutil.rmtree(place.folder / "pre")

    assert given
    assert all(torch.equal(weights(tuned)[name], weight) for name, weight in given.items())
    model, _ = load_model(tuned, place.encoders.__getitem__)
    assert model.carried == set(given)
    one, other, plain = (
        load(m, encoders=place.encoders.__getitem__).predict(rows)[0] for m in (tuned, again, cold)
    )
    assert one == other
    assert one.probabilities != plain.probabilities
    # A start that was a start itself: the weights go on.
    third = place.train("third", FROZEN, start=tuned)
    assert all(torch.equal(weights(third)[name], weight) for name, weight in given.items())


def test_features_of_a_tower_with_other_weights_are_not_those_in_the_cache(place: Place) -> None:
    """Trained so far away that old features would be told by the first evaluation."""
    pre = place.pretrain(TRAINED, hyper={"learning_rate": 1e-2})
    place.train("cold", FROZEN)

    place.train("warm", FROZEN, start=pre)

    asked = [message for message in place.told if message.startswith("Encoding")]
    assert "inputs of 'image', 0 of" in asked[-1]
    assert not asked[-1].startswith("Encoding 0")


def test_a_column_of_another_name_is_matched_by_its_type_or_as_the_spec_says(
    place: Place, tmp_path: Path
) -> None:
    lines = [
        json.dumps({"caption": f"a word {n % 3}", "size": n + 0.5, "label": "ab"[n % 2]}) for n in range(20)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(lines))
    pre = place.pretrain(FROZEN)

    place.train("typed", {"caption": {"encoder": TEXT}, "size": {}}, start=pre, training=data)
    place.train(
        "said",
        {"caption": {"encoder": TEXT}},
        start=pre,
        training=data,
        spec={"start_columns": {"caption": "text"}},
    )

    assert place.started("typed")["columns"] == place.started("said")["columns"] == {"caption": "text"}
    assert "column 'size'" in place.started("typed")["left"]


@pytest.mark.parametrize(
    ("towers", "options", "code", "words"),
    [
        ({"image": {"encoder": VIT}}, {}, "encoder_changed", "tiny/mobilenet"),
        ({"image": {"encoder": IMAGE, "image_size": 48}}, {}, "encoder_changed", "otherwise"),
        (
            {"audio": {"encoder": "tiny/whisper", "max_seconds": 0.5}},
            {},
            "start_mismatch",
            "none of the columns",
        ),
        (
            {"image": {"encoder": IMAGE}},
            {"start_columns": {"image": "photo"}},
            "start_mismatch",
            "no pair of columns",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_a_clear_error(
    place: Place, towers: dict[str, Any], options: dict[str, Any], code: str, words: str
) -> None:
    pre = place.pretrain(FROZEN)

    with pytest.raises(EngineError, match=words) as refused:
        place.train("tuned", towers, start=pre, spec=options)

    assert refused.value.code == code
    assert refused.value.param is not None
    assert refused.value.param.startswith("multimodal.")


def test_a_run_that_started_from_a_model_goes_on_from_its_checkpoint_and_from_no_other_start(
    place: Place,
) -> None:
    pre, other = place.pretrain(FROZEN), place.pretrain(FROZEN, out="other", seed=2)
    whole = place.train("whole", FROZEN, start=pre, hyper={"save_steps": 2, "save_total_limit": 9})
    checkpoint = place.folder / "whole/checkpoints/step-2"

    on = place.train("on", FROZEN, start=pre, resume=checkpoint)
    with pytest.raises(EngineError) as refused:
        place.train("astray", FROZEN, start=other, resume=checkpoint)
    with pytest.raises(EngineError, match="started from") as cold:
        place.train("cold", FROZEN, resume=checkpoint)

    assert weights(whole).keys() == weights(on).keys()
    assert all(torch.equal(weights(on)[name], weight) for name, weight in weights(whole).items())
    for error in (refused.value, cold.value):
        assert (error.code, error.param) == ("checkpoint_mismatch", "model")


def test_a_run_without_a_start_goes_on_without_one(place: Place) -> None:
    pre = place.pretrain(FROZEN)
    place.train("whole", FROZEN, hyper={"save_steps": 2, "save_total_limit": 9})

    with pytest.raises(EngineError) as refused:
        place.train("on", FROZEN, start=pre, resume=place.folder / "whole/checkpoints/step-2")

    assert (refused.value.code, refused.value.param) == ("checkpoint_mismatch", "model")


def test_numbers_and_categories_are_taken_over_where_they_are_read_alike(
    place: Place, tmp_path: Path
) -> None:
    def table(shift: float) -> Path:
        lines = [{"size": n % 7 + shift, "kind": "xyz"[n % 3], "label": "ab"[n % 2]} for n in range(30)]
        path = tmp_path / f"rows-{shift}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    spec = {"schema": {"columns": {"size": {"type": "number"}, "kind": {"type": "category"}}}}
    first = place.train("first", {"size": {}, "kind": {}}, training=table(0.5), spec=spec)

    place.train("second", {"size": {}, "kind": {}}, training=table(1.5), start=first, spec=spec)

    assert "tower 'kind'" in place.started("second")["taken"]
    assert "tower 'size', whose values are other ones" in place.started("second")["left"]


def test_adapters_that_would_count_otherwise_are_refused(place: Place) -> None:
    def adapted(alpha: int) -> dict[str, Any]:
        return {"text": {"encoder": TEXT, "lora": {"r": 2, "alpha": alpha}}}

    first = place.train("first", adapted(4), hyper={"n_epochs": 1})

    with pytest.raises(EngineError, match="alpha 4") as refused:
        place.train("second", adapted(32), start=first)

    assert (refused.value.code, refused.value.param) == ("start_mismatch", "multimodal.towers.text")


def test_projections_that_begin_anew_are_standardised_and_those_taken_over_are_not(place: Place) -> None:
    pair = {"image": FROZEN["image"], "audio": {"encoder": AUDIO, "max_seconds": 0.5}}
    pre = place.pretrain(pair, hyper=STILL)
    cold = place.pretrain(FROZEN, out="cold", hyper=STILL)

    warm = place.pretrain(FROZEN, out="warm", start=pre, hyper=STILL)

    # Image is the second of the columns there and the first here.
    torch.testing.assert_close(
        weights(warm)["fusion.towers.0.0.weight"], weights(pre)["fusion.towers.1.0.weight"]
    )
    torch.testing.assert_close(
        weights(warm)["fusion.towers.1.0.weight"], weights(cold)["fusion.towers.1.0.weight"]
    )


TOKENS = {"family": "mm-bert", "fusion": {"dim": 8, "layers": 1, "heads": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "now"),
    [({"task": "contrastive"}, TOKENS), (TOKENS, {}), (TOKENS, {**TOKENS, "family": "vilbert"})],
    ids=["vector to tokens", "tokens to vector", "fewer tokens"],
)
def test_a_tower_gives_its_weights_to_one_that_reads_tokens_and_takes_them_from_one(
    place: Place, before: dict[str, Any], now: dict[str, Any]
) -> None:
    towers = dict(FROZEN)
    if now.get("family") == "vilbert":
        towers["text"] = {**FROZEN["text"], "max_tokens": 3}
    first = place.train("first", TRAINED, spec=before)

    second = place.train("second", towers, start=first, spec=now)

    given = {n: w for n, w in weights(first).items() if n.startswith("encoders.0.network.")}
    assert given
    assert all(torch.equal(weights(second)[name], weight) for name, weight in given.items())
    assert "trained weights of tower 'image'" in place.started("second")["taken"]


@pytest.mark.slow
def test_a_tower_of_tokens_that_reads_another_size_is_refused(place: Place) -> None:
    first = place.train("first", TRAINED, spec={"task": "contrastive"})
    larger = {**FROZEN, "image": {"encoder": IMAGE, "image_size": 48}}

    with pytest.raises(EngineError, match="write for it") as refused:
        place.train("second", larger, start=first, spec=TOKENS)

    assert refused.value.code == "encoder_changed"
