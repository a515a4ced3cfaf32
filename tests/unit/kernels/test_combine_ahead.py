"""The kernels that combine modalities, compiled for GPUs that are not here."""

import pytest

from support.ahead import compiled, troubles


@pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_what_jobs_launch_most_compiles_without_spilling(arch: int) -> None:
    found = compiled("kernels.combine.typical:typical", arch)

    assert {one.kernel for one in found} == {"forward_rows", "backward_rows", "add_partials"}
    assert troubles(found, arch) == []
