"""A model folder predicts: with tiny encoders, on real pictures, sounds and words, good ones and hostile ones."""

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from domain.errors import EngineError
from domain.manifest import Code, ColumnType
from domain.specs import Multimodal
from engine import infer
from engine.infer.answers import Problem
from engine.infer.predictor import Predictor
from engine.infer.towers import ROWS_AT_ONCE
from engine.train.run import train
from engine.train.words import StopAsked
from support.datasets import png, shape, tiny_av, tone, wav
from support.encoders import AUDIO, IMAGE, TEXT

TOWERS = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "text": {"encoder": TEXT},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> Path:
    """A model of all three modalities."""
    place = tmp_path_factory.mktemp("model")
    hyper = {"n_epochs": 8, "batch_size": 4, "learning_rate": 0.01}
    train(
        Multimodal.model_validate({"towers": TOWERS, "fusion": {"dim": 8}, "hyperparameters": hyper}),
        training=tiny_av(place),
        encoders=encoders.__getitem__,
        cache=place / "cache",
        out=place / "out",
        seed=1,
    )
    return place / "out" / "model"


@pytest.fixture(scope="module")
def model(folder: Path, encoders: dict[str, Path]) -> Predictor:
    return infer.load(folder, encoders.__getitem__)


def row(kind: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "image": png(shape(kind, 32, rng)),
        "audio": wav(tone(kind, rng)),
        "text": f"a shape with {3 + kind} corners",
    }


def numbers(prediction: infer.Prediction) -> list[float]:
    assert prediction.error is None
    assert prediction.probabilities is not None
    assert prediction.modalities.weights is not None
    return [*prediction.probabilities.values(), *prediction.modalities.weights.values()]


def test_three_lines_predict(folder: Path, encoders: dict[str, Path]) -> None:
    predictor = infer.load(folder, encoders[TEXT].parents[1])
    [prediction] = predictor.predict([row(0)], top_k=2)

    assert prediction.label in predictor.card.classes
    assert prediction.score == max(prediction.probabilities.values())
    assert prediction.top[0].label == prediction.label
    assert len(prediction.top) == 2
    assert math.isclose(sum(prediction.probabilities.values()), 1, abs_tol=1e-9)
    assert prediction.modalities.used == ["audio", "image", "text"]
    assert json.loads(json.dumps(prediction.as_dict()))["label"] == prediction.label


def test_more_classes_asked_for_than_there_are_gives_all(model: Predictor) -> None:
    [prediction] = model.predict([row(1)], top_k=1000)

    assert len(prediction.top) == 3


@pytest.mark.parametrize(
    "given",
    [["image"], ["audio"], ["text"], ["image", "text"], ["audio", "image"], ["audio", "text"]],
    ids="+".join,
)
def test_any_subset_of_the_columns_is_enough(model: Predictor, given: list[str]) -> None:
    whole = row(1)

    absent, null = model.predict(
        [{name: whole[name] for name in given}, {n: v if n in given else None for n, v in whole.items()}]
    )

    assert absent.error is None
    assert absent == null
    assert absent.modalities.used == sorted(given)
    assert absent.modalities.missing == sorted(set(whole) - set(given))
    assert set(absent.modalities.weights) == set(given)
    assert math.isclose(sum(absent.modalities.weights.values()), 1, abs_tol=1e-6)


def test_a_row_gets_the_same_answer_alone_and_among_any_others(model: Predictor) -> None:
    rows = [row(n % 3, n) | {"text": "abc " * (n % 7 + 1)} for n in range(ROWS_AT_ONCE[ColumnType.TEXT] + 3)]
    for n in range(0, len(rows), 4):
        rows[n]["audio"] = None
    rows[5]["image"] = b"no picture"

    together = model.predict(rows)
    backwards = model.predict(rows[::-1])[::-1]

    for n in (0, 1, 7, 33):
        [alone] = model.predict([rows[n]])
        assert numbers(together[n]) == pytest.approx(numbers(alone), abs=1e-5)
        assert numbers(backwards[n]) == pytest.approx(numbers(alone), abs=1e-5)
    assert together[5].error is not None


def test_the_embedding_is_the_fused_vector_and_comes_only_when_asked(model: Predictor) -> None:
    [plain] = model.predict([row(0)])
    [asked] = model.predict([row(0)], return_embeddings=True)

    assert plain.embedding is None
    with torch.no_grad():
        logits = model.model.head(torch.tensor([asked.embedding]))
    assert logits.softmax(1)[0].tolist() == pytest.approx(list(asked.probabilities.values()), abs=1e-6)


def test_what_is_hidden_moves_the_answer_by_its_weight(model: Predictor) -> None:
    [whole] = model.predict([row(2)])
    hidden = model.predict([{k: v for k, v in row(2).items() if k != name} for name in TOWERS])

    moved = {
        name: abs(whole.score - without.probabilities[whole.label])
        for name, without in zip(TOWERS, hidden, strict=True)
    }
    assert whole.modalities.weights_by == "leave_one_out"
    for name, amount in moved.items():
        assert whole.modalities.weights[name] == pytest.approx(amount / sum(moved.values()), abs=1e-4)


def _bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels, as its header says."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    whole = png(np.zeros((4, 4, 3), np.uint8))
    chunk = b"IHDR" + header
    return whole[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "empty picture": ("image", b"", Code.UNREADABLE_MEDIA),
    "cut off": ("image", row(0)["image"][:-40], Code.UNREADABLE_MEDIA),
    "bomb": ("image", _bomb(), Code.TOO_LARGE),
    "svg": ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", Code.UNREADABLE_MEDIA),
    "text for a picture": ("image", "https://example.org/a.png", Code.SCHEMA_MISMATCH),
    "a flag": ("text", True, Code.SCHEMA_MISMATCH),
    "a flag for a picture": ("image", True, Code.SCHEMA_MISMATCH),
    "a number": ("text", 7, Code.SCHEMA_MISMATCH),
    "a picture for a sound": ("audio", row(0)["image"], Code.UNREADABLE_MEDIA),
    "silence of no length": ("audio", wav(np.zeros(0)), Code.ZERO_DURATION),
    "not finite": ("audio", (np.full(8000, np.nan), 16_000), Code.UNREADABLE_MEDIA),
    "half a character": ("text", "a\ud800", Code.ENCODING_ERROR),
    "latin-1": ("text", "ü".encode("latin-1"), Code.ENCODING_ERROR),
    "a whole book": ("text", "a" * 2**21, Code.TOO_LARGE),
    "no file": ("image", Path("nowhere/a.png"), Code.MISSING_MEDIA),
    "found out at the door": ("image", Problem("url_not_allowed", "send the bytes"), "url_not_allowed"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_cell_is_its_rows_error_and_no_neighbours(model: Predictor, what: str) -> None:
    column, value, code = HOSTILE[what]
    good, bad = row(0), {**row(1), column: value}

    before, between, after = model.predict([good, bad, good])

    assert between.error is not None
    assert (between.error.code, between.error.param) == (code, column)
    assert between.modalities.failed == [column]
    assert between.label is None
    assert numbers(before) == pytest.approx(numbers(after), abs=1e-6)
    assert numbers(before) == pytest.approx(numbers(model.predict([good])[0]), abs=1e-5)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_masked_cell_is_as_if_missing_with_a_warning(model: Predictor, what: str) -> None:
    column, value, _ = HOSTILE[what]
    whole = row(1)

    [masked] = model.predict([{**whole, column: value}], on_bad_input="mask")
    [without] = model.predict([{name: v for name, v in whole.items() if name != column}])

    assert numbers(masked) == pytest.approx(numbers(without), abs=1e-6)
    assert masked.modalities.failed == [column]
    assert [column in warning for warning in masked.warnings] == [True]


def test_a_sound_too_loud_for_any_encoder_fails_alone(model: Predictor) -> None:
    loud = (np.full(8000, 3e38, np.float32), 16_000)

    bad, good = model.predict([row(0) | {"audio": loud}, row(0)])

    assert good.error is None
    assert bad.error is None or bad.error.code == Code.UNREADABLE_MEDIA
    json.dumps([bad.as_dict(), good.as_dict()], allow_nan=False)


@pytest.mark.parametrize(
    ("cells", "masks", "code", "param"),
    [
        ({}, "error", "all_modalities_missing", None),
        ({"text": None, "image": None}, "error", "all_modalities_missing", None),
        ({"text": ""}, "error", "all_modalities_missing", None),
        ({"image": b"x"}, "mask", "all_modalities_missing", None),
        ({"text": "a", "colour": "red"}, "error", "unknown_column", "colour"),
        ({"text": "a", "colour": None}, "mask", "unknown_column", "colour"),
    ],
)
def test_a_row_that_no_answer_can_be_given_for_says_why(
    model: Predictor, cells: dict[str, Any], masks: Any, code: str, param: str | None
) -> None:
    bad, good = model.predict([cells, row(0)], on_bad_input=masks)

    assert bad.error is not None
    assert (bad.error.code, bad.error.param) == (code, param)
    assert "image" in bad.error.message
    assert good.error is None


def test_the_label_of_a_held_out_row_is_passed_over(model: Predictor) -> None:
    told, untold = model.predict([row(0) | {"label": "class-0", "split": "test"}, row(0)])

    assert numbers(told) == numbers(untold)
    assert len(told.warnings) == 2


def test_pictures_and_sounds_in_memory_are_what_their_files_are(model: Predictor, tmp_path: Path) -> None:
    made = row(2)
    (tmp_path / "a.png").write_bytes(made["image"])
    samples, rate = soundfile.read(io.BytesIO(made["audio"]), dtype="float32")
    picture = Image.open(io.BytesIO(made["image"]))

    answers = model.predict(
        [
            made,
            made | {"image": picture, "audio": (samples, rate)},
            made | {"image": tmp_path / "a.png"},
            made | {"image": np.asarray(picture)},
        ]
    )

    for answer in answers[1:]:
        assert numbers(answer) == pytest.approx(numbers(answers[0]), abs=1e-6)


def test_no_rows_give_no_predictions(model: Predictor) -> None:
    assert model.predict([]) == []


def test_a_stop_is_heard_before_the_next_cell_is_read(model: Predictor) -> None:
    asked = iter([None, None])

    with pytest.raises(StopAsked) as stopped:
        model.run([row(0)] * 3, should_stop=lambda: next(asked, "cancel"))

    assert stopped.value.why == "cancel"


def test_the_times_say_where_they_went(model: Predictor) -> None:
    answer = model.run([row(0)])

    assert answer.decode_ms > 0
    assert answer.gpu_ms > 0


def test_a_folder_that_holds_no_model_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as refused:
        infer.load(tmp_path)

    assert refused.value.code == "model_unreadable"


def test_without_the_encoders_the_command_that_gets_them_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="plait-server encoders pull") as refused:
        infer.load(folder, tmp_path)

    assert refused.value.code == "encoder_unavailable"
    assert f"looked for in {tmp_path}" in refused.value.message


def test_a_model_folder_says_what_it_is(folder: Path) -> None:
    card = (folder / "README.md").read_text()

    assert card.startswith("---\n")
    assert "library_name: plait" in card
    assert f"- {IMAGE}" in card
    assert "infer.load(" in card
    assert "class-0" in card
    assert "**not** in this folder" in card


def test_the_test_rows_get_the_answers_that_they_were_tested_with(folder: Path, model: Predictor) -> None:
    with zipfile.ZipFile(folder.parents[1] / "tiny.zip") as archive:
        lines = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        tested = [line for line in lines if line["split"] == "test"]
        rows = [
            {
                "image": archive.read(line["image_file_name"]),
                "audio": archive.read(line["audio_file_name"]),
                "text": line["text"],
            }
            for line in tested
        ]

    answers = model.predict(rows)

    truth = [line["label"] for line in tested]
    right = np.mean([a.label == label for a, label in zip(answers, truth, strict=True)])
    loss = np.mean([-math.log(a.probabilities[label]) for a, label in zip(answers, truth, strict=True)])
    assert right == pytest.approx(model.card.metrics["test_accuracy"])
    assert loss == pytest.approx(model.card.metrics["test_loss"], rel=1e-4)
