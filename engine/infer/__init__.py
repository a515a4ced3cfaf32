"""Predictions from a model folder: `load(folder).predict(rows)`. Knows no job, queue or database."""

from engine.infer.answers import Modalities, Prediction, Problem, Scored
from engine.infer.predictor import Answer, Predictor, load

__all__ = ["Answer", "Modalities", "Prediction", "Predictor", "Problem", "Scored", "load"]
