"""The Triton kernels of the masked projection. Tensors are the matter of `launches` and `gradients`.

`rows` are samples, `inputs` the columns of a modality, `outputs` the columns of the result. A mask comes as numbers:
0 is absent. It is WEIGHTED if its other numbers count, and only selects if they do not. Row strides are taken in 64 bit.
"""

from kernels.projection.device.both import to_both
from kernels.projection.device.forward import add_up, finish
from kernels.projection.device.inputs import to_inputs
from kernels.projection.device.sums import fold, to_sum
from kernels.projection.device.weights import to_weight, weigh

__all__ = ["add_up", "finish", "fold", "to_both", "to_inputs", "to_sum", "to_weight", "weigh"]
