"""The two ways in which tokens lie in memory, with what pooling asks of either. A row's dead tokens are never read."""

from typing import Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """Tokens of some rows. `values` below are of the tokens' shape, `rows` of [rows, D]."""

    #: Tokens a row, [rows, 1], int64.
    counts: Tensor

    def clean(self, values: Tensor) -> Tensor:
        """With zeros in the place of dead tokens. Never by a product: 0 x NaN is NaN."""

    def sums(self, values: Tensor) -> Tensor:
        """Of each row's tokens: [rows, D], 0 for a row without any."""

    def places_of_largest(self, values: Tensor) -> Tensor:
        """Where each column of a row is largest, the first such place: [rows, D], int64. NaN is larger than all."""

    def places_of_first(self, width: int) -> Tensor:
        """The place of each row's first token, in every column."""

    def taken(self, values: Tensor, places: Tensor) -> Tensor:
        """What lies at the places: [rows, D], 0 for a row without tokens."""

    def put(self, rows: Tensor, places: Tensor) -> Tensor:
        """The opposite: zeros, and each row's numbers at their places."""

    def spread(self, rows: Tensor) -> Tensor:
        """Each row's numbers at each of its tokens, zeros at dead ones."""


class Padded:
    """[rows, T, D] with the first `lengths` [rows] tokens of each alive; without it all are."""

    def __init__(self, tokens: Tensor, lengths: Tensor | None) -> None:
        rows, self._most = tokens.shape[:2]
        if lengths is None:
            lengths = torch.full((rows,), self._most, device=tokens.device)
        self.counts = lengths.to(torch.int64).clamp(0, self._most).unsqueeze(1)
        self._live = (torch.arange(self._most, device=tokens.device) < self.counts).unsqueeze(-1)

    def clean(self, values: Tensor) -> Tensor:
        return torch.where(self._live, values, 0)

    def sums(self, values: Tensor) -> Tensor:
        return self.clean(values).sum(1)

    def places_of_largest(self, values: Tensor) -> Tensor:
        if not self._most:
            return self.places_of_first(values.shape[-1])
        return values.masked_fill(~self._live, float("-inf")).max(1).indices

    def places_of_first(self, width: int) -> Tensor:
        return self.counts.new_zeros(len(self.counts), width)

    def taken(self, values: Tensor, places: Tensor) -> Tensor:
        if not self._most:
            return values.new_zeros(places.shape)
        return self.clean(values).gather(1, places.unsqueeze(1)).squeeze(1)

    def put(self, rows: Tensor, places: Tensor) -> Tensor:
        blank = rows.new_zeros(len(rows), self._most, rows.shape[1])
        if not self._most:
            return blank
        return self.clean(blank.scatter(1, places.unsqueeze(1), rows.unsqueeze(1)))

    def spread(self, rows: Tensor) -> Tensor:
        return self.clean(rows.unsqueeze(1).expand(-1, self._most, -1))


class Packed:
    """[all tokens, D]: those of row b lie from `cu_seqlens[b]` to `cu_seqlens[b + 1]`; what is left is dead."""

    def __init__(self, tokens: Tensor, cu_seqlens: Tensor) -> None:
        self._all = tokens.shape[0]
        self._bounds = cu_seqlens.to(torch.int64).clamp(0, self._all)
        self.counts = self._bounds.diff().clamp(min=0).unsqueeze(1)
        places = torch.arange(self._all, device=tokens.device)
        rows = len(self.counts)
        self._row = torch.searchsorted(self._bounds[1:], places, right=True).clamp(max=max(rows - 1, 0))
        self._live = ((places >= self._bounds[0]) & (places < self._bounds[-1])).unsqueeze(-1)

    def clean(self, values: Tensor) -> Tensor:
        return torch.where(self._live, values, 0)

    def sums(self, values: Tensor) -> Tensor:
        return self._reduced(self.clean(values), "sum", 0)

    def places_of_largest(self, values: Tensor) -> Tensor:
        if not self._all:
            return self.places_of_first(values.shape[-1])
        values = self.clean(values)
        most = self._reduced(values, "max", float("-inf"))[self._row]
        is_it = (values == most) | values.isnan()
        places = torch.arange(self._all, device=values.device, dtype=torch.float64).unsqueeze(1)
        first = self._reduced(torch.where(is_it, places, float(self._all)), "min", float(self._all))
        return first.to(torch.int64).clamp(max=self._all - 1)

    def places_of_first(self, width: int) -> Tensor:
        return self._bounds[:-1].clamp(max=max(self._all - 1, 0)).unsqueeze(1).expand(-1, width).contiguous()

    def taken(self, values: Tensor, places: Tensor) -> Tensor:
        if not self._all:
            return values.new_zeros(places.shape)
        return torch.where(self.counts > 0, values.gather(0, places), 0)

    def put(self, rows: Tensor, places: Tensor) -> Tensor:
        blank = rows.new_zeros(self._all, rows.shape[1])
        if not self._all or not len(rows):
            return blank
        at = torch.arange(self._all, device=rows.device).unsqueeze(1)
        return torch.where(self._live & (places[self._row] == at), rows[self._row], 0)

    def spread(self, rows: Tensor) -> Tensor:
        if not len(rows):
            return rows.new_zeros(self._all, rows.shape[1])
        return self.clean(rows[self._row])

    def _reduced(self, values: Tensor, how: str, nothing: float) -> Tensor:
        # One thread a row and column: equal calls give equal bits, which adding by index does not promise.
        if not len(self.counts):
            return values.new_zeros(0, values.shape[1])
        return torch.segment_reduce(values, how, offsets=self._bounds, axis=0, unsafe=True, initial=nothing)


def layout(tokens: Tensor, lengths: Tensor | None, cu_seqlens: Tensor | None) -> Layout:
    return Padded(tokens, lengths) if cu_seqlens is None else Packed(tokens, cu_seqlens)
