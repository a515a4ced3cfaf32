"""The masked projection's kernels in Triton's interpreter. It multiplies bfloat16 wrongly: that is left to a GPU."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import dispatch, tuned
from kernels.projection import gradients, reference, triton
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

SINGLE, HALF = torch.float32, torch.float16


@pytest.fixture(autouse=True)
def _on_triton() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.weight.dtype]
    told = errors(results(project, asked), asked)
    assert {name: error for name, error in told.items() if not error <= tolerance} == {}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_every_form_agrees_with_the_textbook(form: dict[str, Any], dtype: torch.dtype) -> None:
    assert_exact(case(rows=21, outputs=70, dtype=dtype, **form))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_odd_shapes_agree_with_the_textbook(
    shape: tuple[int, tuple[int, ...], int], dtype: torch.dtype
) -> None:
    rows, widths, outputs = shape
    assert_exact(
        case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, activation="silu", mask="weighted")
    )


@pytest.mark.parametrize(("rows", "widths", "outputs"), [(257, (48, 769), 130), (37, (1280,), 1024)])
@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
@pytest.mark.slow
def test_larger_shapes_agree_with_the_textbook(
    rows: int, widths: tuple[int, ...], outputs: int, dtype: torch.dtype
) -> None:
    assert_exact(case(rows=rows, widths=widths, outputs=outputs, dtype=dtype, activation="gelu"))


def test_a_batch_without_rows_gives_no_rows_and_gradients_of_zero() -> None:
    asked = case(rows=0, combine="mean", activation="gelu", dtype=HALF)

    found = results(project, asked)

    assert found.pop("output").shape == (0, 130)
    assert all(torch.equal(found[name], torch.zeros_like(leaf)) for name, leaf in asked.leaves.items())


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["absent", "some", "weighted"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "way", [{"SPLIT": 1, "WAY": 1}, {"SPLIT": 4, "WAY": 1}, {"SPLIT": 1, "WAY": 2}], ids=str
)
def test_every_way_to_multiply_agrees_with_the_textbook(mask: str, norm: bool, way: dict[str, int]) -> None:
    asked = case(rows=21, widths=(40, 16), outputs=20, mask=mask, norm=norm, dtype=HALF)
    own = {"SPLIT": way["SPLIT"], "BLOCK_ROWS": 16, "WAY": way["WAY"]}

    with (
        tuned.forced("projection.add_up", {**way, "BLOCK_INPUTS": 16}),
        tuned.forced("projection.to_inputs", {"WAY": way["WAY"]}),
        tuned.forced("projection.to_weight", own),
    ):
        assert_exact(asked)


@pytest.mark.parametrize("mask", ["none", "some"])
@pytest.mark.parametrize("split", [1, 4])
def test_one_loop_over_all_modalities_agrees_with_the_textbook(mask: str, split: int) -> None:
    asked = case(rows=21, widths=(40, 16, 7), outputs=20, mask=mask, norm=False, dtype=HALF)

    with tuned.forced("projection.add_up", {"LOOPS": 1, "SPLIT": split, "BLOCK_INPUTS": 16}):
        assert_exact(asked)


@pytest.mark.parametrize(
    ("mask", "split", "frozen"),
    [
        pytest.param("none", 1, (), marks=pytest.mark.slow),
        pytest.param("absent", 3, (), marks=pytest.mark.slow),
        pytest.param("some", 1, (1,), marks=pytest.mark.slow),
        ("some", 3, ()),
    ],
)
def test_both_products_of_the_backward_in_one_launch_agree_with_the_textbook(
    mask: str, split: int, frozen: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = case(rows=37, widths=(48, 16, 32), outputs=40, mask=mask, combine="mean", dtype=HALF)
    for m in frozen:
        asked.leaves[f"xs[{m}]"].requires_grad_(False)
    for apart in ("to_weight", "to_inputs"):
        monkeypatch.delattr(gradients, apart)

    small = {"BLOCK_SIDE": 16, "BLOCK_INPUTS": 32, "BLOCK_DEPTH": 16}
    with tuned.forced("projection.to_both", {**small, "SPLIT": split, "WAY": 1}):
        assert_exact(asked)


@pytest.mark.slow
def test_many_rows_are_shared_among_few_programs() -> None:
    asked = case(rows=70, widths=(3, 5), outputs=70, activation="gelu")

    with tuned.forced("projection.to_sum", {"PROGRAMS": 3, "BLOCK_ROWS": 2, "STAGES": 3}):
        assert_exact(asked)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["torch", "triton"])
@pytest.mark.parametrize("form", FORMS[4:8], ids=str)
def test_the_two_halves_may_run_on_different_backends(first: str, form: dict[str, Any]) -> None:
    asked = case(rows=5, outputs=20, dtype=HALF, **form)
    given, ways = arguments(asked), {"torch": reference, "triton": triton}
    second = ways["triton" if first == "torch" else "torch"]
    needs = [True, True, form["norm"], form["norm"], True, True, True]

    y, z = ways[first].forward(*given)
    found = second.backward(torch.ones_like(y), z, *given, needs)

    expected = reference.backward(torch.ones_like(y), reference.forward(*given)[1], *given, needs)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mask", ["some", "weighted", "none"])
@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_poison_in_masked_entries_reaches_neither_output_nor_gradients(mask: str, dtype: torch.dtype) -> None:
    asked = case(rows=21, outputs=40, mask=mask, combine="mean", activation="gelu", dtype=dtype)

    found = results(project, poisoned(asked, torch.nan))

    clean = results(project, asked)
    assert all(torch.equal(found[name], clean[name]) for name in clean)


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_a_masked_entry_has_a_gradient_of_zero_even_when_its_row_is_poisoned(dtype: torch.dtype) -> None:
    asked = case(rows=2, widths=(3, 4), outputs=5, mask="all", dtype=dtype)
    mask = torch.tensor([[True, False], [True, True]])
    xs = [torch.full((2, 3), torch.nan, dtype=dtype).requires_grad_(), asked.xs[1]]

    found = results(project, replace(asked, xs=xs, mask=mask))

    assert found["xs[0]"].isnan().all()
    assert (found["xs[1]"][0] == 0).all()


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_nan_in_a_present_entry_is_seen_in_its_row_alone(activation: str, norm: bool) -> None:
    asked = case(rows=3, outputs=20, mask="all", activation=activation, norm=norm, dtype=HALF)
    with torch.no_grad():
        asked.xs[1][2, 4] = torch.nan

    found = results(project, asked)

    assert found["output"][2].isnan().all()
    assert found["output"][:2].isfinite().all()
    assert found["weight"].isnan().any()


def test_weights_that_are_far_apart_count_as_in_the_textbook() -> None:
    asked = case(rows=4, mask="all", outputs=20, norm=False, dtype=HALF)
    far = torch.tensor([[1e-30, 1.0, 1e-6], [1.0, 1e-30, 0.0], [1e-30, 0.0, 1e-30], [0.0, 0.0, 1e-30]])

    found = results(project, replace(asked, mask=far, combine="mean"))

    with dispatch.using("torch"):
        expected = results(project, replace(asked, mask=far, combine="mean"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("frozen", ["weight", "bias", "norm_weight", "norm_bias", "xs[0]", "xs[2]"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str) -> None:
    options: dict[str, Any] = {"rows": 5, "outputs": 20, "activation": "gelu", "dtype": HALF}
    asked, twin = case(**options), case(**options)
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(project, asked), results(project, twin)

    assert frozen not in found
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_nothing_is_launched_for_frozen_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = case(rows=5, outputs=20, activation="gelu", dtype=HALF)
    given, launched = arguments(asked), []
    y, z = triton.forward(*given)
    for name in ("to_sum", "to_weight", "to_inputs", "fold"):
        run = getattr(gradients, name)
        monkeypatch.setattr(
            gradients, name, lambda *a, name=name, run=run: (launched.append(name), run(*a))[1]
        )

    found = triton.backward(y, z, *given, [False, False, False, False, False, True, False])

    assert launched == ["to_sum", "to_inputs"]
    assert [gradient.shape for gradient in found] == [(5, 48)]


def test_three_equal_runs_give_equal_bits() -> None:
    asked = case(rows=21, outputs=40, activation="gelu", combine="mean", mask="weighted", dtype=HALF)

    first, *others = (results(project, asked) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_strided_expanded_and_misaligned_inputs_agree_with_contiguous_ones(
    activation: str, dtype: torch.dtype
) -> None:
    asked = case(widths=(7, 48, 5), activation=activation, mask="weighted", dtype=dtype)
    assert asked.mask is not None

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)

    odd = replace(
        asked,
        xs=[
            draw(7, 37).T.requires_grad_(),
            draw(1, 48).expand(37, 48).requires_grad_(),
            draw(37 * 5 + 1)[1:].view(37, 5).requires_grad_(),
        ],
        weight=draw(60, 130).T.requires_grad_(),
        bias=draw(260)[::2].requires_grad_(),
        mask=asked.mask.T.contiguous().T,
    )

    assert_exact(odd)


@pytest.mark.parametrize("norm", [True, False])
def test_the_expanded_gradient_of_a_sum_is_taken(norm: bool) -> None:
    asked, twin = case(rows=5, norm=norm), case(rows=5, norm=norm)

    project(asked).sum().backward()
    eager(twin).sum().backward()

    torch.testing.assert_close(
        [leaf.grad for leaf in asked.leaves.values()], [leaf.grad for leaf in twin.leaves.values()]
    )


def test_a_weight_whose_rows_begin_at_odd_places_is_read_as_well() -> None:
    assert_exact(case(rows=70, widths=(16, 3), outputs=20, dtype=HALF))


def test_a_layer_norm_wider_than_a_program_holds_is_left_to_the_reference() -> None:
    wide = case(rows=1, widths=(1,), outputs=8193)

    assert triton.refuses_forward(*arguments(wide)) == "LayerNorm over more than 8192 outputs"
    assert triton.refuses_forward(*arguments(replace(wide, norm_weight=None, norm_bias=None))) is None
