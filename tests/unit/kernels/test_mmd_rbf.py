"""The maximum mean discrepancy against an independent answer in float64: the answer and both gradients."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels import dispatch, mmd_rbf, tuned
from kernels.mmd import reference
from support.discrepancies import Case, case, discrepancy, eager, large_blocks, textbook
from support.exact import TOLERANCE, errors, results


@pytest.fixture(params=["torch", "triton"])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reference, and kernel in Triton's interpreter."""
    with large_blocks(), dispatch.using(request.param):
        yield


on_both = pytest.mark.usefixtures("_backend")


def assert_exact(asked: Case) -> None:
    found = errors(results(discrepancy, asked), asked, textbook)
    assert max(found.values()) <= TOLERANCE[asked.x.dtype], found


@on_both
@pytest.mark.parametrize(("rows", "others", "width"), [(1, 3, 1), (37, 257, 7), (130, 64, 48), (5, 9, 300)])
def test_every_size_gives_the_textbooks_answer(rows: int, others: int, width: int) -> None:
    assert_exact(case(rows=rows, others=others, width=width))


@pytest.mark.parametrize(("rows", "width"), [(1, 48), (3, 1), (37, 1280), (257, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("unbiased", [False, True])
def test_the_reference_is_exact(rows: int, width: int, dtype: torch.dtype, unbiased: bool) -> None:
    assert_exact(case(rows=rows, width=width, unbiased=unbiased).to(dtype))


@on_both
@pytest.mark.parametrize("weights", ["absent", "all", "none", "one", "some", "weighted"])
@pytest.mark.parametrize("unbiased", [False, True])
def test_weights_are_those_of_the_textbook(weights: str, unbiased: bool) -> None:
    assert_exact(case(weights=weights, unbiased=unbiased))


@on_both
@pytest.mark.parametrize("num_kernels", [1, 2, 10])
@pytest.mark.parametrize("bandwidth", [3.0, torch.tensor(20.0), None])
def test_bandwidths_are_those_of_the_textbook(num_kernels: int, bandwidth: float | Tensor | None) -> None:
    assert_exact(case(num_kernels=num_kernels, bandwidth=bandwidth, rows=9, others=11))


@on_both
@pytest.mark.parametrize("apart", [0.0, 2.0])
def test_half_precision_is_as_good_as_it_holds_and_no_worse_than_eager(apart: float) -> None:
    asked = case(rows=70, others=66, width=20, apart=apart, dtype=torch.float16)

    found = errors(results(discrepancy, asked), asked, textbook)

    usual = errors(results(eager, asked), asked, textbook)
    assert max(found.values()) <= TOLERANCE[torch.float16], found
    assert found["output"] <= 2 * usual["output"] + 1e-5
    assert found["x"] <= 2 * usual["x"]


def test_rounding_to_tf32_stays_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.mmd.samples._takes_tf32", lambda: True)
    asked = case()

    with large_blocks(), dispatch.using("triton"):
        found = errors(results(discrepancy, asked), asked, textbook)

    assert max(found.values()) <= 1e-3, found
    assert found["x"] > TOLERANCE[torch.float32]


@on_both
def test_samples_far_from_the_origin_lose_no_digits() -> None:
    asked = case()
    far = replace(asked, x=asked.x.detach() + 1000, y=asked.y.detach() + 1000)

    assert_exact(far.to(torch.float32))


@on_both
def test_rows_that_are_all_equal_are_no_distance_apart() -> None:
    x = torch.full((3, 4), 5.0, requires_grad=True)
    y = torch.full((2, 4), 5.0, requires_grad=True)

    value = mmd_rbf(x, y)
    gradients = torch.autograd.grad(value, (x, y))

    assert abs(value) < 1e-5
    assert all((gradient == 0).all() for gradient in gradients)


@on_both
@pytest.mark.parametrize(("rows", "others", "width"), [(0, 3, 4), (3, 0, 4), (0, 0, 4), (2, 3, 0)])
def test_a_side_without_rows_gives_0_and_gradients_of_0(rows: int, others: int, width: int) -> None:
    x, y = torch.randn(rows, width, requires_grad=True), torch.randn(others, width, requires_grad=True)

    value = mmd_rbf(x, y)

    assert value == 0
    assert value.dtype == torch.float32
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(value, (x, y)))


@on_both
def test_one_row_a_side_says_nothing_without_bias() -> None:
    asked = case(rows=1, unbiased=True)

    found = results(discrepancy, asked)

    assert all((result == 0).all() for result in found.values())


@on_both
@pytest.mark.parametrize("view", ["columns", "rows", "expanded", "misaligned"])
def test_every_way_of_lying_in_memory_is_read(view: str) -> None:
    wide = torch.randn(18, 20, generator=torch.Generator().manual_seed(1))
    x = {
        "columns": wide[:9, ::2],
        "rows": wide.T[::2],
        "expanded": wide[:1, :10].expand(9, 10),
        "misaligned": wide.flatten()[1:91].view(9, 10),
    }[view]
    y = torch.randn(7, x.shape[1], generator=torch.Generator().manual_seed(2))
    weight = torch.rand(14, generator=torch.Generator().manual_seed(3))[::2]
    asked = Case(x.requires_grad_(), y.requires_grad_(), weight_y=weight)
    packed = Case(x.detach().contiguous().requires_grad_(), y, weight_y=weight.contiguous())

    found, expected = results(discrepancy, asked), results(discrepancy, packed)

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@on_both
def test_the_order_of_the_rows_is_of_no_matter() -> None:
    asked = case(weights="weighted", unbiased=True)
    assert asked.weight_x is not None
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    shuffled = replace(asked, x=asked.x.detach()[order].requires_grad_(), weight_x=asked.weight_x[order])

    found, expected = results(discrepancy, shuffled), results(discrepancy, asked)

    torch.testing.assert_close(found["output"], expected["output"])
    torch.testing.assert_close(found["x"], expected["x"][order], rtol=1e-4, atol=1e-7)


@on_both
def test_both_sides_are_alike() -> None:
    asked = case(weights="some")
    turned = replace(asked, x=asked.y, y=asked.x, weight_x=asked.weight_y, weight_y=asked.weight_x)

    found, expected = results(discrepancy, turned), results(discrepancy, asked)

    torch.testing.assert_close(found["output"], expected["output"])
    torch.testing.assert_close(found["x"], expected["y"], rtol=1e-4, atol=1e-7)


@on_both
def test_equal_calls_give_equal_bits() -> None:
    asked = case(rows=130, others=40, width=20, weights="weighted")

    first, *others = (results(discrepancy, asked) for _ in range(3))

    assert all(torch.equal(other[name], first[name]) for other in others for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("blocks", "programs"), [((64, 64), 1), ((128, 64), 5), ((64, 32), 5), ((128, 32), 500)]
)
def test_every_cut_into_blocks_and_parts_adds_up_to_the_same(
    blocks: tuple[int, int], programs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = case(rows=130, others=20, width=20, dtype=dtype)
    pull = {"ROWS": blocks[0], "COLUMNS": blocks[1], "PROGRAMS": programs}
    products = pull | {"K": 16}
    # One block of rows at a time.
    monkeypatch.setattr("kernels.mmd.triton.SLOPES_BYTES", 1)

    with (
        dispatch.using("triton"),
        tuned.forced("mmd.triangle", products),
        tuned.forced("mmd.pull", pull),
        tuned.forced("mmd.slopes", products),
    ):
        found = errors(results(discrepancy, asked), asked, textbook)

    assert max(found.values()) <= TOLERANCE[dtype], found


def test_the_references_blocks_of_pairs_are_seen_in_nothing_but_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = case(weights="weighted").to(torch.float64)
    expected = results(discrepancy, asked)
    monkeypatch.setattr(reference, "PAIRS_AT_ONCE", 200)

    found = results(discrepancy, asked)

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("forward", "backward"), [("torch", "triton"), ("triton", "torch")])
@pytest.mark.parametrize("weights", ["absent", "weighted"])
def test_a_forward_and_a_backward_of_two_backends_fit(forward: str, backward: str, weights: str) -> None:
    asked = case(weights=weights, apart=3.0)
    with dispatch.using(forward):
        value = discrepancy(asked)
    with dispatch.using(backward):
        found = torch.autograd.grad(value, (asked.x, asked.y))

    expected = results(discrepancy, asked)
    scale = torch.ones(()).double().neg().cos().float()  # The upstream gradient of `results`.
    torch.testing.assert_close(found[0] * scale, expected["x"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found[1] * scale, expected["y"], rtol=1e-4, atol=1e-7)


def test_samples_of_one_distribution_are_nearer_than_those_of_two() -> None:
    same, other = case(apart=0.0, rows=257, others=257), case(apart=0.5, rows=257, others=257)

    assert abs(mmd_rbf(same.x, same.y, unbiased=True)) < mmd_rbf(other.x, other.y, unbiased=True) / 10


@pytest.mark.slow
def test_descending_it_brings_two_samples_together() -> None:
    curves = []
    for backend in ("torch", "triton"):
        asked = case(rows=20, others=20, width=4, apart=2.0)
        x = asked.x.detach().requires_grad_()
        curve = []
        with dispatch.using(backend):
            for _ in range(8):
                loss = mmd_rbf(x, asked.y.detach())
                (gradient,) = torch.autograd.grad(loss, x)
                x = (x.detach() - 5 * gradient).requires_grad_()
                curve.append(loss.item())
        curves.append(curve)

    assert curves[0][-1] < curves[0][0] / 3
    torch.testing.assert_close(*curves, rtol=1e-4, atol=1e-6)
