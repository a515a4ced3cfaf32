"""Token pooling's kernels on a GPU: numbers, bits, graphs, compilers, and sizes beyond 32 bits."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from kernels import dispatch, masked_token_pool, tuned
from kernels.token_pool import reference, triton
from support.exact import TOLERANCE, errors, results
from support.pools import FORMS, SHAPES, Case, case, packed, pool, textbook, without_empty_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
        reason="NO GPU HERE: no kernel was run on one",
    ),
    # Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MODES = ("mean", "max", "cls")


@pytest.fixture(autouse=True)
def _on_triton() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.tokens.dtype]
    told = errors(results(pool, asked), asked, textbook)
    assert {name: error for name, error in told.items() if not error <= tolerance} == {}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def given(asked: Case) -> tuple[Any, ...]:
    leaves = {name: leaf.detach() for name, leaf in asked.leaves.items()}
    norm = leaves.get("norm_weight"), leaves.get("norm_bias")
    return leaves["tokens"], asked.lengths, asked.cu_seqlens, *norm, 1e-5, asked.mode, asked.l2_normalize


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_agrees_with_the_textbook(form: dict[str, Any], dtype: torch.dtype) -> None:
    for shape in ({}, {"rows": 37, "most": 133, "width": 769}, {"rows": 257, "most": 17, "width": 768}):
        asked = case(dtype=dtype, **shape, **form).on("cuda")
        asked = without_empty_rows(asked) if asked.l2_normalize else asked
        assert_exact(asked)
        assert_exact(packed(asked))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1500, 768), (2, 9, 8192)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_odd_shapes_agree_with_the_textbook(
    shape: tuple[int, int, int], mode: str, dtype: torch.dtype
) -> None:
    rows, most, width = shape
    assert_exact(case(rows=rows, most=most, width=width, mode=mode, norm=width > 1, dtype=dtype).on("cuda"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    dtype: torch.dtype, mode: str
) -> None:
    asked = case(rows=37, most=133, width=769, dtype=dtype, mode=mode).on("cuda")

    ours = errors(results(pool, asked), asked, textbook)
    theirs = errors(results(textbook, asked, may_leave_out=True), asked, textbook)

    assert {name: error for name, error in ours.items() if error > 2 * theirs[name]} == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rows", "most"), [(0, 5), (4, 0), (0, 0)])
def test_no_rows_or_no_tokens_give_zeros(mode: str, rows: int, most: int) -> None:
    asked = case(rows=rows, most=most, mode=mode).on("cuda")
    for one in (asked, packed(asked)):
        assert all((found == 0).all() for found in results(pool, one).values())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_equal_calls_give_equal_bits(form: dict[str, Any]) -> None:
    asked = case(rows=37, most=301, width=768, dtype=torch.bfloat16, **form).on("cuda")
    for one in (asked, packed(asked)):
        first, *others = (results(pool, one) for _ in range(3))
        for other in others:
            assert_same(other, first)


@pytest.mark.parametrize("splits", [1, 7])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_memory_that_held_nan_before_is_written_whole(form: dict[str, Any], splits: int) -> None:
    asked = case(rows=9, most=133, width=768, **form).on("cuda")
    config = {"SPLITS": splits}
    torch.use_deterministic_algorithms(True, warn_only=True)  # Fills what is allocated with NaN.
    try:
        with (
            tuned.forced(f"token_pool.{asked.mode}", config),
            tuned.forced(f"token_pool.{asked.mode}_gradient", config),
        ):
            assert all(found.isfinite().all() for found in results(pool, asked).values())
            assert all(found.isfinite().all() for found in results(pool, packed(asked)).values())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("mode", MODES)
def test_poison_in_dead_tokens_reaches_neither_output_nor_gradients(mode: str, poison: float) -> None:
    asked = case(rows=9, most=133, width=768, mode=mode, l2_normalize=True, dtype=torch.bfloat16).on("cuda")
    assert asked.lengths is not None
    dead = (torch.arange(133, device="cuda") >= asked.lengths.unsqueeze(1)).unsqueeze(-1)
    tokens = torch.where(dead, poison, asked.tokens.detach()).requires_grad_()

    assert_same(results(pool, replace(asked, tokens=tokens)), results(pool, asked))


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
def test_nan_in_live_tokens_does_what_it_does_in_the_reference(form: str, mode: str) -> None:
    asked = case(rows=3, most=9, width=768, lengths="all", mode=mode, norm=False).on("cuda")
    asked = packed(asked) if form == "packed" else asked
    with torch.no_grad():
        tokens = asked.tokens.view(3, 9, 768)
        tokens[1, 0, 4] = tokens[2, 0, 3] = tokens[2, 5, 3] = tokens[2, 5, 7] = torch.nan

    ours, theirs = triton.forward(*given(asked)), reference.forward(*given(asked))

    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert ours[0][1, 4].isnan()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_captured_graph_replays_with_other_lengths(form: dict[str, Any]) -> None:
    asked = case(rows=9, most=133, width=768, dtype=torch.bfloat16, **form).on("cuda")
    assert asked.lengths is not None
    other = asked.lengths.flip(0).clamp(min=1)
    expected = results(pool, replace(asked, lengths=other))
    upstream = (
        torch.linspace(-1, 1, 9 * 768, dtype=torch.float64).reshape(9, 768).cos().to(expected["output"])
    )

    def run() -> dict[str, torch.Tensor]:
        y = pool(asked)
        gradients = torch.autograd.grad(y, list(asked.leaves.values()), upstream)
        return {"output": y.detach()} | dict(zip(asked.leaves, gradients, strict=True))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    asked.lengths.copy_(other)
    graph.replay()
    torch.cuda.synchronize()

    assert_same(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_inductor_takes_it_as_one_graph(mode: str) -> None:
    torch.compiler.reset()
    asked = case(rows=9, most=133, width=768, mode=mode, l2_normalize=True).on("cuda")

    found = results(torch.compile(pool, fullgraph=True, dynamic=True), asked)

    assert_same(found, results(pool, asked))


def test_autocast_changes_nothing() -> None:
    asked = case(width=768).on("cuda")

    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = results(pool, asked)

    assert_same(found, results(pool, asked))


def test_large_gradients_as_a_scaler_makes_them_come_through() -> None:
    asked = case(rows=37, most=133, width=768, dtype=torch.float16, lengths="all").on("cuda")
    upstream = torch.randn(37, 768, device="cuda", dtype=torch.float16)

    plain = torch.autograd.grad(pool(asked), list(asked.leaves.values()), upstream)
    scaled = torch.autograd.grad(pool(asked), list(asked.leaves.values()), upstream * 512)

    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other.float() / 512, one.float(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("make", ["expanded", "turned", "misaligned"])
@pytest.mark.parametrize("mode", MODES)
def test_tokens_may_lie_in_any_way(make: str, mode: str) -> None:
    whole = torch.randn(9, 133, 769, device="cuda")
    tokens = {
        "expanded": whole[:1, :, :768].expand(9, -1, -1),
        "turned": whole[..., :768].permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "misaligned": whole[..., 1:],
    }[make]

    asked = case(rows=9, most=133, width=768, mode=mode).on("cuda")

    assert_exact(replace(asked, tokens=tokens.detach().requires_grad_()))


@pytest.mark.parametrize("mode", MODES)
def test_calls_on_two_streams_leave_each_other_alone(mode: str) -> None:
    asked = case(rows=64, most=197, width=768, mode=mode, dtype=torch.bfloat16).on("cuda")
    expected = results(pool, asked)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    found = []
    for stream in streams:
        with torch.cuda.stream(stream):
            found.append(results(pool, asked))
    torch.cuda.synchronize()

    for one in found:
        assert_same(one, expected)


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_tokens_beyond_the_reach_of_32_bits_are_reached(form: str) -> None:
    rows, most, width = 12, 1 << 18, 768
    assert rows * most * width > 1 << 31
    tokens = torch.empty(rows, most, width, dtype=torch.bfloat16, device="cuda").normal_().requires_grad_()
    norm = torch.ones(width, device="cuda")
    if form == "packed":
        bounds = torch.arange(rows + 1, device="cuda") * most
        y = masked_token_pool(tokens.flatten(0, 1), cu_seqlens=bounds, norm_weight=norm)
    else:
        lengths = torch.full((rows,), most - 3, device="cuda")
        y = masked_token_pool(tokens, lengths, norm_weight=norm)
    (dx,) = torch.autograd.grad(y.float().square().sum() * most, tokens)

    last = tokens.detach()[-1, : most if form == "packed" else most - 3].float()
    expected = functional.layer_norm(last, (width,)).mean(0)
    torch.testing.assert_close(y[-1].float(), expected, rtol=2e-2, atol=1e-4)
    assert dx[-1, most - 4].abs().sum() > 0
    assert (dx[-1, most - 3 :] == 0).all() == (form == "padded")
