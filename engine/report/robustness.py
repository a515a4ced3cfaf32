"""What a model is worth without a modality, or with noise on one. Noise is added to a tower's vectors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.data.dataset import Examples
from engine.models.multimodal import Multimodal
from engine.report.baselines import Baselines
from engine.report.features import Features
from engine.report.headline import Headline, metric_of
from engine.report.probes import Probe, side_by_side
from engine.report.rows import Chosen
from engine.train.gpu_memory import Pieces

#: In units of each feature's standard deviation over the measured rows.
STRENGTHS = (0.5, 1.0, 2.0)
#: Rows at once: those of live towers, and of what they made of them.
_ENCODED, _ANSWERED = 16, 256

Heed = Callable[[], None]


@dataclass(frozen=True)
class State:
    """All towers' vectors of some rows, [rows, width] each, and which are there, [rows] each.

    Of towers that give no vector each there is none; `numbers` are the rows' in their split.
    """

    vectors: Mapping[str, Tensor]
    has: Mapping[str, Tensor]
    numbers: Tensor

    def without(self, name: str) -> "State":
        return replace(self, has={**self.has, name: torch.zeros_like(self.has[name])})

    def noisy(self, name: str, strength: float, draws: Tensor) -> "State":
        """`draws` are standard normal, [rows, width]."""
        vectors = self.vectors[name]
        std = vectors[self.has[name]].std(0, correction=0)
        return replace(self, vectors={**self.vectors, name: vectors + strength * std * draws.to(vectors)})

    def rows(self, chosen: Tensor) -> "State":
        vectors = {name: v[chosen] for name, v in self.vectors.items()}
        return State(vectors, {name: h[chosen] for name, h in self.has.items()}, self.numbers[chosen])


@dataclass(frozen=True)
class Condition:
    name: str
    tower: str
    strength: float | None = None


@torch.no_grad()
def encoded(model: Multimodal, examples: Examples, rows: Tensor, heed: Heed) -> State:
    """What the trained towers make of the rows."""
    device = next(model.parameters()).device
    has = {name: examples.present[rows, i] for i, name in enumerate(model.names)}
    size = _ANSWERED if examples.is_cached and not examples.has_frames else _ENCODED

    def encode(piece: Tensor) -> Mapping[str, Tensor] | None:
        heed()
        batch = examples.batch(piece).to(device)
        made = model.encoded(batch.inputs, batch.present)
        return None if made is None else {name: v.float().cpu() for name, v in made.items()}

    pieces: list[Mapping[str, Tensor]] = []
    for encoded_piece in Pieces(size).each(encode, rows):
        if encoded_piece is None:
            return State({}, has, rows)
        pieces.append(encoded_piece)
    vectors = {name: torch.cat([piece[name] for piece in pieces]) for name in model.names}
    return State(vectors, has, rows)


def conditions(state: State) -> Iterator[Condition]:
    """In the towers' order. Of one tower nothing is left without it, and of less than two rows there is no deviation."""
    for name in sorted(state.has):
        if len(state.has) > 1:
            yield Condition("missing", name)
    for name in sorted(state.vectors):
        if state.has[name].sum() > 1:
            yield from (Condition("noise", name, strength) for strength in STRENGTHS)


def robustness(
    model: Multimodal,
    compared_by: Headline,
    chosen: Chosen,
    against: Baselines | None,
    heed: Heed,
) -> tuple[dict[str, Any], dict[str, float], list[dict[str, str]]]:
    """The section, metrics of the job, and what is left out. `against` are probes of the same rows. Raises what `heed` raises."""
    rows = chosen.rows[chosen.perturbed]
    model.eval()
    state = encoded(model, chosen.examples, rows, heed)
    left_out = []
    if not state.vectors:
        why = "the towers of this model give more than one vector a row"
        left_out.append({"what": "robustness.noise", "why": why})
    answerers = {"model": _answerer(_of_model(model, chosen.examples, heed), state)}
    if against is not None and against.joint is not None:
        begun = _begun(against.features, chosen.perturbed, rows)
        answerers["baseline"] = _answerer(_of_probe(against.joint), begun)
    bench = _Bench(compared_by, chosen.examples.targets[rows], answerers)
    told = [found for c in conditions(state) if (found := bench.under(c)) is not None]
    section: dict[str, Any] = {
        "metric": compared_by.name,
        "less_is_better": compared_by.sign < 0,
        "rows": len(rows),
        "noise": "normal, added to the tower's vectors in units of each entry's standard deviation over these rows",
        "clean": bench.clean("model", torch.arange(len(rows))),
        "conditions": told,
    }
    metrics = {
        metric_of(name, "missing", c["tower"]): value
        for c in told
        if c["condition"] == "missing"
        for name, value in c["metrics"].items()
    }
    if told:
        section["worst"] = min(told, key=lambda c: compared_by.sign * (c["value"] - c["clean"]))
    else:
        left_out.append(
            {"what": "robustness.conditions", "why": "no tower can be taken away or has two rows"}
        )
    if "baseline" in answerers and told:
        found = compared(told, compared_by.sign)
        section |= found
        metrics |= found
    else:
        why = "they need linear probes of two towers or more to be compared with"
        left_out.append({"what": "relative_robustness, effective_robustness", "why": why})
    return section, metrics, left_out


def compared(told: list[dict[str, Any]], sign: int) -> dict[str, float]:
    """After Taori et al. 2020, arXiv:2007.00644, with the probe of all towers for the model without intervention.

    Relative: how much more the model is worth under the conditions. Effective: how much of that is left when its
    lead without them is taken off. Means over the conditions; more is better.
    """
    leads = [sign * (c["value"] - c["baseline"]) for c in told]
    ahead = [sign * (c["clean"] - c["baseline_clean"]) for c in told]
    relative = sum(leads) / len(leads)
    return {"relative_robustness": relative, "effective_robustness": relative - sum(ahead) / len(ahead)}


def _begun(of: Mapping[str, Features], rows: Tensor, numbers: Tensor) -> State:
    return State(
        {n: f.vectors[rows] for n, f in of.items()}, {n: f.has[rows] for n, f in of.items()}, numbers
    )


Answer = Callable[[State], Tensor]


def _of_model(model: Multimodal, examples: Examples, heed: Heed) -> Answer:
    device = next(model.parameters()).device
    by_vectors, by_rows = Pieces(_ANSWERED), Pieces(_ENCODED)

    @torch.no_grad()
    def answer(state: State) -> Tensor:
        present = torch.stack([state.has[name] for name in model.names], dim=1)

        def of_piece(piece: Tensor) -> Tensor:
            heed()
            # Without vectors the towers read anew; what is not present reaches no answer.
            vectors = {name: v[piece] for name, v in state.vectors.items()}
            inputs = vectors or examples.batch(state.numbers[piece]).inputs
            there = {name: given.to(device) for name, given in inputs.items()}
            return model(there, present[piece].to(device)).float().cpu()

        pieces = by_vectors if state.vectors else by_rows
        return torch.cat(list(pieces.each(of_piece, torch.arange(len(present)))))

    return answer


def _of_probe(probe: Probe) -> Answer:
    return lambda state: probe(*side_by_side([(v, state.has[n]) for n, v in sorted(state.vectors.items())]))


@dataclass(frozen=True)
class _Answerer:
    answer: Answer
    state: State
    #: Of the state as it is.
    clean: Tensor


def _answerer(answer: Answer, state: State) -> _Answerer:
    return _Answerer(answer, state, answer(state))


@dataclass(frozen=True)
class _Bench:
    """Measures all answerers under the same conditions, with the same noise where their vectors are equally wide."""

    compared_by: Headline
    targets: Tensor
    answerers: Mapping[str, _Answerer]

    def clean(self, who: str, rows: Tensor) -> dict[str, float]:
        return self.compared_by.measure(self.answerers[who].clean[rows], self.targets[rows])

    def under(self, condition: Condition) -> dict[str, Any] | None:
        """Over the rows that have something left; None if there are none."""
        rows = self._left(condition)
        if not len(rows):
            return None
        found = {who: self._measured(asked, condition, rows) for who, asked in self.answerers.items()}
        name = self.compared_by.name
        told = {
            "condition": condition.name,
            "tower": condition.tower,
            "strength": condition.strength,
            "rows": len(rows),
            "metrics": found["model"],
            "value": found["model"][name],
            "clean": self.clean("model", rows)[name],
        }
        if "baseline" in found:
            told["baseline"] = found["baseline"][name]
            told["baseline_clean"] = self.clean("baseline", rows)[name]
        return told

    def _measured(self, asked: _Answerer, condition: Condition, rows: Tensor) -> dict[str, float]:
        outputs = asked.answer(_perturbed(asked.state, condition).rows(rows))
        return self.compared_by.measure(outputs, self.targets[rows])

    def _left(self, condition: Condition) -> Tensor:
        has = self.answerers["model"].state.has
        if condition.name != "missing":
            return torch.arange(len(self.targets))
        others = torch.stack([h for n, h in has.items() if n != condition.tower])
        return others.any(0).nonzero().flatten()


def _perturbed(state: State, condition: Condition) -> State:
    """The draws are of the condition alone: equal runs, and towers of equal width, get equal noise."""
    if condition.strength is None:
        return state.without(condition.tower)
    generator = torch.Generator().manual_seed(int(1000 * condition.strength))
    draws = torch.randn(state.vectors[condition.tower].shape, generator=generator)
    return state.noisy(condition.tower, condition.strength, draws)
