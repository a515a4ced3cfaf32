"""Whole trainings with the caches: the same to the bit with and without them, on a full disk, and on two machines."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from domain.specs import Multimodal
from engine.data import decode, media_cache
from engine.data import shared as engine_shared
from engine.data.caches import open_caches
from engine.data.shared import Patient
from engine.train.run import Finished, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE

TRAINED = {
    "image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3},
    "audio": {"encoder": AUDIO, "freeze": False, "lr": 1e-3, "max_seconds": 0.5},
}
FROZEN = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO, "max_seconds": 0.5}}
MEDIA = 24
BOTH = pytest.mark.parametrize(
    "towers", [pytest.param(FROZEN, id="frozen"), pytest.param(TRAINED, id="trained", marks=pytest.mark.slow)]
)


class Shelf:
    """A shared place in memory, which can fall silent."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked, self.is_silent = 0, False
        self.most_bytes = 2**30

    def get(self, name: str) -> bytes | None:
        self._ask()
        return self.objects.get(name)

    def put(self, name: str, data: bytes) -> bool:
        self._ask()
        if len(data) > self.most_bytes:
            return False
        self.objects[name] = data
        return True

    def names(self, prefix: str) -> Iterator[str]:
        self._ask()
        return iter([name for name in self.objects if name.startswith(prefix)])

    def _ask(self) -> None:
        self.asked += 1
        if self.is_silent:
            raise OSError(errno.ETIMEDOUT, "silent")


class Place:
    def __init__(self, folder: Path, encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.encoders = folder, encoders
        self.data = tiny_av(folder, rows=MEDIA, missing=0.0)
        self.decoded: list[str] = []
        self.warned: list[str] = []
        for name in ("image", "audio"):
            monkeypatch.setattr(decode, name, self._counted(name, getattr(decode, name)))

    def _counted(self, name: str, real: Any) -> Any:
        def counting(data: bytes, **options: Any) -> Any:
            self.decoded.append(name)
            return real(data, **options)

        return counting

    def train(self, towers: dict[str, Any], out: str, **options: Any) -> tuple[Finished, list[float]]:
        losses: list[float] = []

        def report(told: Any) -> None:
            if told.metrics and "train_loss" in told.metrics:
                losses.append(told.metrics["train_loss"])

        hyper = {"n_epochs": 2, "batch_size": 4, "logging_steps": 1}
        ending = train(
            Multimodal.model_validate({"towers": towers, "fusion": {"dim": 8}, "hyperparameters": hyper}),
            training=self.data,
            encoders=self.encoders.__getitem__,
            out=self.folder / out,
            report=report,
            warn=self.warned.append,
            **{"cache": self.folder / "cache", "seed": 1, **options},
        )
        assert isinstance(ending, Finished)
        return ending, losses

    def weights(self, out: str) -> bytes:
        return b"".join(
            path.read_bytes() for path in sorted((self.folder / out / "model").rglob("*.safetensors"))
        )


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, encoders, monkeypatch)


def test_training_with_a_cache_is_training_without_to_the_bit(place: Place) -> None:
    without, losses = place.train(TRAINED, "without", cache=place.folder / "none", cache_bytes=0)
    decoded = len(place.decoded)
    place.decoded.clear()

    filling, first = place.train(TRAINED, "filling")
    once = len(place.decoded)
    filled, second = place.train(TRAINED, "filled")

    assert losses == first == second
    assert place.weights("without") == place.weights("filling") == place.weights("filled") != b""
    # Each row is decoded in both epochs, in both evaluations, and where it is tested.
    assert decoded > once == 2 * MEDIA == len(place.decoded)
    assert without.metrics["media_cache_hit_rate"] == 0
    assert 0 < filling.metrics["media_cache_hit_rate"] < 1
    assert filled.metrics["media_cache_hit_rate"] == 1
    assert 0 <= filled.metrics["data_wait_fraction_later"] < 1
    assert not place.warned


def test_the_cells_of_a_later_epoch_are_not_even_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.data.manifest import Dataset

    read: list[str] = []
    real = Dataset.read
    monkeypatch.setattr(Dataset, "read", lambda self, ref: read.append(ref.name) or real(self, ref))

    place.train(TRAINED, "out")

    assert len(read) == len(set(read)) == 2 * MEDIA


def test_a_picture_that_is_not_kept_trains_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    only = {"image": TRAINED["image"]}
    _, losses = place.train(only, "kept")
    place.decoded.clear()
    monkeypatch.setattr(media_cache, "_PICTURE_GROWS", 0)

    ending, same = place.train(only, "not-kept", cache=place.folder / "other")

    assert same == losses
    assert len(place.decoded) > MEDIA
    assert "media_cache_hit_rate" not in ending.metrics
    assert not list((place.folder / "other" / "media").glob("??/*"))


def test_of_frozen_towers_the_rate_is_how_many_features_were_there(place: Place) -> None:
    first, _ = place.train(FROZEN, "one")
    second, _ = place.train(FROZEN, "two")

    assert first.metrics["feature_cache_hit_rate"] == 0
    assert second.metrics["feature_cache_hit_rate"] == 1
    assert "media_cache_hit_rate" not in first.metrics


@BOTH
def test_a_cache_that_cannot_be_written_ends_no_training_and_changes_none(
    place: Place, towers: dict[str, Any]
) -> None:
    _, losses = place.train(towers, "usual")
    (place.folder / "blocked").write_bytes(b"a file, where the cache's folder should be")

    ending, same = place.train(towers, "blocked-out", cache=place.folder / "blocked")

    assert same == losses
    assert place.weights("usual") == place.weights("blocked-out")
    assert len(place.warned) == 1
    assert "goes on" in place.warned[0]
    assert all(rate == 0 for name, rate in ending.metrics.items() if name.endswith("hit_rate"))


def test_a_disk_that_fills_up_midway_ends_no_training(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, losses = place.train(FROZEN, "usual", cache=place.folder / "other")
    real, left = os.fsync, iter(range(1))

    def fills_up(handle: int) -> None:
        if "cache" in os.readlink(f"/proc/self/fd/{handle}") and next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fills_up)
    _, same = place.train(FROZEN, "full")

    assert same == losses
    assert len(place.warned) == 1
    assert "No space left" in place.warned[0]
    assert not list((place.folder / "cache").rglob(".*.draft"))


def test_another_machine_encodes_nothing_again(place: Place) -> None:
    shelf = Shelf()
    _, losses = place.train(FROZEN, "here", cache=place.folder / "here-cache", shared=shelf)
    place.decoded.clear()

    there, same = place.train(FROZEN, "there", cache=place.folder / "there-cache", shared=shelf)

    assert same == losses
    assert place.decoded == []
    assert there.metrics["feature_cache_hit_rate"] == 1


def test_shards_of_other_rows_are_not_fetched(place: Place, tmp_path: Path) -> None:
    shelf = Shelf()
    features = torch.zeros(1, 3)
    keys = ["a" * 64, "b" * 64]
    with open_caches(tmp_path / "one", 2**30, shelf, print) as caches:
        for key in keys:
            caches.features("tower", 3).append([key], features, seconds=1.0)

    with open_caches(tmp_path / "two", 2**30, shelf, print) as caches:
        cache = caches.features("tower", 3)
        fetched = cache.fetch({keys[0]})

    assert fetched == 1
    assert cache.read(keys).have.tolist() == [True, False]


def test_keys_whose_shard_is_gone_are_not_asked_for(tmp_path: Path) -> None:
    shelf = Shelf()
    append_to(shelf, tmp_path / "one")
    shelf.objects = {name: data for name, data in shelf.objects.items() if name.endswith(".keys")}
    shelf.asked = 0

    with open_caches(tmp_path / "two", 2**30, shelf, print) as caches:
        fetched = caches.features("tower", 64).fetch({f"{1:064x}"})

    assert len(shelf.objects) == 1
    # The names alone.
    assert (fetched, shelf.asked) == (0, 1)


BAD_NAMES = ["../../escape", "x" * 31, "A" * 32, "", f"{'a' * 32}/b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_cache_gave_is_passed_over(tmp_path: Path, name: str) -> None:
    shelf = Shelf()
    shelf.objects[f"features/tower/{name}.keys"] = bytes.fromhex("a" * 64)
    shelf.objects[f"features/tower/{name}.safetensors"] = b"harm"

    with open_caches(tmp_path / "cache", 2**30, shelf, print) as caches:
        fetched = caches.features("tower", 3).fetch({"a" * 64})

    assert fetched == 0
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: data[:-1] + b"\0", lambda data: b""])
def test_a_shared_shard_that_is_damaged_is_made_anew(place: Place, damage: Any) -> None:
    shelf = Shelf()
    _, losses = place.train(FROZEN, "here", cache=place.folder / "here-cache", shared=shelf)
    for name, data in shelf.objects.items():
        shelf.objects[name] = damage(data) if name.endswith(".safetensors") else data

    there, same = place.train(FROZEN, "there", cache=place.folder / "there-cache", shared=shelf)

    assert same == losses
    assert there.metrics["feature_cache_hit_rate"] == 0


@BOTH
def test_a_shared_place_that_is_silent_is_told_once_and_ends_nothing(
    place: Place, towers: dict[str, Any]
) -> None:
    _, losses = place.train(towers, "usual", cache=place.folder / "other")
    shelf = Shelf()
    shelf.is_silent = True

    _, same = place.train(towers, "silent", shared=shelf)

    assert same == losses
    # Two of them may have been under way when the third failed.
    assert shelf.asked <= 3 + 2
    assert len(place.warned) <= 1


def test_after_three_failures_in_a_row_nothing_is_asked_any_more() -> None:
    shelf, said = Shelf(), []
    patient = Patient(shelf, said.append)
    shelf.is_silent = True
    assert [patient.get("x") for _ in range(2)] == [None, None]
    shelf.is_silent = False
    assert patient.names("") == []
    shelf.is_silent = True

    for _ in range(9):
        patient.get("x")
    shelf.is_silent = False
    patient.put("x", b"x")
    patient.flush(5)
    patient.close()

    assert shelf.asked == 2 + 1 + 3
    assert shelf.objects == {}
    assert len(said) == 1
    assert "silent" in said[0]


def test_what_is_sent_is_there_after_a_flush_and_nobody_waits_for_it_before() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Shelf):
        def put(self, name: str, data: bytes) -> bool:
            begun.set()
            assert go_on.wait(10)
            return super().put(name, data)

    shelf = Slow()
    patient = Patient(shelf, print)
    patient.put("a", b"1")
    assert begun.wait(10)
    sent_before = dict(shelf.objects)
    go_on.set()
    patient.flush(10)
    patient.close()

    assert sent_before == {}
    assert shelf.objects == {"a": b"1"}


def append_to(shelf: Shelf, folder: Path) -> None:
    """Twenty keys with 64 numbers each: 640 bytes of keys, 5120 of features."""
    with open_caches(folder, 2**30, shelf, print) as caches:
        keys = [f"{n:064x}" for n in range(20)]
        caches.features("tower", 64).append(keys, torch.zeros(20, 64), seconds=1.0)


def test_keys_are_not_sent_when_too_much_waits_for_their_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_shared, "_BACKLOG_BYTES", 1000)
    shelf = Shelf()

    append_to(shelf, tmp_path)

    assert shelf.objects == {}


def test_keys_are_not_sent_when_their_features_are_too_large_for_the_place(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.most_bytes = 1000

    append_to(shelf, tmp_path)

    assert shelf.asked == 1
    assert shelf.objects == {}


def test_keys_arrive_after_their_features_however_slow_those_are(tmp_path: Path) -> None:
    keys_came = threading.Event()
    arrived: list[str] = []

    class Slow(Shelf):
        def put(self, name: str, data: bytes) -> bool:
            if name.endswith(".keys"):
                keys_came.set()
            else:
                # Time enough for a second sender to overtake.
                keys_came.wait(0.5)
            arrived.append(name.rsplit(".", 1)[1])
            return super().put(name, data)

    append_to(Slow(), tmp_path)

    assert arrived == ["safetensors", "keys"]


def test_keys_are_not_sent_when_the_place_was_silent_about_their_features(tmp_path: Path) -> None:
    class Shaky(Shelf):
        def put(self, name: str, data: bytes) -> bool:
            self.is_silent = name.endswith(".safetensors")
            return super().put(name, data)

    shelf = Shaky()
    append_to(shelf, tmp_path)

    assert shelf.asked == 1
    assert shelf.objects == {}
