"""Importing `kernels` costs nothing until one of its ops is used."""

import subprocess
import sys

import pytest

import kernels


def loaded_after(statement: str) -> set[str]:
    """Which heavy packages a fresh process has loaded after `statement`."""
    code = f"{statement}; import sys; print(*{{'torch', 'triton', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import kernels", "from kernels import dispatch; dispatch.use('torch')"]
)
def test_neither_the_package_nor_its_dispatch_loads_torch_or_triton(statement: str) -> None:
    assert loaded_after(statement) == set()


def test_an_op_loads_torch_when_it_is_first_named() -> None:
    assert "torch" in loaded_after("from kernels import masked_projection")


@pytest.mark.parametrize("first", ["kernels.projection", "kernels.projection.reference"])
def test_an_op_is_a_function_also_after_its_folder_was_imported(first: str) -> None:
    assert "torch" in loaded_after(
        f"import {first}; from kernels import masked_projection as op; assert callable(op)"
    )


def test_every_name_the_package_offers_is_there() -> None:
    assert set(kernels.__all__) <= set(dir(kernels))
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kernels.nothing  # noqa: B018
