"""Token pooling's numbers: against the textbook's way in float64, output and every gradient."""

from dataclasses import replace

import pytest
import torch

from support.exact import TOLERANCE, errors, results
from support.pools import Case, case, packed, pool, textbook

LOW = (torch.float32, torch.float16, torch.bfloat16)
MODES = ("mean", "max", "cls")


def assert_exact(asked: Case) -> None:
    tolerance = TOLERANCE[asked.tokens.dtype]
    told = errors(results(pool, asked), asked, textbook)
    assert {name: error for name, error in told.items() if not error <= tolerance} == {}


@pytest.mark.parametrize("lengths", ["absent", "all", "none", "some", "int32"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("l2", [True, False])
def test_every_form_agrees_with_the_textbook(lengths: str, mode: str, norm: bool, l2: bool) -> None:
    if l2 and lengths in ("none", "some", "int32"):
        # The textbook's gradient of a row of zeros is infinite times nothing; see below for such rows.
        asked = case(lengths="all", mode=mode, norm=norm, l2_normalize=l2)
        asked = replace(asked, lengths=torch.arange(1, 10))
    else:
        asked = case(lengths=lengths, mode=mode, norm=norm, l2_normalize=l2)
    assert_exact(asked)
    assert_exact(packed(asked))


@pytest.mark.parametrize("dtype", [torch.float64, *LOW])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_every_dtype_agrees_with_float64(dtype: torch.dtype, mode: str, norm: bool) -> None:
    assert_exact(case(dtype=dtype, mode=mode, norm=norm))
    assert_exact(packed(case(dtype=dtype, mode=mode, norm=norm)))


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("mode", MODES)
def test_the_error_is_at_most_twice_that_of_the_textbook_in_the_same_dtype(
    dtype: torch.dtype, mode: str
) -> None:
    asked = case(rows=9, most=133, width=769, dtype=dtype, mode=mode)

    ours = errors(results(pool, asked), asked, textbook)
    theirs = errors(results(textbook, asked, may_leave_out=True), asked, textbook)

    assert {name: error for name, error in ours.items() if error > 2 * theirs[name]} == {}


@pytest.mark.parametrize(
    ("rows", "most", "width"),
    [(1, 1, 1), (3, 17, 7), (37, 1, 48), (2, 1500, 5), (1, 133, 1280), (257, 2, 1), (3, 5, 4096)],
)
@pytest.mark.parametrize("mode", MODES)
def test_odd_shapes_agree_with_the_textbook(rows: int, most: int, width: int, mode: str) -> None:
    # LayerNorm of one number is its bias, whatever the number: there is no error to speak of.
    asked = case(rows=rows, most=most, width=width, mode=mode, norm=width > 1)
    assert_exact(asked)
    assert_exact(packed(asked))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rows", "most"), [(0, 5), (4, 0), (0, 0)])
def test_no_rows_or_no_tokens_give_zeros_and_gradients_of_zero(mode: str, rows: int, most: int) -> None:
    for asked in (case(rows=rows, most=most, mode=mode), packed(case(rows=rows, most=most, mode=mode))):
        found = results(pool, asked)

        assert found["output"].shape == (rows, 48)
        assert all((one == 0).all() for one in found.values())
        assert all(found[name].shape == leaf.shape for name, leaf in asked.leaves.items())


@pytest.mark.parametrize("mode", MODES)
def test_padded_and_packed_tokens_give_the_same(mode: str) -> None:
    padded = case(mode=mode, l2_normalize=True)
    ours, theirs = results(pool, padded), results(pool, packed(padded))

    live = torch.arange(padded.tokens.shape[1]) < padded.lengths.unsqueeze(1)  # type: ignore[union-attr]
    torch.testing.assert_close(ours["tokens"][live], theirs.pop("tokens"))
    assert (ours.pop("tokens")[~live] == 0).all()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_more_padding_changes_nothing(mode: str) -> None:
    asked = case(mode=mode)
    longer = torch.cat([asked.tokens.detach(), torch.full((9, 30, 48), 7.0)], dim=1).requires_grad_()

    ours, theirs = results(pool, asked), results(pool, replace(asked, tokens=longer))

    torch.testing.assert_close(theirs.pop("tokens")[:, :17], ours.pop("tokens"))
    torch.testing.assert_close(theirs, ours)


def test_lengths_beyond_the_tokens_are_all_of_them_and_below_nothing_none() -> None:
    asked = case(lengths="all", mode="mean")
    beyond = torch.tensor([17, 18, 1 << 40, 0, -1, -5, 1, 2, 3])

    found = pool(replace(asked, lengths=beyond))

    assert torch.equal(found, pool(replace(asked, lengths=beyond.clamp(0, 17))))


@pytest.mark.parametrize("mode", MODES)
def test_rows_in_another_order_give_their_vectors_in_that_order(mode: str) -> None:
    asked = case(mode=mode)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert asked.lengths is not None

    turned = pool(replace(asked, tokens=asked.tokens[order], lengths=asked.lengths[order]))

    assert torch.equal(turned, pool(asked)[order])


def test_the_mean_does_not_depend_on_the_order_of_tokens() -> None:
    asked = case(lengths="absent")

    torch.testing.assert_close(pool(replace(asked, tokens=asked.tokens.flip(1))), pool(asked))


@pytest.mark.parametrize("make", ["expanded", "turned", "misaligned"])
def test_tokens_may_lie_in_any_way(make: str) -> None:
    whole = torch.randn(9, 17, 49, generator=torch.Generator().manual_seed(1))
    tokens = {
        "expanded": whole[:1, :, :48].expand(9, -1, -1),
        "turned": whole[..., :48].permute(1, 0, 2).contiguous().permute(1, 0, 2),
        "misaligned": whole[..., 1:],
    }[make]

    assert_exact(replace(case(), tokens=tokens.detach().requires_grad_()))


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("mode", MODES)
def test_equal_calls_give_equal_bits(form: str, mode: str) -> None:
    asked = case(rows=37, most=133, mode=mode, l2_normalize=True)
    asked = packed(asked) if form == "packed" else asked

    first, *others = (results(pool, asked) for _ in range(3))

    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_the_first_of_equal_tokens_gets_the_gradient_of_the_largest() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [3.0]]], requires_grad=True)
    for asked in (Case(tokens, mode="max"), packed(Case(tokens, mode="max"))):
        assert results(pool, asked)["tokens"].flatten().tolist() == [
            0.0,
            pytest.approx(0.5403, abs=1e-3),
            0.0,
        ]


def test_a_negative_norm_weight_turns_the_order_around() -> None:
    asked = case(mode="max", norm=True, lengths="all")
    assert asked.norm_weight is not None
    assert (asked.norm_weight < 0).any()
    assert_exact(asked)
