"""Presets: a name for a whole choice of encoders, which becomes an ordinary spec once the columns' types are known."""

from collections.abc import Mapping
from typing import Literal

from domain.errors import EngineError
from domain.language import SEEN
from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import Tower

#: The encoder of each type of column; columns of other types are not used.
ENCODERS: Mapping[Literal["video-audio-clip"], Mapping[ColumnType, str]] = {
    "video-audio-clip": {
        ColumnType.TEXT: "google-bert/bert-base-uncased",
        ColumnType.AUDIO: "microsoft/resnet-50",
        ColumnType.VIDEO: "microsoft/resnet-50",
    }
}


def spelled_out(spec: Multimodal, types: Mapping[str, ColumnType]) -> Multimodal:
    """`spec` without its preset: a tower for each column that the preset has an encoder for, and those that it names itself.

    What a named tower says stays, and what it leaves open is the preset's. Raises EngineError where there is no such column.
    """
    if spec.preset is None:
        return spec
    encoders: dict[ColumnType, str | None] = dict(ENCODERS[spec.preset])
    if spec.language_model is not None:
        # It reads the texts itself.
        encoders |= {kind: None for kind in encoders if kind not in SEEN}
    towers = {name: Tower(encoder=encoders[kind]) for name, kind in types.items() if kind in encoders}
    for name, tower in spec.towers.items():
        usual = encoders.get(types[name]) if name in types else None
        towers[name] = tower.model_copy(update={"encoder": tower.encoder or usual})
    if not towers:
        message = f"'{spec.preset}' reads columns of {', '.join(encoders)}, and the data have none of them; use late-fusion"
        raise EngineError("missing_column", message, param="multimodal.preset")
    return spec.model_copy(update={"preset": None, "towers": towers})
