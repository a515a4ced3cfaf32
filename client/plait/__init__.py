"""Python SDK of Plait: `Client` sends files, makes jobs, follows them, and asks their models, over HTTP."""

from plait.checks import Check, Issue
from plait.client import Client
from plait.config import Config
from plait.errors import ConfigError, LocalFileError, PlaitAPIError, PlaitConnectionError, PlaitError
from plait.files import File
from plait.job_shapes import Checkpoint, Event, Job, Log, Series, Update
from plait.models import Model
from plait.predictions import Modalities, Prediction, PredictionRun, Ranked, RowError, Usage
from plait.version import VERSION as __version__
from plait.webhooks import WebhookDelivery, WebhookEndpoint

__all__ = [
    "Check",
    "Checkpoint",
    "Client",
    "Config",
    "ConfigError",
    "Event",
    "File",
    "Issue",
    "Job",
    "LocalFileError",
    "Log",
    "Modalities",
    "Model",
    "PlaitAPIError",
    "PlaitConnectionError",
    "PlaitError",
    "Prediction",
    "PredictionRun",
    "Ranked",
    "RowError",
    "Series",
    "Update",
    "Usage",
    "WebhookDelivery",
    "WebhookEndpoint",
    "__version__",
]
