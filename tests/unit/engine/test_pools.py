"""Pools that are trained: what they see of frames, and how a tower with one is trained, kept and resumed."""

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import Tower
from engine.data.caches import open_caches
from engine.data.dataset import CachedFrames, Example, Examples, LiveColumn, gather
from engine.data.splits import open_splits
from engine.data.values import read_value
from engine.infer import load
from engine.models.encoders import Encoder, load_encoder
from engine.models.fusion import Fusion
from engine.models.multimodal import Multimodal as Network
from engine.models.pools import DIM, POOLS, TransformerPool
from engine.train import encode
from engine.train.loop import fine_tune
from engine.train.optimiser import make_optimiser
from engine.train.plan import make_plan
from engine.train.run import Finished, Stopped, _batches, train
from support.datasets import zip_of
from support.encoders import IMAGE, TEXT, VIT
from support.moving import moving

WIDTH = 12


def _pool(kind: str, width: int = WIDTH) -> nn.Module:
    """In evaluation; its query is no longer zero, as after some training."""
    torch.manual_seed(0)
    pool = POOLS[kind](width)
    for parameter in pool.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    return pool.eval()


def _frames(films: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(films, frames, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("grad", [True, False])
def test_what_lies_behind_a_films_last_frame_never_reaches_its_vector(kind: str, grad: bool) -> None:
    pool, frames, lengths = _pool(kind), _frames(3, 7), torch.tensor([2, 5, 7])
    poisoned = frames.clone()
    poisoned[0, 2:], poisoned[1, 5:] = math.nan, math.inf

    with torch.set_grad_enabled(grad):
        clean, dirty = pool(frames, lengths), pool(poisoned, lengths)
        alone = pool(frames[:1, :2], lengths[:1])

    assert torch.equal(clean, dirty)
    torch.testing.assert_close(alone, clean[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", POOLS)
def test_padding_with_nan_leaves_every_gradient_a_number(kind: str) -> None:
    pool, frames = _pool(kind).train(), _frames(2, 4)
    frames[0, 1:] = math.nan
    frames.requires_grad_()

    pool(frames, torch.tensor([1, 4])).square().sum().backward()

    assert frames.grad is not None
    assert not frames.grad[0, 1:].any()
    assert frames.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("count", [1, 128])
def test_a_film_may_have_one_frame_or_the_most(kind: str, count: int) -> None:
    pool = _pool(kind)

    with torch.no_grad():
        vector = pool(_frames(1, count), torch.tensor([count]))

    assert vector.shape == (1, DIM if kind == "transformer" else WIDTH)
    assert vector.isfinite().all()
    assert vector.any()


@pytest.mark.parametrize("kind", POOLS)
def test_a_film_without_frames_is_zeros_and_no_nan(kind: str) -> None:
    with torch.no_grad():
        vectors = _pool(kind)(_frames(2, 3), torch.tensor([0, 3]))

    assert not vectors[0].any()
    assert vectors[1].isfinite().all()


def test_attention_begins_as_the_mean_of_the_frames() -> None:
    frames, lengths = _frames(2, 4), torch.tensor([3, 4])

    pooled = POOLS["attention"](WIDTH)(frames, lengths)

    torch.testing.assert_close(pooled, torch.stack([frames[0, :3].mean(0), frames[1].mean(0)]))


def test_only_the_transformer_sees_the_order_of_the_frames() -> None:
    frames, lengths = _frames(1, 5), torch.tensor([5])
    told: dict[str, Tensor] = {}

    with torch.no_grad():
        for kind in POOLS:
            pool = _pool(kind)
            told[kind] = (pool(frames, lengths) - pool(frames.flip(1), lengths)).abs().max()

    assert told["attention"] < 1e-5
    assert told["transformer"] > 1e-2


class _Mean(nn.Module):
    width = WIDTH

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        live = torch.arange(frames.shape[1]) < lengths.unsqueeze(1)
        return (frames * live.unsqueeze(2)).sum(1) / lengths.unsqueeze(1)


def _walks(films: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames that say where something is, and films in which it goes to the left or to the right."""
    places = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(7))
    draw = torch.Generator().manual_seed(seed)
    frames, lengths, ways = torch.zeros(films, 8, WIDTH), torch.zeros(films, dtype=torch.long), []
    for film in range(films):
        lengths[film] = count = 3 + int(torch.randint(6, (), generator=draw))
        begin = int(torch.randint(9 - count + 1, (), generator=draw))
        walk = torch.arange(begin, begin + count)
        ways.append(film % 2)
        frames[film, :count] = places[walk.flip(0) if ways[-1] else walk]
    return frames + 0.1 * torch.randn(frames.shape, generator=draw), lengths, torch.tensor(ways)


def _learned(pool: nn.Module, width: int) -> float:
    """How many of unseen walks are told, after training on others."""
    network = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2))
    optimiser = torch.optim.AdamW([*pool.parameters(), *network.parameters()], lr=1e-3)
    frames, lengths, ways = _walks(64, seed=0)
    for _ in range(50):
        loss = nn.functional.cross_entropy(network(pool(frames, lengths)), ways)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    frames, lengths, ways = _walks(200, seed=1)
    pool.eval()
    with torch.no_grad():
        return float((network(pool(frames, lengths)).argmax(1) == ways).float().mean())


def test_the_transformer_tells_left_from_right_which_no_mean_can() -> None:
    torch.manual_seed(0)
    attention = POOLS["attention"](WIDTH)

    assert _learned(TransformerPool(WIDTH), DIM) > 0.9
    assert _learned(_Mean(), WIDTH) < 0.65
    assert _learned(attention, WIDTH) < 0.65


def _encoder(encoders: dict[str, Path], pool: str, name: str = VIT, **options: Any) -> Encoder:
    tower = Tower.model_validate({"encoder": name, "pool": pool, **options})
    return load_encoder(encoders[name], ColumnType.VIDEO, tower)


def test_both_trained_pools_read_one_cache_and_the_others_keep_theirs(encoders: dict[str, Path]) -> None:
    prints = {kind: _encoder(encoders, kind).fingerprint for kind in ("mean", "max", *POOLS)}

    assert prints["attention"] == prints["transformer"]
    assert len(set(prints.values())) == 3


class Place:
    """A data set of films that go left or right, some with a text, and runs over it."""

    def __init__(self, folder: Path, encoders: dict[str, Path], rows: int = 20) -> None:
        self.folder, self.encoders = folder, encoders
        table, media = [], {}
        for n in range(rows):
            way, name = ("left", "right")[n % 2], f"films/{n}.mp4"
            media[name] = moving(way, frames=1 + n % 6 if n > 15 else 4 + n % 3, seed=n)
            table.append({"film_file_name": name, "text": f"film {n}", "label": way})
            table[-1]["split"] = ("train", "train", "train", "validation", "test")[n // 2 % 5]
            if n % 7 == 3:
                table[-1]["film_file_name"] = None
        self.data = zip_of(folder / "films.zip", table, media)

    def train(self, pool: str, out: str, cache: str = "cache", **options: Any) -> Finished | Stopped:
        tower = {"encoder": VIT, "num_frames": 6, "pool": pool, **options.pop("tower", {})}
        spec = {
            "towers": {"film": tower, "text": {"encoder": TEXT}},
            "fusion": {"dim": 8},
            "hyperparameters": {"n_epochs": 3, "batch_size": 4, "learning_rate": 1e-3},
        }
        return train(
            Multimodal.model_validate(spec),
            training=self.data,
            cache=self.folder / cache,
            encoders=self.encoders.__getitem__,
            out=self.folder / out,
            **options,
        )

    def weights(self, out: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = load_file(self.folder / out / "model" / "model.safetensors")
        return found


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders)


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_over_a_frozen_encoder_is_trained_from_the_cache_and_answers(place: Place, pool: str) -> None:
    said: list[Any] = []

    first = place.train(pool, "first")
    place.train(pool, "second", report=said.append)

    assert isinstance(first, Finished)
    assert "cached_epoch_speedup" in first.metrics
    assert [p for p in said if p.stage == "encoding"] == []
    weights = place.weights("first")
    assert _same(weights, place.weights("second"))
    assert {name.split(".")[2] for name in weights if name.startswith("encoders.")} == {"pool"}
    model = load(place.folder / "first" / "model", encoders=place.encoders.__getitem__)
    film = moving("left", seed=50)
    one, again, without = model.predict([{"film": film}, {"film": film, "text": None}, {"text": "film 1"}])
    assert one.error is None
    assert one.probabilities == again.probabilities
    assert without.modalities.missing == ["film"]


def test_another_pool_needs_no_film_to_be_encoded_again(place: Place) -> None:
    said: list[Any] = []

    place.train("attention", "first")
    place.train("transformer", "second", report=said.append)

    assert [p for p in said if p.stage == "encoding"] == []


@pytest.mark.slow
def test_the_whole_way_from_films_to_a_model_that_tells_directions(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    rows = [{"film_file_name": f"{n}.mp4", "label": ("left", "right")[n % 2]} for n in range(40)]
    media = {f"{n}.mp4": moving(str(row["label"]), seed=n) for n, row in enumerate(rows)}
    spec = {
        "towers": {"film": {"encoder": VIT, "pool": "transformer"}},
        "fusion": {"dim": 16},
        "hyperparameters": {"n_epochs": 20, "batch_size": 8, "learning_rate": 1e-3},
    }

    train(
        Multimodal.model_validate(spec),
        training=zip_of(tmp_path / "films.zip", rows, media),
        cache=tmp_path / "cache",
        encoders=encoders.__getitem__,
        out=tmp_path / "out",
    )

    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)
    unseen = [(way, moving(way, seed=100 + n)) for n in range(10) for way in ("left", "right")]
    answers = model.predict([{"film": film} for _, film in unseen])
    right = [answer.label == way for answer, (way, _) in zip(answers, unseen, strict=True)]
    assert sum(right) >= 18


@pytest.mark.parametrize("pool", ["attention", pytest.param("transformer", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(place: Place, pool: str) -> None:
    saved: list[Path] = []
    asked = iter(range(10_000))

    def stop() -> str | None:
        return "cancel" if saved and next(asked) >= 3 else None

    place.train(pool, "whole")
    ending = place.train(pool, "broken", should_stop=stop, save=lambda path, about: saved.append(path))
    place.train(pool, "resumed", resume=saved[-1])

    assert isinstance(ending, Stopped)
    assert _same(place.weights("whole"), place.weights("resumed"))


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_a_trained_encoder_may_have_a_trained_pool(place: Place, pool: str) -> None:
    place.train(pool, "out", tower={"encoder": IMAGE, "freeze": False, "lr": 1e-3, "num_frames": 2})

    parts = {name.split(".")[2] for name in place.weights("out") if name.startswith("encoders.0.")}
    assert parts == {"network", "pool"}


def _network(encoders: dict[str, Path], pool: str, freeze: float) -> tuple[Network, Any]:
    spec = Multimodal.model_validate(
        {
            "task": "classification",
            "towers": {"film": {"encoder": VIT, "pool": pool, "freeze": freeze, "lr": 1e-5}},
            "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.1},
        }
    )
    torch.manual_seed(0)
    encoder = _encoder(encoders, pool)
    frozen = frozenset({"film"} if freeze >= 1 else ())
    network = Network({"film": encoder}, frozen, _First(encoder.width), nn.Identity())
    return network, make_plan(spec, 12)


class _First(Fusion):
    """In the place of a fusion: one layer over the only tower."""

    def __init__(self, width: int) -> None:
        super().__init__(0.0)
        self.layer = nn.Linear(width, 2)

    def forward(self, pooled: list[Tensor], present: Tensor) -> Any:
        return self.layer(torch.where(present, pooled[0], 0.0))


@pytest.mark.parametrize("freeze", [1.0, 0.0])
def test_a_pool_learns_at_the_heads_rate_and_in_training_mode(
    encoders: dict[str, Path], freeze: float
) -> None:
    network, plan = _network(encoders, "transformer", freeze)
    network.train()

    groups = make_optimiser(network, plan).param_groups

    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    pool, pretrained = network.encoder("film").pool, network.encoder("film").network
    assert pool is not None
    assert pool.training
    assert {rate[id(p)] for p in pool.parameters()} == {1e-3}
    assert pretrained.training == (freeze < 1)
    assert {rate.get(id(p)) for p in pretrained.parameters()} == ({None} if freeze >= 1 else {1e-5})


def test_training_from_the_cache_is_training_without_it(
    place: Place, encoders: dict[str, Path], tmp_path: Path
) -> None:
    with ExitStack() as files:
        spec = Multimodal.model_validate({"towers": {"film": {"encoder": VIT}, "text": {"encoder": TEXT}}})
        splits = open_splits(files, spec, place.data, None, None, 0)
        rows, targets = splits.train, splits.targets[: len(splits.train)]
        curves = [_curve(encoders, rows, targets, tmp_path if cached else None) for cached in (True, False)]

    torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curves[1]), rtol=1e-3, atol=1e-5)
    assert curves[0][0] != curves[0][-1]


def _curve(
    encoders: dict[str, Path], rows: list[Example], targets: Tensor, cache: Path | None
) -> list[float]:
    """The losses of two epochs over a frozen encoder, its frames cached or encoded at each step."""
    network, plan = _network(encoders, "transformer", 1.0)
    column: Any = LiveColumn(rows, "film", network.encoder("film"), read_value)
    if cache is not None:
        with open_caches(cache, 1 << 30, None, lambda _: None) as caches:
            tower = encode.open_tower("film", network.encoder("film"), rows, caches, read_value, lambda: None)
            encode.fill([tower], report=lambda _: None, should_stop=lambda: None)
            column = encode.read_back(tower)
        assert isinstance(column, CachedFrames)
    examples: Examples = gather(rows, {"film": column}, targets)
    torch.manual_seed(1)
    _, memory = fine_tune(
        network,
        _batches(examples, replace(plan, rows=len(rows), logging_steps=1), 0),
        replace(plan, rows=len(rows), logging_steps=1),
        evaluate=None,
        report=lambda _: None,
        save=lambda _: None,
        should_stop=lambda: None,
    )
    return [row["train_loss"] for row in memory.history if "train_loss" in row]


@pytest.mark.parametrize("kind", POOLS)
def test_half_precision_moves_a_pools_vector_little_and_its_gradients_are_numbers(kind: str) -> None:
    pool, frames, lengths = _pool(kind), _frames(3, 6), torch.tensor([1, 4, 6])
    frames[0, 1:] = math.nan

    whole = pool(frames, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        half = pool(frames, lengths)
    half.float().square().sum().backward()

    assert (half - whole).norm() < 0.05 * whole.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())
