"""The feature cache: whole shards or none, shared by jobs, bounded."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.data.cache import FeatureCache, evict
from engine.data.shards import key

KEYS = [key(str(n).encode()) for n in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "tower", width=3)


def _features(*rows: int) -> torch.Tensor:
    return torch.tensor([[float(row)] * 3 for row in rows])


def _only_shard(cache: FeatureCache) -> Path:
    [path] = cache.folder.glob("*.safetensors")
    return path


def test_features_come_back_in_the_order_asked_for(cache: FeatureCache) -> None:
    cache.append(KEYS[:2], _features(0, 1), seconds=1.0)
    cache.append(KEYS[2:], _features(2, 3), seconds=1.0)

    found = cache.read([KEYS[3], KEYS[0]])

    assert torch.equal(found.features, _features(3, 0))
    assert found.have.all()


def test_what_is_not_there_is_said_and_left_zero(cache: FeatureCache) -> None:
    cache.append(KEYS[:1], _features(7), seconds=1.0)

    found = cache.read([KEYS[1], KEYS[0]])

    assert found.have.tolist() == [False, True]
    assert torch.equal(found.features, _features(0, 7))


def test_the_cost_of_rows_is_kept_with_them(cache: FeatureCache) -> None:
    cache.append(KEYS[:2], _features(0, 1), seconds=3.0)
    cache.append(KEYS[2:3], _features(2), seconds=5.0)

    assert cache.read([KEYS[0], KEYS[2]]).seconds == pytest.approx(1.5 + 5.0)


def test_half_precision_is_kept_in_single(cache: FeatureCache) -> None:
    cache.append(KEYS[:1], _features(1).half(), seconds=1.0)

    assert cache.read(KEYS[:1]).features.dtype == torch.float32


@pytest.mark.parametrize("left", [0, 5, 60, -1])
def test_a_torn_shard_is_passed_over_and_can_be_refilled(cache: FeatureCache, left: int) -> None:
    cache.append(KEYS[:2], _features(0, 1), seconds=1.0)
    path = _only_shard(cache)
    path.write_bytes(path.read_bytes()[:left])

    torn = cache.read(KEYS[:2])
    cache.append(KEYS[:2], _features(0, 1), seconds=1.0)

    assert not torn.have.any()
    assert cache.read(KEYS[:2]).have.all()


def test_an_altered_shard_is_passed_over(cache: FeatureCache) -> None:
    cache.append(KEYS[:2], _features(0, 1), seconds=1.0)
    path = _only_shard(cache)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    assert not cache.read(KEYS[:2]).have.any()


def test_a_shard_of_another_width_is_passed_over(cache: FeatureCache) -> None:
    cache.append(KEYS[:1], _features(1), seconds=1.0)

    assert not FeatureCache(cache.folder, width=5).read(KEYS[:1]).have.any()


def test_two_writers_of_the_same_rows_do_not_disturb_each_other(cache: FeatureCache) -> None:
    other = FeatureCache(cache.folder, cache.width)
    cache.append(KEYS[:3], _features(0, 1, 2), seconds=1.0)
    other.append(KEYS[1:], _features(1, 2, 3), seconds=1.0)

    found = cache.read(KEYS)

    assert torch.equal(found.features, _features(0, 1, 2, 3))


def test_the_draft_of_a_killed_writer_is_no_shard(cache: FeatureCache) -> None:
    cache.append(KEYS[:1], _features(1), seconds=1.0)
    _only_shard(cache).rename(cache.folder / ".killed.draft")

    assert not cache.read(KEYS[:1]).have.any()


def test_eviction_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    towers = [FeatureCache(tmp_path / name, width=3) for name in ("old", "used", "new")]
    for tower in towers:
        tower.append(KEYS[:2], _features(0, 1), seconds=1.0)
        os.utime(_only_shard(tower), (1, 1))
    towers[2].append(KEYS[2:], _features(2, 3), seconds=1.0)
    towers[1].read(KEYS[:1])
    size = _only_shard(towers[0]).stat().st_size

    evict(tmp_path, limit_bytes=2 * size)

    assert not towers[0].read(KEYS).have.any()
    assert towers[1].read(KEYS[:2]).have.all()
    assert towers[2].read(KEYS[2:]).have.all()


def test_an_abandoned_draft_is_swept_and_a_fresh_one_is_left(cache: FeatureCache) -> None:
    cache.folder.mkdir()
    abandoned, fresh = cache.folder / ".a.draft", cache.folder / ".b.draft"
    abandoned.touch()
    fresh.touch()
    os.utime(abandoned, (1, 1))

    evict(cache.folder.parent, limit_bytes=0)

    assert not abandoned.exists()
    assert fresh.exists()


@pytest.fixture
def films(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "films", width=3, several=True)


def test_keys_may_have_several_vectors_each_and_get_them_in_the_order_asked_for(films: FeatureCache) -> None:
    films.append(KEYS[:2], _features(0, 0, 1), 1.0, torch.tensor([2, 1]))
    films.append(KEYS[2:3], _features(2, 3, 4), 5.0, torch.tensor([3]))

    found = films.read([KEYS[2], KEYS[3], KEYS[0]])

    assert torch.equal(found.features, _features(2, 3, 4, 0, 0))
    assert found.counts.tolist() == [3, 0, 2]
    assert found.have.tolist() == [True, False, True]
    assert found.seconds == pytest.approx(5.0 + 0.5)


def test_several_vectors_of_a_key_that_two_shards_hold_come_once(films: FeatureCache) -> None:
    films.append(KEYS[:2], _features(0, 0, 1), 1.0, torch.tensor([2, 1]))
    films.append(KEYS[1:3], _features(1, 2, 2), 1.0, torch.tensor([1, 2]))

    found = films.read(KEYS[:3])

    assert torch.equal(found.features, _features(0, 0, 1, 2, 2))
    assert found.counts.tolist() == [2, 1, 2]


def test_a_cache_of_several_that_holds_nothing_gives_nothing(films: FeatureCache) -> None:
    assert films.read(KEYS).counts.tolist() == [0] * 4
    assert len(films.read([]).features) == 0


def test_altered_counts_are_found_out(films: FeatureCache) -> None:
    films.append(KEYS[:2], _features(0, 0, 1), 1.0, torch.tensor([2, 1]))
    path = _only_shard(films)
    with safe_open(path, framework="pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in ("keys", "features")}, file.metadata()
    save_file({**tensors, "counts": torch.tensor([1, 2])}, path, metadata=about)

    assert not films.read(KEYS[:2]).have.any()


def test_single_vectors_are_not_taken_for_several_nor_several_for_one(films: FeatureCache) -> None:
    films.append(KEYS[:2], _features(0, 1), 1.0, torch.tensor([1, 1]))

    assert not FeatureCache(films.folder, width=3).read(KEYS[:2]).have.any()
    FeatureCache(films.folder, width=3).append(KEYS[:2], _features(0, 1), seconds=1.0)
    assert not films.read(KEYS[:2]).have.any()
