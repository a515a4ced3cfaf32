"""Late fusion: missing modalities, their tokens, and modality dropout."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.models.fusion import FUSIONS, Combined, Concat, Gated, drop_modalities

WIDTHS, DIM = [5, 3], 8


def _fusion(kind: str, dropout: float = 0.0) -> Concat | Combined | Gated:
    torch.manual_seed(0)
    return FUSIONS[kind](WIDTHS, DIM, dropout).eval()


def _pooled(rows: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, width, generator=generator) for width in WIDTHS]


#: Row 1 lacks the first modality, row 2 the second.
PRESENT = torch.tensor([[True, True], [False, True], [True, False], [True, True]])


@pytest.mark.parametrize("kind", FUSIONS)
def test_what_lies_in_a_missing_slot_reaches_neither_output_nor_gradients(kind: str) -> None:
    fusion, clean, poisoned = _fusion(kind), _pooled(), _pooled()
    clean[0][1] = 0.0
    poisoned[0][1] = float("nan")
    poisoned[1][2] = float("inf")
    poisoned[0].requires_grad_()

    output = fusion(poisoned, PRESENT)
    output.sum().backward()

    assert torch.equal(output, fusion(clean, PRESENT))
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())
    assert torch.equal(poisoned[0].grad[1], torch.zeros(WIDTHS[0]))


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_present_nan_is_not_hidden(kind: str) -> None:
    pooled = _pooled()
    pooled[0][0, 0] = float("nan")

    output = _fusion(kind)(pooled, PRESENT)

    assert output[0].isnan().any()
    assert output[1:].isfinite().all()


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_missing_modality_is_stood_in_for_by_its_learned_token_at_prediction(kind: str) -> None:
    fusion = _fusion(kind)
    before = fusion(_pooled(), PRESENT)

    with torch.no_grad():
        token = fusion.weight[:, sum(WIDTHS)] if isinstance(fusion, Concat) else fusion.missing[0]
        token += torch.linspace(-1, 1, DIM)
    after = fusion(_pooled(), PRESENT)

    assert not torch.allclose(after[1], before[1])
    assert torch.equal(after[[0, 2, 3]], before[[0, 2, 3]])


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_missing_token_learns_from_the_rows_that_miss_it(kind: str) -> None:
    fusion = _fusion(kind)

    fusion(_pooled(), PRESENT)[:, 0].sum().backward()

    gradient = fusion.weight.grad[:, sum(WIDTHS) :] if isinstance(fusion, Concat) else fusion.missing.grad
    assert gradient.abs().sum() > 0


def test_concat_is_a_linear_layer_over_the_concatenation_when_all_are_present() -> None:
    fusion, pooled = _fusion("concat"), _pooled()
    assert isinstance(fusion, Concat)
    linear = nn.Linear(sum(WIDTHS) + len(WIDTHS), DIM)
    linear.load_state_dict({"weight": fusion.weight, "bias": fusion.bias})

    fused = fusion(pooled, torch.ones(4, 2, dtype=torch.bool))

    normed = [F.layer_norm(x, x.shape[-1:]) for x in pooled]
    row = torch.cat([*normed, torch.zeros(4, len(WIDTHS))], dim=1)
    torch.testing.assert_close(fused, F.gelu(F.layer_norm(linear(row), (DIM,))), rtol=1e-5, atol=1e-6)


def test_modality_dropout_never_takes_the_last_one() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, True, False], [False, True, False]]).repeat(200, 1)

    kept = drop_modalities(present, 0.9)

    assert kept.any(1).all()
    assert not (kept & ~present).any()
    assert (kept.sum(1) < present.sum(1)).any()


def test_modality_dropout_takes_about_its_rate() -> None:
    torch.manual_seed(0)

    kept = drop_modalities(torch.ones(4000, 2, dtype=torch.bool), 0.15)

    # Of two, the second survives whenever the first is taken: 2 * .15 - .15 ** 2 of the rows lose one.
    assert (~kept).any(1).float().mean().item() == pytest.approx(2 * 0.15 - 0.15**2, abs=0.03)


@pytest.mark.parametrize("kind", FUSIONS)
def test_modality_dropout_is_drawn_in_training_only_and_from_torch(kind: str) -> None:
    fusion, everything = _fusion(kind, dropout=0.5), torch.ones(4, 2, dtype=torch.bool)

    predicted = [fusion(_pooled(), everything) for _ in range(2)]
    fusion.train()
    trained = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        trained.append(fusion(_pooled(), everything))

    assert torch.equal(*predicted)
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[1], trained[2])


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_tower_learns_from_the_rows_that_have_it(kind: str) -> None:
    fusion, pooled = _fusion(kind), [x.requires_grad_() for x in _pooled()]

    (fusion(pooled, PRESENT) * torch.randn(4, DIM)).sum().backward()

    for place, x in enumerate(pooled):
        learnt = x.grad.abs().sum(1) > 0
        assert torch.equal(learnt, PRESENT[:, place])


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_row_without_any_modality_is_its_tokens(kind: str) -> None:
    fusion = _fusion(kind)

    nothing = fusion(_pooled(), torch.zeros(4, 2, dtype=torch.bool))
    nothing.sum().backward()

    assert nothing.isfinite().all()
    assert torch.equal(nothing, nothing[:1].expand(4, DIM))
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_fusion_in_half_precision_adds_up_in_full(kind: str) -> None:
    fusion = _fusion(kind)

    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(_pooled(), PRESENT)

    torch.testing.assert_close(half.float(), fusion(_pooled(), PRESENT), rtol=0.1, atol=0.05)
    assert kind == "concat" or half.dtype == torch.float32


def test_a_maximum_is_of_the_present_towers_alone() -> None:
    fusion, pooled = _fusion("max"), _pooled()
    with torch.no_grad():
        fusion.missing.zero_()

    alone = fusion([torch.zeros(4, 5), pooled[1]], torch.tensor([[False, True]]).expand(4, 2))

    assert torch.equal(alone, fusion.towers[1](pooled[1]))


def test_gates_add_up_to_one_over_what_is_present() -> None:
    fusion, pooled = _fusion("gated"), _pooled()
    pooled[0][1] = float("nan")
    present = PRESENT.clone()
    present[3] = False

    gates = fusion.gates(pooled, present)

    torch.testing.assert_close(gates.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert torch.equal(gates > 0, present)
    assert gates[0].max() < 1  # both count, and more or less as the row has it


def test_gates_differ_from_row_to_row_and_are_learned() -> None:
    fusion = _fusion("gated")

    gates = fusion.gates(_pooled(), PRESENT)
    fusion(_pooled(), PRESENT)[:, 0].sum().backward()

    assert not torch.allclose(gates[0], gates[3])
    assert fusion.gate.weight.grad.abs().sum() > 0
