"""The kernels of the maximum mean discrepancy on a GPU, against the textbook and the reference in float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import dispatch, mmd_rbf
from support.discrepancies import Case, case, discrepancy, eager, textbook
from support.exact import TOLERANCE, errors, results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _by_kernel() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


def found_on_gpu(asked: Case) -> dict[str, Tensor]:
    """The results of the case on the GPU, brought back."""
    return {name: result.cpu() for name, result in results(discrepancy, asked.on("cuda")).items()}


def by_reference(asked: Case) -> dict[str, Tensor]:
    """Those of the reference in float64 on the GPU: what is too large for the textbook."""
    return results(scaled(discrepancy), asked.to(torch.float64))


def scaled(run: Callable[[Case], Tensor]) -> Callable[[Case], Tensor]:
    """As a GradScaler has it: fp16 cannot hold the gradients of means over thousands of rows, whoever computes them."""
    return lambda asked: run(asked) * 2.0**14


def relative(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((found[name].double() - exact[name]).norm() / exact[name].norm()) for name in found}


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "others", "width"),
    [(1, 3, 1), (37, 257, 7), (130, 64, 48), (128, 128, 256), (70, 90, 300), (37, 41, 769), (33, 65, 1024)],
)
def test_every_size_gives_the_textbooks_answer(
    rows: int, others: int, width: int, dtype: torch.dtype
) -> None:
    asked = case(rows=rows, others=others, width=width, dtype=dtype)

    found = errors(found_on_gpu(asked), asked, textbook)

    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", ["absent", "all", "none", "one", "some", "weighted"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_weights_are_those_of_the_textbook(weights: str, unbiased: bool, dtype: torch.dtype) -> None:
    asked = case(weights=weights, unbiased=unbiased, dtype=dtype)

    found = errors(found_on_gpu(asked), asked, textbook)

    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.mark.parametrize("num_kernels", [1, 10])
@pytest.mark.parametrize("bandwidth", [30.0, torch.tensor(90.0), None])
def test_bandwidths_are_those_of_the_textbook(num_kernels: int, bandwidth: float | Tensor | None) -> None:
    asked = case(num_kernels=num_kernels, bandwidth=bandwidth)

    found = errors(found_on_gpu(asked), asked, textbook)

    assert max(found.values()) <= TOLERANCE[torch.float32], found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_large_samples_are_no_worse_than_eager(apart: float, dtype: torch.dtype) -> None:
    asked = case(rows=2500, others=2000, width=256, apart=apart, dtype=dtype).on("cuda")
    exact = by_reference(asked)

    found = relative(results(scaled(discrepancy), asked), exact)

    usual = relative(results(scaled(eager), asked), exact)
    # Where the usual way has overflowed there is nothing to compare with.
    assert all(not found[name] > 2 * usual[name] + 1e-5 for name in found), (found, usual)
    # Of one distribution the answer is a small difference of large sums; the gradients are not.
    assert max(found["x"], found["y"]) <= TOLERANCE[dtype], found
    assert found["output"] <= (TOLERANCE[dtype] if apart else 10 * TOLERANCE[dtype]), found


def test_float32_obeys_torchs_own_setting_of_tf32() -> None:
    asked = case(rows=700, others=600, width=256).on("cuda")
    exact = by_reference(asked)

    with tf32(False):
        precise = relative(results(scaled(discrepancy), asked), exact)
    with tf32(True):
        quick = relative(results(scaled(discrepancy), asked), exact)

    assert max(precise.values()) <= TOLERANCE[torch.float32], precise
    assert max(quick.values()) <= 1e-3, quick
    # Eleven bits against twenty-four: far more than chance apart.
    assert quick["x"] > 4 * precise["x"], (quick, precise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_wide_rows_of_large_samples_are_right(dtype: torch.dtype) -> None:
    asked = case(rows=2500, others=2100, width=768, dtype=dtype).on("cuda")

    found = relative(results(scaled(discrepancy), asked), by_reference(asked))

    assert max(found.values()) <= TOLERANCE[dtype], found


@pytest.mark.parametrize("dtype", DTYPES)
def test_three_runs_give_equal_bits(dtype: torch.dtype) -> None:
    asked = case(rows=900, others=700, width=256, weights="weighted", dtype=dtype).on("cuda")

    first, *others = (results(discrepancy, asked) for _ in range(3))

    assert all(torch.equal(other[name], first[name]) for other in others for name in first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_in_rows_of_weight_0_and_in_fresh_memory_is_not_seen(dtype: torch.dtype) -> None:
    asked = case(rows=300, others=200, width=48, weights="weighted", dtype=dtype).on("cuda")
    assert asked.weight_x is not None
    clean = results(discrepancy, asked)
    x = torch.where(asked.weight_x.unsqueeze(1) == 0, torch.nan, asked.x.detach()).requires_grad_()
    # What the allocator hands out next held NaN.
    poison = [torch.full((1 << 20,), torch.nan, device="cuda") for _ in range(16)]
    del poison

    found = results(discrepancy, replace(asked, x=x))

    assert all(torch.equal(found[name], clean[name]) for name in clean)


def test_nan_in_a_row_that_counts_is_seen() -> None:
    asked = case(rows=300, others=200).on("cuda")
    with torch.no_grad():
        asked.y[150, 3] = torch.nan

    found = results(discrepancy, asked)

    assert found["output"].isnan()
    assert found["x"].isnan().any(1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_lie_apart_in_memory_are_read(dtype: torch.dtype) -> None:
    wide = torch.randn(400, 300, device="cuda", dtype=dtype)
    for x in (wide[::2, 1:257], wide.T[:, :256], wide[:1, :256].expand(200, 256)):
        y = torch.randn(150, 256, device="cuda", dtype=dtype)
        packed = Case(x.contiguous().requires_grad_(), y.requires_grad_())

        found = results(discrepancy, Case(x.detach().requires_grad_(), y))

        expected = results(discrepancy, packed)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", [{}, {"weights": "weighted", "unbiased": True}])
def test_inductor_takes_it_as_one_graph(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    asked = case(rows=300, others=200, dtype=torch.bfloat16, **form).on("cuda")

    found = results(torch.compile(discrepancy, fullgraph=True), asked)

    expected = results(discrepancy, asked)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_captured_graph_computes_anew() -> None:
    x = torch.randn(500, 64, device="cuda", requires_grad=True)
    y = torch.randn(400, 64, device="cuda")
    bandwidth = torch.tensor(100.0, device="cuda")
    weight = torch.ones(400, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        value = mmd_rbf(x, y, weight_y=weight) + mmd_rbf(x, y, bandwidth=bandwidth)
        return value.detach(), torch.autograd.grad(value, x)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value, gradient = step()
    with torch.no_grad():
        x.mul_(2)
        weight[:100] = 0
        bandwidth.fill_(300.0)
    graph.replay()

    expected = step()
    assert torch.equal(value, expected[0])
    # cuBLAS may take another way with the workspace of a graph.
    torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-5 * float(expected[1].abs().max()))


def test_it_waits_for_nothing() -> None:
    asked = case(weights="weighted", bandwidth=torch.tensor(30.0)).on("cuda")
    # The first calls compile, and what compiles may wait.
    results(discrepancy, asked)
    torch.autograd.grad(mmd_rbf(asked.x, asked.y, bandwidth=3.0), (asked.x, asked.y))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(discrepancy(asked), (asked.x, asked.y))
        torch.autograd.grad(mmd_rbf(asked.x, asked.y, bandwidth=3.0), (asked.x, asked.y))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_scaled_loss_saves_gradients_that_half_precision_would_lose() -> None:
    asked = case(rows=2000, others=2000, width=256, apart=0.0, dtype=torch.float16).on("cuda")
    exact = by_reference(asked)

    saved = relative(results(scaled(discrepancy), asked), exact)
    lost = relative(
        {name: 2.0**14 * one.double() for name, one in results(discrepancy, asked).items()}, exact
    )

    assert max(saved["x"], saved["y"]) <= TOLERANCE[torch.float16], saved
    assert lost["x"] > 10 * saved["x"], (lost, saved)


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    x, y = (torch.randn(32768, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in "xy")
    # What the first call allocates for good, as a workspace, is not the op's.
    torch.autograd.grad(mmd_rbf(x, y), (x, y))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()

    torch.autograd.grad(mmd_rbf(x, y), (x, y))

    # All pairs would be 8 GB in bf16.
    assert torch.cuda.max_memory_allocated() - before < 20 * (x.numel() + y.numel()) * 4
