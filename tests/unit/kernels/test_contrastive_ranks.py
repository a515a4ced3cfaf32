"""The contrastive losses over the rows of two processes: as one process with all rows has them."""

from pathlib import Path

import pytest
import torch

from support import contrastive_ranks
from support.contrastive import LOSSES, loss, results


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_two_processes_find_what_one_with_all_rows_finds(kind: str, backend: str, tmp_path: Path) -> None:
    alone = contrastive_ranks.asked(kind)

    ranks = contrastive_ranks.found(kind, backend, tmp_path)

    expected = results(loss, alone)
    for rank, one in enumerate(ranks):
        own = slice(rank * 11, rank * 11 + 11)
        of_rows = {name: 2 * expected[name][own] for name in ("image", "text")}
        torch.testing.assert_close(one["features"], expected | of_rows, rtol=1e-4, atol=1e-6)
    model = contrastive_ranks.trained(contrastive_ranks.Towers(8, kind), alone)
    for one in ranks:
        torch.testing.assert_close(one["model"], model, rtol=1e-4, atol=1e-6)
