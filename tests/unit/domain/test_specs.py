"""The spec: what is refused says where and what is allowed."""

from typing import Any

import pytest

from domain.errors import InvalidSpec
from domain.families import TASK_OF
from domain.language import settled_columns
from domain.manifest import ColumnType
from domain.shapes import parse
from domain.specs import FineTune, Multimodal
from domain.tasks import LOSSES, Task
from domain.towers import Lora, Tower

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


def test_a_number_that_may_be_auto_says_so() -> None:
    hyper = {"n_epochs": "many", "save_steps": -1, "batch_size": 0}
    found = problems(multimodal={"hyperparameters": hyper, "loss": {"class_weights": "even"}})

    message = found["multimodal.hyperparameters.n_epochs"]["message"]
    assert message.startswith("Input should be 'auto'; or input should be a valid integer")
    assert "'clock'; or" in found["multimodal.hyperparameters.save_steps"]["message"]
    assert "'none' or 'balanced'; or" in found["multimodal.loss.class_weights"]["message"]
    assert found["multimodal.hyperparameters.batch_size"]["code"] == "greater_than_equal"


def test_an_unknown_field_lists_what_is_allowed_there() -> None:
    found = problems(multimodal={"fusion": {"kind": "concat"}})

    assert found["multimodal.fusion.kind"]["allowed"] == [
        "alignment",
        "dim",
        "dropout",
        "heads",
        "layers",
        "modality_dropout",
        "rank",
        "type",
    ]


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


@pytest.mark.parametrize(
    ("task", "options", "path"),
    [
        ("regression", {"loss": {"type": "cross_entropy"}}, "loss.type"),
        ("classification", {"loss": {"type": "bce"}}, "loss.type"),
        ("multilabel", {"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing"),
        ("regression", {"loss": {"class_weights": "balanced"}}, "loss.class_weights"),
        ("regression", {"loss": {"type": "focal"}}, "loss.type"),
        (
            "regression",
            {"hyperparameters": {"metric_for_best_model": "accuracy"}},
            "hyperparameters.metric_for_best_model",
        ),
    ],
)
def test_an_option_that_does_not_fit_the_task_is_refused_by_its_path(
    task: str, options: dict[str, Any], path: str
) -> None:
    refused = problems(multimodal={"task": task, **options})
    undecided = parse(FineTune, GOOD | {"multimodal": options}).merged()

    assert f"the task is {task}" in refused[f"multimodal.{path}"]["message"]
    assert [field for field, _ in undecided.misfits(Task(task))] == [path]


@pytest.mark.parametrize("task", [task for task in Task if task not in TASK_OF.values()])
def test_a_settled_spec_has_the_loss_of_its_task(task: Task) -> None:
    settled = parse(FineTune, GOOD).merged().settled(task)

    assert (settled.task, settled.loss.type) == (task, LOSSES[task][0])


def test_a_spec_that_an_earlier_version_stored_is_still_read() -> None:
    stored = {
        "version": 1,
        "task": "classification",
        "towers": {"a": {"encoder": "a/b", "freeze": True}, "b": {"encoder": "a/b", "freeze": False}},
        "loss": {"type": "cross_entropy"},
        "hyperparameters": {"metric_for_best_model": "accuracy", "save_steps": "auto"},
    }

    spec = Multimodal.model_validate(stored)

    assert [tower.frozen_share for tower in spec.towers.values()] == [1.0, 0.0]
    assert spec.towers["a"].is_frozen


@pytest.mark.parametrize(
    ("loss", "option", "told"),
    [
        ({"gamma": 2.0}, "gamma", "focal"),
        ({"type": "focal", "label_smoothing": 0.1}, "label_smoothing", "leave"),
    ],
)
def test_an_option_of_another_loss_is_refused(loss: dict[str, Any], option: str, told: str) -> None:
    assert told in problems(multimodal={"loss": loss})[f"multimodal.loss.{option}"]["message"]


@pytest.mark.parametrize(
    ("fusion", "option", "told"),
    [
        ({"type": "concat", "rank": 8}, "rank", "low_rank_tensor"),
        ({"alignment": 0.5}, "alignment", "mmd and adversarial"),
    ],
)
def test_an_option_of_another_fusion_is_refused(fusion: dict[str, Any], option: str, told: str) -> None:
    found = problems(multimodal={"fusion": fusion})

    assert told in found[f"multimodal.fusion.{option}"]["message"]


def test_a_fusion_takes_its_own_option() -> None:
    fusion = {"type": "low_rank_tensor", "rank": 8}

    assert parse(FineTune, GOOD | {"multimodal": {"fusion": fusion}}).multimodal.fusion.rank == 8


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("task", "clasification", "'multilabel'"),
        ("hyperparameters.metric_for_best_model", "acuracy", "f1_macro"),
        ("hyperparameters.lr_scheduler_type", "cosin", "'linear'"),
        ("hyperparameters.precision", "int8", "'bf16'"),
        ("fusion.type", "gate", "'gated'"),
    ],
)
def test_a_wrong_word_is_told_the_right_ones(field: str, value: str, told: str) -> None:
    outer, _, inner = field.rpartition(".")

    found = problems(multimodal={outer: {inner: value}} if outer else {inner: value})

    assert told in found[f"multimodal.{field}"]["message"]


@pytest.mark.parametrize("share", [-0.1, 1.5, "half"])
def test_a_share_of_layers_is_between_nothing_and_all(share: Any) -> None:
    found = problems(multimodal={"towers": {"a": {"encoder": "a/b", "freeze": share}}})

    assert set(found) == {"multimodal.towers.a.freeze"}


def test_both_constant_schedules_are_one() -> None:
    spec = parse(
        FineTune, GOOD | {"multimodal": {"hyperparameters": {"lr_scheduler_type": "constant_with_warmup"}}}
    )

    assert spec.merged().hyperparameters.lr_scheduler_type == "constant"


def test_a_job_names_its_family_and_need_not_say_it_twice() -> None:
    once = parse(FineTune, {**GOOD, "model": "mm-gan", "multimodal": {}})
    twice = parse(FineTune, {**GOOD, "model": "mm-gan", "multimodal": {"family": "mm-gan"}})

    assert once.merged().family == twice.merged().family == "mm-gan"


def test_two_families_in_one_job_are_refused() -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(FineTune, {**GOOD, "model": "late-fusion", "multimodal": {"family": "mm-gan"}})

    assert refused.value.problems[0]["path"] == "model"


@pytest.mark.parametrize(
    ("tower", "field", "told"),
    [
        ({"lora": {}, "freeze": False}, "freeze", "lora"),
        ({"lora": {}, "freeze": 0.5}, "freeze", "lora"),
        ({"lora": {}, "freeze_layers": 2}, "freeze_layers", "lora"),
        ({"freeze": 0.5, "freeze_layers": 2}, "freeze_layers", "one of the two"),
        ({"layer_decay": 0.9}, "layer_decay", "trained"),
        ({"augment": "light"}, "augment", "needs a trained encoder"),
        ({"lora": {"r": 0}}, "lora.r", "greater"),
        ({"freeze": False, "augment": "strong"}, "augment.preset", "light"),
        ({"freeze": False, "augment": {"crop": 0}}, "augment.crop", "greater"),
    ],
)
def test_a_tower_says_once_and_rightly_how_it_is_trained(
    tower: dict[str, Any], field: str, told: str
) -> None:
    found = problems(multimodal={"towers": {"a": {"encoder": "a/b", **tower}}})

    assert list(found) == [f"multimodal.towers.a.{field}"]
    assert told in found[f"multimodal.towers.a.{field}"]["message"]


@pytest.mark.parametrize(
    ("tower", "frozen"),
    [({}, True), ({"lora": {}}, False), ({"lora": {}, "freeze": True}, False), ({"freeze_layers": 2}, False)],
)
def test_a_tower_is_frozen_unless_something_of_it_is_trained(tower: dict[str, Any], frozen: bool) -> None:
    stored = Tower.model_validate({"encoder": "a/b", **tower}).settled(ColumnType.TEXT)

    assert stored.is_frozen is frozen
    assert Tower.model_validate(stored.model_dump(mode="json")) == stored


def test_a_change_of_another_types_inputs_is_refused() -> None:
    schema = {"columns": {"a": {"type": "text"}}}
    tower = {"freeze": False, "augment": {"drop": 0.2, "flip": 0.5}}

    found = problems(multimodal={"schema": schema, "towers": {"a": tower}})

    assert list(found) == ["multimodal.towers.a.augment.flip"]


WRITES: dict[str, Any] = {"family": "vlm"}


def test_a_language_model_generates_without_a_word_on_its_task() -> None:
    spec = parse(FineTune, GOOD | {"model": "vlm", "multimodal": WRITES}).merged()

    assert (spec.task, spec.settled(Task.GENERATION).loss.type) == ("generation", "cross_entropy")
    assert spec.language_model is not None
    settled = spec.language_model.settled()
    assert (settled.freeze, settled.lora) == (True, Lora())
    # What was stored is read as it was.
    assert parse(Multimodal, spec.model_dump(mode="json", by_alias=True)) == spec


@pytest.mark.parametrize(
    ("multimodal", "path", "told"),
    [
        ({"task": "generation"}, "family", "vlm"),
        ({**WRITES, "task": "regression"}, "family", "generation"),
        ({"language_model": {}}, "language_model", "vlm"),
        ({**WRITES, "fusion": {"type": "film"}}, "fusion", "modality_dropout"),
        ({**WRITES, "loss": {"type": "focal"}}, "loss.type", "cross_entropy"),
        ({**WRITES, "loss": {"class_weights": "balanced"}}, "loss.class_weights", "no classes"),
        ({**WRITES, "language_model": {"lora": {}, "freeze": False}}, "language_model.freeze", "leave one"),
        ({**WRITES, "language_model": {"model": "../x"}}, "language_model.model", "Hub id"),
    ],
)
def test_what_makes_no_sense_for_a_language_model_is_refused(
    multimodal: dict[str, Any], path: str, told: str
) -> None:
    refused = problems(model=multimodal.get("family", "late-fusion"), multimodal=multimodal)

    assert told in refused[f"multimodal.{path}"]["message"]


@pytest.mark.parametrize(
    ("kind", "tower", "field"),
    [
        ("text", {"encoder": "a/b"}, "encoder"),
        ("text", {"max_length": 5}, "max_length"),
        ("number", {"lr": 0.1}, "lr"),
        ("image", {"max_length": 5}, "max_length"),
        ("video", {"pool": "attention"}, "pool"),
        ("image", {"freeze": False, "augment": {"drop": 0.1}}, "augment.drop"),
        ("audio", {"freeze": False, "augment": {"flip": 0.5}}, "augment.flip"),
    ],
)
def test_a_tower_before_a_language_model_says_how_media_are_seen_and_nothing_of_texts(
    kind: str, tower: dict[str, Any], field: str
) -> None:
    schema = {"columns": {"a": {"type": kind}}}

    refused = problems(model="vlm", multimodal={**WRITES, "schema": schema, "towers": {"a": tower}})

    assert set(refused) == {f"multimodal.towers.a.{field}"}
    settled = settled_columns({"a": Tower()}, {"a": ColumnType(kind)})
    assert (settled["a"].encoder is None) == (kind in ("text", "number"))
