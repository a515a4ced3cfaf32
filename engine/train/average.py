"""The exponential moving average of a network's trained weights (Polyak and Juditsky 1992), by torch's own update."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from engine.models.multimodal import Multimodal


class Average:
    """average = decay * average + (1 - decay) * weights, once a step.

    The decay grows with the steps, (1 + step) / (10 + step) up to what was asked for (as TensorFlow's
    ExponentialMovingAverage has it): of a run of hundreds of steps the average would else be mostly its beginning.
    """

    def __init__(self, model: Multimodal, decay: float) -> None:
        trained = dict(model.trained())
        self._decay, self._names, self._weights = decay, list(trained), list(trained.values())
        self._values = [p.detach().clone() for p in self._weights]

    def update(self, step: int) -> None:
        """After `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._values, [p.detach() for p in self._weights], step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def settle(self) -> None:
        """The network keeps the averaged weights; there is no training after this."""
        self._swap()

    def _swap(self) -> None:
        for place, parameter in enumerate(self._weights):
            parameter.data, self._values[place] = self._values[place], parameter.data

    def state(self) -> dict[str, Tensor]:
        """By parameter, copied to the CPU."""
        return {
            name: value.to("cpu", copy=True).contiguous()
            for name, value in zip(self._names, self._values, strict=True)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` took."""
        for name, value in zip(self._names, self._values, strict=True):
            value.copy_(state[name])
