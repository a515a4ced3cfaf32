"""Decoded media are read back to the bit, and only what was asked for in the same way."""

import dataclasses
import errno
import io
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domain.manifest import ColumnType
from engine.data import media_cache
from engine.data.entries import Entries
from engine.data.limits import Undecodable
from engine.data.media_cache import DEAR, KEPT, MediaCache
from engine.data.shared import Patient
from engine.data.values import Read, Reading, read_value
from support.datasets import png, tone, wav
from support.zoo import Film, filmed

PICTURE = Reading(ColumnType.IMAGE)
SOUND = Reading(ColumnType.AUDIO, sampling_rate=16_000, max_seconds=2.0)
FILM = Reading(ColumnType.VIDEO, num_frames=4, frame_size=24)


class Decoder:
    """Counts what is decoded."""

    def __init__(self, read: Read = read_value) -> None:
        self.read, self.calls = read, 0

    def __call__(self, data: bytes, reading: Reading) -> Any:
        self.calls += 1
        return self.read(data, reading)


def cache_in(folder: Path, limit: int = 2**30, **more: Any) -> MediaCache:
    return MediaCache(Entries(folder / "media", limit), **more)


@pytest.fixture
def cache(tmp_path: Path) -> MediaCache:
    return cache_in(tmp_path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def same(one: Any, other: Any) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


MEDIA: dict[str, tuple[bytes, Reading]] = {
    "a picture of one pixel": (png(noise(1, 1, 3)), PICTURE),
    "a picture of odd sides": (png(noise(63, 7, 3)), PICTURE),
    "a sound": (wav(tone(0, np.random.default_rng(0))), SOUND),
    "a sound that is resampled": (wav(noise(4410).astype(float) / 300, rate=44_100), SOUND),
    "a sound of one sample": (wav(np.array([0.25])), SOUND),
    "a film": (filmed(Film("mp4", "mpeg4", size=(64, 48))), FILM),
    "a film of one frame": (filmed(Film("mp4", "mpeg4", frames=1, size=(50, 34))), FILM),
}


@pytest.mark.parametrize("what", MEDIA)
def test_a_value_read_back_is_the_value_decoded_to_the_bit(cache: MediaCache, what: str) -> None:
    data, reading = MEDIA[what]
    decoder = Decoder()
    read = cache.cached(decoder, KEPT)

    first, second = read(data, reading), read(data, reading)

    assert decoder.calls == 1
    assert same(first, read_value(data, reading))
    assert same(second, first)
    assert second.flags.writeable
    assert second.flags.aligned


ARRAYS = {
    "empty": np.empty((0, 3), np.uint8),
    "without axes": np.array(3.5, np.float32),
    "not contiguous": noise(9, 8, 3)[::2, ::-1],
    "in Fortran's order": np.asfortranarray(noise(5, 6, 3)),
    "halves": np.linspace(-1, 1, 7).astype(np.float16),
    "numbers that are none": np.array([np.nan, -0.0, np.inf], np.float32),
    "of the other byte order": np.arange(5, dtype=">i2"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_of_any_shape_and_number_come_back_to_the_bit(cache: MediaCache, what: str) -> None:
    read = cache.cached(decoder := Decoder(lambda *_: ARRAYS[what]), KEPT)

    read(b"film", FILM)
    again = read(b"film", FILM)

    assert decoder.calls == 1
    assert same(again, ARRAYS[what])


@pytest.mark.parametrize("value", ["a text", None, np.array([{}], object), (np.zeros(3), 1), np.float32(1)])
def test_what_is_no_array_of_numbers_is_not_kept(cache: MediaCache, value: Any) -> None:
    read = cache.cached(decoder := Decoder(lambda *_: value), KEPT)

    read(b"film", FILM)

    assert read(b"film", FILM) is value
    assert decoder.calls == 2
    assert cache.hit_rate is None


OTHERWISE = [
    Reading(ColumnType.VIDEO, num_frames=5, frame_size=24),
    Reading(ColumnType.VIDEO, num_frames=4, frame_size=25),
    Reading(ColumnType.VIDEO, num_frames=4, frame_size=24, sampling="head"),
    Reading(ColumnType.VIDEO, num_frames=4, frame_size=24, max_seconds=1.0),
    Reading(ColumnType.AUDIO, sampling_rate=16_000),
    Reading(ColumnType.IMAGE),
]


def test_bytes_that_are_read_otherwise_are_another_value(cache: MediaCache) -> None:
    read = cache.cached(decoder := Decoder(lambda *_: noise(2, 2)), KEPT)

    for reading in [FILM, *OTHERWISE]:
        read(b"film", reading)

    assert decoder.calls == 1 + len(OTHERWISE)
    assert cache.hits == 0


def test_every_field_of_a_reading_is_part_of_the_key() -> None:
    changed = {
        "kind": ColumnType.AUDIO,
        "sampling_rate": 8000,
        "max_seconds": 3.0,
        "num_frames": 9,
        "sampling": "head",
        "frame_size": 9,
    }

    keys = {media_cache.key_of(bytes(32), dataclasses.replace(FILM, **{n: v})) for n, v in changed.items()}

    assert {f.name for f in dataclasses.fields(Reading)} <= set(changed)
    assert len(keys | {media_cache.key_of(bytes(32), FILM)}) == len(changed) + 1


@pytest.mark.parametrize("reading", [PICTURE, SOUND, FILM], ids=["Pillow", "soundfile", "PyAV"])
def test_what_another_version_decoded_is_not_used(
    cache: MediaCache, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = cache.cached(decoder := Decoder(lambda *_: noise(2, 2)), KEPT)
    read(b"media", reading)

    told = media_cache.versions(reading.kind)
    monkeypatch.setattr(media_cache, "versions", lambda _: told.replace("format=", "format=9"))
    read(b"media", reading)

    assert decoder.calls == 2


def test_versions_name_every_library_that_decodes() -> None:
    def named(kind: ColumnType) -> set[str]:
        return {part.split("=")[0] for part in media_cache.versions(kind).split()}

    assert {"format", "machine", "pillow", "jpg", "webp"} <= named(ColumnType.IMAGE)
    assert {"soundfile", "libsndfile", "scipy", "av", "libavcodec"} <= named(ColumnType.AUDIO)
    assert {"av", "libavcodec", "libswscale"} <= named(ColumnType.VIDEO)


def test_texts_go_by_it(cache: MediaCache) -> None:
    read = cache.cached(decoder := Decoder(), KEPT)

    read(b"a text", Reading(ColumnType.TEXT))
    read(b"a text", Reading(ColumnType.TEXT))

    assert decoder.calls == 2
    assert cache.hit_rate is None


def test_a_picture_far_larger_than_its_file_is_decoded_each_time(cache: MediaCache) -> None:
    smooth = np.kron(noise(4, 4, 3), np.ones((64, 64, 1), np.uint8))
    read = cache.cached(decoder := Decoder(), KEPT)

    for _ in range(2):
        read(jpeg(smooth), PICTURE)

    assert decoder.calls == 2
    assert cache.hit_rate is None


def test_a_frozen_tower_keeps_films_alone(cache: MediaCache) -> None:
    read = cache.cached(decoder := Decoder(), DEAR)

    for data, reading in MEDIA.values():
        read(data, reading)
        read(data, reading)

    films = sum(reading.kind is ColumnType.VIDEO for _, reading in MEDIA.values())
    assert decoder.calls == 2 * len(MEDIA) - films


def test_an_error_of_the_decoder_is_the_callers_and_nothing_is_kept(cache: MediaCache) -> None:
    read = cache.cached(Decoder(), KEPT)

    for _ in range(2):
        with pytest.raises(Undecodable):
            read(b"no film", FILM)

    assert cache.hit_rate is None


def test_two_jobs_share_what_one_of_them_decoded(tmp_path: Path) -> None:
    data, first, second = png(noise(9, 9, 3)), Decoder(), Decoder()
    one, other = cache_in(tmp_path), cache_in(tmp_path)

    mine = one.cached(first, KEPT)(data, PICTURE)
    theirs = other.cached(second, KEPT)(data, PICTURE)

    assert (first.calls, second.calls) == (1, 0)
    assert same(mine, theirs)
    assert (one.hit_rate, other.hit_rate) == (0.0, 1.0)


def test_a_description_that_does_not_fit_is_no_value(cache: MediaCache) -> None:
    read = cache.cached(decoder := Decoder(lambda *_: noise(4, 4)), KEPT)
    read(b"film", FILM)
    key = media_cache.key_of(sha256(b"film").digest(), FILM)
    parts = media_cache.packed(noise(4, 4))
    assert parts is not None
    wrong = [
        bytes(parts[0]).replace(b"[4, 4]", b"[4, 5]"),
        bytes(parts[0]).replace(b"[4, 4]", b"[-4, -4]"),
        bytes(parts[0]).replace(b"|u1", b"|O8"),
        bytes(parts[0]).replace(b"shape", b"shade"),
        b"[" * 128,
        b"",
    ]

    for head in wrong:
        cache.entries.path(key).unlink()
        cache.entries.put(key, [head, parts[1]])
        assert same(read(b"film", FILM), noise(4, 4)), head
        assert same(read(b"film", FILM), noise(4, 4)), head

    assert decoder.calls == 1 + len(wrong)


def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    cache = cache_in(tmp_path, warn=said.append)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    read = cache.cached(decoder := Decoder(), KEPT)
    for n in range(3):
        assert same(read(png(noise(5, 5 + n, 3)), PICTURE), noise(5, 5 + n, 3))

    assert decoder.calls == 3
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_a_folder_that_cannot_be_written_is_like_a_full_disk(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "media").write_bytes(b"a file")
    cache = cache_in(tmp_path, warn=said.append)

    value = cache.cached(Decoder(), KEPT)(png(noise(5, 5, 3)), PICTURE)

    assert same(value, noise(5, 5, 3))
    assert cache.entries.make_room() == 0
    assert len(said) == 1


def test_media_that_do_not_fit_are_kept_in_part_and_found_in_every_epoch(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, limit=20 * 4096)
    read = cache.cached(decoder := Decoder(lambda data, _: noise(3000) + data[0]), KEPT)

    epochs = []
    for _ in range(3):
        before = decoder.calls
        for n in range(40):
            read(bytes([n]), FILM)
        cache.entries.make_room()
        epochs.append(decoder.calls - before)

    assert epochs[0] == 40
    assert 0 < epochs[1] < 30
    assert epochs[2] == epochs[1]


class Shelf:
    """A shared place in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def put(self, name: str, data: bytes) -> bool:
        self.objects[name] = data
        return True

    def names(self, prefix: str) -> Iterator[str]:
        return iter(self.objects)


def on_machine(folder: Path, shelf: Shelf) -> tuple[MediaCache, Patient]:
    patient = Patient(shelf, print)
    return cache_in(folder, shared=patient), patient


def test_films_are_sent_to_other_machines_and_cheaper_media_are_not(tmp_path: Path) -> None:
    shelf = Shelf()
    here, sender = on_machine(tmp_path / "here", shelf)
    for data, reading in MEDIA.values():
        here.cached(Decoder(), KEPT)(data, reading)
    sender.flush(10)
    sender.close()
    there, _ = on_machine(tmp_path / "there", shelf)
    decoder = Decoder()

    values = [there.cached(decoder, KEPT)(data, reading) for data, reading in MEDIA.values()]

    films = sum(reading.kind is ColumnType.VIDEO for _, reading in MEDIA.values())
    assert len(shelf.objects) == films
    assert decoder.calls == len(MEDIA) - films
    assert all(
        same(value, read_value(*media)) and value.flags.writeable
        for value, media in zip(values, MEDIA.values(), strict=True)
    )
    # What was fetched is on this machine's disk, too.
    assert there.entries.get(media_cache.key_of(sha256(MEDIA["a film"][0]).digest(), FILM)) is not None


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-1], lambda d: d[:9] + b"\0" + d[10:]])
def test_a_film_that_another_machine_sent_damaged_is_decoded(tmp_path: Path, damage: Any) -> None:
    data, reading = MEDIA["a film"]
    shelf = Shelf()
    here, sender = on_machine(tmp_path / "here", shelf)
    here.cached(Decoder(), KEPT)(data, reading)
    sender.flush(10)
    sender.close()
    shelf.objects = {name: damage(value) for name, value in shelf.objects.items()}
    there, receiver = on_machine(tmp_path / "there", shelf)

    value = there.cached(decoder := Decoder(), KEPT)(data, reading)
    receiver.flush(10)
    receiver.close()

    assert decoder.calls == 1
    assert same(value, read_value(data, reading))
