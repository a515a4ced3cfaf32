"""Random changes of training inputs: what they do, and that seed, epoch, row and part alone decide them."""

from typing import Any

import numpy as np
import pytest

from domain.augment import LIGHT, Augment
from domain.manifest import ColumnType
from engine.data.augment import change_of, heard, said, seen

RATE = 16_000


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _picture(height: int = 40, width: int = 60) -> np.ndarray:
    return _rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _sound() -> np.ndarray:
    return (0.5 * np.sin(np.arange(RATE) * 0.2)).astype(np.float32)


VALUES: dict[ColumnType, Any] = {
    ColumnType.IMAGE: _picture(),
    ColumnType.VIDEO: np.stack([_picture()] * 3),
    ColumnType.AUDIO: _sound(),
    ColumnType.TEXT: "one two three four five six seven eight nine ten",
}


@pytest.mark.parametrize("kind", VALUES)
def test_seed_epoch_column_row_and_part_decide_and_nothing_else_does(kind: ColumnType) -> None:
    amounts = {"crop": 0.5, "colour": 0.3, "gain": 6.0, "noise": 10.0, "drop": 0.5}

    def made(column: str = "a", seed: int = 1, epoch: int = 2, row: int = 3, part: int = 4) -> Any:
        return change_of(column, kind, amounts, seed, epoch)(row, part, VALUES[kind])

    again, others = made(), [made("b"), made(seed=9), made(epoch=9), made(row=9), made(part=9)]
    np.random.default_rng().random()

    assert np.array_equal(made(), again)
    assert not any(np.array_equal(again, other) for other in others)


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_itself_stays_as_it_is(kind: ColumnType) -> None:
    """A cache's arrays may not even be written to."""
    value = VALUES[kind]
    before = value if isinstance(value, str) else value.copy()
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    amounts = Augment(preset="light", **({"flip": 1.0} if kind in ("image", "video") else {})).amounts(kind)

    made = change_of("a", kind, amounts, 0, 0)(0, 0, value)

    assert np.array_equal(value, before)
    assert type(made) is type(value)
    assert isinstance(made, str) or made.dtype == value.dtype


def test_a_mirrored_picture_is_that() -> None:
    picture = _picture()

    assert np.array_equal(seen(picture, {"flip": 1.0}, _rng()), picture[:, ::-1])
    assert np.array_equal(seen(picture, {"flip": 0.0}, _rng()), picture)


def test_a_picture_is_mirrored_as_often_as_is_asked_for() -> None:
    picture = _picture()
    mirrored = [np.array_equal(seen(picture, {"flip": 0.3}, _rng(n)), picture[:, ::-1]) for n in range(400)]

    assert 0.2 < np.mean(mirrored) < 0.4


def test_a_crop_is_a_part_of_the_picture_of_the_area_and_the_sides_that_are_allowed() -> None:
    rows, columns = np.meshgrid(np.arange(200), np.arange(100), indexing="ij")
    where = np.stack([rows, columns, np.zeros_like(rows)], 2).astype(np.uint8)
    crops = [seen(where, {"crop": 0.4}, _rng(n)) for n in range(200)]

    areas = [crop.shape[0] * crop.shape[1] / 20_000 for crop in crops]
    for crop in crops:
        top, left = (int(n) for n in crop[0, 0, :2])
        assert np.array_equal(crop, where[top : top + crop.shape[0], left : left + crop.shape[1]])
    assert 0.35 < min(areas) < 0.6 < 0.9 < max(areas) <= 1
    ratios = [crop.shape[1] / crop.shape[0] * 2 for crop in crops]
    assert 0.72 < min(ratios) < 0.85 < 1.2 < max(ratios) < 1.4


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (4, 1, 1, 3)])
def test_of_the_smallest_picture_something_is_left(shape: tuple[int, ...]) -> None:
    for n in range(50):
        made = seen(np.zeros(shape, dtype=np.uint8), {"crop": 0.01, "flip": 0.5, "colour": 1.0}, _rng(n))
        assert made.size >= 3


def test_all_frames_of_a_film_are_changed_alike() -> None:
    film = np.stack([_picture()] * 4)

    made = seen(film, {"crop": 0.5, "flip": 0.5, "colour": 0.4}, _rng(3))

    assert made.shape[0] == 4
    assert made.shape != film.shape
    assert all(np.array_equal(made[0], frame) for frame in made)


def test_colours_change_within_what_is_asked_for() -> None:
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)  # brightness alone can change it
    values = [int(seen(grey, {"colour": 0.2}, _rng(n))[0, 0, 0]) for n in range(100)]

    assert 80 <= min(values) < 88 < 112 < max(values) <= 120


def test_a_sound_is_louder_or_softer_by_as_many_decibels_at_most() -> None:
    gains = [20 * np.log10(np.abs(heard(_sound(), {"gain": 6.0}, _rng(n))).max() / 0.5) for n in range(100)]

    assert -6.01 < min(gains) < -4 < 4 < max(gains) < 6.01


def test_noise_is_as_much_softer_than_the_sound_as_is_asked_for() -> None:
    sound = _sound()
    ratios = []
    for n in range(50):
        noise = heard(sound, {"noise": 10.0}, _rng(n)) - sound
        ratios.append(10 * np.log10(np.mean(sound**2) / np.mean(noise**2)))

    assert 9.8 < min(ratios) < 14 < 26 < max(ratios) < 30.2


def test_silence_stays_silent_and_no_sound_stays_none() -> None:
    amounts = {"gain": 6.0, "noise": 0.0, "shift": 0.5}

    assert not heard(np.zeros(100, np.float32), amounts, _rng()).any()
    assert len(heard(np.zeros(0, np.float32), amounts, _rng())) == 0


def test_a_shifted_sound_is_as_long_and_what_was_left_is_silence() -> None:
    sound = np.arange(1, 101, dtype=np.float32)
    seen_shifts = set()
    for n in range(60):
        made = heard(sound, {"shift": 0.2}, _rng(n))
        by = int(np.flatnonzero(made)[0]) - int(made[np.flatnonzero(made)[0]] - 1)
        expected = np.zeros(100, np.float32)
        if by >= 0:
            expected[by:] = sound[: 100 - by]
        else:
            expected[:by] = sound[-by:]
        assert np.array_equal(made, expected)
        seen_shifts.add(by)
    assert min(seen_shifts) < -10
    assert max(seen_shifts) > 10
    assert max(map(abs, seen_shifts)) <= 20


def test_words_are_left_out_in_their_order_and_one_stays() -> None:
    text = " ".join(map(str, range(100)))
    kept = [said(text, {"drop": 0.3}, _rng(n)).split() for n in range(50)]

    assert all(words == sorted(words, key=int) for words in kept)
    assert 60 < np.mean([len(words) for words in kept]) < 80
    assert len(said(text, {"drop": 0.99999}, _rng()).split()) >= 1
    assert said("  spaces   stay ", {"drop": 0.0}, _rng()) == "  spaces   stay "
    assert said("", {"drop": 0.9}, _rng()) == ""


def test_light_is_the_usual_of_each_type_and_what_is_said_wins() -> None:
    told = Augment(preset="light", crop=0.9)

    assert told.amounts(ColumnType.IMAGE) == {"crop": 0.9, "colour": LIGHT["colour"]}
    assert told.amounts(ColumnType.AUDIO) == {name: LIGHT[name] for name in ("gain", "noise", "shift")}
    assert told.amounts(ColumnType.TEXT) == {"drop": LIGHT["drop"]}
    assert Augment(flip=0.5).amounts(ColumnType.VIDEO) == {"flip": 0.5}
    assert Augment().amounts(ColumnType.IMAGE) == {}
