"""The contrastive losses' numbers: against the textbook in float64, the loss and every gradient."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from kernels import dispatch
from kernels.contrastive.tiles import strips
from support.contrastive import LOSSES, Case, case, errors, loss, results, textbook, wrong

LOW = (torch.float32, torch.float16, torch.bfloat16)
#: Logits kept whole; made again whole; made again in 15 uneven tiles of a batch of 37.
MEMORIES: list[dict[str, int]] = [{}, {"logits_budget": 0}, {"logits_budget": 0, "chunk_bytes": 4 * 13 * 9}]


@pytest.fixture(params=["torch", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with dispatch.using(request.param):
        yield request.param


@pytest.mark.usefixtures("backend")
class TestOnEitherBackend:
    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("dtype", LOW)
    @pytest.mark.parametrize("memory", MEMORIES)
    def test_every_dtype_agrees_with_float64(
        self, kind: str, dtype: torch.dtype, memory: dict[str, int]
    ) -> None:
        asked = case(kind, dtype=dtype, **memory)

        assert wrong(results(loss, asked), asked) == {}

    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize(("rows", "width"), [(5, 1), (3, 769), (257, 48), (130, 7)])
    def test_odd_shapes_agree_with_the_textbook(self, kind: str, rows: int, width: int) -> None:
        asked = case(kind, rows=rows, width=width, scale=3.0, logits_budget=0, chunk_bytes=4 * 128 * 140)

        assert wrong(results(loss, asked), asked) == {}

    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("dtype", LOW)
    @pytest.mark.parametrize("scale", [14.25, 100.0])
    def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
        self, kind: str, dtype: torch.dtype, scale: float
    ) -> None:
        asked = case(kind, rows=64, width=48, dtype=dtype, scale=scale, alike=3.0)

        ours, theirs = errors(results(loss, asked), asked), errors(results(textbook, asked), asked)

        assert {name: error for name, error in ours.items() if error > 2 * theirs[name] + 1e-6} == {}

    def test_the_loss_of_converged_features_is_not_rounded_away(self) -> None:
        asked = case(rows=32, width=64, scale=100.0, alike=1.1)

        ours, theirs = errors(results(loss, asked), asked), errors(results(textbook, asked), asked)

        assert textbook(asked).detach() < 1e-5
        assert {name: error for name, error in ours.items() if error > 3 * theirs[name]} == {}

    @pytest.mark.parametrize("kind", LOSSES)
    def test_a_large_scale_overflows_nothing(self, kind: str) -> None:
        asked = case(kind, scale=1000.0, alike=0.0)

        found = results(loss, asked)

        assert all(result.isfinite().all() for result in found.values())
        assert wrong(found, asked).keys() <= {"logit_scale"}

    @pytest.mark.parametrize("kind", LOSSES)
    def test_rows_that_are_not_of_length_one_are_taken_as_they_are(self, kind: str) -> None:
        asked = case(kind, scale=0.5)
        asked = replace(asked, image=(asked.image.detach() * 5).requires_grad_())

        assert wrong(results(loss, asked), asked) == {}

    @pytest.mark.parametrize("kind", LOSSES)
    def test_small_gradients_of_half_precision_are_not_lost_before_they_are_scaled(self, kind: str) -> None:
        asked = case(kind, rows=257, dtype=torch.float16, logits_budget=0)

        gradients = torch.autograd.grad(65536.0 * loss(asked), asked.image)[0]

        exact = asked.to(torch.float64)
        expected = torch.autograd.grad(65536.0 * textbook(exact), exact.image)[0]
        assert (gradients.double() - expected).norm() < 2e-3 * expected.norm()

    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("memory", MEMORIES[1:])
    def test_neither_the_size_of_tiles_nor_the_budget_changes_the_result(
        self, kind: str, memory: dict[str, int]
    ) -> None:
        asked = case(kind)

        found = results(loss, replace(asked, options=memory))

        torch.testing.assert_close(found, results(loss, asked), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", LOSSES)
    def test_pairs_in_another_order_have_the_same_loss_and_gradients_in_that_order(self, kind: str) -> None:
        asked = case(kind, **MEMORIES[2])
        order = torch.randperm(37, generator=torch.Generator().manual_seed(1))

        found, expected = results(loss, asked.rows(order)), results(loss, asked)

        expected |= {name: expected[name][order] for name in ("image", "text")}
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("kind", LOSSES)
    def test_three_equal_runs_give_equal_bits(self, kind: str) -> None:
        asked = case(kind, dtype=torch.float16, **MEMORIES[2])

        first, *others = (results(loss, asked) for _ in range(3))

        assert all(torch.equal(first[name], other[name]) for other in others for name in first)

    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("memory", MEMORIES[1:])
    def test_nan_in_a_row_is_seen(self, kind: str, memory: dict[str, int]) -> None:
        asked = case(kind, rows=5, **memory)
        with torch.no_grad():
            asked.image[3] = torch.nan

        found = results(loss, asked)

        assert all(result.isnan().any() for result in found.values())

    @pytest.mark.parametrize("kind", LOSSES)
    def test_no_rows_have_a_loss_of_zero_and_no_gradient(self, kind: str) -> None:
        found = results(loss, case(kind, rows=0))

        assert all((result == 0).all() for result in found.values())
        assert found["image"].shape == (0, 16)

    def test_one_pair_alone_has_nothing_to_tell_apart(self) -> None:
        found = results(loss, case(rows=1))

        assert all((result == 0).all() for result in found.values())

    @pytest.mark.parametrize("kind", LOSSES)
    def test_strided_expanded_and_misaligned_rows_agree_with_contiguous_ones(self, kind: str) -> None:
        asked = case(kind, **MEMORIES[2])
        strided = functional.normalize(torch.randn(16, 37), dim=0).T.requires_grad_()
        misaligned = (torch.randn(37 * 16 + 1)[1:].view(37, 16) / 4).requires_grad_()
        expanded = torch.ones(1, 16).div(4).expand(37, 16).requires_grad_()

        for odd in (replace(asked, image=strided, text=misaligned), replace(asked, text=expanded)):
            assert wrong(results(loss, odd), odd) == {}

    @pytest.mark.parametrize("kind", LOSSES)
    @pytest.mark.parametrize("frozen", ["image", "text", "logit_scale", "logit_bias"])
    def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(
        self, kind: str, frozen: str
    ) -> None:
        asked, twin = case(kind, **MEMORIES[2]), case(kind, **MEMORIES[2])
        if frozen in asked.leaves:
            asked.leaves[frozen].requires_grad_(False)

        found, whole = results(loss, asked), results(loss, twin)

        assert found.keys() == whole.keys() - {frozen}
        assert all(torch.equal(found[name], whole[name]) for name in found)

    @pytest.mark.parametrize("kind", LOSSES)
    def test_without_gradients_the_loss_is_the_same(self, kind: str) -> None:
        asked = case(kind)

        with torch.no_grad():
            alone = loss(asked)

        assert not alone.requires_grad
        assert torch.equal(alone, loss(asked).detach())


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.slow)])
def test_two_hundred_steps_converge_as_the_textbook_does(kind: str, backend: str) -> None:
    asked = case(kind, rows=6, width=4, scale=5.0, alike=0.3, **MEMORIES[1])

    with dispatch.using(backend):
        ours, theirs = (trained(run, asked.to(), steps=200) for run in (loss, textbook))

    assert ours[-1] < 0.7 * ours[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def trained(run: Any, asked: Case, steps: int) -> torch.Tensor:
    """The losses of features that are trained themselves."""
    optimiser = torch.optim.SGD(asked.leaves.values(), lr=0.05)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        step = run(asked)
        step.backward()
        optimiser.step()
        losses.append(step.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_float64_is_exact_and_agrees_with_finite_differences(kind: str, memory: dict[str, int]) -> None:
    asked = case(kind, rows=5, width=3, scale=2.0, bias=-1.0, dtype=torch.float64, **memory)
    names = list(asked.leaves)

    def run(*leaves: torch.Tensor) -> torch.Tensor:
        return loss(replace(asked, **dict(zip(names, leaves, strict=True))))

    assert wrong(results(loss, asked), asked) == {}
    assert torch.autograd.gradcheck(run, tuple(asked.leaves.values()))


def test_halves_may_run_on_different_backends() -> None:
    asked, twin = case(**MEMORIES[2]), case(**MEMORIES[2])

    with dispatch.using("triton"):
        forward = loss(asked)
    gradients = torch.autograd.grad(forward, list(asked.leaves.values()))

    expected = torch.autograd.grad(loss(twin), list(twin.leaves.values()))
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "chunk_bytes"),
    [(37, 37, 468), (1, 1, 0), (10000, 10000, 64 << 20), (256, 65536, 1 << 20), (70000, 100, 4 << 20)],
)
def test_tiles_cover_every_logit_once_within_the_bytes_allowed(
    rows: int, columns: int, chunk_bytes: int
) -> None:
    tiles = [tile for band in strips(rows, columns, chunk_bytes, 4) for tile in band]

    assert sum(tile.cells for tile in tiles) == rows * columns
    assert all(tile.cells * 4 <= max(chunk_bytes, 4) for tile in tiles)
    assert [tile.start for tile in tiles] == [sum(t.cells for t in tiles[:n]) for n in range(len(tiles))]
    assert len({(tile.first_row, tile.first_column) for tile in tiles}) == len(tiles)
