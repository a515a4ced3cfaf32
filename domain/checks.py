"""What `POST /v1/files/{id}/validate` takes: as what the file is looked through."""

from typing import Literal

from pydantic import Field

from domain.shapes import Shape
from domain.specs import Multimodal, TimeLimit

Role = Literal["training", "validation", "test"]


class Check(Shape):
    """A file is checked as a job with this spec would check it; without one, each readable column is read."""

    multimodal: Multimodal = Multimodal()
    role: Role = Field(default="training", description="the part that the file would play in a job")
    timeout_s: TimeLimit = None
