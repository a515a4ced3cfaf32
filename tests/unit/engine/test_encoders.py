"""Pretrained encoders, opened from folders as people publish them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.towers import Tower
from engine.models.encoders import Encoder, load_encoder
from engine.models.pretrained import Mean, fingerprint, masked_mean, mean_of_first
from support.encoders import AUDIO, IMAGE, TEXT, VIT

_KINDS = {TEXT: ColumnType.TEXT, IMAGE: ColumnType.IMAGE, VIT: ColumnType.IMAGE, AUDIO: ColumnType.AUDIO}


def _open(encoders: dict[str, Path], name: str, **options: object) -> Encoder:
    return load_encoder(encoders[name], _KINDS[name], Tower.model_validate({"encoder": name, **options}))


def _pixels(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)


def _sound(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(16_000 * seconds)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "value"), [(TEXT, "a cat"), (IMAGE, _pixels(0)), (VIT, _pixels(0)), (AUDIO, _sound(0.5))]
)
def test_every_kind_of_encoder_gives_one_vector_a_row(
    encoders: dict[str, Path], name: str, value: object
) -> None:
    encoder = _open(encoders, name, **({"max_seconds": 1} if name == AUDIO else {}))

    with torch.no_grad():
        pooled = encoder(encoder.prepare([value, value, value]))

    assert pooled.shape == (3, encoder.width)
    assert pooled.isfinite().all()
    assert not encoder.training


def test_a_one_second_clip_skips_the_padding_to_thirty_seconds(encoders: dict[str, Path]) -> None:
    encoder = _open(encoders, AUDIO, max_seconds=1)

    inputs = encoder.prepare([_sound(1.0)])

    assert inputs["input_features"].shape[-1] == 100
    assert encoder.network.config.max_source_positions == 50
    assert encoder.reading.max_seconds == 1.0


def test_more_seconds_than_the_encoder_hears_are_refused(encoders: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="at most 30 s"):
        _open(encoders, AUDIO, max_seconds=31)


def test_more_tokens_than_the_encoder_reads_are_refused(encoders: dict[str, Path]) -> None:
    with pytest.raises(EngineError, match="at most 64 tokens"):
        _open(encoders, TEXT, max_length=65)


def test_a_text_has_the_same_vector_beside_a_longer_one(encoders: dict[str, Path]) -> None:
    encoder = _open(encoders, TEXT)

    with torch.no_grad():
        alone = encoder(encoder.prepare(["cat"]))
        beside = encoder(encoder.prepare(["cat", "a much longer text"]))[:1]

    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-6)


def test_an_empty_text_has_a_vector_too(encoders: dict[str, Path]) -> None:
    encoder = _open(encoders, TEXT)

    with torch.no_grad():
        pooled = encoder(encoder.prepare([""]))

    assert pooled.isfinite().all()


@pytest.mark.parametrize("mean", [masked_mean, mean_of_first])
def test_the_mean_counts_real_positions_only(mean: Mean) -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])

    assert mean(hidden, torch.tensor([[1, 1, 0]])).item() == 2.0


def test_both_means_agree_to_the_bit_where_the_padding_lies_on_the_right() -> None:
    hidden = torch.randn(5, 40, 24, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(40) < torch.tensor([[40], [17], [1], [0], [39]])).long()

    assert torch.equal(masked_mean(hidden, mask), mean_of_first(hidden, mask))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizer_may_pad_on_either_side(encoders: dict[str, Path], tmp_path: Path, side: str) -> None:
    folder = tmp_path / side
    shutil.copytree(encoders[TEXT], folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": side}))
    encoder = load_encoder(folder, ColumnType.TEXT, Tower(encoder=TEXT))

    with torch.no_grad():
        inputs = encoder.prepare(["cat", "a much longer text"])
        hidden = encoder.network(**inputs).last_hidden_state
        pooled = encoder(inputs)

    assert inputs["attention_mask"][0].tolist() == sorted([0] * 15 + [1] * 5, reverse=side == "right")
    torch.testing.assert_close(pooled, masked_mean(hidden, inputs["attention_mask"]))


@pytest.mark.parametrize("name", [IMAGE, VIT])
def test_image_size_sets_the_pixels_a_side(encoders: dict[str, Path], name: str) -> None:
    encoder = _open(encoders, name, image_size=64)

    inputs = encoder.prepare([_pixels(0, side=100)])

    assert inputs["pixel_values"].shape[-2:] == (64, 64)
    with torch.no_grad():
        assert encoder(inputs).shape == (1, encoder.width)


def test_a_pooler_that_was_never_trained_is_not_used(encoders: dict[str, Path]) -> None:
    torch.manual_seed(1)
    one = _open(encoders, VIT)
    torch.manual_seed(2)
    other = _open(encoders, VIT)
    inputs = one.prepare([_pixels(0)])

    with torch.no_grad():
        first, second = one(inputs), other(inputs)

    assert torch.equal(first, second)


def test_a_folder_with_pickled_weights_only_is_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(encoders[TEXT], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(EngineError, match="safetensors") as refused:
        load_encoder(folder, ColumnType.TEXT, Tower(encoder="x/y"))

    assert refused.value.code == "encoder_unusable"


def test_a_folder_of_another_modality_is_refused(encoders: dict[str, Path]) -> None:
    with pytest.raises(EngineError) as refused:
        load_encoder(encoders[TEXT], ColumnType.AUDIO, Tower(encoder="x/y"))

    assert refused.value.code == "encoder_unusable"


def test_the_fingerprint_tells_weights_and_reading_apart_and_nothing_else(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(encoders[TEXT], tmp_path / "copy")
    before = fingerprint(folder, {"max_length": 64})

    (folder / "README.md").write_text("new words")
    noted = fingerprint(folder, {"max_length": 64})
    read_otherwise = fingerprint(folder, {"max_length": 32})
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    altered = fingerprint(folder, {"max_length": 64})

    assert noted == before
    assert len({before, read_otherwise, altered}) == 3
