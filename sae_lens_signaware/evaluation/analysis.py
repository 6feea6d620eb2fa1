"""Census and calibration of one pass, as ``analyze`` prints and writes them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table
from sae_lens import SAE
from sae_lens.evals import ExplainedVarianceCalculator
from torch import Tensor

from sae_lens_signaware.evaluation.calibration import (
    PolarityCalibration,
    calibration_of,
    gain_quantiles,
    require_common_units,
)
from sae_lens_signaware.evaluation.census import BipolarCensus, census_of
from sae_lens_signaware.evaluation.streaming import explained_variance_of, sum_sides
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.metrics import BIPOLAR_MIN_SHARE

TOP_LATENTS = (10, 100)


@dataclasses.dataclass(frozen=True, repr=False)
class Analysis:
    """Census, calibration and R² of the same tokens."""

    census: BipolarCensus
    calibration: PolarityCalibration
    explained_variance: float

    def __repr__(self) -> str:
        """The lines of census and calibration, below R²."""
        lines = (f"Analysis, R² {self.explained_variance:.4g}", self.census, self.calibration)
        return "\n".join(map(str, lines))

    def write(self, folder: str | Path) -> None:
        """Write ``census.json``, ``calibration.json`` and, with R², ``analysis.json``."""
        self.census.write(Path(folder) / "census.json")
        self.calibration.write(Path(folder) / "calibration.json")
        census = self.census
        summary = {
            "l0": census.l0,
            "explained_variance": self.explained_variance,
            "dead_share": census.dead_share,
            "n_tokens": census.n_tokens,
            "provenance": dataclasses.asdict(census.provenance),
        }
        write_json(summary, Path(folder) / "analysis.json")

    def table(self) -> Table:
        """A table for the terminal: the numbers that sum the analysis up."""
        census = self.census
        cfg = census.provenance.sae_cfg
        title = f"{cfg['architecture']} {cfg['d_sae']:,}, {census.n_tokens:,} tokens"
        table = Table("measure", "value", title=title, title_justify="left")
        table.add_row("L0", f"{census.l0:.2f}")
        table.add_row("R²", f"{self.explained_variance:.4f}")
        table.add_row("dead share", f"{census.dead_share:.2%}")
        if census.one_sided:
            table.add_row("- side", "none: no latent is ever negative")
        else:
            share = f"bipolar share (rarer side >= {BIPOLAR_MIN_SHARE:g} of firings)"
            table.add_row(share, f"{census.bipolar_share():.2%} of alive latents")
            active = f"{census.bipolar_activity_share():.2%}"
            table.add_row("  of the active latents of a token", active)
            curve = census.bipolar_share_by_energy_rank()
            for k in TOP_LATENTS:
                if k <= len(curve):
                    table.add_row(f"  of the {k} latents of most energy", f"{curve[k - 1]:.2%}")
        for side in ("pos", "neg"):
            quantiles = gain_quantiles(getattr(self.calibration, f"gain_{side}"))
            if quantiles:
                low, middle, high = quantiles.values()
                sign = "+" if side == "pos" else "-"
                table.add_row(
                    f"calibration of {sign} (1 is right, above is shrunk)",
                    f"median {middle:.3f}, 5% {low:.3f}, 95% {high:.3f}",
                )
        return table


def analyze_sae(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> Analysis:
    """Measure census, calibration and R² in one pass.

    Args:
        sae: any SAELens SAE without a per-token normalisation.
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them. Of an ``ActivationsStore``, which never ends, take
            ``itertools.islice(store, n_batches)``.

    Raises:
        ValueError: as :func:`~sae_lens_signaware.polarity_calibration`; or R² is not defined, as
            the activations do not differ.
    """
    require_common_units(sae, "polarity_calibration")
    variance = ExplainedVarianceCalculator()
    sums = sum_sides(sae, activations, with_alignment=True, variance=variance)
    return Analysis(
        census_of(sae, sums), calibration_of(sae, sums), explained_variance_of(variance)
    )
