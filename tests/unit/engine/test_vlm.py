"""Task generation from files to answers: a tiny language model that sees pictures through a tiny encoder."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.checkpoint import checkpoint

from domain.errors import EngineError
from domain.specs import Multimodal
from engine.infer import Writer, load
from engine.models.vision_language import VisionLanguage
from engine.train.run import Finished, Stopped, train
from engine.train.words import StopAsked
from support.datasets import png, shape, tiny_av, zip_of
from support.encoders import AUDIO, IMAGE, RESNET, VIT
from support.language import COLOURS, CORNERS, LANGUAGE, asked_pictures, tiny_language_model

COLOUR, COUNT = "what colour is it ?", "how many corners has it ?"
TOWERS: dict[str, Any] = {"image": {"encoder": VIT}, "question": {}}
WHOLE = {"model": LANGUAGE, "freeze": False, "media_tokens": 4, "max_length": 32, "max_answer_length": 8}


@pytest.fixture(scope="module")
def parts(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Encoders and a language model, by id."""
    return {**encoders, LANGUAGE: tiny_language_model(tmp_path_factory.mktemp("language") / "model")}


def run(
    folder: Path,
    parts: dict[str, Path],
    data: Path,
    *,
    towers: dict[str, Any] = TOWERS,
    language: dict[str, Any] = WHOLE,
    hyper: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    out: str = "out",
    **options: Any,
) -> Finished | Stopped:
    told: dict[str, Any] = {
        "family": "vlm",
        "towers": towers,
        "language_model": language,
        "fusion": {"modality_dropout": 0.0},
        "hyperparameters": {"n_epochs": 1, "batch_size": 8, "logging_steps": 1, **(hyper or {})},
        **(spec or {}),
    }
    return train(
        Multimodal.model_validate(told),
        training=data,
        encoders=parts.__getitem__,
        cache=folder / "cache",
        out=folder / out,
        **{"seed": 1, **options},
    )


def losses(folder: Path, out: str = "out") -> list[str]:
    with (folder / out / "results" / "results.csv").open() as file:
        return [row["train_loss"] for row in csv.DictReader(file) if row["train_loss"]]


class Taught:
    """A model that has learned to answer two questions about pictures, and what it was tested on."""

    def __init__(self, folder: Path, parts: dict[str, Path]) -> None:
        self.folder, self.parts = folder, parts
        self.data = asked_pictures(folder, rows=160)
        hyper = {"n_epochs": 50, "batch_size": 8, "learning_rate": 2e-3, "eval_steps": 1000}
        finished = run(folder, parts, self.data, hyper=hyper)
        assert isinstance(finished, Finished)
        self.metrics = finished.metrics
        model = load(folder / "out" / "model", parts.__getitem__)
        assert isinstance(model, Writer)
        self.model = model
        with zipfile.ZipFile(self.data) as held:
            lines = [json.loads(line) for line in held.read("metadata.jsonl").splitlines()]
            self.rows = [
                {"image": held.read(line["image_file_name"]), "question": line["question"]}
                for line in lines
                if line["split"] == "test"
            ]
        self.answers = [line["label"] for line in lines if line["split"] == "test"]

    def right(self, rows: list[dict[str, Any]]) -> float:
        found = self.model.predict(rows)
        return sum(p.text == true for p, true in zip(found, self.answers, strict=True)) / len(rows)


@pytest.fixture(scope="module")
def taught(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return Taught(tmp_path_factory.mktemp("taught"), parts)


@pytest.mark.slow
def test_it_learns_to_answer_questions_about_pictures_and_is_lost_without_them(taught: Taught) -> None:
    assert taught.metrics["test_exact_match"] >= 0.9
    assert taught.metrics["test_wer"] <= 0.1
    assert taught.metrics["test_perplexity"] < 1.5

    seen = taught.right(taught.rows)
    blind = taught.right([{"question": row["question"]} for row in taught.rows])
    silent = taught.right([{"image": row["image"]} for row in taught.rows])

    assert seen == taught.metrics["test_exact_match"]  # the folder holds all that was learned
    # Four answers to each question are equally frequent; without a question both kinds are.
    assert blind <= 0.5
    assert silent <= 0.6


@pytest.mark.slow
def test_a_question_decides_what_is_told_of_a_picture(taught: Taught) -> None:
    picture = taught.rows[0]["image"]

    colour, count = taught.model.predict(
        [{"image": picture, "question": COLOUR}, {"image": picture, "question": COUNT}]
    )

    assert colour.text in COLOURS
    assert count.text in CORNERS
    assert colour.finish_reason == count.finish_reason == "stop"
    assert colour.modalities.used == ["image", "question"]


@pytest.mark.slow
def test_neighbours_and_their_lengths_change_no_answer(taught: Taught) -> None:
    rows = [
        *taught.rows[:6],
        {"question": f"{COLOUR} {COLOUR} {COUNT}"},
        {"image": b"no picture", "question": COLOUR},
        {"image": taught.rows[7]["image"]},
        {},
    ]

    together = taught.model.predict(rows)
    alone = [taught.model.predict([row])[0] for row in rows]

    assert [(p.text, p.error) for p in together] == [(p.text, p.error) for p in alone]
    broken, empty = together[7].error, together[9].error
    assert broken is not None
    assert (broken.code, broken.param) == ("unreadable_media", "image")
    assert empty is not None
    assert empty.code == "all_modalities_missing"


@pytest.mark.slow
def test_a_broken_picture_may_be_passed_over(taught: Taught) -> None:
    row = {"image": b"no picture", "question": COLOUR}

    (masked,) = taught.model.predict([row], on_bad_input="mask")
    (missing,) = taught.model.predict([{"question": COLOUR}])

    assert masked.text == missing.text
    assert "passed over" in masked.warnings[0]


@pytest.mark.slow
def test_answers_end_at_a_length_or_before_a_text(taught: Taught) -> None:
    (row,) = [r for r, true in zip(taught.rows, taught.answers, strict=True) if true == "three"][:1]

    (whole,), (cut,) = taught.model.predict([row]), taught.model.predict([row], stop=["re", "x"])
    (short,) = taught.model.predict([row], max_tokens=1)

    assert (whole.text, whole.finish_reason) == ("three", "stop")
    assert (cut.text, cut.finish_reason) == ("th", "stop")
    assert short.finish_reason == "length"


@pytest.mark.slow
def test_drawn_answers_are_those_of_their_seed_in_any_company(taught: Taught) -> None:
    def drawn(rows: list[dict[str, Any]], seed: int) -> list[str | None]:
        return [p.text for p in taught.model.predict(rows, temperature=2.0, seed=seed)]

    rows = [{"question": word} for word in ("note", "hint", "what", "it")]

    assert drawn(rows, 5) == [drawn([row], 5)[0] for row in rows]
    assert len({tuple(drawn(rows, seed)) for seed in range(5)}) > 1


@pytest.mark.slow
def test_a_cancel_is_heard_between_two_tokens(taught: Taught) -> None:
    asked = []

    def stop() -> str | None:
        asked.append(1)
        return "cancel" if len(asked) == 2 else None

    with pytest.raises(StopAsked):
        taught.model.run([{"question": COLOUR}], should_stop=stop)

    assert len(asked) == 2


@pytest.mark.slow
def test_the_report_shows_what_was_written_beside_what_was_true(taught: Taught) -> None:
    report = json.loads((taught.folder / "out" / "results" / "report.json").read_text())

    assert [row["answer"] for row in report["test"]["answers"]] == taught.answers
    assert {"exact_match", "bleu", "rouge_l", "wer", "perplexity", "loss"} == set(report["test"]["metrics"])


@pytest.mark.slow
def test_a_language_model_that_was_changed_since_is_refused(taught: Taught, tmp_path: Path) -> None:
    other = tiny_language_model(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")

    with pytest.raises(EngineError, match="tiny/llama") as refused:
        load(taught.folder / "out" / "model", (taught.parts | {LANGUAGE: other}).__getitem__)

    assert refused.value.code == "encoder_changed"


def test_adapters_and_projector_are_all_that_a_folder_holds_of_a_frozen_model(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    data = asked_pictures(tmp_path, rows=40, missing=0.3)
    adapted = {"model": LANGUAGE, "media_tokens": 4, "max_length": 32, "lora": {"r": 4}}

    finished = run(tmp_path, parts, data, language=adapted, hyper={"n_epochs": 2}, spec={"fusion": {}})

    assert isinstance(finished, Finished)
    with safe_open(tmp_path / "out" / "model" / "model.safetensors", "pt") as held:
        names = list(held.keys())
    assert {name.split(".")[0] for name in names} == {"encoders", "language", "missing"}
    assert all("lora_" in name for name in names if name.startswith("language"))
    assert all(".pool." in name for name in names if name.startswith("encoders"))
    model = load(tmp_path / "out" / "model", parts.__getitem__)
    assert isinstance(model, Writer)
    assert len(model.predict([{"question": COLOUR}])) == 1
    assert float(losses(tmp_path)[-1]) < float(losses(tmp_path)[0])
    assert finished.resolved["language_model"]["lr"] == 2e-4


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    parts: dict[str, Path], tmp_path: Path, accumulation: int
) -> None:
    data = asked_pictures(tmp_path, rows=20, missing=0.2)
    adapted = {"model": LANGUAGE, "media_tokens": 4, "max_length": 32, "lora": {"r": 4, "dropout": 0.1}}
    options: dict[str, Any] = {
        "language": adapted,
        "hyper": {
            "n_epochs": 3,
            "batch_size": 4,
            "eval_steps": 1000,
            "save_steps": 2,
            "gradient_accumulation_steps": accumulation,
        },
        "spec": {"fusion": {"modality_dropout": 0.3}},
    }
    run(tmp_path, parts, data, out="whole", **options)

    stopped = run(tmp_path, parts, data, out="half", should_stop=once_saved(tmp_path / "half"), **options)
    assert isinstance(stopped, Stopped)
    folder = tmp_path / "half" / "checkpoints" / f"step-{stopped.steps}"
    finished = run(tmp_path, parts, data, out="half", resume=folder, **options)

    assert isinstance(finished, Finished)
    assert 0 < stopped.steps < finished.steps
    assert losses(tmp_path, "half") == losses(tmp_path, "whole")


def once_saved(folder: Path) -> Callable[[], str | None]:
    """Asks to stop once a checkpoint is there."""
    return lambda: "pause" if list((folder / "checkpoints").glob("step-*")) else None


def test_another_language_model_is_another_run(parts: dict[str, Path], tmp_path: Path) -> None:
    data = asked_pictures(tmp_path, rows=40)
    run(tmp_path, parts, data)
    (checkpoint,) = list((tmp_path / "out" / "checkpoints").glob("step-*"))[-1:]
    changed = {**WHOLE, "max_length": 16}

    with pytest.raises(EngineError, match=r"language_model\.max_length") as refused:
        run(tmp_path, parts, data, language=changed, resume=checkpoint, out="other")

    assert refused.value.code == "checkpoint_mismatch"


def test_sounds_numbers_and_trained_encoders_are_read_too(parts: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_av(tmp_path, rows=15)
    towers = {
        "image": {"encoder": IMAGE, "freeze": False},
        "audio": {"encoder": AUDIO, "max_seconds": 0.5},
        "text": {},
    }

    finished = run(tmp_path, parts, data, towers=towers)

    assert isinstance(finished, Finished)
    model = load(tmp_path / "out" / "model", parts.__getitem__)
    assert isinstance(model, Writer)
    assert isinstance(model.model, VisionLanguage)
    assert model.model.prompter.slots == {"audio": 4, "image": 4}
    assert model.columns == ("audio", "image", "text")
    (answer,) = model.predict([{"text": "a red shape"}])
    assert answer.modalities.missing == ["audio", "image"]


def test_several_pictures_in_a_cell_are_the_mean_of_theirs(parts: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    media = {f"{n}.png": png(shape(n % 4, 32, rng)) for n in range(12)}
    rows = [
        {"image_file_names": [f"{n}.png", f"{(n + 1) % 12}.png"][: 1 + n % 2], "label": COLOURS[n % 4]}
        for n in range(12)
    ]

    finished = run(
        tmp_path, parts, zip_of(tmp_path / "several.zip", rows, media), towers={"image": {"encoder": VIT}}
    )

    assert isinstance(finished, Finished)
    model = load(tmp_path / "out" / "model", parts.__getitem__)
    one = media["0.png"]
    same, single = model.predict([{"image": [one, one]}, {"image": one}])
    assert same.error is None
    assert same.text == single.text


def test_a_chat_file_is_learned_from(parts: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"what colour is it ? note {n}"},
                {"role": "assistant", "content": COLOURS[n % 4]},
            ]
        }
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    finished = run(tmp_path, parts, path, towers={})

    assert isinstance(finished, Finished)
    model = load(tmp_path / "out" / "model", parts.__getitem__)
    assert model.columns == ("text",)
    assert torch.isfinite(torch.tensor(finished.metrics["valid_loss"]))


def test_a_model_with_too_few_positions_says_what_to_lower(parts: dict[str, Path], tmp_path: Path) -> None:
    data = asked_pictures(tmp_path, rows=20)

    with pytest.raises(EngineError, match="lower language_model") as refused:
        run(tmp_path, parts, data, language={**WHOLE, "max_length": 1000})

    assert refused.value.code == "invalid_spec"


@pytest.mark.parametrize("language", [WHOLE, {"model": LANGUAGE, "media_tokens": 4, "lora": {"r": 4}}])
def test_a_language_model_recomputes_its_layers_and_learns_the_same(
    parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: dict[str, Any]
) -> None:
    data, told, calls = asked_pictures(tmp_path, rows=20), [], []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return checkpoint(*given, **named)

    monkeypatch.setattr("engine.models.recompute.checkpoint", counted)
    run(tmp_path, parts, data, language=language, out="plain")
    assert not calls

    run(
        *(tmp_path, parts, data),
        language=language,
        hyper={"gradient_checkpointing": True},
        report=lambda progress: told.append(progress.message or ""),
    )

    assert losses(tmp_path) == losses(tmp_path, "plain")
    assert calls
    assert not any("No encoder is trained" in message for message in told)


def test_categories_are_read_as_words_and_sounds_through_an_image_encoder(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    towers = {"audio": {"encoder": RESNET, "max_seconds": 0.5, "image_size": 64}, "text": {}}
    schema = {"columns": {"text": {"type": "category"}}}

    finished = run(
        tmp_path, parts, tiny_av(tmp_path, rows=12), towers=towers, spec={"schema": schema, "fusion": {}}
    )

    assert isinstance(finished, Finished)
    model = load(tmp_path / "out" / "model", parts.__getitem__)
    assert model.columns == ("audio", "text")
    assert "'text': 'a word'" in (tmp_path / "out" / "model" / "README.md").read_text()
