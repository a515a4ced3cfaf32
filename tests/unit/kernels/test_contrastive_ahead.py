"""The contrastive losses' kernels, compiled for GPUs that are not here."""

import pytest

from support.ahead import compiled, troubles


@pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_every_typical_launch_compiles_without_spills(arch: int) -> None:
    found = compiled("kernels.contrastive.typical:typical", arch)

    assert {one.kernel for one in found} == {"clip_forward", "clip_backward", "join", "siglip"}
    assert troubles(found, arch) == []
