"""What a model can be asked for, and the losses and metrics that fit each task."""

from enum import StrEnum


class Task(StrEnum):
    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    CONTRASTIVE = "contrastive"
    GENERATION = "generation"


#: The losses that fit; the first is taken where the spec says `auto`.
LOSSES: dict[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("cross_entropy", "focal"),
    Task.MULTILABEL: ("bce", "focal"),
    Task.REGRESSION: ("mse",),
    Task.CONTRASTIVE: ("clip", "siglip"),
    Task.GENERATION: ("cross_entropy",),
}

#: What an evaluation measures; the first picks the best checkpoint where the spec says `auto`. A metric that
#: is not defined for some rows (`roc_auc` of rows of one class) is left out of that evaluation.
METRICS: dict[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: (
        "accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "precision_macro",
        "recall_macro",
        "top5_accuracy",
        "roc_auc",
        "log_loss",
        "ece",
    ),
    Task.MULTILABEL: (
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "precision_macro",
        "recall_macro",
        "exact_match",
        "average_precision",
        "roc_auc",
        "log_loss",
    ),
    Task.REGRESSION: ("rmse", "mae", "r2", "pearsonr", "spearmanr"),
    # Means over all pairs of columns, both ways; each way is told besides, by names such as `i2t_recall@1`.
    Task.CONTRASTIVE: ("mrr", "recall@1", "recall@5", "recall@10", "median_rank"),
    # The first four of answers that the model writes, the last of each token after the true ones before it.
    Task.GENERATION: ("exact_match", "bleu", "rouge_l", "wer", "perplexity"),
}

#: Of every task: the loss that is trained, on the validation rows.
VALID_LOSS = "valid_loss"

LESS_IS_BETTER = frozenset({VALID_LOSS, "log_loss", "ece", "rmse", "mae", "median_rank", "wer", "perplexity"})

METRIC_NAMES = frozenset(name for names in METRICS.values() for name in names) | {VALID_LOSS}


def fits(metric: str, task: Task) -> bool:
    return metric == VALID_LOSS or metric in METRICS[task]
