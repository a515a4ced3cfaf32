"""Token pooling as torch's compiler and autocast see it."""

from typing import Any

import pytest
import torch

from kernels import dispatch
from kernels.token_pool import reference, triton
from support.exact import results
from support.pools import Case, case, packed, pool

# Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")

FORMS = [
    {"mode": "mean", "norm": True, "l2_normalize": True},
    {"mode": "max", "norm": True},
    {"mode": "cls", "norm": False, "dtype": torch.bfloat16},
]


def arguments(asked: Case) -> tuple[Any, ...]:
    """The case as the registered op takes it, without gradients: autograd lies outside of the op."""
    plain = {name: leaf.detach() for name, leaf in asked.leaves.items()}
    return (
        plain["tokens"],
        asked.lengths,
        asked.cu_seqlens,
        plain.get("norm_weight"),
        plain.get("norm_bias"),
        1e-5,
        asked.mode,
        asked.l2_normalize,
    )


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_both_ops_sound(form: dict[str, Any]) -> None:
    padded = case(rows=6, most=5, width=7, **form)
    for asked in (padded, packed(padded)):
        given = arguments(asked)
        y, pooled, places = torch.ops.plait.masked_token_pool(*given)
        needs = [True, asked.norm_weight is not None, False]

        torch.library.opcheck(torch.ops.plait.masked_token_pool.default, given)
        torch.library.opcheck(
            torch.ops.plait.masked_token_pool_backward.default, (y, pooled, places, *given, needs)
        )


@pytest.mark.parametrize("form", FORMS)
def test_the_compiler_takes_it_as_one_graph_for_every_length(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, most, stance in (
        (6, 5, "default"),
        (37, 9, "fail_on_recompile"),
        (11, 23, "fail_on_recompile"),
    ):
        asked = case(rows=rows, most=most, width=7, **form)
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        expected = results(pool, asked)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_compiled_graph_obeys_the_backend_chosen_after_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.compiler.reset()
    asked = case()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    expected = compiled(asked)
    ran = []

    def forward(*given: Any) -> Any:
        ran.append(given)
        return reference.forward(*given)

    monkeypatch.setattr(triton, "forward", forward)
    with dispatch.using("triton"):
        found = compiled(asked)

    assert torch.equal(found, expected)
    assert len(ran) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    asked = case(dtype=dtype)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(pool, asked)

    expected = results(pool, asked)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_tokens_and_norm_may_be_of_two_dtypes() -> None:
    asked = case(dtype=torch.bfloat16)
    weight = asked.leaves["norm_weight"].detach().float().requires_grad_()
    mixed = Case(asked.tokens, asked.lengths, norm_weight=weight, norm_bias=asked.norm_bias)

    found = results(pool, mixed)

    assert {name: found[name].dtype for name in found} == {
        "output": torch.bfloat16,
        "tokens": torch.bfloat16,
        "norm_weight": torch.float32,
        "norm_bias": torch.bfloat16,
    }
