"""The contrastive losses' kernels on a GPU."""

from dataclasses import replace

import pytest
import torch

from kernels import clip_loss, dispatch, siglip_loss
from support.contrastive import LOSSES, Case, case, errors, loss, results_on, textbook, wrong
from support.exact import results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MEMORIES: list[dict[str, int]] = [
    {},
    {"logits_budget": 0},
    {"logits_budget": 0, "chunk_bytes": 4 * 300 * 200},
]


def copied(asked: Case) -> Case:
    return asked.to(device="cuda")


def step(there: Case) -> list[torch.Tensor]:
    """The loss and the gradients of leaves that are on the GPU already."""
    y = loss(there)
    return [y.detach(), *torch.autograd.grad(y, list(there.leaves.values()))]


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 769), (37, 16), (257, 48), (1000, 512)])
def test_every_dtype_agrees_with_float64(
    kind: str, dtype: torch.dtype, memory: dict[str, int], rows: int, width: int
) -> None:
    asked = case(kind, rows=rows, width=width, dtype=dtype, scale=5.0, alike=0.5, **memory)

    found = results_on("cuda", asked)

    if rows == 1 and kind == "clip":
        assert all(result.abs().max() < 1e-6 for result in found.values())
    else:
        assert wrong(found, asked) == {}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    kind: str, dtype: torch.dtype
) -> None:
    asked = case(kind, rows=512, width=256, dtype=dtype, alike=0.5)

    ours, theirs = errors(results_on("cuda", asked), asked), errors(results(textbook, asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * theirs[name] + 1e-6} == {}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_three_equal_runs_give_equal_bits(kind: str, dtype: torch.dtype, memory: dict[str, int]) -> None:
    there = copied(case(kind, rows=1500, width=256, dtype=dtype, **memory))

    first, *others = (step(there) for _ in range(3))

    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", LOSSES)
def test_memory_that_holds_nan_before_leaves_no_trace(kind: str) -> None:
    there = copied(case(kind, rows=1111, width=64, dtype=torch.bfloat16, **MEMORIES[2]))
    expected = step(there)
    poison = [torch.full((1 << n,), torch.nan, device="cuda") for n in range(4, 22) for _ in range(3)]
    del poison

    assert all(torch.equal(a, b) for a, b in zip(step(there), expected, strict=True))


@pytest.mark.parametrize("kind", LOSSES)
def test_halves_agree_with_the_reference_on_the_same_device(kind: str) -> None:
    there = copied(case(kind, rows=700, width=64, **MEMORIES[2]))

    with dispatch.using("torch"):
        expected = step(there)

    torch.testing.assert_close(step(there), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_graph_replays_it_on_new_rows(kind: str, memory: dict[str, int]) -> None:
    there = copied(case(kind, rows=600, width=64, dtype=torch.bfloat16, **memory))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(there)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step(there)
    with torch.no_grad():
        there.image.copy_(there.image.roll(1, 0) * 1.5)

    graph.replay()

    torch.testing.assert_close(found, step(there), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LOSSES)
def test_inductor_takes_it_as_one_graph(kind: str) -> None:
    torch.compiler.reset()
    there = copied(case(kind, rows=300, width=64, dtype=torch.bfloat16))
    compiled = torch.compile(loss, fullgraph=True)

    y = compiled(there)
    gradients = torch.autograd.grad(y, list(there.leaves.values()))

    torch.testing.assert_close([y.detach(), *gradients], step(there))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_makes_the_products_in_its_dtype(kind: str, dtype: torch.dtype) -> None:
    there = copied(case(kind, rows=300, width=64))

    with torch.autocast("cuda", dtype=dtype):
        found = step(there)

    assert {result.dtype for result in found} == {torch.float32}
    torch.testing.assert_close(found[0], step(there)[0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_of_a_scaled_half_precision_loss_are_not_lost(kind: str) -> None:
    asked = case(kind, rows=2048, width=64, dtype=torch.float16, alike=0.5, logits_budget=0)
    there = copied(asked)

    (found,) = torch.autograd.grad(loss(there) * 65536.0, there.image)

    exact = asked.to(torch.float64)
    (expected,) = torch.autograd.grad(textbook(exact) * 65536.0, exact.image)
    assert (found.cpu().double() - expected).norm() < 2e-3 * expected.norm()


def test_float32_obeys_the_setting_for_tf32() -> None:
    asked = case(rows=512, width=512, scale=5.0, alike=0.5)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        found = results_on("cuda", asked)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before

    assert max(errors(found, asked).values()) < 1e-3


@pytest.mark.parametrize("kind", LOSSES)
def test_more_than_two_to_the_31st_logits_need_no_such_memory(kind: str) -> None:
    rows, width = 50_000, 64
    there = copied(case(kind, rows=rows, width=width, dtype=torch.bfloat16, alike=0.5))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    found = step(there)

    assert torch.cuda.max_memory_allocated() - before < 300e6
    few = replace(there, options={"chunk_bytes": 16 << 20})
    torch.testing.assert_close(found, step(few), rtol=2e-2, atol=1e-5)


def test_one_tile_of_more_than_two_to_the_31st_logits_is_addressed_right() -> None:
    rows, width = 47_000, 32
    there = copied(case(rows=rows, width=width, dtype=torch.bfloat16, alike=0.5))
    image, text, scale = there.leaves.values()

    whole = clip_loss(image, text, scale, chunk_bytes=16 << 30, logits_budget=0)

    with torch.no_grad():
        assert torch.allclose(whole, clip_loss(image, text, scale))
    (found,) = torch.autograd.grad(whole, text)
    (expected,) = torch.autograd.grad(clip_loss(image, text, scale), text)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-6)


def test_a_loss_without_gradients_takes_no_memory_for_them() -> None:
    there = copied(case("siglip", rows=8192, width=512, dtype=torch.bfloat16))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    with torch.no_grad():
        siglip_loss(*there.leaves.values(), chunk_bytes=16 << 20)

    assert torch.cuda.max_memory_allocated() - before < 20 << 20
