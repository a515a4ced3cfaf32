"""The masked projection's numbers: against the textbook's way in float64, output and every gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import masked_projection
from support.projections import TOLERANCE, Case, case, eager, errors, project, results

LOW = (torch.float32, torch.float16, torch.bfloat16)


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.weight.dtype]
    wrong = {
        name: error for name, error in errors(results(project, asked), asked).items() if error > tolerance
    }
    assert not wrong


@pytest.mark.parametrize("mask", ["absent", "all", "none", "some", "weighted"])
@pytest.mark.parametrize("combine", ["concat", "mean"])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_every_form_agrees_with_the_textbook(mask: str, combine: str, activation: str, norm: bool) -> None:
    assert_exact(case(mask=mask, combine=combine, activation=activation, norm=norm))


@pytest.mark.parametrize("dtype", [torch.float64, *LOW])
@pytest.mark.parametrize("mask", ["absent", "some", "weighted"])
@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_every_dtype_agrees_with_float64(dtype: torch.dtype, mask: str, combine: str) -> None:
    assert_exact(case(dtype=dtype, mask=mask, combine=combine, activation="gelu"))


@pytest.mark.parametrize("dtype", LOW)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(dtype: torch.dtype) -> None:
    asked = case(rows=257, widths=(48, 7, 769), dtype=dtype, activation="gelu")

    ours, textbook = errors(results(project, asked), asked), errors(results(eager, asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * textbook[name]} == {}


@pytest.mark.parametrize(
    ("rows", "widths", "outputs"),
    [
        (1, (1,), 5),
        (1, (7, 1), 130),
        (3, (769, 48), 5),
        (3, (1, 1, 1, 1, 1), 1024),
        (37, (1280,), 130),
        (37, (7, 48, 1, 769, 3), 5),
        (257, (48, 769), 130),
        (257, (7, 1, 48, 5), 1024),
        (3, (48, 7), 4096),
        (37, (3, 0, 5), 5),
        (3, (2,) * 12, 7),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_odd_shapes_agree_with_the_textbook(
    rows: int, widths: tuple[int, ...], outputs: int, dtype: torch.dtype
) -> None:
    assert_exact(
        case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, activation="silu", mask="weighted")
    )


@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_a_batch_without_rows_gives_no_rows_and_gradients_of_zero(combine: str) -> None:
    asked = case(rows=0, combine=combine, activation="gelu")

    found = results(project, asked)

    assert found.pop("output").shape == (0, 130)
    assert all(torch.equal(found[name], torch.zeros_like(leaf)) for name, leaf in asked.leaves.items())


def test_the_gradients_agree_with_finite_differences() -> None:
    asked = case(
        rows=4,
        widths=(2, 3),
        outputs=5,
        dtype=torch.float64,
        combine="mean",
        mask="weighted",
        activation="gelu",
    )
    names = ("weight", "bias", "norm_weight", "norm_bias")

    def run(*leaves: torch.Tensor) -> torch.Tensor:
        changed: dict[str, Any] = dict(zip(names, leaves, strict=False))
        return project(replace(asked, **changed, xs=leaves[len(names) :]))

    assert torch.autograd.gradcheck(run, tuple(asked.leaves.values()))


def test_a_linear_over_the_concatenation_lends_its_state_dict_unchanged() -> None:
    asked = case(mask="absent", norm=False)
    linear = torch.nn.Linear(asked.weight.shape[1], asked.weight.shape[0])

    expected = linear(torch.cat(list(asked.xs), dim=1))

    torch.testing.assert_close(masked_projection(asked.xs, **linear.state_dict()), expected)


def test_the_indicator_of_what_is_missing_adds_the_learned_missing_tokens() -> None:
    asked = case(mask="some", norm=False)
    assert asked.mask is not None
    missing, tokens = ~asked.mask, torch.randn(len(asked.weight), 3)

    y = masked_projection(
        [*asked.xs, missing.float()],
        torch.cat([asked.weight, tokens], dim=1),
        mask=torch.cat([asked.mask, torch.ones(len(missing), 1, dtype=torch.bool)], dim=1),
    )

    expected = eager(replace(asked, bias=None)) + missing.float() @ tokens.T
    torch.testing.assert_close(y, expected)


def test_permuted_samples_give_permuted_rows() -> None:
    asked = case(activation="gelu")
    assert asked.mask is not None
    order = torch.randperm(len(asked.mask), generator=torch.Generator().manual_seed(1))

    y = project(replace(asked, xs=[x[order] for x in asked.xs], mask=asked.mask[order]))

    torch.testing.assert_close(y, project(asked)[order])


def test_the_order_of_the_modalities_does_not_matter() -> None:
    asked = case(activation="gelu", combine="mean")
    assert asked.mask is not None
    order = [2, 0, 1]
    blocks = asked.weight.split([x.shape[1] for x in asked.xs], dim=1)

    y = project(
        replace(
            asked,
            xs=[asked.xs[m] for m in order],
            weight=torch.cat([blocks[m] for m in order], dim=1),
            mask=asked.mask[:, order],
        )
    )

    torch.testing.assert_close(y, project(asked))


def test_rows_of_padding_change_no_other_row() -> None:
    asked = case(activation="gelu")
    assert asked.mask is not None
    padded = replace(
        asked,
        xs=[torch.cat([x, torch.full((20, x.shape[1]), torch.nan)]) for x in asked.xs],
        mask=torch.cat([asked.mask, torch.zeros(20, 3, dtype=torch.bool)]),
    )

    torch.testing.assert_close(project(padded)[:37], project(asked))


def test_three_equal_runs_give_equal_bits() -> None:
    asked = case(rows=257, widths=(48, 769, 7), activation="gelu", combine="mean", mask="weighted")

    first, *others = (results(project, asked) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_strided_expanded_and_misaligned_inputs_agree_with_contiguous_ones(activation: str) -> None:
    asked = case(widths=(7, 48, 5), activation=activation, mask="weighted")
    assert asked.mask is not None
    odd = replace(
        asked,
        xs=[
            torch.randn(7, 37).T.requires_grad_(),
            torch.randn(1, 48).expand(37, 48).requires_grad_(),
            torch.randn(37 * 5 + 1)[1:].view(37, 5).requires_grad_(),
        ],
        weight=torch.randn(60, 130).T.requires_grad_(),
        mask=asked.mask.T.contiguous().T,
    )

    assert_exact(odd)


def test_the_expanded_gradient_of_a_sum_is_taken() -> None:
    asked, twin = case(activation="gelu"), case(activation="gelu")

    project(asked).sum().backward()
    eager(twin).sum().backward()

    torch.testing.assert_close(
        [leaf.grad for leaf in asked.leaves.values()], [leaf.grad for leaf in twin.leaves.values()]
    )
