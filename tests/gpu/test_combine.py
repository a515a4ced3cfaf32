"""Combining modalities on a GPU, where its kernels run. The cases are those of the tests without one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import combine_modalities, dispatch, tuned
from support.combinations import Case, case, combine, combine_on, errors, poisoned, results, textbook, wrong

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated"),
]

LOW = (torch.float32, torch.float16, torch.bfloat16)
WAYS = [{"mode": "sum"}, {"mode": "mean"}, {"mode": "max"}, {"gates": "modality"}, {"gates": "entry"}]

run = combine_on("cuda")


@pytest.fixture(autouse=True)
def on_the_kernel() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


@pytest.mark.parametrize("mask", ["absent", "none", "some", "weighted"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dtype", LOW)
def test_every_mode_agrees_with_the_textbook(
    mask: str, way: dict[str, Any], norm: bool, dtype: torch.dtype
) -> None:
    asked = case(mask=mask, norm=norm, dtype=dtype, activation="gelu" if norm else "none", **way)

    assert wrong(asked, run) == {}


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_every_activation_agrees_with_the_textbook(activation: str, norm: bool) -> None:
    assert wrong(case(activation=activation, norm=norm, mode="mean", mask="weighted"), run) == {}


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("way", WAYS)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    dtype: torch.dtype, way: dict[str, Any]
) -> None:
    asked = case(rows=64, dtype=dtype, activation="gelu", **way)

    ours, plain = errors(results(run, asked), asked), errors(results(textbook, asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * plain[name] + 1e-6} == {}


@pytest.mark.parametrize(
    ("rows", "modalities", "width"),
    [(1, 1, 1), (1, 3, 7), (3, 2, 769), (37, 5, 130), (257, 2, 48), (37, 2, 4096), (3, 2, 16384), (3, 12, 7)],
)
@pytest.mark.parametrize(
    "way", [{"mode": "mean"}, {"mode": "max"}, {"gates": "modality"}, {"gates": "entry"}]
)
def test_odd_shapes_agree_with_the_textbook(
    rows: int, modalities: int, width: int, way: dict[str, Any]
) -> None:
    sizes = {"rows": rows, "modalities": modalities, "width": width}
    norm = width > 1
    if modalities == 1:
        way = {"mode": "mean"}

    assert wrong(case(**sizes, mask="weighted", norm=norm, activation="silu", **way), run) == {}


def test_a_batch_without_rows_gives_no_rows_and_gradients_of_zero() -> None:
    asked = case(rows=0, activation="gelu", gates="entry")

    found = results(run, asked)

    assert found.pop("output").shape == (0, 48)
    assert all(torch.equal(found[name], torch.zeros_like(leaf)) for name, leaf in asked.leaves.items())


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("way", WAYS)
def test_poison_in_masked_entries_and_gates_reaches_neither_output_nor_gradients(
    poison: float, way: dict[str, Any]
) -> None:
    asked = case(mask="weighted", activation="gelu", **way)

    found = results(run, poisoned(asked, poison))

    clean = results(run, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


@pytest.mark.parametrize("way", WAYS)
def test_nan_in_a_present_entry_is_seen_in_its_row_alone(way: dict[str, Any]) -> None:
    asked = case(rows=3, mask="all", **way)
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(run, asked)

    assert found["output"][2].isnan().all()
    assert found["output"][:2].isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_three_equal_runs_give_equal_bits(way: dict[str, Any]) -> None:
    asked = case(rows=4099, width=130, activation="gelu", mask="weighted", **way)

    first, *others = (results(run, asked) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("gates", ["", "modality", "entry"])
def test_strided_expanded_and_misaligned_inputs_agree_with_contiguous_ones(norm: bool, gates: str) -> None:
    asked = on_gpu(case(mask="weighted", norm=norm, gates=gates))
    assert asked.mask is not None
    columns, one, shifted = (x.detach() for x in asked.xs)
    odd = replace(
        asked,
        xs=[
            columns.T.contiguous().T,
            one[:1].expand(37, 48),
            torch.cat([shifted.flatten()[:1], shifted.flatten()])[1:].view(37, 48),
        ],
        mask=asked.mask.T.contiguous().T,
        gates=None if asked.gates is None else asked.gates.mT.contiguous().mT,
    )

    packed = replace(odd, xs=[x.contiguous() for x in odd.xs], gates=asked.gates, mask=asked.mask)
    torch.testing.assert_close(combine(odd), combine(packed))


@pytest.mark.parametrize("frozen", ["gates", "norm_weight", "norm_bias", "xs[0]", "xs[2]"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str) -> None:
    asked, twin = (case(activation="gelu", gates="modality") for _ in range(2))
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(run, asked), results(run, twin)

    assert frozen not in found
    assert all(torch.equal(found[name], whole[name]) for name in found)


def on_gpu(asked: Case) -> Case:
    """The same case with fresh leaves there."""
    moved = asked.changed(lambda leaf: leaf.detach().cuda().requires_grad_())
    return replace(moved, mask=None if asked.mask is None else asked.mask.cuda())


def gradients(y: torch.Tensor, asked: Case, scale: float = 1.0) -> list[torch.Tensor]:
    return list(torch.autograd.grad(y.float().cos().sum() * scale, list(asked.leaves.values())))


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_graph_repeats_it_on_new_numbers(way: dict[str, Any]) -> None:
    asked = on_gpu(case(dtype=torch.bfloat16, activation="gelu", **way))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        gradients(combine(asked), asked)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = combine(asked)
        found = gradients(y, asked)

    with torch.no_grad():
        for leaf in asked.leaves.values():
            leaf.copy_(torch.randn_like(leaf))
    graph.replay()

    expected = combine(asked)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(found, gradients(expected, asked), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_inductor_takes_it_as_one_graph_for_every_batch_size(way: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(combine, fullgraph=True, dynamic=True)

    for rows in (6, 37, 11):
        asked = on_gpu(case(rows=rows, activation="gelu", **way))
        y = compiled(asked)

        torch.testing.assert_close(y, combine(asked))
        torch.testing.assert_close(gradients(y, asked), gradients(combine(asked), asked))


def test_autocast_changes_nothing() -> None:
    asked = on_gpu(case(gates="modality", activation="gelu"))

    with torch.autocast("cuda", torch.bfloat16):
        y = combine(asked)

    assert torch.equal(y, combine(asked))


def test_scaled_gradients_are_the_gradients_scaled() -> None:
    asked = on_gpu(case(dtype=torch.float16, gates="entry", activation="gelu"))

    scaled = gradients(combine(asked), asked, scale=1024.0)

    for one, whole in zip(scaled, gradients(combine(asked), asked), strict=True):
        torch.testing.assert_close(one / 1024, whole, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("config", [{"ROWS": 1, "num_warps": 1}, {"ROWS": 8, "num_warps": 8}])
def test_every_launch_configuration_gives_the_same_numbers(config: dict[str, int]) -> None:
    asked = case(rows=2050, gates="modality", mask="weighted", activation="gelu")
    expected = results(run, asked)

    with tuned.forced("combine.forward", config), tuned.forced("combine.backward", config | {"PROGRAMS": 7}):
        found = results(run, asked)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_more_entries_than_32_bits_can_count_are_all_reached() -> None:
    rows, width = 2**21 + 8, 1024
    if torch.cuda.mem_get_info()[0] < 14 * 2**30:
        pytest.skip("it takes 14 GB of the GPU's memory")
    x = torch.ones(rows, width, dtype=torch.float16, device="cuda", requires_grad=True)
    mask = torch.ones(rows, 1, dtype=torch.bool, device="cuda")
    mask[-2] = False

    y = combine_modalities([x], mask=mask)
    (dx,) = torch.autograd.grad(y, x, y.detach())

    for found in (y, dx):
        assert found[-3:, -1].tolist() == [1, 0, 1]
        assert found[0, 0] == 1
