"""The family mm-gan: what is missing is imputed from what is there, and a discriminator judges it."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from domain.specs import Multimodal
from engine.infer import load
from engine.models.fusion import FUSIONS
from engine.models.fusion.imputing import Imputing, StandIn
from engine.train.run import Finished, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT

DIM = 8


def _network(
    widths: list[int], kind: str = "concat", dropout: float = 0.0, stand_in: StandIn = "generator"
) -> Imputing:
    torch.manual_seed(0)
    fusion = FUSIONS[kind]([DIM] * len(widths), DIM, 0.0)
    return Imputing(fusion, widths, DIM, dropout, stand_in)


def _pooled(widths: list[int], rows: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, width, generator=generator) for width in widths]


def _subsets(towers: int) -> Tensor:
    """Every way in which some of so many towers are there. [rows, towers]"""
    return torch.cartesian_prod(*[torch.tensor([True, False])] * towers).view(-1, towers)


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("widths", [[5], [5, 3], [5, 3, 4]])
def test_any_number_of_towers_may_be_missing_and_what_lies_there_is_never_read(
    widths: list[int], kind: str
) -> None:
    network, present = _network(widths, kind), _subsets(len(widths))
    clean = _pooled(widths, len(present))
    poisoned = [torch.where(present[:, i : i + 1], x, torch.nan) for i, x in enumerate(clean)]
    poisoned[0].requires_grad_()

    fused, penalty = network.train().learn(poisoned, present)
    ((fused * torch.randn(DIM)).sum() + (0 if penalty is None else penalty)).backward()

    assert torch.equal(network.eval()(poisoned, present), network(clean, present))
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert torch.equal(poisoned[0].grad.abs().sum(1) > 0, present[:, 0])


def test_what_is_imputed_depends_on_what_is_there_and_on_nothing_else() -> None:
    widths = [5, 3, 4]
    network, pooled = _network(widths).eval(), _pooled(widths)
    present = torch.tensor([[True, False, True]]).expand(4, 3)
    xs = network._brought(pooled, present)

    made = network.imputed(xs, present)
    elsewhere = xs.clone()
    elsewhere[:, 1] += 1

    assert torch.equal(network.imputed(elsewhere, present), made)
    assert not torch.allclose(made[0, 1], made[1, 1])


def test_a_row_that_is_whole_is_fused_as_it_is() -> None:
    widths = [5, 3]
    network, pooled = _network(widths).eval(), _pooled(widths)
    everything = torch.ones(4, 2, dtype=torch.bool)
    before = network(pooled, everything)

    with torch.no_grad():
        network.generator.write.bias += 5

    assert torch.equal(network(pooled, everything), before)


def test_the_penalty_teaches_generator_and_discriminator_and_leaves_the_towers_alone() -> None:
    widths = [5, 3]
    network = _network(widths).train()

    _, penalty = network.learn(_pooled(widths), torch.ones(4, 2, dtype=torch.bool))
    assert penalty is not None
    penalty.backward()

    for part, learns in ((network.generator, True), (network.discriminator, True), (network.towers, False)):
        found = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters()]
        assert any(found) is learns


def test_without_a_row_of_two_towers_there_is_nothing_to_learn_imputing_from() -> None:
    network = _network([5, 3]).train()

    _, penalty = network.learn(_pooled([5, 3]), torch.tensor([[True, False], [False, True]]).repeat(2, 1))

    assert penalty is None


def _related(rows: int, seed: int) -> list[Tensor]:
    """Two towers that say the same in other words."""
    first = torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))
    turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(9)))[0]
    return [first, first @ turned]


def _taught(network: Imputing, steps: int = 250) -> Imputing:
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    present = torch.ones(64, 2, dtype=torch.bool)
    network.train()
    for step in range(steps):
        _, penalty = network.learn(_related(64, 100 + step), present)
        assert penalty is not None
        optimiser.zero_grad()
        penalty.backward()
        optimiser.step()
    return network.eval()


def test_the_generator_learns_to_impute_what_another_tower_implies() -> None:
    network, fresh = _taught(_network([6, 6])), _related(500, 7)
    present = torch.tensor([[True, False]]).expand(500, 2)
    with torch.no_grad():
        xs = network._brought(fresh, torch.ones_like(present))
        made = network.imputed(xs, present)[:, 1]

    missed = functional.mse_loss(made, xs[:, 1])
    # The variance is what the best constant misses.
    assert missed < 0.5 * xs[:, 1].var(0).mean()


def test_the_generator_misleads_the_discriminator_that_learns_to_tell_what_it_made() -> None:
    network = _network([5, 3]).train()
    xs, present = torch.randn(64, 2, DIM), torch.ones(64, 2, dtype=torch.bool)
    left_out = torch.tensor([[True, False]]).expand(64, 2)

    def told() -> Tensor:
        return network._told(xs, network.imputed(xs, present & ~left_out), present, left_out)

    before = told()
    before.backward()
    with torch.no_grad():
        for p in network.discriminator.parameters():
            p -= 0.1 * p.grad
    sharper = told()
    with torch.no_grad():
        for p in network.generator.parameters():
            p -= 1.0 * p.grad
    misled = told()

    assert sharper < before
    assert misled > sharper


@pytest.mark.parametrize("stand_in", ["token", "zero"])
def test_what_it_is_compared_with_knows_nothing_of_the_row(stand_in: StandIn) -> None:
    network = _network([5, 3], stand_in=stand_in).eval()
    present = torch.tensor([[True, False]]).expand(4, 2)

    made = network.imputed(network._brought(_pooled([5, 3]), present), present)

    assert torch.equal(made[0], made[1])
    assert bool((made == 0).all()) is (stand_in == "zero")


def test_a_fusion_that_wants_something_small_still_does() -> None:
    widths = [5, 3]
    plain, aligned = _network(widths, stand_in="zero"), _network(widths, "mmd", stand_in="zero")
    everything = torch.ones(4, 2, dtype=torch.bool)

    assert plain.learn(_pooled(widths), everything)[1] is None
    assert aligned.learn(_pooled(widths), everything)[1] is not None


def test_it_runs_in_half_precision() -> None:
    network = _network([5, 3]).train()
    assert isinstance(network, nn.Module)

    with torch.autocast("cpu", torch.bfloat16):
        fused, penalty = network.learn(_pooled([5, 3]), torch.tensor([[True, True], [True, False]] * 2))

    assert penalty is not None
    assert bool((fused.float().sum() + penalty).isfinite())


def test_a_training_of_the_family_learns_and_its_model_answers_whatever_is_missing(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    data = tiny_av(tmp_path, rows=90, missing=0.3)
    spec = {
        "family": "mm-gan",
        "towers": {
            "image": {"encoder": IMAGE},
            "audio": {"encoder": AUDIO, "max_seconds": 0.5},
            "text": {"encoder": TEXT},
        },
        "fusion": {"dim": 32},
        "hyperparameters": {"n_epochs": 20, "batch_size": 8, "learning_rate": 3e-3},
    }

    ending = train(
        Multimodal.model_validate(spec),
        training=data,
        encoders=encoders.__getitem__,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
        seed=1,
    )
    model = load(tmp_path / "out" / "model", encoders.__getitem__)
    with zipfile.ZipFile(io.BytesIO(data.read_bytes())) as archive:
        picture = archive.read("images/3.png")
    answers = model.predict(
        [
            {"text": "a green shape with 4 corners, take 1"},
            {"image": picture},
            {"text": "red", "image": picture},
        ]
    )

    assert isinstance(ending, Finished)
    assert ending.metrics["test_accuracy"] > 0.8
    assert all(answer.error is None for answer in answers)
    assert "mm-gan" in (tmp_path / "out" / "model" / "README.md").read_text()
