"""The numbers of combining modalities: against a textbook in float64, output and every gradient."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import combine_modalities, dispatch, tuned
from support.combinations import case, combine, errors, results, textbook, wrong

LOW = (torch.float32, torch.float16, torch.bfloat16)
WAYS = [{"mode": "sum"}, {"mode": "mean"}, {"mode": "max"}, {"gates": "modality"}, {"gates": "entry"}]


@pytest.fixture(params=["torch", "triton"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The reference, and the kernel in Triton's interpreter: there few large programs are faster."""
    large = {"ROWS": 16, "PROGRAMS": 2}
    with dispatch.using(request.param):
        with tuned.forced("combine.forward", {"ROWS": 16}), tuned.forced("combine.backward", large):
            yield request.param


@pytest.mark.parametrize("mask", ["absent", "all", "none", "some", "weighted"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("norm", [True, False])
def test_every_mode_agrees_with_the_textbook(mask: str, way: dict[str, Any], norm: bool) -> None:
    assert wrong(case(mask=mask, norm=norm, activation="gelu" if norm else "none", **way)) == {}


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("norm", [True, False])
def test_every_activation_agrees_with_the_textbook(activation: str, norm: bool) -> None:
    assert wrong(case(activation=activation, norm=norm, mode="mean", mask="weighted")) == {}


@pytest.mark.parametrize("dtype", [torch.float64, *LOW])
@pytest.mark.parametrize("way", WAYS)
def test_every_dtype_agrees_with_float64(dtype: torch.dtype, way: dict[str, Any]) -> None:
    assert wrong(case(rows=17, dtype=dtype, activation="gelu", **way)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("way", WAYS)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    dtype: torch.dtype, way: dict[str, Any]
) -> None:
    asked = case(rows=64, dtype=dtype, activation="gelu", **way)

    ours, plain = errors(results(combine, asked), asked), errors(results(textbook, asked), asked)

    # What the textbook happens to have exactly right, ours has as good as right.
    assert {name: error for name, error in ours.items() if error > 2 * plain[name] + 1e-7} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "modalities", "width"),
    [(1, 1, 1), (1, 3, 7), (3, 2, 769), (3, 5, 130), (37, 2, 48), (257, 2, 5), (3, 2, 4096), (3, 12, 7)],
)
@pytest.mark.parametrize("way", [{"mode": "mean"}, {"gates": "modality"}, {"gates": "entry"}])
def test_odd_shapes_agree_with_the_textbook(
    rows: int, modalities: int, width: int, way: dict[str, Any]
) -> None:
    sizes = {"rows": rows, "modalities": modalities, "width": width}
    # Of a LayerNorm over one entry nothing is left but its bias: no relative error is small.
    assert wrong(case(**sizes, mask="weighted", norm=width > 1, activation="silu", **way)) == {}


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_without_rows_gives_no_rows_and_gradients_of_zero(way: dict[str, Any]) -> None:
    asked = case(rows=0, activation="gelu", **way)

    found = results(combine, asked)

    assert found.pop("output").shape == (0, 48)
    assert all(torch.equal(found[name], torch.zeros_like(leaf)) for name, leaf in asked.leaves.items())


@pytest.mark.parametrize("way", WAYS)
def test_the_gradients_agree_with_finite_differences(way: dict[str, Any]) -> None:
    asked = case(rows=4, width=5, dtype=torch.float64, mask="weighted", activation="gelu", **way)
    names = list(asked.leaves)

    def run(*leaves: torch.Tensor) -> torch.Tensor:
        fresh = iter(leaves)
        return combine(replace(asked, **{n: next(fresh) for n in names if "xs" not in n}, xs=list(fresh)))

    assert torch.autograd.gradcheck(run, tuple(asked.leaves.values()))


def test_the_first_of_equal_entries_gets_the_gradient_of_a_maximum() -> None:
    x = torch.tensor([[2.0, 1.0, -torch.inf]]).repeat(2, 1)
    xs = [x.clone().requires_grad_() for _ in range(3)]
    mask = torch.tensor([[True, True, True], [False, True, True]])

    y = combine_modalities(xs, mask=mask, mode="max")
    y.sum().backward()

    assert torch.equal(y, x)
    assert [x.grad[:, 0].tolist() for x in xs] == [[1, 0], [0, 1], [0, 0]]
    assert all(torch.equal(x.grad[:, :1].expand(2, 3), x.grad) for x in xs)


def test_the_weights_of_a_maximum_say_only_what_is_present() -> None:
    asked = case(mode="max", mask="weighted")
    assert asked.mask is not None

    assert torch.equal(combine(asked), combine(replace(asked, mask=asked.mask > 0)))


@pytest.mark.parametrize("gates", ["modality", "entry"])
def test_equal_gates_are_a_mean(gates: str) -> None:
    asked = case(gates=gates, mask="weighted")
    assert asked.gates is not None

    gated = combine(replace(asked, gates=torch.full_like(asked.gates, 3.0)))

    torch.testing.assert_close(gated, combine(replace(asked, gates=None, mode="mean")))


def test_two_modalities_gated_by_entry_are_the_papers_gated_multimodal_unit() -> None:
    asked = case(modalities=2, mask="absent", gates="entry", norm=False)
    assert asked.gates is not None

    z = torch.sigmoid(asked.gates[:, 0] - asked.gates[:, 1])

    torch.testing.assert_close(combine(asked), z * asked.xs[0] + (1 - z) * asked.xs[1])


@pytest.mark.parametrize("gates", ["modality", "entry"])
def test_gates_far_apart_and_far_from_zero_do_no_harm(gates: str) -> None:
    asked = case(gates=gates, mask="weighted", norm=False)
    assert asked.gates is not None

    assert wrong(replace(asked, gates=(100 * asked.gates.detach() - 400).requires_grad_())) == {}


@pytest.mark.parametrize("way", WAYS)
def test_permuted_samples_give_permuted_rows(way: dict[str, Any]) -> None:
    asked = case(activation="gelu", **way)
    assert asked.mask is not None
    order = torch.randperm(len(asked.mask), generator=torch.Generator().manual_seed(1))
    gates = None if asked.gates is None else asked.gates[order]

    y = combine(replace(asked, xs=[x[order] for x in asked.xs], mask=asked.mask[order], gates=gates))

    torch.testing.assert_close(y, combine(asked)[order])


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_the_modalities_does_not_matter(way: dict[str, Any]) -> None:
    asked = case(activation="gelu", **way)
    assert asked.mask is not None
    order = [2, 0, 1]
    gates = None if asked.gates is None else asked.gates[:, order]

    y = combine(replace(asked, xs=[asked.xs[m] for m in order], mask=asked.mask[:, order], gates=gates))

    torch.testing.assert_close(y, combine(asked))


@pytest.mark.parametrize("way", WAYS)
def test_three_equal_runs_give_equal_bits(way: dict[str, Any]) -> None:
    asked = case(rows=65, activation="gelu", mask="weighted", **way)

    first, *others = (results(combine, asked) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("gates", ["", "modality", "entry"])
def test_strided_expanded_and_misaligned_inputs_agree_with_contiguous_ones(norm: bool, gates: str) -> None:
    asked = case(mask="weighted", norm=norm, gates=gates)
    assert asked.mask is not None
    changed = (
        {} if asked.gates is None else {"gates": asked.gates.detach().mT.contiguous().mT.requires_grad_()}
    )

    odd = replace(
        asked,
        **changed,
        xs=[
            torch.randn(48, 37).T.requires_grad_(),
            torch.randn(1, 48).expand(37, 48).requires_grad_(),
            torch.randn(37 * 48 + 1)[1:].view(37, 48).requires_grad_(),
        ],
        mask=asked.mask.T.contiguous().T,
        norm_weight=torch.randn(96)[::2].requires_grad_() if norm else None,
    )

    assert wrong(odd) == {}


@pytest.mark.parametrize("norm", [True, False])
def test_the_expanded_gradient_of_a_sum_is_taken(norm: bool) -> None:
    asked, twin = (case(activation="gelu", norm=norm) for _ in range(2))

    combine(asked).sum().backward()
    textbook(twin).sum().backward()

    torch.testing.assert_close(
        [leaf.grad for leaf in asked.leaves.values()], [leaf.grad for leaf in twin.leaves.values()]
    )


@pytest.mark.parametrize("config", [{"ROWS": 1, "PROGRAMS": 3}, {"ROWS": 4, "PROGRAMS": 1056}])
def test_a_kernel_is_as_right_in_small_programs(config: dict[str, int]) -> None:
    with tuned.forced("combine.forward", {"ROWS": config["ROWS"]}), tuned.forced("combine.backward", config):
        assert wrong(case(rows=9, gates="modality", mask="weighted", activation="gelu")) == {}


@pytest.mark.parametrize("gates", ["", "modality", "entry"])
def test_one_modality_alone_is_itself_where_it_is_present(gates: str) -> None:
    asked = case(modalities=1, gates=gates, norm=False)
    assert asked.mask is not None

    found = results(combine, asked)

    assert torch.equal(found["output"], torch.where(asked.mask, asked.xs[0], 0))
    assert not gates or not found["gates"].any()


@pytest.mark.parametrize("gates", ["modality", "entry"])
def test_a_kernels_own_choice_of_its_programs_is_right(gates: str) -> None:
    with tuned.forced("combine.forward", {}), tuned.forced("combine.backward", {}):
        assert wrong(case(rows=9, gates=gates, activation="gelu")) == {}
