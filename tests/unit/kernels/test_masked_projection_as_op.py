"""The masked projection as torch's compiler and autocast see it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import dispatch, masked_projection
from kernels.projection import triton
from support.projections import arguments, case, project, results

# Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")

FORMS = [
    {"mask": "absent", "norm": False, "activation": "none"},
    {"mask": "some", "norm": True, "activation": "gelu", "combine": "mean"},
    {"mask": "weighted", "norm": False, "activation": "relu", "dtype": torch.bfloat16},
]


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_both_ops_sound(form: dict[str, Any]) -> None:
    asked = case(rows=6, widths=(7, 3), outputs=5, **form)
    given = arguments(asked)
    y, z = torch.ops.plait.masked_projection(*given)
    needs = [True, True, "norm_weight" in asked.leaves, False, False, True]

    torch.library.opcheck(torch.ops.plait.masked_projection.default, given)
    torch.library.opcheck(torch.ops.plait.masked_projection_backward.default, (y, z, *given, needs))


@pytest.mark.parametrize("form", FORMS)
def test_the_compiler_takes_it_as_one_graph_for_every_batch_size(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(project, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, stance in ((6, "default"), (37, "fail_on_recompile"), (11, "fail_on_recompile")):
        asked = case(rows=rows, widths=(7, 3), outputs=5, **form)
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        expected = results(project, asked)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_compiled_graph_obeys_the_backend_chosen_after_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    asked = case(rows=6)
    compiled = torch.compile(project, fullgraph=True, backend="aot_eager")
    compiled(asked)

    def broken(*_: Any) -> Any:
        raise RuntimeError("this is the kernel")

    monkeypatch.setattr(triton, "forward", broken)
    with dispatch.using("triton"), pytest.raises(RuntimeError, match="this is the kernel"):
        compiled(asked)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_brings_features_of_two_dtypes_together(dtype: torch.dtype) -> None:
    asked = case(activation="gelu")
    mixed = replace(asked, xs=[asked.xs[0].detach().to(dtype).requires_grad_(), *asked.xs[1:]])

    with torch.autocast("cpu", dtype=dtype):
        found = results(project, mixed)

    alone = results(project, case(dtype=dtype, activation="gelu"))
    assert found["output"].dtype == dtype
    assert {name: found[name].dtype for name in mixed.leaves} == {
        name: leaf.dtype for name, leaf in mixed.leaves.items()
    }
    torch.testing.assert_close(found["output"], alone["output"], rtol=2e-2, atol=2e-2)


def test_autocast_leaves_float64_alone() -> None:
    asked = case(dtype=torch.float64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = project(asked)

    assert torch.equal(y, project(asked))


def test_autocast_does_not_lower_the_precision_of_the_sums() -> None:
    x, weight = torch.full((1, 4096), 1.0), torch.full((1, 4096), 1.0)
    weight[0, 0] = 2.0**-7

    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = masked_projection([x, -x], torch.cat([weight, torch.ones(1, 4096)], dim=1))

    assert y.item() == 2.0**-7 - 1
