"""Predictions from a model folder: `load(folder).predict(rows)`. Knows no job, queue or database."""

from engine.infer.answers import Answer, Modalities, Prediction, Problem, Scored
from engine.infer.predictor import Predictor, load
from engine.infer.writer import Writer

__all__ = ["Answer", "Modalities", "Prediction", "Predictor", "Problem", "Scored", "Writer", "load"]
