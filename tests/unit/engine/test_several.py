"""Several files in a cell are trained on and predicted from: their vectors' mean, wherever it is made."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domain.manifest import Code, ColumnType
from domain.specs import Multimodal
from domain.towers import Tower
from engine import infer
from engine.data.caches import Caches, open_caches
from engine.data.dataset import Example, LiveColumn
from engine.data.manifest import open_dataset
from engine.data.values import read_value
from engine.infer.predictor import Predictor
from engine.models.encoders import Encoder, load_encoder
from engine.models.pooling import mean_of_parts
from engine.train import encode
from engine.train.run import Finished, train
from support.datasets import png, shape, tone, wav, zip_of
from support.encoders import AUDIO, IMAGE, TEXT

ROWS = 12


def picture(n: int) -> bytes:
    return png(shape(n % 2, 32, np.random.default_rng(n)))


def sound(n: int) -> bytes:
    return wav(tone(n % 2, np.random.default_rng(n)))


def caches_in(folder: Path) -> AbstractContextManager[Caches]:
    return open_caches(folder / "cache", 1 << 30, None, lambda _: None)


def data(folder: Path) -> Path:
    """Rows of one to three pictures, none or two sounds, and one or two texts."""
    media = {f"{n}.png": picture(n) for n in range(40)} | {f"{n}.wav": sound(n) for n in range(4)}
    rows = [
        {
            "image_file_names": [f"{2 * n + n % 2 + 2 * k}.png" for k in range(1 + n % 3)],
            "audio_file_names": [f"{n % 2}.wav", f"{n % 2 + 2}.wav"] if n % 4 else None,
            "note": ["a", f"shape {n % 2}"] if n % 3 else f"shape {n % 2}",
            "label": "ab"[n % 2],
        }
        for n in range(ROWS)
    ]
    return zip_of(folder / "several.zip", rows, media)


SCHEMA = {"columns": {"note": {"type": "text"}}}
TOWERS = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "note": {"encoder": TEXT},
}


def trained(folder: Path, encoders: dict[str, Path], **towers: Any) -> Finished:
    spec = {
        "towers": {name: {**tower, **towers.get(name, {})} for name, tower in TOWERS.items()},
        "schema": SCHEMA,
        "fusion": {"dim": 8},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
    }
    ending = train(
        Multimodal.model_validate(spec),
        training=data(folder),
        encoders=encoders.__getitem__,
        cache=folder / "cache",
        out=folder / "out",
    )
    assert isinstance(ending, Finished)
    return ending


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> Predictor:
    folder = tmp_path_factory.mktemp("several")
    trained(folder, encoders)
    return infer.load(folder / "out" / "model", encoders.__getitem__)


def test_the_mean_is_over_each_cells_own_parts_and_of_one_part_that_part() -> None:
    vectors = torch.randn(6, 5)

    pooled = mean_of_parts(vectors, torch.tensor([1, 3, 2]))

    assert torch.equal(pooled[0], vectors[0])
    assert torch.allclose(pooled[1], vectors[1:4].mean(0))
    assert torch.allclose(pooled[2], vectors[4:].mean(0))
    assert mean_of_parts(vectors, torch.ones(6, dtype=torch.long)) is vectors


def test_a_frozen_tower_keeps_the_mean_of_a_cells_files_under_a_key_of_their_order(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    encoder = load_encoder(encoders[IMAGE], ColumnType.IMAGE, Tower(encoder=IMAGE))
    with open_dataset(data(tmp_path)) as dataset, caches_in(tmp_path) as caches:
        examples = [Example(dataset, row, "a") for row in dataset.rows]
        tower = encode.open_tower("image", encoder, examples, caches, read_value, lambda: None)
        encode.fill([tower], report=lambda _: None, should_stop=lambda: None)
        features = encode.read_back(tower).fetch(torch.arange(ROWS))
        live = LiveColumn(examples, "image", encoder, read_value).fetch(torch.arange(ROWS))

    with torch.no_grad():
        alone = [encoder(encoder.prepare([read_value(picture(n), encoder.reading)]))[0] for n in range(40)]
        assert live.counts is not None
        pooled = mean_of_parts(encoder(live.inputs), live.counts)
    for n in range(ROWS):
        mean = torch.stack([alone[2 * n + n % 2 + 2 * k] for k in range(1 + n % 3)]).mean(0)
        assert torch.allclose(features[n], mean, atol=1e-5)
        assert torch.allclose(pooled[n], mean, atol=1e-5)


def test_what_has_one_file_a_cell_is_encoded_in_the_calls_it_always_was(
    tmp_path: Path, encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    prepare = Encoder.prepare
    monkeypatch.setattr(Encoder, "prepare", lambda self, v: calls.append(len(v)) or prepare(self, v))
    encoder = load_encoder(encoders[IMAGE], ColumnType.IMAGE, Tower(encoder=IMAGE))
    calls.clear()
    rows = [{"image_file_name": f"{n}.png", "label": "a"} for n in range(20)]
    path = zip_of(tmp_path / "one.zip", rows, {f"{n}.png": picture(n) for n in range(20)})

    with open_dataset(path) as dataset, caches_in(tmp_path) as caches:
        examples = [Example(dataset, row, "a") for row in dataset.rows]
        tower = encode.open_tower("image", encoder, examples, caches, read_value, lambda: None)
        encode.fill([tower], report=lambda _: None, should_stop=lambda: None)
        live = LiveColumn(examples, "image", encoder, read_value).fetch(torch.arange(3))

    assert sorted(calls) == [3, 4, 16]
    assert live.counts is None


def test_trained_towers_learn_from_several_files(tmp_path: Path, encoders: dict[str, Path]) -> None:
    free = {"freeze": False, "lr": 1e-3}

    assert trained(tmp_path, encoders, image=free, audio=free, note=free).steps > 0


def test_a_chat_file_trains_a_classifier_of_its_answers(tmp_path: Path, encoders: dict[str, Path]) -> None:
    rows = []
    for n in range(8):
        parts = [{"type": "text", "text": f"what is {n % 2}?"}]
        parts += [{"type": "image_url", "image_url": {"url": f"{k}.png"}} for k in range(n % 3)]
        user, assistant = {"role": "user", "content": parts}, {"role": "assistant", "content": "ab"[n % 2]}
        rows.append({"messages": [user, assistant]})
    spec = {
        "task": "classification",
        "towers": {"text": {"encoder": TEXT}, "image": {"encoder": IMAGE}},
        "hyperparameters": {"n_epochs": 1, "batch_size": 4},
    }

    ending = train(
        Multimodal.model_validate(spec),
        training=zip_of(tmp_path / "chat.zip", rows, {f"{k}.png": picture(k) for k in range(3)}),
        encoders=encoders.__getitem__,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
    )

    assert isinstance(ending, Finished)
    model = infer.load(tmp_path / "out" / "model", encoders.__getitem__)
    (answer,) = model.predict([{"text": "what is 0?", "image": [picture(0), picture(1)]}])
    assert answer.label in ("a", "b")


def test_a_predictions_list_is_the_mean_and_a_list_of_one_the_file_itself(model: Predictor) -> None:
    one, same, twice, a, b, both, list_of_one = model.predict(
        [
            {"image": picture(0)},
            {"image": [picture(0)]},
            {"image": [picture(0), picture(0)]},
            {"note": "a"},
            {"note": "shape 1"},
            {"note": ["a", "shape 1"]},
            {"note": ["a"]},
        ],
        return_embeddings=True,
    )

    assert one.embedding == same.embedding
    assert twice.embedding == pytest.approx(one.embedding, abs=1e-5)
    assert list_of_one.embedding == pytest.approx(a.embedding, abs=1e-5)
    assert both.error is None
    assert both.embedding != pytest.approx(a.embedding, abs=1e-3)
    assert both.embedding != pytest.approx(b.embedding, abs=1e-3)


@pytest.mark.parametrize(
    ("cell", "code", "word"),
    [
        ([picture(0), b"no picture"], Code.UNREADABLE_MEDIA, "file 2 of 2"),
        ([picture(0), None], Code.SCHEMA_MISMATCH, "no null"),
        ([[picture(0)]], Code.SCHEMA_MISMATCH, "no other list"),
        ([picture(0)] * 65, Code.TOO_LARGE, "65 files"),
        ([picture(0), 7], Code.SCHEMA_MISMATCH, "file 2 of 2"),
    ],
)
def test_a_bad_file_among_several_is_its_rows_error_and_masks_the_whole_cell(
    model: Predictor, cell: list[Any], code: Code, word: str
) -> None:
    row = {"image": cell, "note": "shape 1"}

    (refused,) = model.predict([row])
    (masked,) = model.predict([row], on_bad_input="mask")

    assert refused.error is not None
    assert (refused.error.code, refused.error.param) == (code, "image")
    assert word in refused.error.message
    assert masked.error is None
    assert masked.modalities.failed == ["image"]


def test_an_empty_list_is_missing(model: Predictor) -> None:
    (prediction,) = model.predict([{"image": [], "note": "shape 1"}])

    assert prediction.error is None
    assert "image" in prediction.modalities.missing
