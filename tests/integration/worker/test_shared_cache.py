"""The cache that machines share, in a real bucket."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from domain.manifest import ColumnType
from domain.specs import Multimodal
from engine.data.caches import open_caches
from engine.data.values import Reading
from engine.train.run import Finished, train
from settings import BadSetting, Settings, load
from support.datasets import tiny_av
from support.encoders import IMAGE, tiny_encoders
from support.object_store import BUCKET, ObjectStore, object_store
from support.stack import until
from worker import shared_cache
from worker.fetching import storage_of
from worker.shared_cache import SharedCache, open_shared_cache
from worker.upkeep import caches as sweeping

FILM = Reading(ColumnType.VIDEO, num_frames=2)


@pytest.fixture
def settings(object_store: ObjectStore, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, **object_store.settings(shared_cache=True))


@pytest.fixture
def cache(settings: Settings) -> SharedCache:
    return opened(settings)


def opened(settings: Settings) -> SharedCache:
    made = open_shared_cache(storage_of(settings))
    assert made is not None
    return made


def a_second_later() -> None:
    """Stores note whole seconds."""
    begun = time.time()
    until(lambda: time.time() > begun + 1.1, bool, limit_s=10)


def test_what_is_put_is_there_under_its_prefix_and_nothing_else_is(
    cache: SharedCache, settings: Settings, object_store: ObjectStore
) -> None:
    data = os.urandom(100_000)
    cache.put("media/a", data)
    cache.put("features/t/b", b"")

    assert cache.get("media/a") == data
    assert cache.get("features/t/b") == b""
    assert cache.get("media/b") is None
    assert list(cache.names("media/")) == ["media/a"]
    listed = object_store.client.list_objects_v2(Bucket=BUCKET, Prefix=settings.s3_prefix)["Contents"]
    assert {one["Key"] for one in listed} == {
        f"{settings.s3_prefix}cache/{name}" for name in ("media/a", "features/t/b")
    }


def test_a_place_that_refuses_is_an_error_of_the_system(settings: Settings, tmp_path: Path) -> None:
    cache = opened(Settings(**{**vars(settings), "s3_secret_key": "wrong"}))

    for ask in (lambda: cache.get("a"), lambda: cache.put("a", b"x"), lambda: list(cache.names("a"))):
        with pytest.raises(OSError, match="refuses"):
            ask()


@pytest.mark.slow
def test_a_store_that_is_frozen_costs_a_job_three_silences_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cache, "SILENCE_S", 0.2)
    said: list[str] = []
    with object_store() as store:
        cache = opened(Settings(data=tmp_path, **store.settings(shared_cache=True)))
        store.process.send_signal(signal.SIGSTOP)

        with open_caches(tmp_path / "cache", 2**30, cache, said.append) as caches:
            read = caches.training(lambda data, _: np.frombuffer(data, np.uint8))
            values = [read(bytes([n]), FILM).tolist() for n in range(20)]

    assert values == [[n] for n in range(20)]
    assert len(said) == 1
    assert "goes on without it" in said[0]


def test_an_object_that_is_still_read_is_written_anew_now_and_then(
    cache: SharedCache, settings: Settings, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> float:
        key = f"{settings.s3_prefix}cache/media/a"
        stamp = object_store.client.head_object(Bucket=BUCKET, Key=key)["LastModified"]
        return float(stamp.timestamp())

    cache.put("media/a", b"bytes")
    first = written()
    a_second_later()
    assert cache.get("media/a") == b"bytes"
    unchanged = written()

    monkeypatch.setattr(shared_cache, "REFRESH_S", 0.5)
    assert cache.get("media/a") == b"bytes"

    assert unchanged == first
    assert written() > first
    assert cache.get("media/a") == b"bytes"


def test_upkeep_drops_what_was_written_first_and_nothing_but_the_cache(
    cache: SharedCache, settings: Settings, object_store: ObjectStore
) -> None:
    object_store.client.put_object(Bucket=BUCKET, Key=f"{settings.s3_prefix}files/file-1", Body=bytes(5000))
    cache.put("media/old", bytes(1000))
    a_second_later()
    for n in range(4):
        cache.put(f"media/new-{n}", bytes(1000))

    sweeping.sweep(Settings(**{**vars(settings), "cache_bytes": 4500}))

    assert sorted(cache.names("")) == [f"media/new-{n}" for n in range(4)]
    kept = object_store.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{settings.s3_prefix}files/")
    assert kept["KeyCount"] == 1


def test_keys_are_written_anew_with_their_shard_and_never_by_themselves(
    cache: SharedCache, settings: Settings, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> list[float]:
        keys = [f"{settings.s3_prefix}cache/features/t/a{suffix}" for suffix in (".keys", ".safetensors")]
        heads = [object_store.client.head_object(Bucket=BUCKET, Key=key) for key in keys]
        return [head["LastModified"].timestamp() for head in heads]

    monkeypatch.setattr(shared_cache, "REFRESH_S", 0.5)
    cache.put("features/t/a.safetensors", b"shard")
    cache.put("features/t/a.keys", b"keys")
    first = written()
    a_second_later()

    assert cache.get("features/t/a.keys") == b"keys"
    after_keys = written()
    assert cache.get("features/t/a.safetensors") == b"shard"

    assert after_keys == first
    assert all(now > then for now, then in zip(written(), first, strict=True))
    assert cache.get("features/t/a.keys") == b"keys"


def test_upkeep_drops_a_shard_and_its_keys_together_and_keys_without_a_shard(
    cache: SharedCache, settings: Settings
) -> None:
    cache.put("features/t/dead.keys", bytes(10))
    cache.put("features/t/old.safetensors", bytes(1000))
    a_second_later()
    # Written later than the shard, as by a version that wrote keys anew by themselves.
    cache.put("features/t/old.keys", bytes(10))
    for n in range(4):
        cache.put(f"features/t/new-{n}.safetensors", bytes(1000))
        cache.put(f"features/t/new-{n}.keys", bytes(10))

    assert cache.trim(4500) == 3

    left = {f"features/t/new-{n}{suffix}" for n in range(4) for suffix in (".keys", ".safetensors")}
    assert set(cache.names("")) == left


def test_within_the_limit_upkeep_drops_nothing(cache: SharedCache, settings: Settings) -> None:
    cache.put("media/a", bytes(1000))

    sweeping.sweep(settings)

    assert list(cache.names("")) == ["media/a"]


def test_nothing_is_shared_unless_the_settings_say_so(object_store: ObjectStore, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, **object_store.settings())

    assert open_shared_cache(storage_of(settings)) is None
    assert load({"PLAIT_SHARED_CACHE": "true", "PLAIT_S3_BUCKET": "b"}).shared_cache
    with pytest.raises(BadSetting, match="PLAIT_S3_BUCKET"):
        load({"PLAIT_SHARED_CACHE": "true"})


def test_films_of_one_machine_are_decoded_by_no_other(cache: SharedCache, tmp_path: Path) -> None:
    decoded: list[bytes] = []

    def decode(data: bytes, _: Reading) -> np.ndarray:
        decoded.append(data)
        return np.random.default_rng(data[0]).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)

    def on(machine: str) -> Iterator[np.ndarray]:
        with open_caches(tmp_path / machine, 2**30, cache, pytest.fail) as caches:
            for n in range(9):
                yield caches.training(decode)(bytes([n]), FILM)

    here, there = list(on("here")), list(on("there"))

    assert len(decoded) == 9
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_features_of_one_machine_are_encoded_by_no_other(cache: SharedCache, tmp_path: Path) -> None:
    encoders = tiny_encoders(tmp_path / "encoders")
    data = tiny_av(tmp_path, rows=24)
    spec = {"towers": {"image": {"encoder": IMAGE}}, "hyperparameters": {"n_epochs": 1}}

    def on(machine: str) -> float:
        ending = train(
            Multimodal.model_validate(spec),
            training=data,
            encoders=encoders.__getitem__,
            cache=tmp_path / machine,
            out=tmp_path / f"{machine}-out",
            shared=cache,
            warn=pytest.fail,
        )
        assert isinstance(ending, Finished)
        return ending.metrics["feature_cache_hit_rate"]

    assert (on("here"), on("there")) == (0, 1)
