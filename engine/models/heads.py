"""What is put on the fused vector. A head knows its task only."""

from torch import nn


def classifier(dim: int, classes: int, dropout: float) -> nn.Module:
    """Logits, one a class. [rows, dim] -> [rows, classes]"""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes))
