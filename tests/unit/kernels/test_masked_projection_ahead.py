"""The masked projection's kernels as they are compiled for two cards, without one."""

import pytest

from support.ahead import compiled, troubles

ARCHITECTURES = (80, 90)
PRODUCTS = {"add_up", "to_both", "to_inputs", "to_weight"}
KERNELS = {*PRODUCTS - {"to_both"}, "finish", "fold", "to_sum", "weigh"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_usual_launches_compile_without_spills_and_multiply_on_tensor_cores(arch: int) -> None:
    found = compiled("kernels.projection.typical:typical", arch)

    assert troubles(found, arch) == []
    assert {one.kernel for one in found} == KERNELS
    assert [one for one in found if one.kernel in PRODUCTS and not one.uses_tensor_cores] == []


def test_what_hopper_gets_of_large_batches_fits_into_it() -> None:
    found = compiled("support.projections_ahead:on_hopper", 90)

    assert troubles(found, 90) == []
    assert "to_both" in {one.kernel for one in found}
    assert [one for one in found if one.kernel in PRODUCTS and not one.uses_tensor_cores] == []
