"""A run's curves as a TensorBoard event file, written once from what the run remembers."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

#: TensorBoard knows such a file by its name; usual ones tell the machine's name as well.
FILE_NAME = "events.out.tfevents.0.plait"
_GROUPS = ("train", "valid", "test")

History = Sequence[Mapping[str, float]]


def write_events(folder: Path, history: History, epoch_seconds: Sequence[float]) -> None:
    """A scalar for each number of each logged step, by the usual tags. Writes the file anew.

    Steps have no times of their own: they get those of training alone, counted back from now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.time() - sum(epoch_seconds)
    writer = RecordWriter(str(folder / FILE_NAME))
    try:
        writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        for row in history:
            writer.write(_event(row, began + _until(row["epoch"], epoch_seconds)).SerializeToString())
    finally:
        writer.close()


def _event(row: Mapping[str, float], when: float) -> Event:
    named = {tag_of(name): value for name, value in row.items() if name not in ("step", "epoch")}
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in named.items()]
    return Event(wall_time=when, step=int(row["step"]), summary=Summary(value=values))


def tag_of(name: str) -> str:
    """`valid_f1_macro` -> `valid/f1_macro`: TensorBoard puts tags of one group together."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if group in _GROUPS and rest else name


def _until(epoch: float, epoch_seconds: Sequence[float]) -> float:
    """Seconds of training after so many epochs."""
    whole = int(epoch)
    begun = epoch_seconds[whole] * (epoch - whole) if whole < len(epoch_seconds) else 0.0
    return sum(epoch_seconds[:whole]) + begun
