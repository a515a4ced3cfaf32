"""Encoders from the Hugging Face Hub, or from its cache on this machine where the Hub does not answer."""

from pathlib import Path

from huggingface_hub import snapshot_download

# HTTPError is that of the HTTP library which huggingface_hub uses, whichever it is: a line that breaks midway.
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

from domain.errors import EngineError

#: Weights as safetensors, and what reads them. No pickles, no code.
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]
#: Short, so that a machine without a way to the Hub says so soon.
_TIMEOUT_S = 10.0


def fetch(encoder: str) -> Path:
    """The snapshot's folder. Raises EngineError where there is none, or none that may be loaded."""
    try:
        folder = Path(snapshot_download(encoder, allow_patterns=_PATTERNS, etag_timeout=_TIMEOUT_S))
    except (HfHubHTTPError, HTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        message = f"the Hub does not give it ({type(error).__name__})"
        raise EngineError("encoder_unavailable", message) from error
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise EngineError("encoder_unavailable", "the Hub has no config.json and safetensors of it")
    return folder
