"""Token pooling's Triton kernels, in Triton's interpreter: the same promises as the reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import dispatch, tuned
from kernels.token_pool import device, launches, reference, triton
from support.exact import TOLERANCE, errors, results
from support.pools import FORMS, SHAPES, Case, case, packed, pool, textbook, without_empty_rows

MODES = ("mean", "max", "cls")


@pytest.fixture(autouse=True)
def _on_triton() -> Iterator[None]:
    with dispatch.using("triton"):
        yield


def small(**form: Any) -> Case:
    return case(**{"rows": 4, "most": 9, "width": 48} | form)


@contextmanager
def split_into(mode: str, splits: int) -> Iterator[None]:
    config = {"SPLITS": splits, "TOKENS": 4}
    with tuned.forced(f"token_pool.{mode}", config), tuned.forced(f"token_pool.{mode}_gradient", config):
        yield


def given(asked: Case) -> tuple[Any, ...]:
    """The case as the two halves of an implementation take it."""
    leaves = {name: leaf.detach() for name, leaf in asked.leaves.items()}
    norm = leaves.get("norm_weight"), leaves.get("norm_bias")
    return leaves["tokens"], asked.lengths, asked.cu_seqlens, *norm, 1e-5, asked.mode, asked.l2_normalize


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.tokens.dtype]
    told = errors(results(pool, asked), asked, textbook)
    assert {name: error for name, error in told.items() if not error <= tolerance} == {}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_agrees_with_the_textbook(form: dict[str, Any]) -> None:
    asked = small(**form)
    asked = without_empty_rows(asked) if asked.l2_normalize else asked
    assert_exact(asked)
    assert_exact(packed(asked))


@pytest.mark.parametrize("lengths", ["absent", "all", "none", "int32"])
@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_lengths_agrees_with_the_textbook(lengths: str, mode: str) -> None:
    assert_exact(small(lengths=lengths, mode=mode, dtype=torch.float16))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 7), (3, 3, 769), (1, 3, 4096)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_odd_shapes_agree_with_the_textbook(shape: tuple[int, int, int], mode: str) -> None:
    rows, most, width = shape
    # LayerNorm of one number is its bias, whatever the number: there is no error to speak of.
    assert_exact(case(rows=rows, most=most, width=width, mode=mode, norm=width > 1))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SHAPES, (257, 2, 48), (2, 300, 48)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_more_odd_shapes_agree_with_the_textbook(shape: tuple[int, int, int], mode: str) -> None:
    rows, most, width = shape
    asked = case(rows=rows, most=most, width=width, mode=mode, norm=width > 1, l2_normalize=width > 1)
    assert_exact(packed(without_empty_rows(asked)))
    assert_exact(replace(asked, l2_normalize=False))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rows", "most"), [(0, 5), (4, 0), (0, 0)])
def test_no_rows_or_no_tokens_give_zeros_and_launch_nothing(
    mode: str, rows: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "device", None)
    for asked in (case(rows=rows, most=most, mode=mode), packed(case(rows=rows, most=most, mode=mode))):
        found = results(pool, asked)

        assert found["output"].shape == (rows, 48)
        assert all((one == 0).all() for one in found.values())


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", ["mean", "max"])
def test_a_row_may_be_split_among_several_programs(form: str, mode: str) -> None:
    asked = small(most=11, mode=mode, l2_normalize=True)
    asked = packed(asked) if form == "packed" else asked
    with split_into(mode, 1):
        whole = results(pool, asked)
    with split_into(mode, 3):
        split = results(pool, asked)

    torch.testing.assert_close(split, whole)
    if mode == "max":
        assert_same(split, whole)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_many_splits_of_a_wide_row_are_joined_in_steps(mode: str) -> None:
    asked = case(rows=2, most=11, width=300, mode=mode)
    with tuned.forced(f"token_pool.{mode}", {"SPLITS": 11, "TOKENS": 1, "W": 512}):
        assert_exact(asked)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_norms_gradients_may_be_summed_in_parts(parts: int) -> None:
    with tuned.forced("token_pool.norm_gradient", {"PARTS": parts, "ROWS": 4}):
        assert_exact(case(rows=11, most=3, width=48))
        assert_exact(packed(case(rows=11, most=3, width=48)))


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
def test_the_halves_of_both_implementations_fit_together(form: str, mode: str) -> None:
    asked = small(mode=mode)
    asked = packed(asked) if form == "packed" else asked
    arguments, needs = given(asked), [True, True, True]

    ours, theirs = triton.forward(*arguments), reference.forward(*arguments)

    assert torch.equal(ours[2], theirs[2])
    torch.testing.assert_close(ours, theirs)
    for kept in (ours, theirs):
        grad = theirs[0].cos()
        torch.testing.assert_close(
            triton.backward(grad, *kept[1:], *arguments, needs),
            reference.backward(grad, *kept[1:], *arguments, needs),
        )


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_poison_in_dead_tokens_reaches_neither_output_nor_gradients(form: str, mode: str, norm: bool) -> None:
    asked = small(mode=mode, norm=norm)
    assert asked.lengths is not None
    dead = (torch.arange(9) >= asked.lengths.unsqueeze(1)).unsqueeze(-1)
    tokens = torch.where(dead, torch.nan, asked.tokens.detach())
    poisoned = replace(asked, tokens=tokens.requires_grad_())
    if form == "packed":
        asked = packed(asked)
        assert asked.cu_seqlens is not None
        beside = torch.full((3, 48), torch.inf)
        around = torch.cat([beside, asked.tokens.detach(), beside]).requires_grad_()
        poisoned = replace(asked, tokens=around, cu_seqlens=asked.cu_seqlens + 3)

    found, clean = results(pool, poisoned), results(pool, asked)

    if form == "packed":
        whole = found["tokens"]
        found["tokens"] = whole[3:-3]
        assert (whole[:3] == 0).all()
        assert (whole[-3:] == 0).all()
    assert_same(found, clean)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_memory_that_held_nan_before_is_written_whole(
    mode: str, norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = small(mode=mode, norm=norm, most=11)
    clean = results(pool, asked)
    empty = torch.Tensor.new_empty

    def poisoned(self: torch.Tensor, *shape: Any, **options: Any) -> torch.Tensor:
        made = empty(self, *shape, **options)
        return made.fill_(torch.nan if made.is_floating_point() else -7)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda like: poisoned(like, like.shape))
    for splits in (1, 3):
        with split_into(mode, splits):
            torch.testing.assert_close(results(pool, asked), clean)
    torch.testing.assert_close(results(pool, packed(asked))["output"], clean["output"])


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_nan_in_live_tokens_does_what_it_does_in_the_reference(form: str, mode: str, norm: bool) -> None:
    asked = small(rows=3, lengths="all", mode=mode, norm=norm)
    asked = packed(asked) if form == "packed" else asked
    with torch.no_grad():
        tokens = asked.tokens.view(3, 9, 48)
        tokens[1, 0, 4] = tokens[2, 0, 3] = tokens[2, 5, 3] = tokens[2, 5, 7] = torch.nan
    arguments = given(asked)

    ours, theirs = triton.forward(*arguments), reference.forward(*arguments)

    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert ours[0][1:, 3:5].isnan().any()
    if mode != "cls":
        needs = [True, norm, norm]
        torch.testing.assert_close(
            triton.backward(theirs[0], *ours[1:], *arguments, needs),
            reference.backward(theirs[0], *theirs[1:], *arguments, needs),
            equal_nan=True,
        )


def test_the_largest_may_be_minus_infinity_or_a_zero_of_either_sign() -> None:
    columns = [[-torch.inf, -torch.inf], [-0.0, 0.0], [0.0, -0.0], [-1.0, -torch.inf], [torch.inf, torch.inf]]
    tokens = torch.tensor(columns).T.reshape(1, 2, 5)

    for lengths in (None, torch.tensor([2]), torch.tensor([1])):
        arguments = tokens, lengths, None, None, None, 1e-5, "max", False
        ours, theirs = triton.forward(*arguments), reference.forward(*arguments)

        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_lengths_beyond_the_tokens_are_all_of_them_and_below_nothing_none() -> None:
    asked = case(lengths="all", mode="mean", l2_normalize=True)
    beyond = torch.tensor([17, 18, 1 << 40, 0, -1, -5, 1, 2, 3])

    found = results(pool, replace(asked, lengths=beyond))

    assert_same(found, results(pool, replace(asked, lengths=beyond.clamp(0, 17))))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", ["expanded", "turned", "misaligned"])
def test_inputs_may_lie_in_any_way(make: str, mode: str) -> None:
    whole = torch.randn(4, 9, 49, generator=torch.Generator().manual_seed(1))
    tokens = {
        "expanded": whole[:1, :, :48].expand(4, -1, -1),
        "turned": whole[..., :48].permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "misaligned": whole[..., 1:],
    }[make]
    asked = small(mode=mode)
    assert asked.lengths is not None
    spread = torch.stack([asked.lengths, asked.lengths * 0], dim=1)[:, 0]

    assert_exact(replace(asked, tokens=tokens.detach().requires_grad_(), lengths=spread))


def test_an_upstream_gradient_may_be_one_number_for_all() -> None:
    asked = small(l2_normalize=True)

    found = torch.autograd.grad(pool(asked).sum(), list(asked.leaves.values()))

    with dispatch.using("torch"):
        expected = torch.autograd.grad(pool(asked).sum(), list(asked.leaves.values()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("l2", [True, False])
@pytest.mark.parametrize("frozen", ["tokens", "norm_weight", "norm_bias"])
def test_a_frozen_input_gets_no_gradient_and_leaves_the_others_theirs(frozen: str, l2: bool) -> None:
    asked, twin = small(l2_normalize=l2), small(l2_normalize=l2)
    asked.leaves[frozen].requires_grad_(False)

    found, whole = results(pool, asked), results(pool, twin)

    whole.pop(frozen)
    assert_same(found, whole)


@pytest.mark.parametrize(
    ("needs", "unused"),
    [([True, False, False], "norm_gradient"), ([False, True, True], "tokens_gradient")],
)
def test_no_kernel_is_launched_for_a_frozen_input(
    needs: list[bool], unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = given(small())
    y, pooled, places = triton.forward(*arguments)
    monkeypatch.setattr(device, unused, None)

    found = triton.backward(y, pooled, places, *arguments, needs)

    assert len(found) == sum(needs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokens": torch.ones(2, 3, triton.WIDEST + 1)}, "at most 8192 columns"),
        ({"norm_weight": torch.ones(48, dtype=torch.float64)}, "no torch.float64"),
    ],
)
def test_what_the_kernel_cannot_take_goes_to_the_reference(change: dict[str, Any], reason: str) -> None:
    asked = replace(small(norm=False), lengths=None, **change)

    assert reason in str(triton.refuses_forward(*given(asked)))
    assert reason in str(triton.refuses_backward(asked.tokens, asked.tokens, asked.tokens, *given(asked)))
    assert torch.isfinite(pool(asked)).all()
