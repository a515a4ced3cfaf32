"""The Triton kernels of token pooling. Knows no tensors: `launches` passes pointers, strides and sizes.

A vector of WIDTH columns is held as a tuple of CHUNKS tiles of W columns each: 768 columns are three tiles of 256,
where one tile of a power of two would leave a quarter of all lanes idle. Sums over the tokens are kept apart for each
token of a tile and folded once, behind the loop: inside it nothing crosses from warp to warp, as long as a tile's
columns fit in one.
"""

from kernels.token_pool.device.maxima import join_maxima, max_of_tokens
from kernels.token_pool.device.means import join_means, mean_of_tokens
from kernels.token_pool.device.norm import join_norm_gradients, norm_gradient
from kernels.token_pool.device.tokens import tokens_gradient

__all__ = [
    "join_maxima",
    "join_means",
    "join_norm_gradients",
    "max_of_tokens",
    "mean_of_tokens",
    "norm_gradient",
    "tokens_gradient",
]
