"""Write the CSV files: ``python -m sae_lens_signaware.experiments.opposites OUT``."""

import argparse
import sys
from pathlib import Path

from sae_lens_signaware.checks import InvalidInputError, require_writable
from sae_lens_signaware.experiments.opposites import (
    OPPOSITES,
    fetch_sdist,
    rated_texts,
    template_texts,
    write_opposites,
)
from sae_lens_signaware.experiments.opposites.templates import N_PAIRS


def main() -> None:
    """Parse the arguments, and write."""
    parser = argparse.ArgumentParser(
        prog="python -m sae_lens_signaware.experiments.opposites",
        description="Write labelled texts of opposites as CSV files: six sets built from "
        "templates, and four sets rated by persons where --vader is given.",
    )
    parser.add_argument("out", type=Path, help="folder of the CSV files")
    parser.add_argument(
        "--vader",
        type=Path,
        metavar="FOLDER",
        help="folder with vaderSentiment-3.2.1.tar.gz; pip fetches it if it is not there",
    )
    parser.add_argument("--pairs", type=int, default=N_PAIRS, help="pairs of texts in each part")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs")
    args = parser.parse_args()
    try:
        require_writable("out", args.out)
        sets = {
            name: template_texts(opposite, args.pairs, args.seed)
            for name, opposite in OPPOSITES.items()
        }
        if args.vader is not None:
            sets |= rated_texts(fetch_sdist(args.vader))
        write_opposites(sets, args.out)
    except InvalidInputError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    for name, rows in sets.items():
        print(f"{name}: {len(rows):,} texts")
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
