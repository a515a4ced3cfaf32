"""Token sequences: how they are cut, joined and laid together, and what each kind of encoder gives as its tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domain.manifest import ColumnType
from domain.towers import Tower
from engine.models.clips import FAMILIES
from engine.models.encoders import Encoder, load_encoder
from engine.models.tokens import Tokens, in_rows, of_mask, of_patches, shrunk, shrunk_grid, summed_up
from support.encoders import AUDIO, IMAGE, TEXT, TIMESFORMER, VIDEOMAE, VIT


def _column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)


def test_of_too_many_tokens_neighbours_are_averaged_and_other_rows_stay() -> None:
    vectors, counts = shrunk(_column(1, 2, 3, 4, 5, 6, 7, 10, 20), torch.tensor([7, 2]), 3)

    assert counts.tolist() == [3, 2]
    assert vectors.flatten().tolist() == [1.5, 3.5, 6.0, 10, 20]


@pytest.mark.parametrize("most", [1, 2, 5, 6])
def test_no_token_is_lost_or_counted_twice_where_parts_are_equal(most: int) -> None:
    vectors = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)

    smaller, counts = shrunk(vectors, torch.tensor([12]), most)
    smaller.sum().backward()

    assert counts.tolist() == [min(most, 12)]
    if 12 % most == 0:
        torch.testing.assert_close(smaller.mean(0), vectors.mean(0))
        torch.testing.assert_close(vectors.grad, torch.full_like(vectors, most / 12))


def test_few_tokens_are_left_as_they_are() -> None:
    vectors = _column(1, 2, 3)

    assert shrunk(vectors, torch.tensor([2, 1]), 2)[0] is vectors


def test_a_grid_is_averaged_in_squares_until_it_fits() -> None:
    grid = torch.arange(25.0).view(1, 1, 5, 5)

    assert shrunk_grid(grid, 25) is grid
    assert shrunk_grid(grid, 24).shape == (1, 1, 3, 3)
    assert shrunk_grid(grid, 1).flatten().tolist() == [12.0]
    assert shrunk_grid(grid, 9)[0, 0, 2].tolist() == [20.5, 22.5, 24.0]


@pytest.mark.parametrize("grid", [(4, 4), None])
def test_a_class_token_stays_and_patches_are_averaged_with_those_beside_and_below(
    grid: tuple[int, int] | None,
) -> None:
    hidden = torch.cat([_column(100.0), torch.arange(16.0).unsqueeze(1)]).unsqueeze(0)

    vectors, counts = of_patches(hidden, grid, 5)

    assert counts.tolist() == [5]
    assert vectors.flatten().tolist() == [100, 2.5, 4.5, 10.5, 12.5]


def test_a_sequence_that_is_no_grid_is_taken_as_it_is() -> None:
    assert of_patches(torch.randn(2, 12, 3), None, 5)[1].tolist() == [12, 12]


def test_padding_on_either_side_is_left_out_and_an_empty_row_keeps_one() -> None:
    hidden = torch.arange(9.0).view(3, 3, 1)

    vectors, counts = of_mask(hidden, torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]]))

    assert counts.tolist() == [2, 1, 1]
    assert vectors.flatten().tolist() == [1, 2, 3, 6]


def test_rows_have_their_tokens_in_front_and_others_have_none() -> None:
    rows = in_rows(_column(1, 2, 3), torch.tensor([2, 1]), torch.tensor([2, 0]), 4)

    assert rows.lengths.tolist() == [1, 0, 2, 0]
    assert rows.values[:, :, 0].tolist() == [[3, 0], [0, 0], [1, 2], [0, 0]]
    assert isinstance(rows[[2]], Tokens)
    assert rows[[2]].values[0, :, 0].tolist() == [1, 2]


def test_rows_without_any_token_are_laid_together_too() -> None:
    none = torch.zeros(0, dtype=torch.int64)

    rows = in_rows(torch.zeros(0, 5), none, none, 2)

    assert (rows.values.shape, rows.lengths.tolist()) == ((2, 1, 5), [0, 0])


def test_a_cell_has_the_tokens_of_all_its_parts() -> None:
    assert summed_up(torch.tensor([4, 1, 7]), torch.tensor([2, 1])).tolist() == [5, 7]


def _pixels(seed: int, *frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*frames, 40, 40, 3), dtype=np.uint8)


def _sound(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(16_000 * seconds)).astype(np.float32)


def _open(
    encoders: dict[str, Path], name: str, kind: ColumnType, reads_tokens: bool = True, **options: Any
) -> Encoder:
    tower = Tower.model_validate({"encoder": name, **options})
    return load_encoder(encoders[name], kind, tower, reads_tokens=reads_tokens)


_KINDS: dict[str, tuple[str, ColumnType, list[Any], dict[str, Any], list[int]]] = {
    "text": (TEXT, ColumnType.TEXT, ["cat", "a longer text"], {}, [5, 15]),
    "grid": (IMAGE, ColumnType.IMAGE, [_pixels(0), _pixels(1)], {"image_size": 64}, [4, 4]),
    "patches": (VIT, ColumnType.IMAGE, [_pixels(0), _pixels(1)], {"image_size": 64}, [17, 17]),
    "sound": (AUDIO, ColumnType.AUDIO, [_sound(0.25), _sound(1)], {"max_seconds": 1}, [13, 50]),
    "frames": (VIT, ColumnType.VIDEO, [_pixels(0, 2), _pixels(1, 3)], {}, [2, 3]),
    "clip": (VIDEOMAE, ColumnType.VIDEO, [_pixels(0, 2), _pixels(1, 4)], {}, [2, 2]),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_an_encoders_tokens_are_what_its_vector_is_the_mean_of(encoders: dict[str, Path], kind: str) -> None:
    name, column, values, options, lengths = _KINDS[kind]
    whole = _open(encoders, name, column, reads_tokens=False, **options)
    encoder = _open(encoders, name, column, **options)

    with torch.no_grad():
        inputs = encoder.prepare(values)
        vectors, counts = encoder.vectors(inputs)
        pooled = whole(inputs)

    assert counts.tolist() == lengths
    means = torch.stack([tokens.mean(0) for tokens in vectors.split(lengths)])
    torch.testing.assert_close(means, pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_row_has_the_same_tokens_beside_others_and_not_more_than_it_may(
    encoders: dict[str, Path], kind: str
) -> None:
    name, column, values, options, lengths = _KINDS[kind]
    encoder = _open(encoders, name, column, max_tokens=2, **options)

    with torch.no_grad():
        together, counts = encoder.vectors(encoder.prepare(values))
        alone, _ = encoder.vectors(encoder.prepare(values[:1]))

    # Of a grid of two by two half cannot be taken in squares.
    assert counts.tolist() == [1 if kind == "grid" else min(length, 2) for length in lengths]
    torch.testing.assert_close(alone, together[: len(alone)], rtol=1e-4, atol=1e-5)


def test_a_long_sound_has_64_tokens_if_nothing_is_said(encoders: dict[str, Path]) -> None:
    encoder = _open(encoders, AUDIO, ColumnType.AUDIO)

    with torch.no_grad():
        _, counts = encoder.vectors(encoder.prepare([_sound(20.0), _sound(0.1)]))

    assert counts.tolist() == [64, 5]


def test_a_films_tokens_are_its_steps_in_time_whichever_way_an_encoder_lists_places(
    encoders: dict[str, Path],
) -> None:
    steps, places = 3, 4
    slower = torch.arange(steps).repeat_interleave(places).view(1, -1, 1).float()
    faster = torch.arange(steps).repeat(places).view(1, -1, 1).float()
    first = torch.full((1, 1, 1), 99.0)

    assert FAMILIES["videomae"].in_time(slower, steps).flatten().tolist() == [0, 1, 2]
    assert FAMILIES["vivit"].in_time(torch.cat([first, slower], 1), steps).flatten().tolist() == [0, 1, 2]
    assert FAMILIES["timesformer"].in_time(torch.cat([first, faster], 1), steps).flatten().tolist() == [
        *(0, 1, 2)
    ]
    encoder = _open(encoders, TIMESFORMER, ColumnType.VIDEO)
    with torch.no_grad():
        assert encoder.vectors(encoder.prepare([_pixels(0, 4)]))[1].tolist() == [4]


def test_tokens_never_pass_for_a_vector_or_for_fewer_tokens(encoders: dict[str, Path]) -> None:
    prints = [
        _open(encoders, TEXT, ColumnType.TEXT, reads_tokens=False).fingerprint,
        _open(encoders, TEXT, ColumnType.TEXT).fingerprint,
        _open(encoders, TEXT, ColumnType.TEXT, max_tokens=8).fingerprint,
    ]

    assert len(set(prints)) == 3
    assert _open(encoders, TEXT, ColumnType.TEXT, max_tokens=64).fingerprint == prints[1]
