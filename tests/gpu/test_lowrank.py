"""Low-rank fusion on a GPU."""

from dataclasses import replace

import pytest
import torch

from support.lowrank import Case, case, errors, fuse, papers, results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

#: float32 is not here with its own tolerance: torch may be set to TF32.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def run(asked: Case) -> torch.Tensor:
    """On the GPU: leaves, gradients and output stay on the CPU."""
    moved = asked.changed(lambda leaf: leaf.cuda())
    return fuse(replace(moved, mask=None if asked.mask is None else asked.mask.cuda())).cpu()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mask", ["absent", "some", "weighted"])
@pytest.mark.parametrize("widths", [(8, 16, 24), (7, 48, 1)])
def test_output_and_gradients_agree_with_the_papers_code(
    dtype: torch.dtype, mask: str, widths: tuple[int, ...]
) -> None:
    asked = case(widths=widths, mask=mask, ranks=4, outputs=16, dtype=dtype)

    found = errors(results(run, asked), asked)

    # Products of three factors in half precision are rounded three times.
    assert {name: error for name, error in found.items() if error > 2 * TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_error_is_at_most_twice_that_of_the_papers_code_in_the_same_dtype(dtype: torch.dtype) -> None:
    asked = case(rows=64, widths=(48, 64, 40), ranks=16, outputs=32, mask="absent", dtype=dtype)

    def theirs(one: Case) -> torch.Tensor:
        moved = one.changed(lambda leaf: leaf.cuda())
        return papers(moved.xs, moved.factors, moved.rank_weight, moved.bias).cpu()

    ours, plain = errors(results(run, asked), asked), errors(results(theirs, asked), asked)

    assert {name: error for name, error in ours.items() if error > 2 * plain[name] + 1e-6} == {}


def test_inductor_takes_it_as_one_graph() -> None:
    torch.compiler.reset()
    asked = case(widths=(8, 16), mask="weighted")
    compiled = torch.compile(run, fullgraph=False)

    torch.testing.assert_close(compiled(asked), run(asked), rtol=1e-3, atol=1e-3)
