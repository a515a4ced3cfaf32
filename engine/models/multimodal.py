"""The whole network: encoders -> fusion -> head, each swappable. Knows no spec."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from engine.models.lora import train_adapters_alone
from engine.models.pooling import mean_of_parts
from engine.models.tokens import Tokens, in_rows

if TYPE_CHECKING:  # the loop knows this network, and must not load an encoder library for it
    from engine.models.encoders import Encoder
    from engine.models.fusion import Fusion


@dataclass(frozen=True)
class Live:
    """Inputs of a trained tower, for the rows that have any."""

    inputs: Mapping[str, Tensor]
    rows: Tensor
    #: How many of the inputs belong to each of `rows`, where some have several.
    counts: Tensor | None = None

    def to(self, device: torch.device) -> "Live":
        # The counts stay: they say how to cut, and no device is asked for that.
        inputs = {name: x.to(device) for name, x in self.inputs.items()}
        return Live(inputs, self.rows.to(device), self.counts)


class Multimodal(nn.Module):
    """Names are sorted, so that weights load alike everywhere; `present` has its columns in that order."""

    def __init__(
        self, encoders: Mapping[str, "Encoder"], frozen: frozenset[str], fusion: "Fusion", head: nn.Module
    ) -> None:
        super().__init__()
        self.names = sorted(encoders)
        # Column names may hold dots, which module names may not: encoders go by their place.
        self.encoders = nn.ModuleList(encoders[name] for name in self.names)
        self.frozen = frozen
        self.fusion = fusion
        self.head = head
        #: Parameters that are frozen and yet not their encoder's own: a model that training started from had trained them.
        self.carried: frozenset[str] = frozenset()
        #: Parameters of the fusion that such a model has taught already: they learn at a lower rate.
        self.taught: frozenset[str] = frozenset()
        for name in frozen:
            for part in _pretrained(self.encoder(name)):
                part.requires_grad_(False)

    def encoder(self, name: str) -> "Encoder":
        return cast("Encoder", self.encoders[self.names.index(name)])

    def forward(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> Tensor:
        """Logits. A tower's input is its features (cached) or what its encoder reads."""
        return self.head(self.fusion(self.pooled(inputs, present), present))

    def encoded(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> dict[str, Tensor] | None:
        """What the towers make of `inputs`; `forward` takes it in their place, and gives the same. None where it is tokens."""
        if self.fusion.reads_tokens:
            return None
        return {name: self._pooled(name, inputs[name], len(present)) for name in self.names}

    def learn(self, inputs: Mapping[str, Tensor | Live], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `forward`, and what the fusion wants small besides the task's loss, if anything."""
        fused, besides = self.fusion.learn(self.pooled(inputs, present), present)
        return self.head(fused), besides

    def pooled(
        self, inputs: Mapping[str, Tensor | Live], present: Tensor
    ) -> Sequence[Tensor] | Sequence[Tokens]:
        """What the fusion is given: each tower's vectors, [rows, width], zeros or anything where it is missing, or its tokens."""
        if self.fusion.reads_tokens:
            return [self._tokens(name, cast(Live, inputs[name]), len(present)) for name in self.names]
        return [self._pooled(name, inputs[name], len(present)) for name in self.names]

    def _pooled(self, name: str, given: Tensor | Live, rows: int) -> Tensor:
        if isinstance(given, Tensor):
            return given
        encoder = self.encoder(name)
        out = torch.zeros(rows, encoder.width, device=given.rows.device)
        if not len(given.rows):
            return out
        vectors = encoder(given.inputs)
        if given.counts is not None:
            vectors = mean_of_parts(vectors, given.counts)
        # Under autocast an encoder's vectors may be narrower than what is made of them.
        return out.index_copy(0, given.rows, vectors.to(out.dtype))

    def _tokens(self, name: str, given: Live, rows: int) -> Tokens:
        encoder = self.encoder(name)
        if not len(given.rows):
            none = torch.zeros(0, dtype=torch.int64)
            return in_rows(torch.zeros(0, encoder.width, device=given.rows.device), none, given.rows, rows)
        vectors, counts = encoder.vectors(given.inputs)
        if given.counts is not None:
            vectors, counts = encoder.in_cells(vectors, counts, given.counts)
        return in_rows(vectors, counts, given.rows, rows)

    def train(self, mode: bool = True) -> "Multimodal":
        """Frozen encoders and frozen parts of one stay in evaluation: their dropout would be noise, no lesson.

        So does batch norm, whose statistics small batches spoil.
        """
        super().train(mode)
        for name, encoder in zip(self.names, self.encoders, strict=True):
            if name in self.frozen:
                for part in _pretrained(encoder):
                    part.eval()
            for module in encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) or _is_frozen(module):
                    module.eval()
            train_adapters_alone(getattr(encoder, "network", encoder), mode)
        return self

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that training changes, by name: a model folder and a checkpoint hold these."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def kept(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters that no encoder's own folder has, by name: a model folder holds these."""
        return ((n, p) for n, p in self.named_parameters() if p.requires_grad or n in self.carried)


def _pretrained(encoder: nn.Module) -> Iterator[nn.Module]:
    """All of it but a pool, which begins at random and is trained in any case."""
    return (part for name, part in encoder.named_children() if name != "pool")


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
