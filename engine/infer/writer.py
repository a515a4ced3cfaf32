"""A loaded model that writes: rows in, a text a row out. The same surface as `Predictor`'s, for the family vlm."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from domain.manifest import TABULAR
from engine.data.media import IN_PLACE, Media
from engine.data.probe import Undecodable
from engine.data.several import most_of
from engine.data.values import Reading
from engine.infer.answers import Answer, Modalities, OnBadInput, Prediction, Problem
from engine.infer.cells import Cells, read_cell, sort_out, with_sounds
from engine.infer.towers import Clock, Tower
from engine.models.store import Card
from engine.models.vision_language import VisionLanguage
from engine.models.writing import Options, Written, by_length, write
from engine.train.words import ShouldStop, heed

#: Answers written at once.
ROWS_AT_ONCE = 16


class Writer:
    """Holds one model. Rows never touch one another: what is written at once has prompts of one length, and no padding."""

    def __init__(self, model: VisionLanguage, card: Card, media: Media = IN_PLACE) -> None:
        self.model, self.card, self._media = model.eval(), card, media
        #: The columns that the model reads or sees.
        self.columns: tuple[str, ...] = tuple(sorted(card.spec.towers))
        schema = card.schema
        named = (schema.label, schema.id, schema.split, schema.group)
        self._sounds = {sound: film for sound, film in schema.sounds.items() if sound in self.columns}
        self._most = {
            name: most_of(schema.columns[self._sounds.get(name, name)].type) for name in self.columns
        }
        self._ignored = frozenset({*schema.columns, *(n for n in named if n)} - set(self.columns))

    @property
    def reads_media(self) -> bool:
        return bool(self.model.names)

    def predict(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_bad_input: OnBadInput = "error",
    ) -> list[Prediction]:
        """One Prediction with a `text` for each row, in their order; rows are as `Predictor.predict` takes them.

        The answer ends by itself (`finish_reason` stop), before any of `stop`, or after `max_tokens` (length; none: as long
        as those of the training might be). `temperature` 0 takes the likeliest token each time; above, tokens are drawn by
        `seed`, in each row as if it stood alone.
        """
        return self.run(
            rows,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stop=stop,
            on_bad_input=on_bad_input,
        ).predictions

    @torch.inference_mode()
    def run(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_bad_input: OnBadInput = "error",
        should_stop: ShouldStop = lambda: None,
    ) -> Answer:
        """`predict`, with the times. `should_stop` is asked before each cell and each token: raises StopAsked."""
        clock, masks = Clock(), on_bad_input == "mask"
        options = Options(max_tokens or self.model.longest_answer, temperature, seed, tuple(stop))
        given = [
            with_sounds(row, self.columns, self._sounds, self._media.is_silent) if self._sounds else row
            for row in rows
        ]
        cells = [sort_out(row, self._most, self._ignored) for row in given]

        def wanted(one: Cells) -> bool:
            return one.error(masks=masks) is None

        texts = [self._texts(one) for one in cells]
        towers = [
            Tower(name, self.model.encoder(name), clock, should_stop, self._media.read)
            for name in self.model.names
        ]
        pooled = [tower.encode(cells, wanted) for tower in towers]
        kept = [place for place, one in enumerate(cells) if wanted(one)]
        with clock.part("gpu"):
            found = self._written(
                [cast(Tensor, x)[kept] for x in pooled],
                [cells[place] for place in kept],
                [texts[place] for place in kept],
                options,
                should_stop,
            )
        written = dict(zip(kept, found, strict=True))
        predictions = [_prediction(one, written.get(place), masks) for place, one in enumerate(cells)]
        return Answer(predictions, clock.ms("decode"), clock.ms("gpu"))

    def _texts(self, cells: Cells) -> dict[str, Any]:
        """By column, what the language model reads; cells that cannot be used are noted."""
        found = {}
        for name in self.model.prompter.read:
            if name not in cells.used:
                continue
            value, kind = cells.values[name], self.card.schema.columns[name].type
            several = isinstance(value, list) and kind not in TABULAR
            try:
                parts = [
                    read_cell(part, Reading(kind), self._media.read)
                    for part in (value if several else [value])
                ]
                found[name] = parts if several else parts[0]
            except Undecodable as error:
                cells.failed[name] = Problem(error.code, error.message, name)
        return found

    def _written(
        self,
        pooled: list[Tensor],
        rows: list[Cells],
        texts: list[dict[str, Any]],
        options: Options,
        should_stop: ShouldStop,
    ) -> list[Written]:
        device = self.model.missing.device
        present = torch.tensor([[name in one.used for name in self.model.names] for one in rows])
        present = present.view(len(rows), len(self.model.names)).bool().to(device)
        soft = self.model.stood_in(pooled, present)
        prompts = [torch.tensor(self.model.prompter.ids(one), device=device) for one in texts]
        answers: dict[int, Written] = {}
        for places in by_length(prompts, ROWS_AT_ONCE):
            ids = torch.stack([prompts[place] for place in places])
            embedded = self.model.embedded(ids, [tokens[places] for tokens in soft])
            found = write(
                self.model.language, embedded, self._within(options, ids), lambda: heed(should_stop)
            )
            answers |= zip(places, found, strict=True)
        return [answers[place] for place in range(len(rows))]

    def _within(self, options: Options, ids: Tensor) -> Options:
        """Not beyond what the network has positions for."""
        longest = self.model.language.longest
        if longest is None:
            return options
        most = max(1, min(options.max_tokens, longest - ids.shape[1]))
        return Options(most, options.temperature, options.seed, options.stop)


def _prediction(cells: Cells, written: Written | None, masks: bool) -> Prediction:
    if written is None:
        missing, failed = sorted(cells.missing), sorted(cells.failed)
        refused = cells.error(masks=masks)
        return Prediction(Modalities([], missing, failed), warnings=tuple(cells.warnings), error=refused)
    modalities = Modalities(cells.used, sorted(cells.missing), sorted(cells.failed))
    passed = [f"column '{name}' was passed over: {p.message}" for name, p in sorted(cells.failed.items())]
    return Prediction(
        modalities,
        text=written.text,
        finish_reason=written.finish_reason,
        warnings=(*cells.warnings, *passed),
    )
