"""Launch configurations: measured ones by device and size, defaults for what nobody measured."""

import json
from pathlib import Path

import pytest

from kernels import tuned

DEFAULT = {"BLOCK": 64, "num_warps": 4}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with one measured bucket of one kernel."""
    table = {"pool.forward": {"rows=256 width=1024": {"BLOCK": 128}}}
    (tmp_path / "a_device.json").write_text(json.dumps(table))
    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    monkeypatch.setattr(tuned, "device", lambda: "a_device")


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(("rows", "block"), [(129, 128), (256, 128), (128, 64), (257, 64)])
def test_sizes_up_to_a_power_of_two_share_what_was_measured_there(rows: int, block: int) -> None:
    found = tuned.tuned("pool.forward", {"width": 768, "rows": rows}, DEFAULT)

    assert found == {"BLOCK": block, "num_warps": 4}


@pytest.mark.usefixtures("measured")
def test_a_kernel_that_nobody_measured_has_its_default() -> None:
    assert tuned.tuned("pool.backward", {"rows": 256, "width": 1024}, DEFAULT) == DEFAULT


def test_without_a_gpu_every_kernel_has_its_default() -> None:
    assert tuned.tuned("pool.forward", {"rows": 256, "width": 1024}, DEFAULT) == DEFAULT


def test_a_forced_configuration_ends_with_its_block() -> None:
    with tuned.forced("pool.forward", {"num_warps": 8}):
        with tuned.forced("pool.forward", {"num_warps": 2}):
            assert tuned.tuned("pool.forward", {}, DEFAULT)["num_warps"] == 2
        assert tuned.tuned("pool.forward", {}, DEFAULT) == {"BLOCK": 64, "num_warps": 8}
    assert tuned.tuned("pool.forward", {}, DEFAULT) == DEFAULT


def test_a_forced_configuration_tells_the_buckets_of_the_launches_that_took_it() -> None:
    with tuned.forced("pool.forward", {}) as asked:
        tuned.tuned("pool.forward", {"rows": 200}, DEFAULT)
        tuned.tuned("pool.forward", {"rows": 3}, DEFAULT)
        tuned.tuned("pool.backward", {"rows": 7}, DEFAULT)

    assert asked == {"rows=256", "rows=4"}


def test_the_name_of_a_device_is_one_of_a_file() -> None:
    assert tuned.slug("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3"


@pytest.mark.parametrize("path", sorted(tuned.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_file_holds_whole_numbers_by_kernel_and_bucket(path: Path) -> None:
    for kernel, buckets in json.loads(path.read_text()).items():
        assert "." in kernel
        for name, config in buckets.items():
            sizes = dict(part.split("=") for part in name.split())
            assert tuned.bucket({one: int(size) for one, size in sizes.items()}) == name
            assert all(isinstance(value, int) and value > 0 for value in config.values())
