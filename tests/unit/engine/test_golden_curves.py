"""A tiny model of each family and fusion learns as it always did: a change that claims to touch no number touches none.

One that does touch them draws the curves anew, in the same commit: `python -m support.curves`.
"""

import json

import pytest

from support.curves import GOLDEN, NETWORKS, curve

CURVES = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_curve_of_a_tiny_model_is_the_golden_one(name: str) -> None:
    assert curve(name) == pytest.approx(CURVES[name], rel=1e-3, abs=1e-5)


def test_every_golden_curve_is_of_a_kind_there_is_and_comes_down() -> None:
    assert set(CURVES) == set(NETWORKS)
    for name, losses in CURVES.items():
        assert sum(losses[-6:]) < sum(losses[:6]), name
