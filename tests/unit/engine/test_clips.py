"""Encoders of whole films: VideoMAE, TimeSformer and ViViT, from folders as people publish them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    TimesformerForVideoClassification,
    TimesformerModel,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VivitForVideoClassification,
    VivitModel,
)

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import Tower
from engine.data.values import read_value
from engine.infer import load
from engine.models.clips import places
from engine.models.encoders import Encoder, load_encoder
from engine.train.run import Finished, train
from support.datasets import zip_of
from support.encoders import TIMESFORMER, VIDEOMAE, VIVIT
from support.moving import moving

CLASSES = {
    VIDEOMAE: (VideoMAEModel, VideoMAEForVideoClassification),
    TIMESFORMER: (TimesformerModel, TimesformerForVideoClassification),
    VIVIT: (VivitModel, VivitForVideoClassification),
}


def _open(folder: Path, **options: Any) -> Encoder:
    tower = Tower.model_validate({"encoder": "tiny/film", **options})
    return load_encoder(folder, ColumnType.VIDEO, tower)


def _film(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (frames, 40, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", CLASSES)
def test_a_film_is_what_the_class_itself_makes_of_its_frames(encoders: dict[str, Path], name: str) -> None:
    encoder, film = _open(encoders[name]), _film(4)
    bare = CLASSES[name][0].from_pretrained(encoders[name]).eval()

    inputs = encoder.prepare([film, film[::-1]])
    with torch.no_grad():
        found = encoder(inputs)
        hidden = bare(pixel_values=inputs["pixel_values"]).last_hidden_state

    assert inputs["pixel_values"].shape == (2, 4, 3, 32, 32)
    assert encoder.width == 16
    torch.testing.assert_close(found, hidden.mean(1) if name == VIDEOMAE else hidden[:, 0])
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", CLASSES)
def test_a_published_classifier_is_read_without_its_head(
    encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    bare, classifier = CLASSES[name]
    folder = tmp_path / "published"
    shutil.copytree(encoders[name], folder)
    classifier(bare.from_pretrained(encoders[name]).config).save_pretrained(folder)

    with torch.no_grad():
        encoder = _open(folder)
        found = encoder(encoder.prepare([_film(4)]))

    assert found.shape == (1, 16)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", CLASSES)
def test_as_many_frames_are_read_as_the_config_says_and_a_shorter_film_fills_them(
    encoders: dict[str, Path], name: str
) -> None:
    encoder, one = _open(encoders[name]), _film(1)

    assert encoder.reading.num_frames == 4
    assert read_value(moving("left", frames=9), encoder.reading).shape[0] == 4
    with torch.no_grad():
        short = encoder(encoder.prepare([one, _film(2)]))
        full = encoder(encoder.prepare([one.repeat(4, 0), _film(2).repeat(2, 0)]))
    torch.testing.assert_close(short, full)


def test_a_short_films_frames_stand_for_as_long_as_they_were_seen() -> None:
    assert places(4, 4) == [0, 1, 2, 3]
    assert places(1, 4) == [0, 0, 0, 0]
    assert places(3, 8) == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_frames": 8}, "reads 4 frames"),
        ({"image_size": 64}, "32 pixels a side"),
        ({"pool": "transformer"}, "pool: transformer is for image encoders"),
        ({"pool": "max"}, "pool: max is for image encoders"),
    ],
)
def test_what_such_an_encoder_cannot_do_is_refused(
    encoders: dict[str, Path], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told) as refused:
        _open(encoders[VIDEOMAE], **options)

    assert refused.value.code == "invalid_spec"


def test_a_processor_that_does_not_fit_its_network_is_refused(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(encoders[TIMESFORMER], folder)
    described = json.loads((folder / "preprocessor_config.json").read_text())
    described["crop_size"] = {"height": 16, "width": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))

    with pytest.raises(EngineError, match="its processor makes pixels of") as refused:
        _open(folder)

    assert refused.value.code == "encoder_unusable"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "freeze"), [(VIDEOMAE, True), (TIMESFORMER, 0.5), (VIVIT, False)])
def test_a_model_over_each_is_trained_and_answers(
    encoders: dict[str, Path], tmp_path: Path, name: str, freeze: float
) -> None:
    rows = [{"film_file_name": f"{n}.mp4", "label": ("left", "right")[n % 2]} for n in range(12)]
    media = {f"{n}.mp4": moving(str(row["label"]), frames=2 + n % 5, seed=n) for n, row in enumerate(rows)}
    spec = {
        "towers": {"film": {"encoder": name, "freeze": freeze}},
        "fusion": {"dim": 8},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
    }

    ending = train(
        Multimodal.model_validate(spec),
        training=zip_of(tmp_path / "films.zip", rows, media),
        cache=tmp_path / "cache",
        encoders=encoders.__getitem__,
        out=tmp_path / "out",
    )

    assert isinstance(ending, Finished)
    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)
    answers = model.predict([{"film": moving("left", frames=n)} for n in (1, 4, 30)])
    assert [answer.error for answer in answers] == [None] * 3
