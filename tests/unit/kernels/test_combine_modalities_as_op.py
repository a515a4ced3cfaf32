"""Combining modalities as torch's compiler, autocast and the choice of a backend see it."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import combine_modalities, dispatch
from support.combinations import Case, case, combine, results

# Dynamo makes a bare autograd.Function to stand for ours, and torch warns about that itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated")

FORMS = [
    {"mask": "absent", "norm": False},
    {"mask": "some", "mode": "mean", "activation": "gelu"},
    {"mask": "weighted", "mode": "max", "norm": False, "dtype": torch.bfloat16},
    {"mask": "some", "gates": "modality", "norm": False},
    {"mask": "weighted", "gates": "entry", "activation": "relu"},
]


def arguments(asked: Case) -> tuple[Any, ...]:
    """All that both ops take behind the modalities, without gradients: autograd lies outside of the op."""
    plain = {name: leaf.detach() for name, leaf in asked.leaves.items()}
    norm = plain.get("norm_weight"), plain.get("norm_bias")
    return asked.mask, plain.get("gates"), asked.mode, *norm, 1e-5, asked.activation


@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_both_ops_sound(form: dict[str, Any]) -> None:
    asked = case(rows=6, width=5, **form)
    xs, given = [x.detach() for x in asked.xs], arguments(asked)
    y = torch.ops.plait.combine_modalities(xs[0], xs[1:], *given)
    needs = ["gates" in asked.leaves, "norm_weight" in asked.leaves, False, True, False, True]

    torch.library.opcheck(torch.ops.plait.combine_modalities.default, (xs[0], xs[1:], *given))
    torch.library.opcheck(torch.ops.plait.combine_modalities_backward.default, (y, xs, *given, needs))


def test_torch_finds_both_ops_sound_for_one_modality_alone() -> None:
    x = torch.randn(6, 5)
    given = None, None, "sum", None, None, 1e-5, "none"

    torch.library.opcheck(torch.ops.plait.combine_modalities.default, (x, [], *given))
    torch.library.opcheck(
        torch.ops.plait.combine_modalities_backward.default,
        (x, [], *given, [False, False, False, True, True]),
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_compiler_takes_it_as_one_graph_for_every_batch_size(form: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(combine, fullgraph=True, dynamic=True, backend="aot_eager")

    for rows, stance in ((6, "default"), (37, "fail_on_recompile"), (11, "fail_on_recompile")):
        asked = case(rows=rows, width=5, **form)
        with torch.compiler.set_stance(stance):
            found = results(compiled, asked)

        expected = results(combine, asked)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_compiled_graph_obeys_the_backend_chosen_after_it_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernels.combine import triton

    torch.compiler.reset()
    asked = case(rows=6)
    compiled = torch.compile(combine, fullgraph=True, backend="aot_eager")
    compiled(asked)
    monkeypatch.setattr(triton, "forward", lambda first, *_: torch.full_like(first, 7))

    with dispatch.using("triton"):
        assert (compiled(asked) == 7).all()


@pytest.mark.parametrize(("wide", "modalities"), [(16385, 1), (1, 65)])
def test_what_its_kernel_cannot_hold_runs_on_the_reference_and_the_log_says_so(
    wide: int, modalities: int, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch.say_once.cache_clear()
    xs = [torch.ones(1, wide, requires_grad=True)] * modalities

    with dispatch.using("triton"), caplog.at_level(logging.WARNING):
        y = combine_modalities(xs)
        y.sum().backward()

    assert (y == modalities).all()
    assert "combine_modalities runs on the torch reference: its kernel" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    asked = case(gates="modality", activation="gelu")

    with torch.autocast("cpu", dtype=dtype):
        found = results(combine, asked)

    expected = results(combine, asked)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("gates", ["modality", "entry"])
def test_gates_and_norm_may_be_wider_than_the_modalities(backend: str, gates: str) -> None:
    asked = case(rows=5, gates=gates, dtype=torch.bfloat16)
    wide = asked.to(torch.float32)
    mixed = replace(wide, xs=asked.xs)

    with dispatch.using(backend):
        found = results(combine, mixed)

    assert {name: found[name].dtype for name in mixed.leaves} == {
        name: leaf.dtype for name, leaf in mixed.leaves.items()
    }
    torch.testing.assert_close(
        found["output"].float(), results(combine, wide)["output"], rtol=2e-2, atol=2e-2
    )


def test_the_halves_may_run_on_different_implementations() -> None:
    asked = case(rows=5, gates="entry", activation="gelu")
    with dispatch.using("triton"):
        y = combine(asked)

    gradients = torch.autograd.grad(y.sum(), list(asked.leaves.values()))

    expected = torch.autograd.grad(combine(asked).sum(), list(asked.leaves.values()))
    torch.testing.assert_close(gradients, expected)
