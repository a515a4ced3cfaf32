"""Cases of token pooling, and an independent float64 answer to each."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from kernels import masked_token_pool

_TENSORS = ("tokens", "lengths", "cu_seqlens", "norm_weight", "norm_bias")


@dataclass(frozen=True)
class Case:
    tokens: Tensor
    lengths: Tensor | None = None
    cu_seqlens: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    mode: Literal["mean", "max", "cls"] = "mean"
    l2_normalize: bool = False

    @property
    def leaves(self) -> dict[str, Tensor]:
        named = {"tokens": self.tokens, "norm_weight": self.norm_weight, "norm_bias": self.norm_bias}
        return {name: leaf for name, leaf in named.items() if leaf is not None}

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers as fresh leaves that require a gradient."""
        fresh = {name: leaf.detach().to(dtype).requires_grad_() for name, leaf in self.leaves.items()}
        return replace(self, **fresh)

    def on(self, device: str) -> "Case":
        """The same numbers there, as fresh leaves; those that were frozen stay so. Strides are kept."""

        def moved(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.detach().to(device).requires_grad_(tensor.requires_grad)

        return replace(self, **{name: moved(getattr(self, name)) for name in _TENSORS})


def case(
    *,
    rows: int = 9,
    most: int = 17,
    width: int = 48,
    lengths: str = "some",
    norm: bool = True,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Case:
    """A case with random numbers that `dtype` holds exactly, each input a leaf that requires a gradient."""
    random = torch.Generator().manual_seed(rows + 1000 * most + width)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype).requires_grad_()

    return Case(
        tokens=draw(rows, most, width),
        lengths=_lengths(lengths, rows, most, random),
        norm_weight=draw(width) if norm else None,
        norm_bias=draw(width) if norm else None,
        **options,
    )


def _lengths(kind: str, rows: int, most: int, random: torch.Generator) -> Tensor | None:
    """By name; `some` holds a row without tokens and a whole one."""
    some = torch.randint(0, most + 1, (rows,), generator=random)
    some[rows // 2 : rows // 2 + 1] = 0
    some[:1] = most
    return {
        "absent": None,
        "all": torch.full((rows,), most),
        "none": torch.zeros(rows, dtype=torch.int64),
        "some": some,
        "int32": some.to(torch.int32),
    }[kind]


def packed(padded: Case) -> Case:
    """The same tokens without the dead ones, one row behind the other."""
    counts = _counts(padded)
    live = [row[:n] for row, n in zip(padded.tokens.detach(), counts, strict=True)]
    tokens = torch.cat(live) if live else padded.tokens.detach().flatten(0, 1)
    bounds = functional.pad(torch.tensor(counts, dtype=torch.int64).cumsum(0), (1, 0)).to(tokens.device)
    return replace(padded, tokens=tokens.requires_grad_(), lengths=None, cu_seqlens=bounds)


def _counts(padded: Case) -> list[int]:
    rows, most = padded.tokens.shape[:2]
    return [most] * rows if padded.lengths is None else padded.lengths.clamp(0, most).tolist()


def pool(case: Case) -> Tensor:
    return masked_token_pool(
        case.tokens,
        case.lengths,
        cu_seqlens=case.cu_seqlens,
        norm_weight=case.norm_weight,
        norm_bias=case.norm_bias,
        mode=case.mode,
        l2_normalize=case.l2_normalize,
    )


def textbook(case: Case) -> Tensor:
    """Row by row, in the dtype of the case: slice, LayerNorm, pool, normalise."""
    width = case.tokens.shape[-1]
    pooled = [_pooled(live, case) for live in _rows(case)]
    y = torch.stack(pooled) if pooled else case.tokens.new_zeros(0, width) + case.tokens.sum() * 0
    return functional.normalize(y, dim=1) if case.l2_normalize else y


def _rows(case: Case) -> list[Tensor]:
    if case.cu_seqlens is not None:
        bounds = case.cu_seqlens.tolist()
        return [case.tokens[start:end] for start, end in pairwise(bounds)]
    return [row[:n] for row, n in zip(case.tokens, _counts(case), strict=True)]


def _pooled(live: Tensor, case: Case) -> Tensor:
    if not len(live):
        return live.sum(0)
    if case.norm_weight is not None:
        live = functional.layer_norm(live, live.shape[1:], case.norm_weight, case.norm_bias)
    return {"mean": live.mean(0), "max": live.max(0).values, "cls": live[0]}[case.mode]


#: Cases that reach every branch of a kernel, by label.
FORMS = {
    f"{mode} norm={norm} l2={l2}": {"mode": mode, "norm": norm, "l2_normalize": l2}
    for mode in ("mean", "max", "cls")
    for norm in (True, False)
    for l2 in (True, False)
}
#: Rows, tokens, columns: odd ones, and those that take several tiles or several warps a token.
SHAPES = [(1, 1, 1), (3, 17, 7), (37, 1, 48), (2, 133, 5), (3, 3, 769), (2, 5, 1280), (1, 3, 4096)]


def without_empty_rows(asked: Case) -> Case:
    """For textbooks whose gradient of a row of zeros is infinite times nothing: `l2_normalize`."""
    return asked if asked.lengths is None else replace(asked, lengths=asked.lengths.clamp(min=1))
