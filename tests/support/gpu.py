"""The mark of tests that need a GPU. Without one they say aloud that nothing was tested."""

import os

import pytest
import torch

_WHY = "NO GPU HERE: no kernel was run on one"

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason=_WHY
    ),
]
