from safetensors.torch import save_file

import sae_lens_signaware  # noqa: F401  # registers the architectures
from tests.golden import FILE, VARIANTS, record

tensors = {k: t.float() for variant in VARIANTS for k, t in record(variant).items()}
save_file(tensors, FILE)
print(f"{len(tensors)} tensors in {FILE}")
