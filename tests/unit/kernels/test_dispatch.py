"""Which implementation of an op runs, and what is said about it."""

import logging

import pytest
import torch

from kernels import dispatch, masked_projection
from kernels.dispatch import Backend, KernelMissing, choose, using


@pytest.fixture(autouse=True)
def _nothing_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


BOTH = (Backend.TORCH, Backend.TRITON)
REFERENCE = (Backend.TORCH,)


@pytest.mark.parametrize(
    ("wanted", "device", "float64", "chosen"),
    [
        ("auto", "cuda", False, Backend.TRITON),
        ("auto", "cuda", True, Backend.TORCH),
        ("auto", "cpu", False, Backend.TORCH),
        ("triton", "cuda", False, Backend.TRITON),
        ("triton", "cuda", True, Backend.TORCH),
        ("triton", "cpu", False, Backend.TORCH),
        ("torch", "cuda", False, Backend.TORCH),
    ],
)
def test_a_kernel_runs_unless_it_is_switched_off_or_the_tensors_are_for_the_reference(
    wanted: str, device: str, float64: bool, chosen: Backend
) -> None:
    with using(wanted):
        assert choose("an op", BOTH, device=device, float64=float64) is chosen


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_asking_by_name_for_a_kernel_that_is_not_there_is_an_error(device: str) -> None:
    with using("triton"), pytest.raises(KernelMissing, match=r"an op has no Triton kernel; use .*'torch'"):
        choose("an op", REFERENCE, device=device, float64=False)


def test_a_fallback_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), using("auto"):
        chosen = {choose("a bare op", REFERENCE, device="cuda", float64=False) for _ in range(3)}

    assert chosen == {Backend.TORCH}
    assert caplog.messages == ["a bare op runs on the torch reference: it has no Triton kernel"]


def test_a_kernel_asked_for_by_name_on_the_cpu_says_why_it_does_not_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO), using("triton"):
        choose("an op for the cpu", BOTH, device="cpu", float64=False)

    assert caplog.messages == [
        "an op for the cpu runs on the torch reference: float64 and tensors on the CPU always run there"
    ]


@pytest.mark.parametrize(
    ("wanted", "float64", "chosen"),
    [
        ("triton", False, Backend.TRITON),
        ("triton", True, Backend.TORCH),
        ("auto", False, Backend.TORCH),
        ("torch", False, Backend.TORCH),
    ],
)
def test_tritons_interpreter_takes_tensors_of_the_cpu_if_both_are_asked_for(
    wanted: str, float64: bool, chosen: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    with using(wanted):
        assert choose("an op", BOTH, device="cpu", float64=float64) is chosen


def test_the_reference_on_the_cpu_is_the_rule_and_no_fallback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), using("auto"):
        choose("an ordinary op", BOTH, device="cpu", float64=False)

    assert caplog.messages == []


def test_the_backend_is_what_it_was_after_a_block_that_fails() -> None:
    with using("torch"):
        with pytest.raises(KeyError), using("triton"):
            raise KeyError

        assert choose("an op", BOTH, device="cuda", float64=False) is Backend.TORCH


def test_a_process_switches_the_kernels_off_for_good() -> None:
    with using("auto"):
        dispatch.use("torch")

        assert choose("an op", BOTH, device="cuda", float64=False) is Backend.TORCH


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="unknown kernel backend 'cuda'; it is one of auto, triton, torch"):
        dispatch.use("cuda")


@pytest.mark.parametrize("wanted", ["auto", "torch"])
def test_the_masked_projection_runs_on_its_reference(wanted: str) -> None:
    with using(wanted):
        assert masked_projection([torch.ones(2, 3)], torch.ones(4, 3)).tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize("interpreted", [False, True])
def test_an_op_called_by_its_door_runs_where_it_was_sent(
    interpreted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if interpreted:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    sent: list[Backend] = []
    monkeypatch.setattr(dispatch, "note", lambda _, backend: sent.append(backend))

    with using("triton"):
        y = masked_projection([torch.ones(2, 3)], torch.ones(4, 3))

    assert y.tolist() == [[3.0] * 4] * 2
    assert sent == [Backend.TRITON if interpreted else Backend.TORCH]


def test_what_an_op_ran_on_is_remembered() -> None:
    dispatch.note("another op", Backend.TRITON)
    dispatch.forget()

    masked_projection([torch.ones(2, 3)], torch.ones(4, 3))

    assert dispatch.ran() == {"masked_projection": ["torch"]}
