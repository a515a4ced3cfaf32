"""Image encoders over sounds: the log-mel spectrogram as a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import Tower
from engine.models.encoders import load_encoder
from engine.models.spectrograms import RATE, picture
from engine.train.run import Finished, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, VIT


def _tone(pitch: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def _row(drawn: np.ndarray) -> int:
    """The brightest row, counted from the top."""
    return int(drawn[:, :, 0].astype(int).sum(1).argmax())


def test_higher_tones_are_drawn_higher_up_and_all_channels_are_alike() -> None:
    low, middle, high = (picture(_tone(pitch), 1.0, 64) for pitch in (200, 1000, 5000))

    assert 63 >= _row(low) > _row(middle) > _row(high) >= 0
    assert low.shape == (64, 64, 3)
    assert (low[:, :, 0] == low[:, :, 2]).all()


def test_a_second_is_as_wide_in_each_picture_and_what_is_behind_the_end_is_black() -> None:
    drawn = picture(_tone(1000, seconds=1.0), seconds=4.0, side=64)[:, :, 0]

    assert drawn[:, 2:14].max() > 200
    assert drawn[:, 18:].max() == 0


def test_a_longer_sound_is_cut() -> None:
    sound = np.concatenate([_tone(1000), _tone(3000, seconds=9.0)])

    assert (picture(sound, 0.9, 32) == picture(_tone(1000), 0.9, 32)).all()


@pytest.mark.parametrize("samples", [1, 100, RATE])
def test_silence_and_the_shortest_sound_are_pictures_too(samples: int) -> None:
    assert picture(np.zeros(samples, dtype=np.float32), 1.0, 32).max() == 0


def test_how_loud_a_sound_is_does_not_matter() -> None:
    loud, soft = picture(_tone(700), 1.0, 32), picture(0.1 * _tone(700), 1.0, 32)

    assert np.abs(loud.astype(int) - soft.astype(int)).max() <= 1


@pytest.mark.parametrize("name", [IMAGE, VIT])
def test_any_image_encoder_hears(name: str, encoders: dict[str, Path]) -> None:
    encoder = load_encoder(encoders[name], ColumnType.AUDIO, Tower(max_seconds=1))
    sounds = [_tone(300), _tone(300, seconds=0.4), _tone(3000)]

    with torch.no_grad():
        together = encoder(encoder.prepare(sounds))
        alone = torch.cat([encoder(encoder.prepare([sound])) for sound in sounds])

    assert (encoder.reading.sampling_rate, encoder.reading.max_seconds) == (RATE, 1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.equal(together[0], together[2])


def test_another_length_is_another_encoder_to_the_cache(encoders: dict[str, Path]) -> None:
    towers = [Tower(max_seconds=1), Tower(max_seconds=2), Tower(max_seconds=1, image_size=64)]
    found = {load_encoder(encoders[IMAGE], ColumnType.AUDIO, tower).fingerprint for tower in towers}
    of_pictures = load_encoder(encoders[IMAGE], ColumnType.IMAGE, Tower()).fingerprint

    assert len(found | {of_pictures}) == 4


def test_an_encoder_of_an_older_description_is_known_by_its_family(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    for file in encoders[IMAGE].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((tmp_path / "preprocessor_config.json").read_text())
    told["feature_extractor_type"] = "MobileNetV2FeatureExtractor"
    del told["image_processor_type"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))

    encoder = load_encoder(tmp_path, ColumnType.AUDIO, Tower(max_seconds=1))

    assert encoder(encoder.prepare([_tone(500)])).shape == (1, encoder.width)


def test_what_hears_still_hears(encoders: dict[str, Path]) -> None:
    encoder = load_encoder(encoders[AUDIO], ColumnType.AUDIO, Tower(max_seconds=0.5))

    assert encoder.prepare([_tone(500)]).keys() == {"input_features", "attention_mask"}


def test_pitches_are_learned_through_an_image_encoder(tmp_path: Path, encoders: dict[str, Path]) -> None:
    spec = {
        "towers": {"audio": {"encoder": VIT, "max_seconds": 0.5}},
        "fusion": {"dim": 32},
        "hyperparameters": {"n_epochs": 30, "batch_size": 8, "learning_rate": 3e-3},
    }

    ending = train(
        Multimodal.model_validate(spec),
        training=tiny_av(tmp_path, rows=60),
        encoders=encoders.__getitem__,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
    )

    assert isinstance(ending, Finished)
    assert ending.metrics["test_accuracy"] > 0.8
