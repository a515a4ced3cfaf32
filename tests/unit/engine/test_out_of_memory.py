"""What does not fit in memory is done in smaller pieces. A network that refuses more than so many rows stands for a GPU."""

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domain.errors import EngineError
from engine.data.collate import Batch
from engine.data.conversations import Conversations
from engine.data.dataset import Examples, LiveColumn
from engine.models.encoders import Encoder
from engine.models.joint import JointSpace
from engine.models.multimodal import Live
from engine.models.vision_language import VisionLanguage
from engine.report import features as reported
from engine.report import robustness
from engine.train import answers, beginning, checkpoint, metrics, run
from engine.train.checkpoint import Snapshot
from engine.train.contrastive import Contrast
from engine.train.gpu_memory import Pieces
from engine.train.loop import fine_tune
from engine.train.losses import Criterion, cross_entropy
from engine.train.plan import Plan
from engine.train.run import _batches, _validator
from engine.train.words import Finished, Progress
from support import features


class Small:
    """A run on a device that holds `room` rows for a backward pass, and `seen` for a forward pass alone."""

    def __init__(self, plan: Plan, room: int = 99, seen: int = 99, dropout: float = 0.0) -> None:
        self.plan, self.model = plan, features.network(dropout=dropout)
        if not dropout:
            self.model.fusion.modality_dropout = 0.0
        self.train, self.validation = features.examples(plan.rows), features.examples(12, seed=1)
        self.said: list[Progress] = []
        self.saved: list[Snapshot] = []
        self.tried: list[int] = []
        learn, forward = self.model.learn, self.model.forward

        def learning(inputs: Mapping[str, Any], present: Tensor) -> Any:
            self.tried.append(len(present))
            if len(present) > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return learn(inputs, present)

        def answering(inputs: Mapping[str, Any], present: Tensor) -> Any:
            if len(present) > seen:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(inputs, present)

        self.model.learn, self.model.forward = learning, answering  # type: ignore[method-assign]

    def go(
        self,
        resume: Snapshot | None = None,
        stop_after: int | None = None,
        at_once: int = 0,
        halves: bool = True,
    ) -> Any:
        torch.manual_seed(0)
        ending, self.memory = fine_tune(
            self.model,
            _batches(self.train, self.plan, seed=0),
            self.plan,
            halves=halves,
            evaluate=_validator(features.GOAL, self.validation, cross_entropy, self.plan, lambda: None),
            report=self.said.append,
            save=self.saved.append,
            should_stop=lambda: "drain" if len(self.losses()) == stop_after else None,
            resume=resume,
            at_once=at_once,
        )
        return ending

    def losses(self) -> list[float]:
        return [p.metrics["train_loss"] for p in self.said if p.metrics and "train_loss" in p.metrics]

    def messages(self) -> list[str]:
        return [p.message for p in self.said if p.message and "memory" in p.message]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each collection goes through all that the test process ever loaded, half a second long."""
    monkeypatch.setattr("engine.train.gpu_memory.gc.collect", lambda: 0)


@pytest.mark.parametrize("room", [1, 3, 5])
def test_a_micro_batch_that_does_not_fit_is_halved_and_the_step_stays_what_it_was(room: int) -> None:
    whole = Small(features.plan(batch_size=8, max_grad_norm=1e6))
    small = Small(features.plan(batch_size=8, max_grad_norm=1e6), room)

    whole.go()
    ending = small.go()

    assert isinstance(ending, Finished)
    assert small.losses() == pytest.approx(whole.losses(), rel=1e-4)
    assert len(small.losses()) == small.plan.total_steps
    fits = {1: 1, 3: 2, 5: 4}[room]
    assert small.memory.micro_batch == fits
    assert [f"again with {n}," in word for n, word in zip([4, 2, 1], small.messages(), strict=False)]
    assert len(small.messages()) == {4: 1, 2: 2, 1: 3}[fits]
    assert "of 8 rows" in small.messages()[0]
    assert set(small.tried[small.memory.micro_batch != 1 :]) >= {fits}


def test_losses_after_halving_are_those_of_a_run_that_had_that_micro_batch_from_the_start() -> None:
    """With dropout, too: the step that is done again draws what it would have drawn."""
    plan = features.plan(batch_size=8)
    small = Small(plan, room=4, dropout=0.3)
    never = Small(replace(plan, batch_size=4, accumulation=2), dropout=0.3)

    small.go()
    never.go()

    assert small.losses() == never.losses()
    assert small.messages()
    assert not never.messages()


def test_memory_that_runs_out_within_a_step_takes_nothing_of_it_twice() -> None:
    plan = features.plan(batch_size=8, gradient_accumulation_steps=2)
    small, never = Small(plan, dropout=0.3), Small(replace(plan, batch_size=4, accumulation=4), dropout=0.3)
    learn, calls = small.model.learn, []

    def second_fails(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return learn(*given)

    small.model.learn = second_fails  # type: ignore[method-assign]
    small.go()
    never.go()

    assert small.losses() == never.losses()


def test_a_run_that_goes_on_remembers_how_many_rows_fit(tmp_path: Path) -> None:
    plan = features.plan(batch_size=8)
    whole, first, second = (Small(plan, room=4, dropout=0.3) for _ in range(3))
    whole.go()
    first.go(stop_after=4)
    checkpoint.write(tmp_path / "step", first.saved[-1])

    second.go(resume=checkpoint.read(tmp_path / "step"))

    assert first.losses() + second.losses() == whole.losses()
    assert not second.messages()
    assert max(second.tried) == 4


def test_a_single_row_that_does_not_fit_ends_the_run_with_advice() -> None:
    with pytest.raises(EngineError, match=r"single row .*gradient_checkpointing") as ended:
        Small(features.plan(batch_size=4), room=0).go()

    assert (ended.value.code, ended.value.retryable) == ("out_of_memory", False)


def test_an_optimiser_that_does_not_fit_ends_the_run_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(optimiser: torch.optim.AdamW) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)

    with pytest.raises(EngineError, match=r"optimiser's state .*lora") as ended:
        Small(features.plan()).go()

    assert ended.value.code == "out_of_memory"


def test_an_evaluation_that_does_not_fit_is_done_in_smaller_pieces() -> None:
    small, whole = Small(features.plan(), seen=5), Small(features.plan())
    rows = features.examples(23)

    answers = metrics.predict(small.model, rows, lambda: None)

    torch.testing.assert_close(answers, metrics.predict(whole.model, rows, lambda: None))


def test_an_evaluation_of_a_row_that_does_not_fit_ends_with_advice() -> None:
    with pytest.raises(EngineError, match="single row"):
        metrics.predict(Small(features.plan(), seen=0).model, features.examples(5), lambda: None)


def test_what_a_failed_step_held_is_free_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's own traceback would hold it."""
    small = Small(features.plan(batch_size=8))
    learn, held, alive = small.model.learn, [], []

    def failing(inputs: Mapping[str, Tensor], present: Tensor) -> Any:
        if len(present) > 4:
            large = torch.ones(10)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return learn(inputs, present)

    small.model.learn = failing  # type: ignore[method-assign]
    monkeypatch.setattr("engine.train.step.release", lambda: alive.extend(one() is not None for one in held))

    small.go()

    assert alive == [False]


def test_a_run_may_begin_with_fewer_rows_at_once() -> None:
    plan = features.plan(batch_size=8)
    begun, never = Small(plan, dropout=0.3), Small(replace(plan, batch_size=4, accumulation=2), dropout=0.3)

    begun.go(at_once=4)
    never.go()

    assert begun.losses() == never.losses()
    assert begun.memory.micro_batch == 4
    assert max(begun.tried) == 4


class Room:
    """Raises where more than so many rows come at once, and counts the rows that were done."""

    def __init__(self, rows: int) -> None:
        self.rows, self.done, self.tried = rows, 0, list[int]()

    def __call__(self, rows: int) -> None:
        self.tried.append(rows)
        if rows > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.done += rows


def test_pieces_that_do_not_fit_are_halved_and_stay_so() -> None:
    room, pieces = Room(5), Pieces(16)

    def do(rows: Tensor) -> Tensor:
        room(len(rows))
        return rows

    assert torch.cat(list(pieces.each(do, torch.arange(23)))).tolist() == list(range(23))
    assert torch.cat(list(pieces.each(do, torch.arange(9)))).tolist() == list(range(9))
    assert room.tried == [16, 8, 4, 4, 4, 4, 4, 3, 4, 4, 1]
    assert list(pieces.each(do, torch.arange(0))) == []
    room.rows = 0
    with pytest.raises(EngineError, match="single row"):
        list(pieces.each(do, torch.arange(9)))


class Tower:
    """An encoder of live rows, with room for five."""

    frame_width = 1

    def __init__(self) -> None:
        self.room = Room(5)

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def vectors(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, None]:
        self.room(len(inputs["x"]))
        return inputs["x"].unsqueeze(1), None


def test_a_tower_that_a_report_encodes_anew_may_take_fewer_rows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reported, "mean_of_parts", lambda vectors, parts: vectors)

    class Column:
        def fetch(self, rows: Tensor) -> Live:
            return Live({"x": rows.float()}, torch.arange(len(rows)))

    given: tuple[Encoder, LiveColumn] = (Tower(), Column())  # type: ignore[assignment]

    found = reported._encoded(*given, torch.arange(23), lambda: None)

    assert found.flatten().tolist() == list(range(23))


def test_robustness_is_measured_in_smaller_pieces_where_rows_do_not_fit() -> None:
    """What towers make of the rows, and what the network answers."""
    rows = features.examples(23)
    whole, small = features.network(), features.network()
    encoded, forward, room = small.encoded, small.forward, Room(5)

    def encoding(inputs: Mapping[str, Any], present: Tensor) -> Any:
        room(len(present))
        return encoded(inputs, present)

    def answering(inputs: Mapping[str, Any], present: Tensor) -> Any:
        room(len(present))
        return forward(inputs, present)

    small.encoded, small.forward = encoding, answering  # type: ignore[method-assign]

    def answer(model: Any) -> Tensor:
        model.eval()
        state = robustness.encoded(model, rows, torch.arange(23), lambda: None)
        return robustness._of_model(model, rows, lambda: None)(state)

    torch.testing.assert_close(answer(small), answer(whole))
    assert room.done == 46


def test_projections_begin_in_smaller_pieces_where_rows_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, room, given = features.network(), Room(5), list[Tensor]()

    def pooled(inputs: Mapping[str, Any], present: Tensor) -> Any:
        room(len(present))
        return [present.float()]

    monkeypatch.setattr(model, "pooled", pooled)
    space = JointSpace([1], 2, has_bias=False)
    monkeypatch.setattr(space, "standardise", lambda columns, present, _: given.extend([*columns, present]))

    beginning.standardise(model, space, features.examples(23), "fp32", lambda: None)

    assert [len(column) for column in given] == [23, 23]
    assert room.done == 23


def test_what_a_model_writes_is_measured_in_smaller_pieces_where_rows_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses, writing = Room(5), Room(3)

    class Rows:
        is_cached = True
        prompts = [torch.zeros(3 + n % 2) for n in range(23)]

        def __len__(self) -> int:
            return 23

        def batch(self, rows: Tensor) -> Batch:
            targets = rows.unsqueeze(1) % 2
            return Batch({}, torch.ones(len(rows), 1, dtype=torch.bool), targets)

    class Model:
        longest_answer, language = 4, None

        def parameters(self) -> Any:
            return iter([torch.zeros(1)])

        def __call__(self, inputs: Any, present: Tensor) -> Tensor:
            losses(len(present))
            return torch.zeros(len(present), 2)

        def soft(self, inputs: Any, present: Tensor) -> int:
            return len(present)

        def embedded(self, ids: Tensor, soft: int) -> Tensor:
            return ids

    def write(language: Any, embedded: Tensor, *_: Any) -> Any:
        writing(len(embedded))
        return [type("Written", (), {"text": str(embedded.shape[1])})() for _ in embedded]

    monkeypatch.setattr(answers, "write", write)
    given: tuple[VisionLanguage, Conversations] = (Model(), Rows())  # type: ignore[assignment]

    found = answers._losses(*given, lambda: None)
    written = answers._written(*given, list(range(23)), lambda: None)

    assert found["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert losses.done == 23
    assert written == [str(3 + n % 2) for n in range(23)]
    # Of two lengths each has pieces of its own, and the second begins with what fitted the first.
    assert writing.tried[:4] == [12, 6, 3, 3]
    assert max(writing.tried[4:]) == 3


def contrastive(rows: int) -> Contrast:
    return Contrast(JointSpace([4, 4], 3, has_bias=False), rows)


def test_a_contrastive_batch_is_never_halved_since_that_would_be_another_loss() -> None:
    small = Small(features.plan(batch_size=8), room=4)

    with pytest.raises(EngineError, match=r"8 rows .*smaller batch_size.*gradient_checkpointing") as ended:
        small.go(halves=False)

    assert (ended.value.code, ended.value.retryable) == ("out_of_memory", False)
    assert small.tried == [8]


@pytest.mark.parametrize(
    ("loss", "rows"), [(cross_entropy, 2), (contrastive(8), 0)], ids=["other", "contrastive"]
)
def test_an_estimate_makes_no_contrastive_batch_smaller(
    loss: Criterion, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found:
        def most_rows(self, rows: int, room: int) -> int:
            return 2

        def words(self, rows: int) -> str:
            return f"{rows} rows"

    class Place:
        device = torch.device("cuda")

    class Model:
        def parameters(self) -> Any:
            return iter([Place()])

    class Read:
        is_cached = False

    monkeypatch.setattr(run.estimate, "counted", lambda *_: None)
    monkeypatch.setattr(run.estimate, "measured", lambda *_: Found())
    monkeypatch.setattr(run.estimate, "free_bytes", lambda _: 0)
    said: list[Progress] = []
    given: tuple[Any, Examples] = (Model(), Read())  # type: ignore[assignment]

    assert run._rows_at_once(*given, features.plan(batch_size=8), loss, True, said.append) == rows
    assert said[0].message == f"{rows or 8} rows"
