"""How good a model that writes is: its loss on true answers, and the answers it writes itself beside the true ones."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.text import bleu_score, rouge_score, word_error_rate

from engine.data.collate import Batch, ahead
from engine.data.conversations import Conversations
from engine.data.targets import IGNORED
from engine.models.vision_language import VisionLanguage
from engine.models.writing import Options, by_length, write
from engine.train.gpu_memory import Pieces
from engine.train.losses import answer_loss
from engine.train.precision import Precision, autocast
from engine.train.words import ShouldStop, heed

#: Rows at once; rows whose answers are written in one evaluation, evenly drawn from all of them.
ROWS, MOST_WRITTEN = 16, 200


def measured(
    model: VisionLanguage,
    examples: Conversations,
    should_stop: ShouldStop,
    precision: Precision = "fp32",
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The task's metrics, and the rows that answers were written for. Raises StopAsked."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad(), autocast(precision, device):
        found = _losses(model, examples, should_stop)
        chosen = _chosen(len(examples), MOST_WRITTEN)
        written = _written(model, examples, chosen, should_stop)
    true = [examples.answers[row] for row in chosen]
    shown = [{"answer": text, "written": own} for text, own in zip(true, written, strict=True)]
    return found | text_scores(written, true), shown


def _losses(model: VisionLanguage, examples: Conversations, should_stop: ShouldStop) -> dict[str, float]:
    device = next(model.parameters()).device
    pieces = Pieces(ROWS)

    def sums(left: Tensor) -> Iterator[tuple[float, float, int]]:
        rows = left.split(pieces.at_once)
        batches = map(examples.batch, rows) if examples.is_cached else ahead(examples.batch, rows)
        for batch in batches:
            heed(should_stop)
            yield _sums(model, batch.to(device))

    by_row, by_token, tokens = 0.0, 0.0, 0
    for of_rows, of_tokens, count in pieces.made(sums, torch.arange(len(examples))):
        by_row, by_token, tokens = by_row + of_rows, by_token + of_tokens, tokens + count
    # A number in any case: what comes of a broken model is very large.
    return {"loss": by_row / len(examples), "perplexity": math.exp(min(by_token / tokens, 700.0))}


def _sums(model: VisionLanguage, batch: Batch) -> tuple[float, float, int]:
    """Over rows the mean of each row's tokens, over tokens, and how many there are."""
    outputs, targets = model(batch.inputs, batch.present).float(), batch.targets
    by_token = F.cross_entropy(outputs, targets[targets != IGNORED], reduction="sum").item()
    return answer_loss(outputs, targets).item() * len(targets), by_token, len(outputs)


def _chosen(rows: int, most: int) -> list[int]:
    """All, or `most` of them in equal steps: the same ones each time."""
    return list(range(rows)) if rows <= most else [row * rows // most for row in range(most)]


def _written(
    model: VisionLanguage,
    examples: Conversations,
    chosen: Sequence[int],
    should_stop: ShouldStop,
) -> list[str]:
    device = next(model.parameters()).device
    answers = [""] * len(chosen)
    options = Options(max_tokens=model.longest_answer)
    pieces = Pieces(ROWS)

    def of(places: Tensor) -> list[tuple[int, str]]:
        rows = [chosen[place] for place in places.tolist()]
        batch = examples.batch(torch.tensor(rows)).to(device)
        ids = torch.stack([examples.prompts[row] for row in rows]).long().to(device)
        embedded = model.embedded(ids, model.soft(batch.inputs, batch.present))
        found = write(model.language, embedded, options, lambda: heed(should_stop))
        return [(place, one.text) for place, one in zip(places.tolist(), found, strict=True)]

    for alike in by_length([examples.prompts[row] for row in chosen], len(chosen)):
        for written in pieces.each(of, torch.tensor(alike)):
            for place, text in written:
                answers[place] = text
    return answers


def text_scores(written: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """Of answers as they stand, beside the true ones; 0 to 1, the word error rate 0 and more."""
    wanted = [" ".join(text.split()) for text in true]
    got = [" ".join(text.split()) for text in written]
    return {
        "exact_match": sum(a == b for a, b in zip(got, wanted, strict=True)) / len(wanted),
        "bleu": bleu_score(got, [[text] for text in wanted]).item(),
        "rouge_l": _rouge_l(got, wanted),
        "wer": word_error_rate(got, wanted).item(),
    }


def _rouge_l(written: Sequence[str], true: Sequence[str]) -> float:
    """The library's own way to find words knows those of a to z only."""
    found = rouge_score(
        written, true, rouge_keys="rougeL", normalizer=str.lower, tokenizer=partial(re.findall, r"\w+")
    )
    return float(found["rougeL_fmeasure"])
