"""A loaded model that predicts: rows in, one Prediction a row out. What a child, a test or a notebook calls."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domain.errors import EngineError
from domain.manifest import Code, ColumnType
from domain.tasks import Task
from engine.data.column_statistics import Vocabulary
from engine.data.media import IN_PLACE, Media
from engine.data.several import most_of
from engine.data.tables import excerpt
from engine.hub.mirror import resolve
from engine.infer.answers import Answer, Modalities, OnBadInput, Prediction, Problem, WeightsBy
from engine.infer.cells import Cells, category, sort_out, with_sounds
from engine.infer.readout import readout
from engine.infer.towers import Clock, Tower
from engine.infer.weights import weigh
from engine.infer.writer import Writer
from engine.models.joint import fused as joined
from engine.models.multimodal import Multimodal
from engine.models.store import Card, load_model
from engine.models.tokens import Tokens
from engine.models.vision_language import VisionLanguage
from engine.train.words import ShouldStop

#: Where `plait-server encoders pull` puts encoders by default.
DEFAULT_MIRROR = Path(".plait/encoders")

#: Rows whose tokens are fused at once.
TOKEN_ROWS = 64


def load(
    folder: Path | str,
    encoders: Path | str | Callable[[str], Path] | None = None,
    device: str = "auto",
    media: Media = IN_PLACE,
) -> "Predictor | Writer":
    """The model in `folder`, ready to predict, or (of the family vlm) to write.

    `encoders` is the folder that holds the encoders (they are not in the model), or a function from an
    encoder's id to its folder. The Hub is never asked. `media` are decoded in this process, which needs no
    end and suits one's own files; for a stranger's give `engine.data.decoders.pool.Decoders().media`. Raises
    EngineError: `model_unreadable`, `model_too_new`, `encoder_unavailable`, `encoder_changed`.
    """
    model, card = load_model(Path(folder), _finder(encoders))
    model = model.to(_device(device))
    if isinstance(model, VisionLanguage):
        return Writer(model, card, media)
    return Predictor(model, card, media)


def _finder(encoders: Path | str | Callable[[str], Path] | None) -> Callable[[str], Path]:
    if callable(encoders):
        return encoders
    mirror = DEFAULT_MIRROR if encoders is None else Path(encoders)

    def found(name: str) -> Path:
        try:
            return resolve(name, mirror=mirror, allow_hub=False)
        except EngineError as error:
            looked = f"It was looked for in {mirror.absolute()}; `encoders` names another folder."
            raise EngineError(error.code, f"{error.message} {looked}") from None

    return found


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


class Predictor:
    """Holds one model. Rows never touch one another: a bad one has its error, the others their answers."""

    def __init__(self, model: Multimodal, card: Card, media: Media = IN_PLACE) -> None:
        self.model, self.card, self._media = model.eval(), card, media
        #: The columns that the model reads, in the network's order.
        self.columns: tuple[str, ...] = tuple(model.names)
        schema = card.schema
        named = (schema.label, schema.id, schema.split, schema.group)
        self._sounds = {sound: film for sound, film in schema.sounds.items() if sound in self.columns}
        #: Files in a cell; the sound of films comes with them.
        self._most = {
            name: most_of(schema.columns[self._sounds.get(name, name)].type) for name in self.columns
        }
        self._ignored = frozenset({*schema.columns, *(n for n in named if n)} - set(self.columns))
        self._vocabularies = {
            name: frozenset(known.values)
            for name, known in card.statistics.items()
            if isinstance(known, Vocabulary)
        }
        self._embeds_only = card.spec.task == Task.CONTRASTIVE
        self._readout = readout(Task(card.spec.task), card.classes, card.target)

    @property
    def reads_media(self) -> bool:
        return any(self.model.encoder(name).reading.kind != ColumnType.TEXT for name in self.columns)

    def predict(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        top_k: int = 1,
        return_embeddings: bool = False,
        on_bad_input: OnBadInput = "error",
    ) -> list[Prediction]:
        """One Prediction a row, in their order.

        A row maps columns to values: `str` for text; `bytes` or a `Path` for media, or a PIL image, or
        `(samples, sampling rate)`; a list of such for several in one cell; a number, or a text that writes one; a
        category's word; None, or nothing, where it is missing. `on_bad_input="mask"` takes an
        unusable cell for a missing one, with a warning; else it is its row's error.
        """
        answer = self.run(rows, top_k=top_k, return_embeddings=return_embeddings, on_bad_input=on_bad_input)
        return answer.predictions

    @torch.inference_mode()
    def run(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        top_k: int = 1,
        return_embeddings: bool = False,
        on_bad_input: OnBadInput = "error",
        should_stop: ShouldStop = lambda: None,
    ) -> Answer:
        """`predict`, with the times. `should_stop` is asked before each cell: raises StopAsked."""
        clock, masks = Clock(), on_bad_input == "mask"
        given = [
            with_sounds(row, self.columns, self._sounds, self._media.is_silent) if self._sounds else row
            for row in rows
        ]
        sorted_out = [sort_out(row, self._most, self._ignored) for row in given]

        def wanted(cells: Cells) -> bool:
            # A row that has failed already costs no further work.
            return cells.error(masks=masks) is None

        towers = [
            Tower(name, self.model.encoder(name), clock, should_stop, self._media.read)
            for name in self.columns
        ]
        pooled = [tower.encode(sorted_out, wanted) for tower in towers]
        kept = [i for i, cells in enumerate(sorted_out) if wanted(cells)]
        with clock.part("gpu"):
            found = [
                answer
                for piece in self._pieces(kept)
                for answer in self._found([x[piece] for x in pooled], [sorted_out[i] for i in piece])
            ]
        answers = dict(zip(kept, found, strict=True))
        return Answer(
            [
                _refusal(cells, masks)
                if i not in answers
                else self._prediction(cells, answers[i], top_k, return_embeddings)
                for i, cells in enumerate(sorted_out)
            ],
            clock.ms("decode"),
            clock.ms("gpu"),
        )

    def _pieces(self, rows: list[int]) -> Iterator[list[int]]:
        """Vectors are fused all at once; attention over many rows' tokens would take too much memory."""
        size = TOKEN_ROWS if self.model.fusion.reads_tokens else max(len(rows), 1)
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _found(self, pooled: Sequence[Tensor | Tokens], rows: list[Cells]) -> list["_Found"]:
        present = torch.tensor([[name in cells.used for name in self.columns] for cells in rows])
        present = present.to(pooled[0].device)
        fused = self.model.fusion(pooled, present)
        if self._embeds_only:
            vectors = zip(joined(fused).tolist(), fused.tolist(), strict=True)
            return [_Found([], whole, [], None, of_columns) for whole, of_columns in vectors]
        whole = self._readout.scores(self.model.head(fused))

        def answer(shown: Tensor) -> Tensor:
            scores = self._readout.scores(self.model.head(self.model.fusion(pooled, shown)))
            return self._readout.telling(scores, whole)

        weights, by = weigh(self.model.fusion, pooled, present, answer)
        lists = zip(whole.tolist(), fused.tolist(), weights.tolist(), strict=True)
        return [_Found(scores, vector, shares, by) for scores, vector, shares in lists]

    def _prediction(self, cells: Cells, found: "_Found", top_k: int, embeds: bool) -> Prediction:
        numbers = [*found.scores, *found.weights, *found.embedding]
        if not all(math.isfinite(number) for number in numbers):
            message = "the model's answer is not a number: what the row holds is out of every usual range"
            return Prediction(_sorted_out(cells), error=Problem(Code.UNREADABLE_MEDIA, message))
        shares = dict(zip(self.columns, found.weights, strict=True)) if found.weights else None
        modalities = Modalities(
            cells.used,
            sorted(cells.missing),
            sorted(cells.failed),
            {name: shares[name] for name in cells.used} if shares else None,
            found.weights_by,
        )
        passed = [f"column '{name}' was passed over: {p.message}" for name, p in sorted(cells.failed.items())]
        return Prediction(
            modalities,
            embedding=found.embedding if embeds or self._embeds_only else None,
            embeddings=self._of_columns(cells, found.embeddings) if embeds and found.embeddings else None,
            warnings=(*cells.warnings, *passed, *self._unseen(cells)),
            **self._readout.words(found.scores, top_k),
        )

    def _of_columns(self, cells: Cells, vectors: list[list[float]]) -> dict[str, list[float]]:
        return {name: x for name, x in zip(self.columns, vectors, strict=True) if name in cells.used}

    def _unseen(self, cells: Cells) -> Iterator[str]:
        for name, known in self._vocabularies.items():
            if name in cells.used and (word := category(cells.values[name])) not in known:
                yield f"column '{name}': training saw no '{excerpt(word)}'; it counts as an unseen value"


@dataclass(frozen=True)
class _Found:
    """What the network made of one row."""

    scores: list[float]
    embedding: list[float]
    #: Of every tower, in the network's order.
    weights: list[float]
    weights_by: WeightsBy | None
    #: Of every tower, where each has one of its own: of a contrastive model.
    embeddings: list[list[float]] | None = None


def _refusal(cells: Cells, masks: bool) -> Prediction:
    return Prediction(_sorted_out(cells), warnings=tuple(cells.warnings), error=cells.error(masks=masks))


def _sorted_out(cells: Cells) -> Modalities:
    """Of a row without an answer: nothing was used."""
    return Modalities([], sorted(cells.missing), sorted(cells.failed))
