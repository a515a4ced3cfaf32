"""Every kind of film and sound decodes to what was put in, in order and at its time."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import decode, probe
from support import zoo
from support.zoo_kinds import COARSE, FILMS, TONES, UNTIMED

ALL_FILMS = FILMS | COARSE | UNTIMED
WITH_SOUND = [name for name, kind in FILMS.items() if kind.sound]
HZ = 16_000
#: Codecs put a block of samples before or behind the sound; not all files say how many.
BLOCK_S = 0.05


@cache
def film(name: str) -> bytes:
    return zoo.filmed(ALL_FILMS[name])


@cache
def tone(name: str) -> bytes:
    return zoo.heard(TONES[name])


def numbers(pictures: np.ndarray) -> list[int]:
    return [zoo.number(picture) for picture in pictures]


def test_the_zoo_is_large() -> None:
    kinds = [*ALL_FILMS.values(), *TONES.values()]

    assert len(kinds) >= 60
    assert len({kind.container for kind in kinds}) >= 20
    assert len({kind.codec for kind in kinds}) >= 40


@pytest.mark.parametrize("name", [*FILMS, *UNTIMED])
def test_all_frames_come_in_their_order(name: str) -> None:
    pictures = decode.video(film(name), num_frames=zoo.FRAMES + 10)

    assert numbers(pictures) == list(range(zoo.FRAMES))
    if ALL_FILMS[name].pixels != "gray":
        assert zoo.red_corner(pictures[0]) == "upper left"


@pytest.mark.parametrize("name", [*FILMS, *UNTIMED])
def test_four_frames_are_the_middles_of_four_parts(name: str) -> None:
    assert numbers(decode.video(film(name), num_frames=4)) == [3, 9, 15, 21]


@pytest.mark.parametrize("name", COARSE)
def test_a_kind_of_few_colours_or_rounded_times_is_right_to_the_next_frame(name: str) -> None:
    pictures = decode.video(film(name), num_frames=4)

    assert np.abs(np.subtract(numbers(pictures), [3, 9, 15, 21])).max() <= 1


@pytest.mark.parametrize("name", FILMS)
def test_a_check_tells_what_a_film_is(name: str) -> None:
    kind = FILMS[name]

    found = probe.probe_video(film(name))

    assert found.frames == zoo.FRAMES
    assert found.seconds == pytest.approx(kind.seconds, abs=0.01)
    assert found.rate == pytest.approx(found.frames / found.seconds)
    assert found.has_audio == (kind.sound is not None)
    assert decode.video(film(name), num_frames=1).shape == (1, found.height, found.width, 3)


@pytest.mark.parametrize("name", UNTIMED)
def test_a_film_without_times_has_25_frames_a_second(name: str) -> None:
    assert probe.probe_video(film(name)).seconds == pytest.approx(zoo.FRAMES / 25)


@pytest.mark.parametrize("name", WITH_SOUND)
def test_the_sound_of_a_film_is_heard(name: str) -> None:
    sound = decode.audio(film(name), sampling_rate=HZ)

    assert len(sound) / HZ == pytest.approx(FILMS[name].seconds, abs=BLOCK_S)
    assert zoo.pitch(sound, HZ) == pytest.approx(zoo.PITCH, abs=1)
    assert 0.4 < np.abs(sound[HZ // 4 : HZ]).max() < 0.65


@pytest.mark.parametrize("name", TONES)
def test_a_tone_is_heard_in_mono(name: str) -> None:
    sound = decode.audio(tone(name), sampling_rate=HZ)

    assert sound.dtype == np.float32
    assert len(sound) / HZ == pytest.approx(1.0, abs=BLOCK_S)
    assert zoo.pitch(sound, HZ) == pytest.approx(zoo.PITCH, abs=1)
    assert 0.4 < np.abs(sound[HZ // 4 : HZ * 3 // 4]).max() < 0.65


@pytest.mark.parametrize("name", TONES)
def test_a_check_tells_how_long_a_sound_is(name: str) -> None:
    assert probe.probe_audio(tone(name)) == pytest.approx(1.0, abs=BLOCK_S)


@pytest.mark.parametrize("name", TONES)
def test_of_a_sound_what_lies_behind_max_seconds_is_not_there(name: str) -> None:
    sound: Any = decode.audio(tone(name), sampling_rate=HZ, max_seconds=0.4)

    assert abs(len(sound) - 0.4 * HZ) <= 1


@pytest.mark.parametrize(
    "name", ["mka 8 bit", "mka 16 bit", "mka 24 bit", "mka float", "mka double", "mov 16 bit 5.1"]
)
def test_samples_of_any_width_are_what_they_were(name: str) -> None:
    rate = TONES[name].rate

    sound = decode.audio(tone(name), sampling_rate=rate)

    wave = 0.5 * np.sin(2 * np.pi * zoo.PITCH * np.arange(rate) / rate)
    np.testing.assert_allclose(sound, wave, atol=0.01 if name == "mka 8 bit" else 1e-4)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no real-time priority")
def test_no_film_changes_the_priority_of_the_process_that_reads_it() -> None:
    for kind in FILMS.values():
        decode.video(zoo.filmed(kind), num_frames=2, threads=2)

    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}
