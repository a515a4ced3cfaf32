"""One step of training, micro-batch by micro-batch. Knows neither epochs nor evaluations."""

import math
from dataclasses import dataclass

import torch

from domain.errors import EngineError
from engine.data.collate import Batch, Slice
from engine.models.multimodal import Multimodal
from engine.train.gpu_memory import TOO_LITTLE, release
from engine.train.losses import Criterion
from engine.train.optimiser import set_lr
from engine.train.plan import Plan
from engine.train.precision import autocast


@dataclass(frozen=True)
class Taken:
    """`grad_norm` is the one before clipping; None: fp16's scale was too large, and no step was taken."""

    loss: float
    lr: float
    grad_norm: float | None


class Step:
    """Gradients add up with each micro-batch until the step is taken."""

    def __init__(
        self,
        model: Multimodal,
        plan: Plan,
        criterion: Criterion,
        optimiser: torch.optim.Optimizer,
        scaling: torch.amp.GradScaler,
    ) -> None:
        self._model, self._plan, self._criterion = model, plan, criterion
        self._optimiser, self._scaling = optimiser, scaling
        self._device = next(model.parameters()).device
        self._loss = 0.0

    def add(self, piece: Slice, batch: Batch) -> bool:
        """False: it did not fit in memory. What the step had so far is forgotten, and all of it is to be done again."""
        fits = True
        try:
            self._add(piece, batch)
        except torch.OutOfMemoryError:
            fits = False
        # Not sooner: the error holds the frames, and they hold the tensors.
        if not fits:
            self._loss = 0.0
            self._optimiser.zero_grad(set_to_none=True)
            release()
        return fits

    def _add(self, piece: Slice, batch: Batch) -> None:
        batch = batch.to(self._device)
        with autocast(self._plan.precision, self._device):
            outputs, besides = self._model.learn(batch.inputs, batch.present)
        loss = self._criterion(outputs, batch.targets)
        if besides is not None:
            loss = loss + besides
        loss = loss * piece.share
        self._scaling.scale(loss).backward()
        self._loss += loss.item()

    def take(self, step: int) -> Taken:
        """Changes the weights. Raises EngineError where even this does not fit in memory."""
        lr = set_lr(self._optimiser, self._plan.lr_factor(step))
        try:
            norm = self._clipped_step()
        except torch.OutOfMemoryError as error:
            message = (
                f"the optimiser's state of the weights that are trained does not fit in memory; {TOO_LITTLE}"
            )
            raise EngineError("out_of_memory", message) from error
        loss, self._loss = self._loss, 0.0
        return Taken(loss, lr, norm)

    def _clipped_step(self) -> float | None:
        self._scaling.unscale_(self._optimiser)
        trained = [p for _, p in self._model.trained()]
        norm = torch.nn.utils.clip_grad_norm_(trained, self._plan.max_grad_norm).item()
        self._scaling.step(self._optimiser)
        self._scaling.update()
        self._optimiser.zero_grad(set_to_none=True)
        return None if self._scaling.is_enabled() and not math.isfinite(norm) else norm
