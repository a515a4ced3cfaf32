"""What an absent modality, a frozen input and a wrong call do to combining modalities."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import combine_modalities, dispatch, tuned
from kernels.combine import reference
from support.combinations import case, combine, poisoned, results

WAYS = [{"mode": "sum"}, {"mode": "mean"}, {"mode": "max"}, {"gates": "modality"}, {"gates": "entry"}]


@pytest.fixture(params=["torch", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    large = {"ROWS": 16, "PROGRAMS": 2}
    with dispatch.using(request.param):
        with tuned.forced("combine.forward", {"ROWS": 16}), tuned.forced("combine.backward", large):
            yield request.param


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("mask", ["some", "weighted"])
@pytest.mark.parametrize("way", WAYS)
def test_poison_in_masked_entries_and_gates_reaches_neither_output_nor_gradients(
    poison: float, mask: str, way: dict[str, Any]
) -> None:
    asked = case(rows=17, width=7, mask=mask, activation="gelu", **way)

    found = results(combine, poisoned(asked, poison))

    clean = results(combine, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("norm", [True, False])
def test_a_row_without_any_modality_is_zeros_before_its_norm(way: dict[str, Any], norm: bool) -> None:
    asked = case(mask="none", norm=norm, **way)

    found = results(combine, poisoned(asked, torch.nan))

    expected = asked.norm_bias if asked.norm_bias is not None else torch.zeros(48)
    assert torch.equal(found["output"], expected.expand(37, 48))
    assert not any(found[name].any() for name in asked.leaves if name not in ("norm_bias",))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_masked_entry_has_a_gradient_of_zero_even_when_its_row_is_poisoned(
    way: dict[str, Any], norm: bool
) -> None:
    asked = case(rows=2, modalities=2, width=3, norm=norm, activation="gelu", **way)
    mask = torch.tensor([[True, False], [True, True]])
    xs = [torch.full((2, 3), torch.nan).requires_grad_(), asked.xs[1]]

    found = results(combine, replace(asked, xs=xs, mask=mask))

    assert (found["xs[1]"][0] == 0).all()
    assert "gates" not in found or (found["gates"][0, 1] == 0).all()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_nan_in_a_present_entry_is_seen_in_its_row_alone(
    way: dict[str, Any], norm: bool, activation: str
) -> None:
    asked = case(rows=3, width=7, mask="all", activation=activation, norm=norm, **way)
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(combine, asked)

    assert found["output"][2].isnan().all() if norm else found["output"][2, 4].isnan()
    assert found["output"][:2].isfinite().all()
    assert not norm or found["norm_weight"].isnan().any()
    assert not norm or found["xs[1]"][2].isnan().any()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("gates", ["modality", "entry"])
def test_nan_in_a_present_gate_is_seen_in_its_row_alone(gates: str) -> None:
    asked = case(rows=3, mask="all", gates=gates)
    assert asked.gates is not None
    with torch.no_grad():
        asked.gates[2, 1] = torch.nan

    y = combine(asked)

    assert y[2].isnan().all()
    assert y[:2].isfinite().all()


@pytest.mark.usefixtures("backend")
def test_the_mean_ignores_the_scale_of_the_weights() -> None:
    asked = case(mode="mean", mask="weighted", activation="gelu")
    assert asked.mask is not None

    y = combine(replace(asked, mask=asked.mask * 7))

    torch.testing.assert_close(y, combine(asked))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_a_mask_of_any_kind_says_the_same(kind: torch.dtype) -> None:
    asked = case(gates="modality")
    assert asked.mask is not None

    torch.testing.assert_close(combine(replace(asked, mask=asked.mask.to(kind))), combine(asked))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("frozen", ["gates", "norm_weight", "norm_bias", "xs[0]", "xs[2]"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str) -> None:
    asked, twin = (case(activation="gelu", gates="modality") for _ in range(2))
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(combine, asked), results(combine, twin)

    assert frozen not in found
    assert all(torch.equal(found[name], whole[name]) for name in found)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("wanted", ["gates", "norm_weight", "norm_bias", "xs[1]"])
def test_an_input_that_alone_requires_a_gradient_gets_it(wanted: str) -> None:
    asked, twin = (case(activation="gelu", gates="entry") for _ in range(2))
    for name, leaf in asked.leaves.items():
        leaf.requires_grad_(name == wanted)

    found = results(combine, asked)

    assert set(found) == {"output", wanted}
    assert torch.equal(found[wanted], results(combine, twin)[wanted])


def test_only_the_gradients_asked_for_are_computed() -> None:
    asked = case(mode="mean", norm=False)
    grad = torch.ones(37, 48)
    needs = [False, False, False, True, False, True]

    found = reference.backward(grad, [], asked.mask, None, "mean", None, None, 1e-5, "none", needs)

    assert [gradient.shape for gradient in found] == [(37, 48), (37, 48)]


def test_a_plain_sum_keeps_nothing_of_its_modalities_for_the_backward() -> None:
    plain, normed = combine(case(norm=False)), combine(case(norm=True))

    kept = [
        [s for s in y.grad_fn.saved_tensors if s is not None and s.shape == y.shape] for y in (plain, normed)
    ]

    assert [len(tensors) for tensors in kept] == [0, 3]


def test_a_second_derivative_is_refused() -> None:
    asked = case()

    with pytest.raises(RuntimeError, match="combine_modalities has no second derivative"):
        torch.autograd.grad(combine(asked).sum(), asked.xs[0], create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": []}, "xs is empty"),
        ({"xs": [torch.ones(2)]}, r"xs\[0\] is .*\[2\].*of shape \[rows, H\]"),
        ({"xs": [torch.ones(2, 3, dtype=torch.int64)]}, r"xs\[0\] is torch.int64 .* floating point"),
        ({"xs": [torch.ones(2, 3), torch.ones(2, 4)]}, r"xs\[1\] is .*\[2, 4\].* must agree"),
        ({"xs": [torch.ones(2, 3), torch.ones(2, 3).half()]}, r"xs\[1\] is torch.float16 .* must agree"),
        ({"mask": torch.ones(2, 3)}, r"mask is .*\[2, 3\].*\[rows, modalities\] = \[2, 2\]"),
        ({"mask": torch.ones(2, 2, requires_grad=True)}, r"pass mask.detach\(\)"),
        ({"mask": torch.ones(2, 2, device="meta")}, "must share a device"),
        ({"mode": "concat"}, "mode is 'concat'; it is one of sum, mean, max, gated"),
        ({"mode": "gated"}, "gates are not given and mode is 'gated'"),
        ({"gates": torch.ones(2, 2)}, "gates are given and mode is 'sum'"),
        ({"mode": "gated", "gates": torch.ones(2, 3)}, r"gates is .*\[2, 3\].*modalities\] = \[2, 2\]"),
        ({"mode": "gated", "gates": torch.ones(2, 2, 4)}, r"gates is .*\[2, 2, 4\].*H\] = \[2, 2, 3\]"),
        ({"mode": "gated", "gates": torch.ones(2)}, r"gates is .*\[2\]"),
        ({"mode": "gated", "gates": torch.ones(2, 2, dtype=torch.int64)}, "gates is torch.int64"),
        ({"mode": "gated", "gates": torch.ones(2, 2, device="meta")}, "must share a device"),
        ({"norm_weight": torch.ones(4)}, r"norm_weight is .*\[4\].*of shape \[3\]"),
        ({"norm_bias": torch.ones(3)}, "norm_bias is given without norm_weight"),
        ({"activation": "tanh"}, "activation is 'tanh'; it is one of none, relu, gelu, silu"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"xs": [torch.ones(2, 3), torch.ones(2, 3)]}

    with pytest.raises(ValueError, match=message):
        combine_modalities(**(good | change))
