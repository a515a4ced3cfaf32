"""What a dead token, a row without tokens, a frozen input and a wrong call do to token pooling."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import masked_token_pool
from kernels.token_pool import reference
from support.exact import results
from support.pools import Case, case, packed, pool

MODES = ("mean", "max", "cls")


def poisoned(asked: Case, poison: float) -> Case:
    """The same with `poison` in every dead token."""
    assert asked.lengths is not None
    dead = torch.arange(asked.tokens.shape[1]) >= asked.lengths.unsqueeze(1)
    tokens = torch.where(dead.unsqueeze(-1), poison, asked.tokens.detach())
    return replace(asked, tokens=tokens.requires_grad_())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("lengths", ["some", "none"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_poison_in_dead_tokens_reaches_neither_output_nor_gradients(
    poison: float, lengths: str, mode: str, norm: bool
) -> None:
    asked = case(lengths=lengths, mode=mode, norm=norm)

    found = results(pool, poisoned(asked, poison))

    clean = results(pool, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


@pytest.mark.parametrize("mode", MODES)
def test_packed_tokens_outside_of_all_rows_are_dead(mode: str) -> None:
    asked = packed(case(mode=mode))
    assert asked.cu_seqlens is not None
    poison = torch.full((3, 48), torch.nan)
    around = torch.cat([poison, asked.tokens.detach(), poison]).requires_grad_()

    found = results(pool, replace(asked, tokens=around, cu_seqlens=asked.cu_seqlens + 3))

    clean = results(pool, asked)
    dead = found.pop("tokens")
    assert torch.equal(dead[3:-3], clean.pop("tokens"))
    assert (dead[:3] == 0).all()
    assert (dead[-3:] == 0).all()
    assert all(torch.equal(found[name], clean[name]) for name in clean)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("l2", [True, False])
def test_a_row_without_tokens_is_zero_and_takes_no_part_in_any_gradient(mode: str, l2: bool) -> None:
    asked = case(mode=mode, l2_normalize=l2)
    assert asked.lengths is not None
    there = asked.lengths > 0
    others = replace(
        asked, tokens=asked.tokens.detach()[there].requires_grad_(), lengths=asked.lengths[there]
    )

    for one, rest in ((asked, others), (packed(asked), packed(others))):
        y, alone = pool(one), pool(rest)
        weight, bias = torch.autograd.grad(
            y.square().sum(), [one.leaves["norm_weight"], one.leaves["norm_bias"]]
        )
        expected = torch.autograd.grad(
            alone.square().sum(), [rest.leaves["norm_weight"], rest.leaves["norm_bias"]]
        )
        assert (y[~there] == 0).all()
        assert (~there).any()
        torch.testing.assert_close((weight, bias), expected)


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_nan_in_a_live_token_is_seen_in_its_row_alone(form: str, mode: str, norm: bool) -> None:
    asked = case(rows=3, lengths="all", mode=mode, norm=norm)
    asked = packed(asked) if form == "packed" else asked
    with torch.no_grad():
        asked.tokens.view(3, 17, 48)[2, 0, 4] = torch.nan

    y = pool(asked)

    assert y[2, 4].isnan()
    assert y[:2].isfinite().all()


@pytest.mark.parametrize("frozen", ["tokens", "norm_weight", "norm_bias"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str) -> None:
    asked, twin = case(), case()
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(pool, asked), results(pool, twin)

    assert frozen not in found
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_only_the_gradients_asked_for_are_computed() -> None:
    asked = case().to(torch.float64)
    given = (asked.tokens, asked.lengths, None, asked.norm_weight, asked.norm_bias, 1e-5, "mean", False)
    with torch.no_grad():
        y, pooled, places = reference.forward(*given)

        found = reference.backward(y, pooled, places, *given, [False, False, True])

    assert [gradient.shape for gradient in found] == [(48,)]


def test_a_second_derivative_is_refused() -> None:
    asked = case()

    with pytest.raises(RuntimeError, match="masked_token_pool has no second derivative"):
        torch.autograd.grad(pool(asked).sum(), asked.tokens, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": torch.ones(2, 3)}, r"tokens is .*\[2, 3\].*\[rows, T, D\]"),
        ({"tokens": torch.ones(2, 3, 4, dtype=torch.int64)}, "tokens is torch.int64 .* floating point"),
        (
            {"cu_seqlens": torch.tensor([0, 3])},
            r"tokens is .*\[2, 3, 4\].*\[all tokens, D\] beside cu_seqlens",
        ),
        ({"lengths": torch.ones(2)}, "lengths is torch.float32 .* int32 or int64"),
        ({"lengths": torch.ones(2, 1, dtype=torch.int64)}, r"lengths is .*\[2, 1\].*one axis"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, r"lengths is .*\[3\].*one number a row: \[2\]"),
        ({"lengths": torch.ones(2, dtype=torch.int64, device="meta")}, "must share a device"),
        (
            {"lengths": torch.ones(2, dtype=torch.int64), "cu_seqlens": torch.tensor([0, 3])},
            "both given: tokens are either padded or packed",
        ),
        ({"tokens": torch.ones(3, 4), "cu_seqlens": torch.ones(0, dtype=torch.int32)}, "cu_seqlens is empty"),
        ({"norm_weight": torch.ones(5)}, r"norm_weight is .*\[5\].*of shape \[4\]"),
        ({"norm_bias": torch.ones(4)}, "norm_bias is given without norm_weight"),
        ({"mode": "sum"}, "mode is 'sum'; it is one of mean, max, cls"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masked_token_pool(**({"tokens": torch.ones(2, 3, 4)} | change))
