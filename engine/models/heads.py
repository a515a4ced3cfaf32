"""What is put on the fused vector. A head knows its task only."""

from torch import nn


def classifier(dim: int, classes: int, dropout: float) -> nn.Module:
    """Logits, one a class, of which one or (multilabel) any number may hold. [rows, dim] -> [rows, classes]"""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes))


def regressor(dim: int) -> nn.Module:
    """The standardised value. [rows, dim] -> [rows, 1]

    Without dropout: it would make the values of training vary more than those of prediction.
    """
    return nn.Linear(dim, 1)
