"""How much of the mean square of activations is variance, and how much of that has one dimension.

    python benchmarks/variance_shares.py sweep_out/cache_gemma3 --json results/variance_shares.json

Reads the held-out activations of every CELL.safetensors that `sae-lens-signaware sweep` has written
to the folders. A scale changes neither share.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from own_command import own_command
from result_rows import write_rows
from torch import Tensor

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.cache import load_named_activations


@dataclasses.dataclass(frozen=True)
class VarianceShares:
    """Two shares of the activations of a hook point.

    Attributes:
        of_mean_square: sum of the dimensions' variances / mean squared norm.
        of_largest_dimension: largest variance of a dimension / sum of the variances.
    """

    of_mean_square: float
    of_largest_dimension: float


def variance_shares(activations: Tensor) -> VarianceShares:
    """Shares of activations (n, d_in), in float32."""
    x = activations.float()
    variance = x.var(0, unbiased=False)
    return VarianceShares(
        (variance.sum() / x.pow(2).sum(1).mean()).item(), (variance.max() / variance.sum()).item()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="CACHE_FOLDER")
    parser.add_argument("--json", type=Path, default=Path("results/variance_shares.json"))
    args = parser.parse_args()
    rows = []
    try:
        for folder in args.folders:
            for path in sorted(folder.glob("*.safetensors")):
                shares = variance_shares(load_named_activations(path, "heldout"))
                values = [round(share, 4) for share in dataclasses.astuple(shares)]
                rows.append([folder.name, path.stem, *values])
    except InvalidInputError as error:
        sys.exit(str(error))
    if not rows:
        sys.exit(f"CACHE_FOLDER: none of {', '.join(map(str, args.folders))} has a *.safetensors")
    columns = [field.name for field in dataclasses.fields(VarianceShares)]
    command = own_command()
    write_rows(
        {"command": command, "columns": ["cache", "cell", *columns], "rows": rows}, args.json
    )
    for row in rows:
        print(*row)


if __name__ == "__main__":
    main()
