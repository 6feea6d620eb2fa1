"""One latent of a sweep as an SVG figure, both sides in context, for README.

    python benchmarks/latent_figure.py LATENTS_JSON --latent I --out docs/assets/latent.svg

LATENTS_JSON is a file that `sae-lens-signaware sweep` has written to the folder `latents`.
"""

import argparse
import sys
from pathlib import Path

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.report import write_latent_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("latents", type=Path, metavar="LATENTS_JSON")
    parser.add_argument("--latent", type=int, required=True, help="its index in the SAE")
    parser.add_argument("--out", type=Path, default=Path("docs/assets/latent.svg"))
    parser.add_argument("--title", help="stands behind the latent's number")
    parser.add_argument("--contexts", type=int, default=4, help="of each side at most")
    args = parser.parse_args()
    try:
        out = write_latent_figure(args.latents, args.latent, args.out, args.title, args.contexts)
    except InvalidInputError as error:
        sys.exit(str(error))
    print(f"Written to {out}, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
