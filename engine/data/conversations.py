"""Rows as prompts with answers behind them, beside what is seen of each. Knows no network, only its prompter."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.data.collate import Batch
from engine.data.dataset import Example, Examples
from engine.data.targets import IGNORED
from engine.models.prompts import PROMPT, Prompter, Prompts


@dataclass(frozen=True)
class Conversations(Examples):
    """One split of a generation. `targets` are the answers' tokens, [rows, longest], padded with -100."""

    prompts: Sequence[Tensor]
    has_text: Tensor
    #: As the data have them, whole.
    answers: Sequence[str]

    def batch(self, index: Tensor) -> Batch:
        batch = super().batch(index)
        rows = index.tolist()
        targets = batch.targets
        answers = [target[target != IGNORED] for target in targets]
        prompts = Prompts.of([self.prompts[row] for row in rows], answers, self.has_text[index])
        # No wider than this batch's longest answer.
        longest = max(map(len, answers), default=0)
        return Batch({**batch.inputs, PROMPT: prompts}, batch.present, targets[:, :longest])

    def part(self, rows: range) -> "Conversations":
        seen, chosen = super().part(rows), slice(rows.start, rows.stop)
        return Conversations(
            seen.columns,
            seen.present,
            seen.targets,
            self.prompts[chosen],
            self.has_text[chosen],
            self.answers[chosen],
        )


def converse(seen: Examples, examples: Sequence[Example], prompter: Prompter, longest: int) -> Conversations:
    """`seen` are `examples` as far as encoders read them; answers take at most `longest` tokens, the end included."""
    answers = [str(example.label) for example in examples]
    tokens = [torch.tensor(prompter.words.of_answer(text, longest), dtype=torch.int64) for text in answers]
    targets = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=IGNORED)
    values = [example.row.values for example in examples]
    prompts = [torch.tensor(prompter.ids(row), dtype=torch.int32) for row in values]
    has_text = torch.tensor([prompter.has_text(row) for row in values], dtype=torch.bool)
    return Conversations(seen.columns, seen.present, targets, prompts, has_text, answers)
