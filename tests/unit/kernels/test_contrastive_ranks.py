"""The contrastive losses over the rows of two processes: as one process with all rows has them."""

from pathlib import Path

import pytest
import torch

from support import contrastive_ranks
from support.contrastive import loss, results


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.slow)])
def test_two_processes_find_what_one_with_all_rows_finds(backend: str, tmp_path: Path) -> None:
    ranks = contrastive_ranks.found(backend, tmp_path)

    for call, (kind, _) in enumerate(contrastive_ranks.CALLS):
        alone = contrastive_ranks.asked(kind)
        expected = results(loss, alone)
        model = contrastive_ranks.trained(contrastive_ranks.Towers(8, kind), alone)
        for rank, found in enumerate(ranks):
            own = slice(rank * 11, rank * 11 + 11)
            of_rows = {name: 2 * expected[name][own] for name in ("image", "text")}
            features = found[call]["features"]
            torch.testing.assert_close(features, expected | of_rows, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found[call]["model"], model, rtol=1e-4, atol=1e-6)
