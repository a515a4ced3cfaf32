"""The contrastive losses as torch's compiler and autocast see them, and what a wrong call is told."""

from typing import Any

import pytest
import torch

from kernels import clip_loss, dispatch, siglip_loss
from kernels.contrastive.clip import reference as clip
from kernels.contrastive.siglip import reference as siglip
from support.contrastive import LOSSES, case, loss, results, textbook

# Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")

CHUNK = 4 * 13 * 9


@pytest.mark.parametrize("budget", [1 << 20, 0, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_finds_the_clip_ops_sound(budget: int, dtype: torch.dtype) -> None:
    image, text, scale = (leaf.detach() for leaf in case(dtype=dtype).leaves.values())
    ops = torch.ops.plait
    row, column, diagonal, logits = ops.clip_loss(image, text, scale, 0, CHUNK, budget)
    kept = row, column, logits, image, text, scale, 0, CHUNK

    torch.library.opcheck(ops.clip_loss.default, (image, text, scale, 0, CHUNK, budget))
    torch.library.opcheck(ops.clip_loss_backward.default, (diagonal.sum(), *kept, [True, False, True]))


@pytest.mark.parametrize("needs", [[True] * 4, [False, True, False, True], [False] * 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_finds_the_siglip_ops_sound(needs: list[bool], dtype: torch.dtype) -> None:
    image, text, scale, bias = (leaf.detach() for leaf in case("siglip", dtype=dtype).leaves.values())
    ops = torch.ops.plait
    value, *made = ops.siglip_loss(image, text, scale, bias, 0, CHUNK, needs)

    torch.library.opcheck(ops.siglip_loss.default, (image, text, scale, bias, 0, CHUNK, needs))
    torch.library.opcheck(
        ops.siglip_loss_backward.default, (value, *made, scale, bias, len(image), dtype, needs)
    )


@pytest.mark.parametrize("rows_of_all", [37, 111])
def test_the_rows_of_other_processes_change_no_shape_but_that_of_the_texts(rows_of_all: int) -> None:
    image, text, scale = (leaf.detach() for leaf in case(dtype=torch.bfloat16).leaves.values())
    texts, offset = text.repeat(rows_of_all // 37, 1), rows_of_all - 37
    row, column, diagonal, logits = torch.ops.plait.clip_loss(image, texts, scale, offset, CHUNK, 0)
    kept = row, column, logits, image, texts, scale, offset, CHUNK, [True, True, True]

    torch.library.opcheck(torch.ops.plait.clip_loss_backward.default, (diagonal.sum(), *kept))

    made = torch.ops.plait.clip_loss_backward(diagonal.sum(), *kept)
    assert made[0].dtype == torch.bfloat16
    assert made[1].shape == texts.shape
    assert made[1].dtype == (torch.bfloat16 if rows_of_all == 37 else torch.float32)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_compiler_takes_it_as_one_graph_for_every_batch_size(kind: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, stance in ((6, "default"), (37, "fail_on_recompile"), (11, "fail_on_recompile")):
        asked = case(kind, rows=rows, chunk_bytes=CHUNK)
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        expected = results(loss, asked)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_compiled_graph_obeys_the_backend_chosen_after_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.compiler.reset()
    asked, chosen = case(rows=6), []
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled(asked)
    choose = dispatch.choose
    monkeypatch.setattr(
        dispatch, "choose", lambda *given, **more: chosen.append(choose(*given, **more)) or chosen[-1]
    )

    with dispatch.using("triton"):
        compiled(asked)

    assert chosen == [dispatch.Backend.TRITON]


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_makes_the_products_in_its_dtype_and_the_loss_in_float32(
    kind: str, dtype: torch.dtype
) -> None:
    asked = case(kind)

    with torch.autocast("cpu", dtype=dtype):
        found = results(loss, asked)

    expected = results(loss, asked.to(dtype))
    assert found["output"].dtype == torch.float32
    assert all(found[name].dtype == torch.float32 for name in asked.leaves)
    torch.testing.assert_close(found["image"], expected["image"].float(), rtol=2e-2, atol=2e-3)


def test_autocast_leaves_float64_alone() -> None:
    asked = case(dtype=torch.float64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = loss(asked)

    assert torch.equal(y, loss(asked))
    assert y.dtype == torch.float64


@pytest.mark.parametrize("kind", LOSSES)
def test_a_half_precision_scale_gets_its_gradient_in_that_precision(kind: str) -> None:
    asked = case(kind).to(torch.bfloat16)

    found = results(loss, asked)

    assert {result.dtype for name, result in found.items() if name != "output"} == {torch.bfloat16}


def test_logits_are_kept_only_within_the_budget_and_for_a_backward() -> None:
    image, text, scale = (leaf.detach() for leaf in case().leaves.values())

    kept = {budget: clip.forward(image, text, scale, 0, CHUNK, budget)[3].numel() for budget in (5476, 5475)}

    assert kept == {5476: 37 * 37, 5475: 0}
    assert clip.forward(image, text, scale, 0, CHUNK, -1)[3].numel() == 0


def test_only_the_gradients_asked_for_are_made() -> None:
    image, text, scale, bias = (leaf.detach() for leaf in case("siglip").leaves.values())

    _, *made = siglip.forward(image, text, scale, bias, 0, CHUNK, [False, True, False, True])

    assert [gradient.numel() for gradient in made] == [0, text.numel(), 0, 1]


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_may_be_taken_back_twice(kind: str) -> None:
    asked = case(kind)
    y = loss(asked)

    first = torch.autograd.grad(y, asked.image, retain_graph=True)[0]

    assert torch.equal(first, torch.autograd.grad(y, asked.image)[0])


@pytest.mark.parametrize("kind", LOSSES)
def test_one_tensor_as_both_sides_gets_the_gradients_of_both(kind: str) -> None:
    asked, twin = case(kind), case(kind)
    scalars = [leaf for name, leaf in asked.leaves.items() if name.startswith("logit")]
    function = clip_loss if kind == "clip" else siglip_loss

    (found,) = torch.autograd.grad(function(asked.image, asked.image, *scalars), asked.image)

    (expected,) = torch.autograd.grad(textbook(type(twin)(twin.image, twin.image, *scalars)), twin.image)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_second_derivative_is_refused(kind: str) -> None:
    asked = case(kind)

    with pytest.raises(RuntimeError, match=f"{kind}_loss has no second derivative"):
        torch.autograd.grad(loss(asked), asked.image, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.ones(2)}, r"image is .*\[2\].*of shape \[rows, width\]"),
        ({"image": torch.ones(2, 3, dtype=torch.int64)}, "image is torch.int64 .* floating point"),
        ({"text": torch.ones(4, 3)}, r"text is .*\[4, 3\].* must agree, row by row"),
        ({"text": torch.ones(2, 3).half()}, "text is torch.float16 .* must agree"),
        ({"logit_scale": torch.ones(1)}, r"logit_scale is .*\[1\].*of shape \[\]"),
        ({"logit_scale": torch.ones((), device="meta")}, "logit_scale is .* must share a device"),
        ({"logit_bias": torch.ones((), dtype=torch.int64)}, "logit_bias is torch.int64 .* floating point"),
        ({"chunk_bytes": -1}, "chunk_bytes is -1; it is a number of bytes"),
        ({"logits_budget": -1}, "logits_budget is -1; it is a number of bytes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    one, rows = torch.ones(()), torch.ones(2, 3)
    good: dict[str, Any] = {"image": rows, "text": rows, "logit_scale": one, "logit_bias": one}
    asked = good | change

    with pytest.raises(ValueError, match=message):
        siglip_loss(**asked)
    if "logit_bias" not in change:
        del asked["logit_bias"]
        with pytest.raises(ValueError, match=message):
            clip_loss(**asked)
