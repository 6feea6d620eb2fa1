"""Made-up results, with hostile texts, for the report; and a reader of its page."""

import json
import math
from html.parser import HTMLParser

from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.histograms import Histogram
from sae_lens_signaware.evaluation.logits import TopLogits
from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.experiments.protocols.result import ProtocolResult
from sae_lens_signaware.experiments.sweep.frontier import compare_frontiers, summarise_seeds
from sae_lens_signaware.experiments.sweep.latent_results import Dial, LatentPage, SAELatents
from sae_lens_signaware.experiments.sweep.result import RunResult
from sae_lens_signaware.experiments.sweep.summary import Comparison, SweepSummary, point_of

CELLS = ("mlp_out", "attn_out", "resid <&>")
SAES = ("sa_gsae-half", "gated-full", 'odd <b>"name"</b>')
NO_CHARTS = ("latents-data", "dark-colours")
"""Blocks of data of the page that are no charts."""
SPECIAL = "<|endoftext|>"
TOKENS = [
    " the", "\n", "<script>alert(1)</script>", "</script>", "&amp;", '"', "'",
    "<img src=x onerror=alert(2)>",
    " of", "\t", " parliament", "", " tax", "es", "<!--", SPECIAL,
]  # fmt: skip


def run_result(cell: int, seed: int, sae: int, value: float, name: str | None = None) -> RunResult:
    l0 = value * (1 + 0.07 * sae + 0.01 * seed)
    quality = SAEQuality(
        l0=l0,
        explained_variance=0.35 + 0.08 * math.log2(l0) - 0.03 * sae + 0.005 * seed - 0.04 * cell,
        dead_share=0.0 if sae == 0 and value > 50 else 0.02 * (1 + sae) * 16 / value,
        bipolar_share=0.4 / (1 + sae),
        n_tokens=45_000,
        architecture="sa_gsae",
        d_sae=576 * (1 + sae),
        tokens_from="held-out <speeches>",
    )
    return RunResult(
        cell=CELLS[cell],
        seed=seed,
        sae=name or SAES[sae],
        field="target_l0",
        value=value,
        quality=quality,
        l0_pos=0.6 * l0,
        l0_neg=0.4 * l0,
        seconds_per_step=None if sae else 0.012,
        identity={"long": "and in the run's own file"},
    )


def sweep_summary() -> SweepSummary:
    results = [
        run_result(cell, seed, sae, value)
        for cell in range(3)
        for seed in range(3)
        for sae in range(3)
        for value in (8, 16, 32, 64, 128)
    ]
    comparisons = []
    for cell in CELLS:
        for b in SAES[1:]:
            frontiers = {
                (seed, name): [
                    point_of(r) for r in results if (r.cell, r.seed, r.sae) == (cell, seed, name)
                ]
                for seed in range(3)
                for name in (SAES[0], b)
            }
            verdicts = {
                seed: compare_frontiers(frontiers[seed, SAES[0]], frontiers[seed, b])
                for seed in range(3)
            }
            summary = summarise_seeds(list(verdicts.values()))
            comparisons.append(Comparison(cell, SAES[0], b, verdicts, summary))
    failures = {"resid/seed-2/x": "RuntimeError: <b>out of luck</b>"}
    return SweepSummary(len(results) + 1, results, failures, comparisons)


def ablations_summary() -> SweepSummary:
    names = ("full", "no-aux", "one-sided", "no-resets")
    results = [
        run_result(0, 0, min(i, 2), value, name)
        for i, name in enumerate(names)
        for value in (16, 64)
    ]
    return SweepSummary(len(results), results, {}, [])


def context(latent: int, i: int, sign: float) -> Context:
    tokens = tuple(TOKENS[(latent + i + k) % len(TOKENS)] for k in range(18))
    values = [0.0 if k % 3 else sign * (3 + latent) / (1 + abs(k - 9)) for k in range(18)]
    values[2] = -0.2 * values[9]
    return Context(tokens, tuple(values), peak=9, prompt=10 * i + latent, position=40 + i)


def dial(pair: tuple[int, int], strength: float) -> Dial:
    coefficients = [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]
    effect = [strength * c + 0.02 * c * c for c in coefficients]
    words = ("<b>yes</b>", "\n") if pair[0] == pair[1] else ("<i>up</i>", " down")
    return Dial(pair, words, coefficients, effect, 0.25, True, strength > 0.1, 0.9, -1.0)


BINS = tuple(int(900 / (1 + i) ** 2) for i in range(24))


def top_logits(latent: int) -> TopLogits:
    words = [f"{TOKENS[(latent + i) % len(TOKENS)]}" for i in range(10)]
    sides = [tuple((word, 2.0 - 0.1 * i) for i, word in enumerate(side)) for side in
             ([f" up{latent}", *words], [*words, " down"])]  # fmt: skip
    return TopLogits(*sides)


def latent_page(latent: int) -> LatentPage:
    silent = latent == 103  # on its - side, and it has no dial
    return LatentPage(
        latent=latent,
        firing_rate_pos=0.05,
        firing_rate_neg=0.0 if silent else 0.0123,
        energy_pos=2.0 / latent,
        energy_neg=0.5 / latent,
        min_share=0.0 if silent else (latent % 7) / 14,
        gain_pos=1.02,
        gain_neg=None if silent else 1.1,
        examples_pos=tuple(context(latent, i, 1.0) for i in range(4)),
        examples_neg=() if silent else tuple(context(latent, i, -0.7) for i in range(3)),
        dial=None if silent else dial((latent, latent), 0.5),
        pair_dial=None if silent else dial((3, 900), 0.05),
        top_logits=None if silent else top_logits(latent),
        histogram=None if silent else Histogram(0.25, BINS, tuple(n // 2 for n in BINS)),
    )


def sae_latents(cell: int, sae: int) -> SAELatents:
    n = 576
    return SAELatents(
        cell=CELLS[cell],
        run=f"{CELLS[cell]}/seed-0/{SAES[sae]}/target_l0-32",
        architecture="sa_gsae",
        d_sae=n,
        n_tokens=45_000,
        l0=32.5,
        explained_variance=0.8123,
        dead_share=0.01,
        l0_pos=20.0,
        l0_neg=12.5,
        bipolar_share=0.4,
        bipolar_share_by_energy_rank=[
            0.5 + 0.5 * math.cos((1 + sae) * math.log(k)) / k**0.3 for k in range(1, n + 1)
        ],
        gain_pos=[1 + 0.05 * math.sin(i * (1 + cell)) + 0.02 * sae for i in range(n)],
        gain_neg=[None if i % 4 else 1.1 + 0.1 * math.sin(i) for i in range(n)],
        plain_run="mlp_out/seed-0/gated-full/l1-2",
        audit={"-0.9": {"n_pairs": 3, "freed_width": 3, "n_pairs_that_fire_together": 1}},
        pages=tuple(latent_page(i) for i in (100, 101, 102, 103)),
        special_tokens=(SPECIAL,),
    )


PROTOCOL = ProtocolResult(
    title="Protocol C: <dials>",
    question="Is one latent a dial, and a pair of plain ones not?",
    columns=["cell", "share", "share sd", "of"],
    rows=[["mlp_out", 0.8125, 0.0312, 24], ["<i>x</i>", None, None, -3]],
    notes=["A note & a half."],
    command="sae-lens-signaware protocol c",
    versions={"torch": "2.99"},
    config={},
)


class Parsed(HTMLParser):
    """Tags with attributes, the text outside of scripts and styles, and the blocks of data."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.data, self._in = "", {}, ("", {})  # type: ignore[var-annotated]
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in = (tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._in = ("", {})

    def handle_data(self, data: str) -> None:
        if self._in[0] == "":
            self.text += data
        elif self._in[1].get("type") == "application/json":
            self.data[self._in[1]["id"]] = json.loads(data)
