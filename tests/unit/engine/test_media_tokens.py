"""What a language model is given of a sound that an image encoder reads as a picture: stretches of time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from domain.language import LanguageModel
from domain.manifest import ColumnType
from domain.towers import Tower
from engine.models.language import Language, open_language
from engine.models.media_tokens import in_time, load_media
from support.datasets import tone
from support.encoders import IMAGE, RESNET, VIT
from support.language import tiny_language_model

#: What each of a picture's places gives: [rows, width, pitches, times].
DRAWN = torch.arange(2 * 5 * 3 * 3).float().view(2, 5, 3, 3)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return open_language(
        tiny_language_model(tmp_path_factory.mktemp("language") / "m"), LanguageModel(freeze=True)
    )


@pytest.mark.parametrize("before", [0, 1, 3])
def test_patches_are_stretches_of_time_over_all_pitches(before: int) -> None:
    patches = DRAWN.flatten(2).transpose(1, 2)
    hidden = torch.cat([torch.full((2, before, 5), -1e6), patches], dim=1)

    assert torch.equal(in_time(hidden), DRAWN.mean(2).transpose(1, 2))
    assert torch.equal(in_time(DRAWN), DRAWN.mean(2).transpose(1, 2))


@pytest.mark.parametrize(("name", "width"), [(IMAGE, 1280), (RESNET, 32), (VIT, 16)])
def test_a_sound_is_read_by_an_image_encoder(
    encoders: dict[str, Path], language: Language, name: str, width: int
) -> None:
    tower = Tower(encoder=name, max_seconds=0.5, image_size=64)
    encoder = load_media(encoders[name], ColumnType.AUDIO, tower, 4, language)
    rng = np.random.default_rng(0)

    inputs = encoder.prepare([tone(0, rng), tone(4, rng)])

    assert encoder.frame_width == width
    assert encoder(inputs).shape == (2, 4 * language.width)
    vectors, counts = encoder.vectors(inputs)
    assert counts.tolist() == [4, 4]
    assert torch.isfinite(vectors).all()
    assert not torch.equal(vectors[:4], vectors[4:])
