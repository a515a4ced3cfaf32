"""The measured launch configurations and the warm-up, on a machine without a GPU."""

import pytest

from kernels import tuned, warm
from support.ahead import compiled, troubles


@pytest.mark.slow
def test_every_shipped_configuration_compiles_without_spills() -> None:
    found = compiled("support.shipped:shipped", 90)

    assert len(found) > 20
    assert troubles(found, 90) == []


def test_every_op_with_a_kernel_is_warmed_up() -> None:
    with_typical = {path.parent.name for path in (tuned.FOLDER.parent).glob("*/typical.py")}

    assert set(warm.OPS) == with_typical
