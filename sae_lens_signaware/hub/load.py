"""Load an SAE by what a user calls it: a folder, or ``REPO:ID`` on the Hub."""

from pathlib import Path

from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from sae_lens import SAE, SAEConfig

from sae_lens_signaware.evaluation.inputs import require_folded
from sae_lens_signaware.evaluation.saved import cannot_be_loaded, load_sae

HTTP_CLIENTS = ("httpx", "httpx2", "requests")


def is_of_http_client(error: Exception) -> bool:
    """Whether an error is of the HTTP client, whose own errors huggingface_hub lets through."""
    return type(error).__module__.split(".")[0] in HTTP_CLIENTS


def load_sae_reference(reference: str | Path) -> SAE[SAEConfig]:
    """Load an SAE from a folder, or from ``REPO:ID`` on the Hub.

    Raises:
        ConfigError: as :func:`load_sae`.
        huggingface_hub.errors.HfHubHTTPError: the Hub refused or failed; its other errors as well.
        OSError: the disk, or the network.
    """
    reference = str(reference)
    if ":" in reference and not Path(reference).exists():
        repo, sae_id = reference.split(":", 1)
        try:
            sae = SAE.from_pretrained(repo, sae_id)
        except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
            raise
        except Exception as error:
            if is_of_http_client(error):
                raise
            raise cannot_be_loaded(reference, error) from error  # the files came, and are broken
        require_folded(sae, str(reference))
        return sae
    return load_sae(reference)
