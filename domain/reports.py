"""A spec's `report`: what is measured besides the model's own metrics, once its training is over."""

from pydantic import Field

from domain.shapes import Shape


class Report(Shape):
    """What a job's report measures besides the model's own metrics."""

    robustness: bool = Field(
        default=True, description="what the model is worth without each modality, and with noise on each"
    )
    unimodal_baselines: bool = Field(
        default=True,
        description="a linear probe on each tower's features, and what fusion gains over the best of them",
    )
