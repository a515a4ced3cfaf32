"""Python SDK of Plait: `Client` sends files, makes fine-tune jobs and follows them over HTTP."""

from plait.client import Client
from plait.config import Config
from plait.errors import ConfigError, LocalFileError, PlaitAPIError, PlaitConnectionError, PlaitError
from plait.files import File
from plait.jobs import Event, Job, Update
from plait.models import Model
from plait.version import VERSION as __version__

__all__ = [
    "Client",
    "Config",
    "ConfigError",
    "Event",
    "File",
    "Job",
    "LocalFileError",
    "Model",
    "PlaitAPIError",
    "PlaitConnectionError",
    "PlaitError",
    "Update",
    "__version__",
]
