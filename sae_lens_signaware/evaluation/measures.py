"""L0, R², firing, energy and calibration of both sides of every latent, in one streaming pass.

docs/evaluate.md says what they tell.
"""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from sae_lens import SAE, ActivationsStore, run_evals
from sae_lens.evals import EvalConfig, ExplainedVarianceCalculator
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

from sae_lens_signaware.checks import require
from sae_lens_signaware.evaluation import inputs
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.evaluation.results import Provenance, Result, Values
from sae_lens_signaware.files import write_json
from sae_lens_signaware.saes.common import BIPOLAR_MIN_SHARE

PER_TOKEN = ("layer_norm", "constant_norm_rescale")
"""Normalisations that are made anew for each token: latents and residuals differ in their units."""


@dataclasses.dataclass(frozen=True, repr=False)
class BipolarCensus(Result):
    """Firing rates and energies of both sides of every latent, (d_sae,) float64 each.

    Attributes:
        firing_rate_pos, firing_rate_neg: share of tokens on which the side fires.
        energy_pos, energy_neg: mean over tokens of (z_i ||d_i||)^2 on that side, in squared units
            of the activations; of an SAE that normalises each token, of the normalised ones. d_i is
            what one unit of the latent writes.
        min_share: min(p+, p-) / (p+ + p-), from 0 (one-sided) to 1/2; NaN where it never fires.
    """

    firing_rate_pos: Values
    firing_rate_neg: Values
    energy_pos: Values
    energy_neg: Values
    min_share: Values

    @property
    def firing_rate(self) -> Tensor:
        """Share of tokens on which a latent fires, on either side: (d_sae,)."""
        return self.firing_rate_pos + self.firing_rate_neg

    @property
    def alive(self) -> Tensor:
        """Which latents fired at least once, on either side: (d_sae,) bool."""
        return self.firing_rate > 0

    @property
    def pos_share(self) -> Tensor:
        """Share of each latent's firings on the + side, (d_sae,); 1/2 where it never fires."""
        return (self.firing_rate_pos / self.firing_rate).nan_to_num(0.5)

    @property
    def log_sparsity(self) -> Tensor:
        """log10 of the firing rate, (d_sae,) float32, as in SAELens's ``sparsity.safetensors``."""
        return self.firing_rate.clamp(min=1e-10).log10().float()  # SAELens's own floor

    @property
    def one_sided(self) -> bool:
        """Whether no latent ever fired on its - side, as in every plain SAE."""
        return not self.firing_rate_neg.any()

    @property
    def l0(self) -> float:
        """Mean number of active latents per token."""
        return self.firing_rate.sum().item()

    @property
    def dead_share(self) -> float:
        """Share of latents that never fired over ``n_tokens``; cite both."""
        return 1 - self.alive.double().mean().item()

    def bipolar(self, min_share: float = BIPOLAR_MIN_SHARE) -> Tensor:
        """Which latents are alive and have ``min_share`` of their firings on the rarer side."""
        require(0 <= min_share <= 0.5, "min_share", min_share, "from 0 to 0.5")
        return self.min_share >= min_share

    def bipolar_share(self, min_share: float = BIPOLAR_MIN_SHARE) -> float:
        """Share of the alive latents that are bipolar; 0 where none is alive."""
        return self.bipolar(min_share).sum().item() / max(1, self.alive.sum().item())


@dataclasses.dataclass(frozen=True, repr=False)
class PolarityCalibration(Result):
    """Calibration of every latent; (d_sae,) float64 each, NaN where a side never fires.

    Attributes:
        gain_pos, gain_neg: factor on the side's magnitude that minimises the squared error, all
            else fixed. At 1 the side is calibrated; above 1 it is shrunk. Over the tokens where
            side s of latent i fires it is a_i,s = 1 + E[z_i <d_i, x - x^>] / (E[z_i^2] ||d_i||^2).
    """

    gain_pos: Values
    gain_neg: Values

    def quantiles(self) -> dict[str, float]:
        """Quantiles of the gains that are known: "gain_pos_q05", "_q50", "_q95", and of "gain_neg".

        A side that no latent uses has none.
        """
        return {
            f"{name}_q{percent:02}": gain.nanquantile(percent / 100).item()
            for name, gain in (("gain_pos", self.gain_pos), ("gain_neg", self.gain_neg))
            for percent in (5, 50, 95)
            if not gain.isnan().all()
        }


@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """Measures of one pass over ``n_tokens`` activations; ``quality.json`` holds the same fields.

    Attributes:
        l0: mean number of active latents per token, either side.
        explained_variance: R² = 1 - sum ||x - x^||^2 / sum ||x - mean||^2; 1 is perfect.
        dead_share: share of latents that never fired on either side over ``n_tokens``; it shrinks
            as ``n_tokens`` grows, so cite both.
        bipolar_share: share of the alive latents whose rarer side makes up >= 0.1 of their firings.
        n_tokens: tokens measured on.
        tokens_from: what the tokens are, e.g. "held-out speeches".
        loss_recovered: (CE_zero - CE_sae) / (CE_zero - CE_orig), None where it was not measured.
        loss_recovered_tokens: of the contexts that was measured on; None likewise.
        weights_sha256: of ``sae_weights.safetensors`` beside the file; None where it was not saved.
    """

    l0: float
    explained_variance: float
    dead_share: float
    bipolar_share: float
    n_tokens: int
    architecture: str
    d_sae: int
    tokens_from: str
    loss_recovered: float | None = None
    loss_recovered_tokens: int | None = None
    weights_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Census, calibration and R² of the same tokens.

    The calibration is None where the SAE normalises each token: units differ by token then.
    """

    census: BipolarCensus
    calibration: PolarityCalibration | None
    explained_variance: float

    def metrics(self) -> dict[str, float]:
        """The numbers that sum it up; of the gains of a side the 5%, 50% and 95% quantile."""
        census = self.census
        metrics = {
            "n_tokens": float(census.n_tokens),
            "l0": census.l0,
            "l0_pos": census.firing_rate_pos.sum().item(),
            "l0_neg": census.firing_rate_neg.sum().item(),
            "explained_variance": self.explained_variance,
            "dead_share": census.dead_share,
            "bipolar_share": census.bipolar_share(),
        }
        return metrics | ({} if self.calibration is None else self.calibration.quantiles())

    def write(self, folder: str | Path) -> None:
        """Write ``census.json``, ``calibration.json``, and their numbers as ``analysis.json``."""
        self.census.write(Path(folder) / "census.json")
        if self.calibration is not None:
            self.calibration.write(Path(folder) / "calibration.json")
        write_json(self.metrics(), Path(folder) / "analysis.json")

    def table(self) -> Table:
        """A table for the terminal: the metrics."""
        names = {"explained_variance": "R²", "bipolar_share": "bipolar share of alive latents"}
        table = Table("measure", "value", title=self.census.subject, title_justify="left")
        for name, value in self.metrics().items():
            table.add_row(names.get(name, name), f"{value:.4f}".removesuffix(".0000"))
        return table


class SidePass:
    """One pass over activations, whose sums give every measure; row 0 is the + side, row 1 the -.

    Attributes:
        n_tokens: tokens seen.
        n_fired: (2, d_sae) int64, firings.
        sum_sq: (2, d_sae) float64, sum of z_i^2 where the side fires.
        sum_alignment: (2, d_sae) float64, sum of z_i <d_i, x - x^> where the side fires.
    """

    @torch.no_grad()
    def __init__(
        self,
        sae: SAE[Any],
        activations: Iterable[Tensor] | Tensor,
        *,
        with_outputs: bool = True,
        with_alignment: bool = False,
    ) -> None:
        """Encode every batch once, decode it once with outputs, and sum over tokens in float64.

        Args:
            sae: any SAELens SAE; latents of either sign.
            activations: see :func:`~.inputs.batches_of`.
            with_outputs: whether to decode, for R².
            with_alignment: whether to sum that too, for the calibration; a product more.
        """
        inputs.require_autoencoder(sae)
        self.sae, self.n_tokens, d_sae = sae, 0, sae.cfg.d_sae
        self.n_fired = torch.zeros(2, d_sae, dtype=torch.int64, device="cpu")
        self.sum_sq, self.sum_alignment = self.n_fired.double(), self.n_fired.double()
        self._variance = ExplainedVarianceCalculator()
        directions = inputs.decoder_directions(sae)
        self._squared_norms = directions.cpu().double().square().sum(1)

        def per_side(weights: Tensor | None = None) -> Tensor:
            return side.bincount(weights, minlength=2 * d_sae).view(2, -1)

        with inputs.flat_activations(sae):
            for x in inputs.batches_of(activations, sae.cfg.d_in):
                x = x.to(sae.device)
                z = inputs.latents_of(sae, x)
                self.n_tokens += len(x)
                token, latent = z.nonzero(as_tuple=True)
                value = z[token, latent].cpu().double()  # MPS has no float64
                side = latent.cpu() + d_sae * (value < 0)
                self.n_fired += per_side()
                self.sum_sq += per_side(value.square())
                if not with_outputs:
                    continue
                x_hat = sae.decode(z)
                inputs.require_finite("outputs of the SAE", x_hat)
                # SAELens squares in the type it gets: a large mean would take float32's digits
                self._variance.add_batch(x_hat.cpu().double(), x.cpu().double())
                if with_alignment:
                    aligned = ((x - x_hat).float() @ directions.T)[token, latent]
                    self.sum_alignment += per_side(value * aligned.cpu().double())

    @property
    def explained_variance(self) -> float:
        """R² = 1 - sum ||x - x^||^2 / sum ||x - mean||^2, as SAELens has it."""
        return self._variance.compute()

    def census(self) -> BipolarCensus:
        """Firing and energy by side."""
        n_fired = self.n_fired.double()
        rate, energy = n_fired / self.n_tokens, self.sum_sq / self.n_tokens * self._squared_norms
        return BipolarCensus(
            Provenance.of(self.sae, self.n_tokens),
            *(rate[0], rate[1], energy[0], energy[1]),
            # of counts, for a tenth is to be 0.1 and not a little less; 0 / 0 is NaN: never fired
            min_share=n_fired.amin(0) / n_fired.sum(0),
        )

    def calibration(self) -> PolarityCalibration | None:
        """Gains by side, of a pass with alignment; None where tokens are normalised one by one."""
        if self.sae.cfg.normalize_activations in PER_TOKEN:
            return None
        gain = 1 + self.sum_alignment / (self.sum_sq * self._squared_norms)  # 0 / 0: never fired
        return PolarityCalibration(Provenance.of(self.sae, self.n_tokens), gain[0], gain[1])


def bipolar_census(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> BipolarCensus:
    """Count and weigh the two sides of every latent in one pass.

    Args:
        sae: any SAELens SAE. A plain one has no - side: its census says so (``one_sided``).
        activations: (n, d_in) or (batch, position, d_in) tensors, or one such tensor, scaled as
            the SAE expects them. Of an ``ActivationsStore``, which never ends, take
            ``itertools.islice(store, n_batches)``.

    Raises:
        InvalidInputError: activations are empty, of the wrong shape or type, or not finite.
    """
    return SidePass(sae, activations, with_outputs=False).census()


def measure_quality(
    sae: SAE[Any], activations: Iterable[Tensor] | Tensor, tokens_from: str = ""
) -> tuple[SAEQuality, BipolarCensus]:
    """Measure L0, R² and dead latents, and the census, in one pass.

    Args:
        sae: any SAELens SAE, inference or training.
        activations: as in :func:`~sae_lens_signaware.bipolar_census`.
        tokens_from: goes into the result, word for word.

    Raises:
        InvalidInputError: as in the census.
    """
    found = SidePass(sae, activations)
    census = found.census()
    quality = SAEQuality(
        l0=census.l0,
        explained_variance=found.explained_variance,
        dead_share=census.dead_share,
        bipolar_share=census.bipolar_share(),
        n_tokens=census.n_tokens,
        architecture=sae.cfg.architecture(),
        d_sae=sae.cfg.d_sae,
        tokens_from=tokens_from,
    )
    return quality, census


def analyze_sae(sae: SAE[Any], activations: Iterable[Tensor] | Tensor) -> Analysis:
    """Measure census, calibration and R² in one pass; the arguments and errors of the census."""
    found = SidePass(sae, activations, with_alignment=True)
    return Analysis(found.census(), found.calibration(), found.explained_variance)


def add_loss_recovered(
    quality: SAEQuality,
    sae: SAE[Any],
    model: HookedRootModule,
    store: ActivationsStore,
    n_batches: int = 1,
) -> SAEQuality:
    """Add the loss recovered, by SAELens's ``run_evals`` on the next tokens of ``store``.

    Args:
        quality: result to extend.
        sae: as saved: activation normalisation is folded in.
        model: SAELens's hooked model.
        n_batches: batches of ``store.store_batch_size_prompts`` contexts.

    Returns:
        ``quality`` as it is where the loss is no number, such as after a hook whose zeros the model
        divides by.
    """
    excluded = store.exclude_special_tokens
    metrics, _ = run_evals(
        sae=sae,
        activation_store=store,
        model=model,
        activation_scaler=ActivationScaler(),
        eval_config=EvalConfig(n_eval_reconstruction_batches=n_batches, compute_ce_loss=True),
        model_kwargs=store.model_kwargs,
        exclude_special_tokens=False if excluded is None else excluded.tolist(),
    )
    recovered = metrics["model_performance_preservation"]["ce_loss_score"]
    if not math.isfinite(recovered):
        return quality
    n_tokens = metrics["token_stats"]["total_tokens_eval_reconstruction"]
    return dataclasses.replace(quality, loss_recovered=recovered, loss_recovered_tokens=n_tokens)
