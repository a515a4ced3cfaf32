"""The kernels of the maximum mean discrepancy, compiled for GPUs that are not here."""

import pytest

from support.ahead import compiled, troubles


@pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_the_kernels_compile_without_spilling_and_use_tensor_cores(arch: int) -> None:
    found = compiled("kernels.mmd.typical:most_typical", arch)

    assert troubles(found, arch) == []
    assert {one.kernel for one in found if one.uses_tensor_cores} == {"triangle", "pull", "slopes"}


@pytest.mark.slow
@pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_all_typical_launches_compile_without_spilling(arch: int) -> None:
    found = compiled("kernels.mmd.typical:typical", arch)

    assert troubles(found, arch) == []
    assert all(one.uses_tensor_cores for one in found if one.kernel in ("triangle", "pull", "slopes"))
