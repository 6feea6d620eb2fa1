"""The Hugging Face Hub: push an SAE with its plain twin and card, load one by name."""

from sae_lens_signaware.hub.load import load_sae_reference
from sae_lens_signaware.hub.upload import push, push_saes

__all__ = ["load_sae_reference", "push", "push_saes"]
