"""Token pooling's kernels as they are compiled for two cards, without one."""

import pytest

from support.ahead import compiled, troubles

ARCHITECTURES = (80, 90)
KERNELS = {
    "mean_of_tokens",
    "join_means",
    "max_of_tokens",
    "join_maxima",
    "tokens_gradient",
    "norm_gradient",
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_usual_launches_compile_without_spills(arch: int) -> None:
    found = compiled("kernels.token_pool.typical:typical", arch)

    assert troubles(found, arch) == []
    assert {one.kernel for one in found} == KERNELS


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_other_widths_compile_without_spills(arch: int) -> None:
    assert troubles(compiled("kernels.token_pool.typical:rare", arch), arch) == []
