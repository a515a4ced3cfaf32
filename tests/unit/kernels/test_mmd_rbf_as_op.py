"""The maximum mean discrepancy as torch's compiler and autocast see it."""

from typing import Any

import pytest
import torch

from kernels import dispatch
from support.discrepancies import case, discrepancy, large_blocks
from support.exact import results

# Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")

FORMS = [
    {"weights": "absent", "bandwidth": None},
    {"weights": "some", "bandwidth": torch.tensor(3.0), "unbiased": True},
    {"weights": "weighted", "bandwidth": None, "dtype": torch.bfloat16},
]


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_both_ops_sound(form: dict[str, Any]) -> None:
    asked = case(rows=6, others=5, width=7, **form)
    sides = asked.x.detach(), asked.y.detach(), asked.weight_x, asked.weight_y
    given = *sides, asked.bandwidth, 5, asked.unbiased
    value, centre, scales = torch.ops.plait.mmd_rbf(*given)

    torch.library.opcheck(torch.ops.plait.mmd_rbf.default, given)
    torch.library.opcheck(
        torch.ops.plait.mmd_rbf_backward.default, (value, centre, scales, *sides, 5, [True, False])
    )


@pytest.mark.parametrize("form", [*FORMS, {"weights": "absent", "bandwidth": 3.0}])
def test_the_compiler_takes_it_as_one_graph_for_every_number_of_rows(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(discrepancy, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, others, stance in (
        (6, 5, "default"),
        (37, 9, "fail_on_recompile"),
        (11, 23, "fail_on_recompile"),
    ):
        asked = case(rows=rows, others=others, width=7, **form)
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        expected = results(discrepancy, asked)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_compiled_graph_obeys_the_backend_chosen_after_it_was_made() -> None:
    torch.compiler.reset()
    asked = case(rows=3, others=4, apart=2.0)
    compiled = torch.compile(discrepancy, fullgraph=True, backend="aot_eager")
    compiled(asked)

    with large_blocks(), dispatch.using("triton"):
        found, expected = compiled(asked), discrepancy(asked)

    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    asked = case(dtype=dtype)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(discrepancy, asked)

    expected = results(discrepancy, asked)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
