"""What a row of weight 0, NaN, a frozen input and a wrong call do to the maximum mean discrepancy."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import dispatch, mmd_rbf
from kernels.mmd import reference
from support.discrepancies import Case, case, discrepancy, large_blocks
from support.exact import results


@pytest.fixture(params=["torch", "triton"])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reference, and kernel in Triton's interpreter."""
    with large_blocks(), dispatch.using(request.param):
        yield


on_both = pytest.mark.usefixtures("_backend")


def poisoned(asked: Case, poison: float) -> Case:
    """The same with `poison` in every row of weight 0."""
    assert asked.weight_x is not None
    assert asked.weight_y is not None
    x = torch.where(asked.weight_x.unsqueeze(1) == 0, poison, asked.x.detach())
    y = torch.where(asked.weight_y.unsqueeze(1) == 0, poison, asked.y.detach())
    return replace(asked, x=x.requires_grad_(), y=y.requires_grad_())


@on_both
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("weights", ["some", "weighted", "none", "one"])
def test_poison_in_rows_of_weight_0_reaches_neither_the_answer_nor_a_gradient(
    poison: float, weights: str
) -> None:
    asked = case(weights=weights, unbiased=weights == "weighted")
    assert asked.weight_x is not None

    found = results(discrepancy, poisoned(asked, poison))

    clean = results(discrepancy, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)
    assert (found["x"][asked.weight_x == 0] == 0).all()


@on_both
def test_rows_of_weight_0_might_as_well_not_be_there() -> None:
    asked = case(weights="weighted")
    assert asked.weight_x is not None
    there = asked.weight_x > 0
    fewer = replace(asked, x=asked.x.detach()[there].requires_grad_(), weight_x=asked.weight_x[there])

    found, expected = results(discrepancy, asked), results(discrepancy, fewer)

    torch.testing.assert_close(found["output"], expected["output"])
    torch.testing.assert_close(found["x"][there], expected["x"], rtol=1e-4, atol=1e-7)


@on_both
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("bandwidth", [None, 3.0])
def test_nan_in_a_row_that_counts_is_seen(side: str, bandwidth: float | None) -> None:
    asked = case(weights="some", bandwidth=bandwidth)
    assert asked.weight_x is not None
    with torch.no_grad():
        asked.leaves[side][0, 3] = torch.nan

    found = results(discrepancy, asked)

    assert found["output"].isnan()
    assert found["x"][asked.weight_x].isnan().any(1).all()
    assert (found["x"][~asked.weight_x] == 0).all()


@on_both
@pytest.mark.parametrize("frozen", ["x", "y"])
def test_a_frozen_side_gets_no_gradient_and_leaves_the_other_its_own(frozen: str) -> None:
    asked, twin = case(), case()
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(discrepancy, asked), results(discrepancy, twin)

    assert frozen not in found
    torch.testing.assert_close(found, {name: whole[name] for name in found}, rtol=1e-5, atol=1e-8)


def test_only_the_gradients_asked_for_are_computed() -> None:
    asked = case()
    with torch.no_grad():
        value, centre, scales = reference.forward(asked.x, asked.y, None, None, None, 5, False)

        found = reference.backward(value, centre, scales, asked.x, asked.y, None, None, 5, [False, True])

    assert [gradient.shape for gradient in found] == [(41, 48)]


@on_both
def test_a_second_derivative_is_refused() -> None:
    asked = case(rows=3, others=3)

    with pytest.raises(RuntimeError, match="mmd_rbf has no second derivative"):
        torch.autograd.grad(discrepancy(asked), asked.x, create_graph=True)


def test_rows_wider_than_the_kernel_takes_go_to_the_reference() -> None:
    asked = case(rows=2, others=3, width=1025)
    expected = results(discrepancy, asked)

    with dispatch.using("triton"):
        found = results(discrepancy, asked)

    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 3, 4)}, r"x is .*\[2, 3, 4\].*of shape \[rows, D\]"),
        ({"y": torch.ones(2, 4, dtype=torch.int64)}, "y is torch.int64 .* floating point"),
        ({"y": torch.ones(2, 5)}, "x is .* and y is .*they must agree in all but the number of rows"),
        ({"y": torch.ones(2, 4).double()}, "they must agree"),
        ({"y": torch.ones(2, 4, device="meta")}, "they must agree"),
        ({"bandwidth": 0.0}, "bandwidth is 0.0; it is above 0"),
        ({"bandwidth": torch.ones(1)}, r"bandwidth is .*\[1\].*without axes"),
        ({"bandwidth": torch.ones((), device="meta")}, "bandwidth is .*on the device of x"),
        ({"bandwidth": torch.ones((), requires_grad=True)}, "bandwidth requires a gradient"),
        ({"num_kernels": 0}, "num_kernels is 0; it is from 1 to 10"),
        ({"num_kernels": 11}, "num_kernels is 11"),
        ({"weight_x": torch.ones(2)}, r"weight_x is .*\[2\].*one number a row: \[3\]"),
        ({"weight_y": torch.ones(2, 1)}, "weight_y is .*one number a row"),
        ({"weight_y": torch.ones(2, device="meta")}, "weight_y is .* and y is .*must share a device"),
        ({"weight_x": torch.ones(3, requires_grad=True)}, "weight_x requires a gradient"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"x": torch.ones(3, 4), "y": torch.ones(2, 4)} | change
    with pytest.raises(ValueError, match=message):
        mmd_rbf(**given)


@on_both
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float64, torch.float16])
def test_weights_of_any_kind_are_taken(kind: torch.dtype) -> None:
    weight = torch.tensor([1, 0, 1, 1]).to(kind)
    x, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))

    found = mmd_rbf(x, y, weight_x=weight)

    expected: Tensor = mmd_rbf(x[[0, 2, 3]], y)
    torch.testing.assert_close(found, expected)
