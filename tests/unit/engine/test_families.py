"""Fusions over tokens: what they learn, what they must not see, and what stands in for a missing modality."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from domain.errors import EngineError
from engine.models.families import TOKEN_FUSIONS, CrossModal
from engine.models.fusion import FUSIONS, Fusion
from engine.models.tokens import Tokens
from kernels import masked_token_pool

WIDTHS, DIM = [6, 10, 4], 16
STREAMS = [[0], [1], [2]]
ROWS = 4
#: Row 1 lacks the first modality, row 2 the second and third.
PRESENT = torch.tensor([[True, True, True], [False, True, True], [True, False, False], [True, True, True]])
EVERYTHING = torch.ones(ROWS, len(WIDTHS), dtype=torch.bool)


def _fusion(
    kind: str,
    modality_dropout: float = 0.0,
    widths: Sequence[int] = WIDTHS,
    streams: Sequence[Sequence[int]] = STREAMS,
    dim: int = DIM,
) -> Fusion:
    torch.manual_seed(0)
    return TOKEN_FUSIONS[kind](widths, dim, modality_dropout, streams, dropout=0.0, heads=2).eval()


def _tokens(widths: Sequence[int] = WIDTHS, rows: int = ROWS, lengths: int = 5) -> list[Tokens]:
    draw = torch.Generator().manual_seed(1)
    return [
        Tokens(
            torch.randn(rows, lengths, width, generator=draw),
            torch.randint(1, lengths + 1, (rows,), generator=draw),
        )
        for width in widths
    ]


def _spoiled(given: Sequence[Tokens], present: Tensor) -> list[Tokens]:
    """NaN and infinity wherever nothing may be read."""
    spoiled = []
    for place, tokens in enumerate(given):
        values = tokens.values.clone()
        for row, length in enumerate(tokens.lengths.tolist()):
            values[row, length if present[row, place] else 0 :] = math.nan if row % 2 else math.inf
        spoiled.append(replace(tokens, values=values))
    return spoiled


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
@pytest.mark.parametrize("grad", [True, False])
def test_neither_padding_nor_what_lies_in_a_missing_slot_is_seen(kind: str, grad: bool) -> None:
    fusion, given = _fusion(kind), _tokens()

    with torch.set_grad_enabled(grad):
        clean, spoiled = fusion(given, PRESENT), fusion(_spoiled(given, PRESENT), PRESENT)

    assert torch.equal(clean, spoiled)


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_padding_leaves_every_gradient_a_number(kind: str) -> None:
    fusion, given = _fusion(kind).train(), _spoiled(_tokens(), PRESENT)
    for tokens in given:
        tokens.values.requires_grad_()

    fusion(given, PRESENT).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())
    for place, tokens in enumerate(given):
        assert tokens.values.grad is not None
        learnt = tokens.values.grad.abs().sum((1, 2)) > 0
        assert torch.equal(learnt, PRESENT[:, place])
        assert tokens.values.grad.isfinite().all()


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_a_rows_neighbours_never_change_its_answer(kind: str) -> None:
    fusion, given = _fusion(kind), _tokens()

    with torch.no_grad():
        together = fusion(given, PRESENT)
        alone = [
            fusion(
                [Tokens(x.values[i : i + 1, : int(x.lengths[i])], x.lengths[i : i + 1]) for x in given],
                PRESENT[i : i + 1],
            )
            for i in range(ROWS)
        ]

    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_a_missing_modality_is_stood_in_for_by_its_learned_token(kind: str) -> None:
    fusion = _fusion(kind)
    before = fusion(_tokens(), PRESENT)

    with torch.no_grad():
        fusion.embedding.missing[0] += torch.linspace(-1, 1, DIM)
    after = fusion(_tokens(), PRESENT)

    assert not torch.allclose(after[1], before[1])
    assert torch.equal(after[[0, 2, 3]], before[[0, 2, 3]])


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_a_row_without_any_modality_is_its_learned_tokens(kind: str) -> None:
    fused = _fusion(kind)(_tokens(), torch.zeros_like(PRESENT))

    assert fused.isfinite().all()
    torch.testing.assert_close(fused, fused[:1].expand(ROWS, DIM))


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_a_nan_in_a_live_token_is_not_hidden(kind: str) -> None:
    given = _tokens()
    given[0].values[0, 0, 0] = math.nan

    fused = _fusion(kind)(given, EVERYTHING)

    assert fused[0].isnan().any()
    assert fused[1:].isfinite().all()


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_modality_dropout_is_drawn_in_training_only_and_from_torch(kind: str) -> None:
    fusion = _fusion(kind, modality_dropout=0.5)

    predicted = [fusion(_tokens(), EVERYTHING) for _ in range(2)]
    fusion.train()
    trained = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        trained.append(fusion(_tokens(), EVERYTHING))

    assert torch.equal(*predicted)
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[1], trained[2])


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_the_order_of_tokens_is_seen(kind: str) -> None:
    fusion, given = _fusion(kind), _tokens()
    flipped = [replace(x, values=x.values.flip(1), lengths=torch.full((ROWS,), 5)) for x in given]
    whole = [replace(x, lengths=torch.full((ROWS,), 5)) for x in given]

    with torch.no_grad():
        assert (fusion(whole, EVERYTHING) - fusion(flipped, EVERYTHING)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_one_column_is_enough_and_dim_may_be_odd(kind: str, dim: int) -> None:
    fusion = TOKEN_FUSIONS[kind]([5], dim, 0.15, [[0]])

    fused = fusion(_tokens([5]), torch.tensor([[True], [True], [False], [True]]))

    assert fused.shape == (ROWS, dim)
    assert fused.isfinite().all()


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_twelve_numbers_are_one_stream_and_a_token_each(kind: str) -> None:
    widths, streams = [8, 6, *[4] * 12], [[0], [1], [*range(2, 14)]]
    fusion = _fusion(kind, widths=widths, streams=streams)
    given = [*_tokens(widths[:2]), *_tokens(widths[2:], lengths=1)]
    present = torch.ones(ROWS, 14, dtype=torch.bool)
    hidden = present.clone()
    hidden[0, 5] = False

    with torch.no_grad():
        whole, without = fusion(given, present), fusion(given, hidden)

    assert not torch.allclose(whole[0], without[0])
    assert torch.equal(whole[1:], without[1:])


def test_more_media_than_mult_has_pairs_for_are_refused_with_what_takes_them() -> None:
    with pytest.raises(EngineError, match="use the family vilbert or mm-bert") as refused:
        CrossModal([4] * 9, DIM, 0.0, [[place] for place in range(9)])

    assert refused.value.param == "multimodal.family"


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_half_precision_moves_the_vector_little_and_its_gradients_are_numbers(kind: str) -> None:
    fusion, given = _fusion(kind), _spoiled(_tokens(), PRESENT)

    whole = fusion(given, PRESENT)
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(given, PRESENT)
    half.square().sum().backward()

    assert half.dtype == torch.float32
    assert (half - whole).norm() < 0.05 * whole.norm()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())


def _marked(rows: int, seed: int, missing: float) -> tuple[list[Tokens], Tensor, Tensor]:
    """A token somewhere in each of two sequences is one of two marks, the others are noise.

    The label is whether the marks differ; where one sequence is missing, what the other's mark is.
    """
    draw, widths = torch.Generator().manual_seed(seed), [8, 12]
    marks = [torch.randn(2, width, generator=torch.Generator().manual_seed(7)) for width in widths]
    bits = torch.randint(2, (rows, 2), generator=draw)
    given = []
    for side, width in enumerate(widths):
        lengths = torch.randint(2, 6, (rows,), generator=draw)
        values = 0.5 * torch.randn(rows, 5, width, generator=draw)
        at = (torch.rand(rows, generator=draw) * lengths).long()
        values[torch.arange(rows), at] = marks[side][bits[:, side]]
        given.append(Tokens(values, lengths))
    present = torch.rand(rows, 2, generator=draw) >= missing
    present[~present.any(1), 0] = True
    return given, present, torch.where(present, bits, 0).sum(1) % 2


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
@pytest.mark.parametrize("missing", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_what_two_tokens_say_only_together_is_learned(kind: str, missing: float) -> None:
    torch.manual_seed(0)
    fusion = TOKEN_FUSIONS[kind]([8, 12], 32, 0.0, [[0], [1]], layers=1, heads=4)
    head = nn.Linear(32, 2)
    optimiser = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=3e-3)
    given, present, labels = _marked(4096, seed=0, missing=missing)
    for rows in torch.randperm(4096).repeat(2).split(64):
        logits = head(fusion([x[rows.tolist()] for x in given], present[rows]))
        loss = nn.functional.cross_entropy(logits, labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    given, present, labels = _marked(500, seed=1, missing=missing)
    fusion.eval()
    with torch.no_grad():
        right = head(fusion(given, present)).argmax(1) == labels
    for chosen in (present.all(1), ~present.all(1)):
        assert right[chosen].float().mean() > 0.93 or not chosen.any()


def _bound(rows: int, seed: int) -> tuple[list[Tokens], Tensor]:
    """Three tokens, each a name and one of two values added up, in any order; the other sequence asks for a name.

    The label is the value at that name. The mean of the three says how often each value is there, and no more: whoever
    sees only that is right three times in four at best.
    """
    draw, known = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(7)
    names, kinds = torch.randn(3, 12, generator=known), torch.randn(2, 12, generator=known)
    questions = torch.randn(3, 8, generator=known)
    order = torch.stack([torch.randperm(3, generator=draw) for _ in range(rows)])
    values, asked = torch.randint(2, (rows, 3), generator=draw), torch.randint(3, (rows,), generator=draw)
    told = Tokens(names[order] + kinds[values], torch.full((rows,), 3))
    question = Tokens(questions[asked].unsqueeze(1), torch.ones(rows, dtype=torch.int64))
    return [told, question], values[order == asked.unsqueeze(1)]


def _vectors(given: Sequence[Tokens]) -> list[Tensor]:
    return [masked_token_pool(tokens.values, tokens.lengths) for tokens in given]


def _found(fusion: Fusion, read: Callable[[Sequence[Tokens]], Sequence[Tokens] | list[Tensor]]) -> float:
    """How many unseen questions are answered after 60 steps."""
    head = nn.Linear(32, 2)
    optimiser = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=3e-3)
    given, labels = _bound(3840, seed=0)
    for rows in torch.arange(3840).split(64):
        logits = head(fusion(read([x[rows.tolist()] for x in given]), torch.ones(64, 2, dtype=torch.bool)))
        loss = nn.functional.cross_entropy(logits, labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    given, labels = _bound(1000, seed=1)
    fusion.eval()
    with torch.no_grad():
        right = head(fusion(read(given), torch.ones(1000, 2, dtype=torch.bool))).argmax(1) == labels
    return float(right.float().mean())


@pytest.mark.parametrize("kind", TOKEN_FUSIONS)
def test_which_token_says_what_is_learned(kind: str) -> None:
    torch.manual_seed(0)

    assert _found(TOKEN_FUSIONS[kind]([12, 8], 32, 0.0, [[0], [1]], heads=4), lambda given: given) > 0.97


@pytest.mark.parametrize("kind", ["concat", "film", "cross_attention"])
def test_of_the_tokens_means_no_late_fusion_can_learn_that(kind: str) -> None:
    torch.manual_seed(0)

    assert _found(FUSIONS[kind]([12, 8], 32, 0.0), _vectors) < 0.8
