"""The masked projection's kernels on a GPU: numbers, bits, graphs, compilers, and sizes beyond 32 bits."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import dispatch, masked_projection, tuned
from kernels.projection import reference, triton
from support.projections import (
    FORMS,
    SHAPES,
    TOLERANCE,
    Case,
    arguments,
    case,
    eager,
    errors,
    poisoned,
    project,
    results,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU HERE: no kernel was run on one"),
    # Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Of large batches, and with rows of the weight that begin at odd places.
LARGE = [(257, (48, 769), 130), (300, (768, 512, 3), 1024), (2100, (256, 64, 32, 16, 48), 384)]


@pytest.fixture(autouse=True)
def _on_triton() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.weight.dtype]
    told = errors(results(project, asked), asked)
    assert {name: error for name, error in told.items() if not error <= tolerance} == {}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_agrees_with_the_textbook(form: dict[str, Any], dtype: torch.dtype) -> None:
    for rows, widths, outputs in ((37, (7, 48, 1), 130), *LARGE):
        assert_exact(case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, **form).on("cuda"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (37, (1280,), 4096), (8, (2048,), 1024)], ids=str)
@pytest.mark.parametrize("mask", ["absent", "some", "weighted"])
def test_odd_shapes_agree_with_the_textbook(
    shape: tuple[int, tuple[int, ...], int], mask: str, dtype: torch.dtype
) -> None:
    rows, widths, outputs = shape
    asked = case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, activation="silu", mask=mask)
    assert_exact(asked.on("cuda"))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    shape: tuple[int, tuple[int, ...], int], dtype: torch.dtype
) -> None:
    rows, widths, outputs = shape
    asked = case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, activation="gelu").on("cuda")

    ours, textbook = errors(results(project, asked), asked), errors(results(eager, asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * textbook[name]} == {}


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("mask", ["absent", "some", "weighted"])
@pytest.mark.parametrize("way", [1, 2])
@pytest.mark.parametrize("both", [1, 2])
@pytest.mark.parametrize("split", [1, 4])
def test_every_way_to_multiply_agrees_with_the_textbook(
    dtype: torch.dtype, mask: str, way: int, both: int, split: int
) -> None:
    asked = case(rows=300, widths=(256, 128, 48), outputs=256, mask=mask, dtype=dtype).on("cuda")

    with (
        tuned.forced("projection.add_up", {"WAY": way, "SPLIT": split, "LOOPS": both}),
        tuned.forced("projection.to_both", {"WAY": both, "SPLIT": split}),
        tuned.forced("projection.to_inputs", {"WAY": way}),
        tuned.forced("projection.to_weight", {"WAY": way, "SPLIT": split}),
    ):
        assert_exact(asked)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("combine", ["concat", "mean"])
@pytest.mark.parametrize("mask", ["some", "weighted", "none"])
def test_poison_in_masked_entries_reaches_neither_output_nor_gradients(
    mask: str, combine: str, dtype: torch.dtype
) -> None:
    asked = case(
        rows=300, widths=(48, 7, 256), mask=mask, combine=combine, activation="gelu", dtype=dtype
    ).on("cuda")

    for poison in (torch.nan, torch.inf, -torch.inf):
        assert_same(results(project, poisoned(asked, poison)), results(project, asked))


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_nan_in_a_present_entry_is_seen_in_its_row_alone(activation: str, norm: bool) -> None:
    asked = case(rows=3, mask="all", activation=activation, norm=norm, dtype=torch.bfloat16).on("cuda")
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(project, asked)

    assert found["output"][2].isnan().all()
    assert found["output"][:2].isfinite().all()
    assert found["weight"].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_three_equal_runs_give_equal_bits(dtype: torch.dtype) -> None:
    asked = case(
        rows=2100, widths=(48, 769, 7), activation="gelu", combine="mean", mask="weighted", dtype=dtype
    ).on("cuda")

    first, *others = (results(project, asked) for _ in range(3))

    for other in others:
        assert_same(other, first)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_expanded_and_misaligned_inputs_agree_with_the_textbook(dtype: torch.dtype) -> None:
    asked = case(widths=(7, 48, 5), activation="gelu", mask="weighted", dtype=dtype)
    assert asked.mask is not None
    cuda: dict[str, Any] = {"dtype": dtype, "device": "cuda"}
    odd = replace(
        asked.on("cuda"),
        xs=[
            torch.randn(7, 37, **cuda).T.requires_grad_(),
            torch.randn(1, 48, **cuda).expand(37, 48).requires_grad_(),
            torch.randn(37 * 5 + 1, **cuda)[1:].view(37, 5).requires_grad_(),
        ],
        weight=torch.randn(60, 130, **cuda).T.requires_grad_(),
        mask=asked.mask.T.contiguous().T.to("cuda"),
    )

    assert_exact(odd)


@pytest.mark.parametrize("first", ["reference", "triton"])
@pytest.mark.parametrize("rows", [37, 1500])
def test_the_two_halves_may_run_on_different_backends(first: str, rows: int) -> None:
    asked = case(rows=rows, activation="gelu", dtype=torch.bfloat16).on("cuda")
    given, halves = arguments(asked), {"reference": reference, "triton": triton}
    needs = [True] * 7
    forward, backward = halves.pop(first), halves.popitem()[1]

    y, z = forward.forward(*given)
    found = backward.backward(torch.ones_like(y), z, *given, needs)

    expected = reference.backward(torch.ones_like(y), reference.forward(*given)[1], *given, needs)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.double() - theirs.double()).norm() <= 1.5e-2 * theirs.double().norm()


@pytest.mark.parametrize("form", [FORMS[0], FORMS[4], FORMS[7]], ids=str)
def test_a_replayed_graph_gives_the_bits_of_a_plain_call(form: dict[str, Any]) -> None:
    asked = case(rows=300, widths=(64, 48, 3), dtype=torch.bfloat16, **form).on("cuda")
    given = arguments(asked)
    needs = [True, True, form["norm"], form["norm"], True, True, True]

    def run() -> list[torch.Tensor]:
        y, z = torch.ops.plait.masked_projection(*given)
        return [y, *torch.ops.plait.masked_projection_backward(torch.ones_like(y), z, *given, needs)]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = run()
    for x in given[0]:
        x.mul_(2)
    graph.replay()

    assert all(torch.equal(mine, plain) for mine, plain in zip(replayed, run(), strict=True))


@pytest.mark.parametrize("form", [FORMS[0], FORMS[4], FORMS[7]], ids=str)
def test_the_compiler_takes_it_as_one_graph_for_every_batch_size(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(project, fullgraph=True, dynamic=True)

    for rows in (6, 37, 11):
        asked = case(rows=rows, widths=(7, 3, 16), outputs=64, dtype=torch.bfloat16, **form).on("cuda")
        assert_same(results(compiled, asked), results(project, asked))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_autocast_lowers_features_and_weight_and_keeps_the_gradients_float32(dtype: torch.dtype) -> None:
    asked = case(activation="gelu").on("cuda")

    with torch.autocast("cuda", dtype=dtype):
        found = results(project, asked)

    assert found["output"].dtype == dtype
    assert {found[name].dtype for name in asked.leaves} == {torch.float32}
    told = errors(found, asked)
    assert max(told.values()) < 5 * TOLERANCE[dtype]


def test_scaled_gradients_in_float16_are_the_gradients_times_the_scale() -> None:
    asked = case(rows=64, activation="gelu", dtype=torch.float16).on("cuda")
    leaves = list(asked.leaves.values())
    loss = project(asked).float().mean()

    plain = torch.autograd.grad(loss, leaves, retain_graph=True)
    scaled = torch.autograd.grad(loss * 2.0**10, leaves)

    for mine, theirs in zip(scaled, plain, strict=True):
        wrong = (mine.float() / 2.0**10 - theirs.float()).norm()
        assert wrong <= 2e-2 * theirs.float().norm() + 1e-6


def test_features_of_more_than_two_to_the_31_entries_are_found() -> None:
    rows, width = 2**31 // 1024 + 512, 1024
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GiB")
    x = torch.zeros(rows, width, dtype=torch.bfloat16, device="cuda")
    x[-300:] = torch.randn(300, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(48, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(rows, 1, dtype=torch.bool, device="cuda")
    x.requires_grad_()

    y = masked_projection([x], weight, mask=mask, activation="relu")
    y[-300:].sum().backward()

    tail = x.detach()[-300:].float()
    exact = tail @ weight.detach().float().T
    assert (y[-300:].float() - exact.relu()).norm() <= 1.5e-2 * exact.relu().norm()
    slopes = (exact > 0).float()
    assert x.grad is not None
    assert weight.grad is not None
    expected = slopes @ weight.detach().float()
    assert (x.grad[-300:].float() - expected).norm() <= 1.5e-2 * expected.norm()
    expected = slopes.T @ tail
    assert (weight.grad.float() - expected).norm() <= 1.5e-2 * expected.norm()
