"""Late fusion: missing modalities, their tokens, and modality dropout."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from domain.errors import EngineError
from engine.models.fusion import FUSIONS, Concat, Fusion, Weighing, drop_modalities
from kernels import mmd_rbf

WIDTHS, DIM = [5, 3], 8


def _fusion(kind: str, dropout: float = 0.0, **options: float) -> Fusion:
    torch.manual_seed(0)
    return FUSIONS[kind](WIDTHS, DIM, dropout, **options).eval()


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


@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_gates_add_up_to_one_over_what_is_present(kind: str) -> None:
    fusion, pooled = _fusion(kind), _pooled()
    assert isinstance(fusion, Weighing)
    pooled[0][1] = float("nan")
    present = PRESENT.clone()
    present[3] = False

    gates = fusion.gates(pooled, present)

    torch.testing.assert_close(gates.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert torch.equal(gates > 0, present)
    assert gates[0].max() < 1  # both count, and more or less as the row has it


@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_gates_differ_from_row_to_row_and_are_learned(kind: str) -> None:
    fusion = _fusion(kind)
    assert isinstance(fusion, Weighing)

    gates = fusion.gates(_pooled(), PRESENT)
    fusion(_pooled(), PRESENT)[:, 0].sum().backward()

    assert not torch.allclose(gates[0], gates[3])
    weights = fusion.gate.weight if kind == "gated" else fusion.scorer[0].weight
    assert weights.grad.abs().sum() > 0


def test_attention_is_a_softmax_of_what_a_shared_scorer_makes_of_each_tower() -> None:
    fusion, pooled = _fusion("attention"), _pooled()
    assert isinstance(fusion, Weighing)
    everything = torch.ones(4, 2, dtype=torch.bool)

    gates, fused = fusion.gates(pooled, everything), fusion(pooled, everything)

    xs = [tower(x) for tower, x in zip(fusion.towers, pooled, strict=True)]
    weights = torch.cat([fusion.scorer(x) for x in xs], 1).softmax(1)
    torch.testing.assert_close(gates, weights)
    torch.testing.assert_close(fused, weights[:, :1] * xs[0] + weights[:, 1:] * xs[1], rtol=1e-5, atol=1e-6)


def test_film_shifts_and_scales_each_tower_by_the_others() -> None:
    fusion, pooled = _fusion("film"), _pooled()

    fused = fusion(pooled, torch.ones(4, 2, dtype=torch.bool))

    a, b = (tower(x) for tower, x in zip(fusion.towers, pooled, strict=True))
    (gamma_a, beta_a), (gamma_b, beta_b) = fusion.films[0](b).chunk(2, 1), fusion.films[1](a).chunk(2, 1)
    expected = ((1 + gamma_a) * a + beta_a + (1 + gamma_b) * b + beta_b) / 2
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-6)


def test_a_tensor_is_the_outer_product_of_all_towers_each_with_a_one() -> None:
    fusion, pooled = _fusion("tensor"), _pooled()

    fused = fusion(pooled, torch.ones(4, 2, dtype=torch.bool))

    one = torch.ones(4, 1)
    a, b = (torch.cat([tower(x), one], 1) for tower, x in zip(fusion.towers, pooled, strict=True))
    outer = torch.einsum("ri,rj->rij", a, b).flatten(1)
    torch.testing.assert_close(fused, F.gelu(fusion.norm(fusion.out(outer))), rtol=1e-5, atol=1e-6)


def test_a_tensor_of_many_towers_stays_small_and_of_too_many_is_refused() -> None:
    sizes = [FUSIONS["tensor"]([3] * towers, DIM, 0.0).out.in_features for towers in range(1, 9)]

    assert max(sizes) <= 8192
    with pytest.raises(EngineError, match="use low_rank_tensor"):
        FUSIONS["tensor"]([3] * 9, DIM, 0.0)


def test_a_low_rank_tensor_is_a_tensor_of_that_rank() -> None:
    fusion, pooled = _fusion("low_rank_tensor", rank=3), _pooled()

    fused = fusion(pooled, torch.ones(4, 2, dtype=torch.bool))

    one = torch.ones(4, 1)
    a, b = (torch.cat([tower(x), one], 1) for tower, x in zip(fusion.towers, pooled, strict=True))
    whole = torch.einsum("q,qio,qjo->ijo", fusion.rank_weight, *fusion.factors)
    product = torch.einsum("ri,rj,ijo->ro", a, b, whole) + fusion.bias
    torch.testing.assert_close(fused, F.gelu(fusion.norm(product)), rtol=1e-4, atol=1e-5)


def test_a_tower_that_asks_hears_the_others_and_never_itself() -> None:
    fusion, pooled = _fusion("cross_attention"), _pooled()
    xs = torch.stack([tower(x) for tower, x in zip(fusion.towers, pooled, strict=True)], 1).detach()
    everything = torch.ones(4, 2, dtype=torch.bool)
    before = fusion._answers(xs, everything)
    values = xs.clone().requires_grad_()

    heard = fusion._answers(values, everything)
    heard[:, 0].sum().backward()

    assert torch.equal(before, heard)
    assert values.grad[:, 1].abs().sum() > 0
    # With nobody else there it hears only what all rows do.
    alone = fusion._answers(xs, torch.tensor([[True, False]]).expand(4, 2))
    torch.testing.assert_close(alone[:, 0], alone[:1, 0].expand(4, DIM))


def _trained_on_the_penalty(
    kind: str, alignment: float, lr: float
) -> tuple[Fusion, list[torch.Tensor], float]:
    """The fusion, the vectors it saw, and what the penalty is in the end."""
    fusion, pooled = _fusion(kind, alignment=alignment), [x + 1 for x in _pooled(64)]
    present = torch.rand(64, 2, generator=torch.Generator().manual_seed(2)) < 0.9
    optimiser = torch.optim.SGD(fusion.parameters(), lr=lr)
    for _ in range(150):
        _, penalty = fusion.learn(pooled, present)
        optimiser.zero_grad()
        penalty.backward()
        optimiser.step()
    return fusion, pooled, penalty.item()


def test_a_discrepancy_as_penalty_brings_the_towers_together() -> None:
    apart = []
    for alignment in (1e-9, 1.0):
        fusion, pooled, _ = _trained_on_the_penalty("mmd", alignment, lr=0.3)
        a, b = (tower(x) for tower, x in zip(fusion.towers, pooled, strict=True))
        apart.append(mmd_rbf(a, b).item())

    assert apart[1] < 0.2 * apart[0]


def test_towers_mislead_a_discriminator_that_learns_to_tell_them_apart() -> None:
    *_, unopposed = _trained_on_the_penalty("adversarial", 1e-9, lr=0.1)
    *_, opposed = _trained_on_the_penalty("adversarial", 0.3, lr=0.1)

    assert unopposed < 0.2
    assert opposed > 0.6  # ln 2 = 0.69 is what guessing costs


@pytest.mark.parametrize("kind", ["mmd", "adversarial"])
def test_a_penalty_takes_no_account_of_missing_cells(kind: str) -> None:
    fusion, clean, poisoned = _fusion(kind), _pooled(), _pooled()
    poisoned[0][1] = float("nan")
    poisoned[1][2] = float("inf")

    fused, penalty = fusion.learn(poisoned, PRESENT)
    penalty.backward()

    assert torch.equal(penalty, fusion.learn(clean, PRESENT)[1])
    assert torch.equal(fused, fusion(clean, PRESENT))
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("kind", FUSIONS)
def test_one_tower_alone_can_be_fused_and_learned_from(kind: str) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS[kind]([5], DIM, 0.15).train()

    fused, besides = fusion.learn(_pooled()[:1], torch.tensor([[True], [False], [True], [True]]))

    assert fused.shape == (4, DIM)
    assert fused.isfinite().all()
    assert besides is None


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("dim", [1, 7, 24])
def test_a_fused_vector_may_have_any_width(kind: str, dim: int) -> None:
    assert FUSIONS[kind]([5, 3, 2], dim, 0.0)(
        [*_pooled(), torch.randn(4, 2)], torch.ones(4, 3, dtype=torch.bool)
    ).shape == (4, dim)


#: Fusions that see more than a sum of what each tower says for itself.
_OF_INTERACTIONS = ["concat", "film", "tensor", "low_rank_tensor", "cross_attention", "cnn"]


def _learned(kind: str, label: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """The accuracy on new rows after some training; `label` is of one bit in each tower's vector."""
    torch.manual_seed(0)
    fusion, head = FUSIONS[kind](WIDTHS, 16, 0.0), nn.Linear(16, 1)
    optimiser = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=0.01)
    everything = torch.ones(256, 2, dtype=torch.bool)
    for step in range(201):
        pooled = [torch.randn(256, width) for width in WIDTHS]
        truth = label(*(x[:, 0] > x[:, 1] for x in pooled)).float()
        fused, besides = fusion.learn(pooled, everything)
        guesses = head(fused).squeeze(1)
        if step == 200:
            return ((guesses > 0) == (truth > 0)).float().mean().item()
        loss = F.binary_cross_entropy_with_logits(guesses, truth)
        optimiser.zero_grad()
        (loss if besides is None else loss + besides).backward()
        optimiser.step()
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(FUSIONS) - set(_OF_INTERACTIONS)))
def test_a_fusion_learns_what_both_towers_must_be_asked_for(kind: str) -> None:
    assert _learned(kind, torch.logical_and) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", _OF_INTERACTIONS)
def test_what_is_in_no_tower_alone_is_learned_from_their_interaction(kind: str) -> None:
    """Of an exclusive or each tower alone says nothing, and so does every sum of what they say."""
    assert _learned(kind, torch.logical_xor) > 0.9


@pytest.mark.parametrize("towers", [2, 4, 8, 16])
@pytest.mark.parametrize("there", ["all", "one"])
def test_a_low_rank_tensor_of_any_number_of_towers_begins_with_numbers_of_order_one(
    towers: int, there: str
) -> None:
    torch.manual_seed(0)
    fusion = FUSIONS["low_rank_tensor"]([64] * towers, 64, 0.0).eval()
    present = torch.full((32, towers), there == "all")
    present[:, 0] = True
    with torch.no_grad():
        fusion.missing.zero_()

    fused = fusion([torch.randn(32, 64) for _ in range(towers)], present)

    assert 0.2 < fused.std() < 2
