"""Low-rank fusion: its numbers against a textbook in float64, what absence does, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import lowrank_fusion
from support.lowrank import case, errors, fuse, papers, results, textbook, wrong

LOW = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("mask", ["absent", "all", "none", "some", "weighted"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_and_gradients_agree_with_the_textbook(mask: str, dtype: torch.dtype) -> None:
    assert wrong(case(mask=mask, dtype=dtype)) == {}


@pytest.mark.parametrize(
    ("rows", "widths", "ranks", "outputs"),
    [
        (1, (1,), 1, 1),
        (3, (7, 1), 2, 130),
        (3, (769, 48), 3, 5),
        (37, (8, 16, 24), 16, 8),
        (5, (3, 0, 5), 2, 3),
        (3, (2,) * 5, 4, 7),
        (257, (5, 6), 2, 3),
    ],
)
def test_odd_shapes_agree_with_the_textbook(
    rows: int, widths: Sequence[int], ranks: int, outputs: int
) -> None:
    assert wrong(case(rows=rows, widths=widths, ranks=ranks, outputs=outputs, mask="weighted")) == {}


@pytest.mark.parametrize("dtype", LOW)
def test_the_error_is_at_most_twice_that_of_the_papers_code_in_the_same_dtype(dtype: torch.dtype) -> None:
    asked = case(rows=37, widths=(16, 24, 12), ranks=16, outputs=32, mask="absent", dtype=dtype)

    ours = errors(results(fuse, asked), asked)
    theirs = errors(results(lambda one: papers(one.xs, one.factors, one.rank_weight, one.bias), asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * theirs[name]} == {}


def test_a_batch_without_rows_gives_no_rows_and_gradients_of_zero() -> None:
    asked = case(rows=0)

    found = results(fuse, asked)

    assert found.pop("output").shape == (0, 5)
    assert all(torch.equal(found[name], torch.zeros_like(leaf)) for name, leaf in asked.leaves.items())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("mask", ["some", "weighted", "none"])
def test_poison_in_masked_entries_reaches_neither_output_nor_gradients(poison: float, mask: str) -> None:
    asked = case(mask=mask)
    assert asked.mask is not None
    xs = [
        torch.where(asked.mask[:, m : m + 1] == 0, poison, x.detach()).requires_grad_()
        for m, x in enumerate(asked.xs)
    ]

    found = results(fuse, replace(asked, xs=xs))

    clean = results(fuse, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


def test_nan_in_a_present_entry_is_seen_in_its_row_alone() -> None:
    asked = case(rows=3, mask="all")
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(fuse, asked)

    assert found["output"][2].isnan().all()
    assert found["output"][:2].isfinite().all()
    assert found["factors[0]"].isnan().any()


def test_without_a_modality_the_interactions_of_the_others_are_left() -> None:
    asked = case(mask="absent", dtype=torch.float64)
    mask = torch.tensor([[True, False, True]]).expand(37, 3)

    y = fuse(replace(asked, mask=mask))

    # The same tensor, cut where the absent one's index is that of the 1.
    first, constant, third = asked.factors[0], asked.factors[1][:, -1:], asked.factors[2]
    folded = replace(asked, xs=[asked.xs[0], asked.xs[2]], factors=[first * constant, third], mask=None)
    torch.testing.assert_close(y, textbook(folded))


def test_three_equal_runs_give_equal_bits() -> None:
    first, *others = (results(fuse, case(rows=65)) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_strided_expanded_and_misaligned_inputs_agree_with_contiguous_ones() -> None:
    asked = case(widths=(7, 8, 5), mask="weighted")
    assert asked.mask is not None
    odd = replace(
        asked,
        xs=[
            torch.randn(7, 37).T.requires_grad_(),
            torch.randn(1, 8).expand(37, 8).requires_grad_(),
            torch.randn(37 * 5 + 1)[1:].view(37, 5).requires_grad_(),
        ],
        factors=[torch.randn(5, 4, x.shape[1] + 1).permute(1, 2, 0).requires_grad_() for x in asked.xs],
        mask=asked.mask.T.contiguous().T,
    )

    assert wrong(odd) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_dtype(dtype: torch.dtype) -> None:
    asked = case(widths=(8, 16), mask="weighted")

    with torch.autocast("cpu", dtype=dtype):
        found = results(fuse, asked)

    assert found["output"].dtype == dtype
    assert {name: found[name].dtype for name in asked.leaves} == dict.fromkeys(asked.leaves, torch.float32)
    expected = results(fuse, asked)
    assert all((found[n].float() - expected[n]).norm() <= 3e-2 * expected[n].norm() for n in expected)


def test_autocast_leaves_float64_alone() -> None:
    asked = case(dtype=torch.float64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fuse(asked)

    assert torch.equal(y, fuse(asked))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
def test_the_compiler_takes_it_as_one_graph_for_every_batch_size() -> None:
    torch.compiler.reset()
    compiled = torch.compile(fuse, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, stance in ((6, "default"), (37, "fail_on_recompile"), (11, "fail_on_recompile")):
        asked = case(rows=rows, mask="weighted")
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        torch.testing.assert_close(found, results(fuse, asked))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": []}, "there are 0 xs and 2 factors"),
        ({"xs": [torch.ones(2, 3)]}, "there are 1 xs and 2 factors"),
        ({"xs": [torch.ones(2, 3), torch.ones(4, 4)]}, r"xs\[1\] is .*\[4, 4\].*rows as in xs\[0\]"),
        ({"xs": [torch.ones(2, 3), torch.ones(2, 4).half()]}, r"xs\[1\] is torch.float16 .* must agree"),
        ({"factors": [torch.ones(6, 4, 5), torch.ones(6, 4, 5)]}, r"factors\[1\] is .*= \[6, 5, 5\]"),
        ({"factors": [torch.ones(4, 5), torch.ones(6, 4, 5)]}, r"factors\[0\] is .*\[ranks, width \+ 1, O\]"),
        ({"rank_weight": torch.ones(5)}, r"rank_weight is .*\[5\].*of shape \[6\]"),
        ({"bias": torch.ones(1, 5)}, r"bias is .*\[1, 5\].*of shape \[5\]"),
        ({"mask": torch.ones(2, 3)}, r"mask is .*\[2, 3\].*\[rows, modalities\] = \[2, 2\]"),
        ({"mask": torch.ones(2, 2, device="meta")}, "must share a device"),
        ({"mask": torch.ones(2, 2, requires_grad=True)}, r"pass mask.detach\(\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "xs": [torch.ones(2, 3), torch.ones(2, 4)],
        "factors": [torch.ones(6, 4, 5), torch.ones(6, 5, 5)],
        "rank_weight": torch.ones(6),
        "bias": torch.ones(5),
    }

    with pytest.raises(ValueError, match=message):
        lowrank_fusion(**(good | change))
