"""What an absent modality, a frozen input and a wrong call do to the masked projection."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import masked_projection
from kernels.projection import reference
from support.projections import case, poisoned, project, results


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("mask", ["some", "weighted", "none"])
@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_poison_in_masked_entries_reaches_neither_output_nor_gradients(
    poison: float, mask: str, combine: str
) -> None:
    asked = case(mask=mask, combine=combine, activation="gelu")

    found = results(project, poisoned(asked, poison))

    clean = results(project, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


def test_a_masked_entry_has_a_gradient_of_zero_even_when_its_row_is_poisoned() -> None:
    asked = case(rows=2, widths=(3, 4), outputs=5, mask="all")
    mask = torch.tensor([[True, False], [True, True]])
    xs = [torch.full((2, 3), torch.nan).requires_grad_(), asked.xs[1]]

    found = results(project, replace(asked, xs=xs, mask=mask))

    assert found["xs[0]"].isnan().all()
    assert (found["xs[1]"][0] == 0).all()


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_nan_in_a_present_entry_is_seen_in_its_row_alone(activation: str, norm: bool) -> None:
    asked = case(rows=3, mask="all", activation=activation, norm=norm)
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(project, asked)

    assert found["output"][2].isnan().all()
    assert found["output"][:2].isfinite().all()
    assert found["weight"].isnan().any()


@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_a_row_without_any_modality_is_the_bias_alone(combine: str) -> None:
    asked = case(combine=combine, mask="some", norm=False)
    assert asked.mask is not None
    empty = ~asked.mask.any(dim=1)

    y = project(asked)

    assert empty.any()
    assert torch.equal(y[empty], asked.leaves["bias"].expand_as(y[empty]))


def test_the_mean_ignores_the_scale_of_the_weights() -> None:
    asked = case(combine="mean", mask="weighted", activation="gelu")
    assert asked.mask is not None

    y = project(replace(asked, mask=asked.mask * 7))

    torch.testing.assert_close(y, project(asked))


@pytest.mark.parametrize("frozen", ["weight", "bias", "norm_weight", "norm_bias", "xs[0]", "xs[2]"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str) -> None:
    asked, twin = case(activation="gelu"), case(activation="gelu")
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(project, asked), results(project, twin)

    assert frozen not in found
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_only_the_gradients_asked_for_are_computed() -> None:
    asked = case(activation="gelu").to(torch.float64)
    arguments = (asked.xs, asked.weight, asked.bias, asked.mask, False, asked.norm_weight, asked.norm_bias)
    needs = [False, False, False, False, True, False, True]
    with torch.no_grad():
        y, z = reference.forward(*arguments, 1e-5, "gelu")

        found = reference.backward(y, z, *arguments, 1e-5, "gelu", needs)

    assert [gradient.shape for gradient in found] == [(37, 7), (37, 1)]


def test_a_second_derivative_is_refused() -> None:
    asked = case()

    with pytest.raises(RuntimeError, match="masked_projection has no second derivative"):
        torch.autograd.grad(project(asked).sum(), asked.weight, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": []}, "xs is empty"),
        ({"xs": [torch.ones(2, 3), torch.ones(4, 4)]}, r"xs\[1\] is .*\[4, 4\].*rows as in xs\[0\]"),
        ({"xs": [torch.ones(2, 3), torch.ones(2, 2, 2)]}, r"xs\[1\] is .*\[2, 2, 2\]"),
        ({"xs": [torch.ones(2, 3), torch.ones(2, 4).half()]}, r"xs\[1\] is torch.float16 .* must agree"),
        ({"xs": [torch.ones(2, 3)]}, "weight has 7 columns; the widths of xs add up to 3"),
        ({"weight": torch.ones(5)}, r"weight is .*\[5\].*\[H, sum of widths\]"),
        ({"weight": torch.ones(5, 7, dtype=torch.int64)}, "weight is torch.int64 .* floating point"),
        ({"bias": torch.ones(4)}, r"bias is .*\[4\].*of shape \[5\]"),
        ({"norm_weight": torch.ones(5, 1)}, r"norm_weight is .*\[5, 1\]"),
        ({"norm_bias": torch.ones(5)}, "norm_bias is given without norm_weight"),
        ({"mask": torch.ones(2, 3)}, r"mask is .*\[2, 3\].*\[rows, modalities\] = \[2, 2\]"),
        ({"mask": torch.ones(2, 2, requires_grad=True)}, r"pass mask.detach\(\)"),
        ({"mask": torch.ones(2, 2, device="meta")}, "must share a device"),
        ({"combine": "sum"}, "combine is 'sum'; it is one of concat, mean"),
        ({"activation": "tanh"}, "activation is 'tanh'; it is one of none, relu, gelu, silu"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"xs": [torch.ones(2, 3), torch.ones(2, 4)], "weight": torch.ones(5, 7)}

    with pytest.raises(ValueError, match=message):
        masked_projection(**(good | change))
