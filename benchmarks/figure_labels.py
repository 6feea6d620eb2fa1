"""Names and labels of the SAEs that the figures and tables of the documentation have."""

from figure_drawing import ARCHITECTURES, Series
from figure_rows import D_IN, HALF_SAE, SHORT

CELLS = ("mlp_out", "attn_out", "resid")

SA_GSAE = Series("sa_gsae-half", "SA-GSAE, H", "sa_gsae")
SA_GSAE_AUXK = Series("sa_gsae-half-auxk", "SA-GSAE with AuxK, H", "sa_gsae", dashed=True)
BI_JUMPRELU = Series("bi_jumprelu-half-no-resets", "bi_jumprelu, H", "bi_jumprelu")
GATED = Series("gated-full", "SAELens's Gated, 2H", "gated")
PAPER_GATED = Series("paper-gated-full", "Gated (its paper), 2H", "paper_gated")
PEERS = (
    Series("abstopk-half", "AbsTopK, H", "abstopk"),
    Series("batchtopk-full", "BatchTopK, 2H", "batchtopk"),
    Series("jumprelu-full", "JumpReLU, 2H", "jumprelu"),
)
SIGNED = {name: f"`{name}`" for name in list(ARCHITECTURES)[:4]}
PLAIN = {"batchtopk": "SAELens's `batchtopk`", "jumprelu": "SAELens's `jumprelu`"}
ALL_PLAIN = PLAIN | {
    "matryoshka_batchtopk": "SAELens's `matryoshka_batchtopk`",
    "gated": "SAELens's `gated`",
    "paper-gated": "Gated as its paper trains it",
    "topk": "SAELens's `topk`",
    "abstopk": "SAELens's `abstopk`, signed",
}
BI_TOPK = {"bi_topk": "`bi_topk`"}
OTHERS = {name: label for name, label in ALL_PLAIN.items() if name not in PLAIN}
FIRST_SCREEN = {
    SHORT: "`bi_jumprelu`",
    "batchtopk": "BatchTopK",
    "jumprelu": "JumpReLU",
    "topk": "TopK",
    "abstopk": "AbsTopK",
    "matryoshka_batchtopk": "Matryoshka BatchTopK",
}
"""Those of README's table; all but the first are SAELens's."""
OF_PAPER_GATED = {"paper-gated": ALL_PLAIN["paper-gated"]}
OF_GATED = {"gated": ALL_PLAIN["gated"]}
OF_MATRYOSHKA = {"matryoshka_batchtopk": ALL_PLAIN["matryoshka_batchtopk"]}
OF_BATCHTOPK = {"batchtopk": PLAIN["batchtopk"]}
ONE_RECIPE = SIGNED | PLAIN
BATCHTOPK = Series("batchtopk", "SAELens's BatchTopK", "batchtopk")
ONE_SA_GSAE = Series("sa_gsae", "sa_gsae", "sa_gsae")
ONE_BI_JUMPRELU = Series("bi_jumprelu", "bi_jumprelu", "bi_jumprelu")
PLAIN_SAES = (Series("jumprelu", "SAELens's JumpReLU", "jumprelu"), BATCHTOPK)
NARROW = "bi_jumprelu-bandwidth-0.1"
"""In results/equal_width.json, on Gemma's residual stream alone."""
NARROW_SHORT = f"{NARROW}-warm-up-400"
WITH_SHORT = (
    {SHORT: "`bi_jumprelu`, warm-up 400"} | SIGNED | {"bi_jumprelu": "`bi_jumprelu`, warm-up 800"}
)
LONGER = {
    SHORT: "`bi_jumprelu`, warm-up of a tenth",
    "bi_jumprelu": "`bi_jumprelu`, warm-up of a fifth",
    "bi_batchtopk": SIGNED["bi_batchtopk"],
    **PLAIN,
}
MLP_OUTPUTS = {f"{model}, mlp_out": d_in for model, d_in in D_IN.items()}
"""Cells in which widths are compared -> ``d_in``."""
WARM_UPS = {
    "bi_jumprelu": "400 steps",
    "bi_jumprelu-warm-up-800": "800 steps",
    "bi_jumprelu-warm-up-1600": "1,600 steps",
}
"""Of ``bi_jumprelu`` in the comparison of widths."""
WINDOWS = {
    "bi_jumprelu": "25,600, 400 steps",
    "bi_jumprelu-warm-up-800": "25,600, 800 steps",
    "bi_jumprelu-window-307200": "307,200, 400 steps",
    "bi_jumprelu-window-307200-warm-up-800": "307,200, 800 steps",
}
"""The same with another window for dead latents, and both."""
ANNEALED = "bi_batchtopk-anneal-400"
"""In results/equal_width.json on Gemma 3, and in results/annealed_batchtopk.json on SmolLM2."""
BOTH_SIDES = "bi_jumprelu-both-sides"
"""In results/both_sides.json."""
OF_BOTH_SIDES = {BOTH_SIDES: "`bi_jumprelu`, `minus_bias_init: 0`"}
OF_PLAIN_ANNEALED = {"batchtopk-anneal-400": "SAELens's `batchtopk`, annealed k"}
WITH_ANNEALED = {
    ANNEALED: "`bi_batchtopk`, annealed k",
    f"{ANNEALED}-aux-k-8": "`bi_batchtopk`, annealed k, aux_k 8",
}
NARROW_JUMPRELU = "jumprelu-bandwidth-0.1"
OF_NARROW_JUMPRELU = {NARROW_JUMPRELU: f"{PLAIN['jumprelu']}, bandwidth 0.1"}
OF_GEMMAS_RESID = {
    NARROW: "`bi_jumprelu`, bandwidth 0.1",
    NARROW_SHORT: "`bi_jumprelu`, bandwidth 0.1, warm-up 400",
}
RATED_TEXTS = {
    "valence_editorials": "editorials",
    "valence_movies": "film reviews",
    "valence_products": "product reviews",
    "valence_tweets": "tweets",
}
L0S = (8, 16, 32, 64, 128)
L0S_OF_GATED = (8, 32, 64, 128)
EQUAL_WIDTH = (
    Series(SHORT, "bi_jumprelu", "bi_jumprelu"),
    Series(NARROW_SHORT, "bi_jumprelu, bandwidth 0.1", "bi_jumprelu", dashed=True),
    ONE_SA_GSAE,
    *PLAIN_SAES,
    Series(NARROW_JUMPRELU, "JumpReLU, bandwidth 0.1", "jumprelu", dashed=True),
)
EQUAL_WIDTH_GAP = tuple(one for one in EQUAL_WIDTH if not one.dashed)
HALF = Series(HALF_SAE, "bi_jumprelu, half as wide", "bi_jumprelu")
HALF_WIDTH = (HALF, *PLAIN_SAES)
HALVES = {
    "batchtopk-half": f"{PLAIN['batchtopk']}, half",
    HALF.sae: f"{SIGNED['bi_jumprelu']}, half",
}
EQUAL_TIME = (
    Series("bi_batchtopk", "bi_batchtopk", "bi_batchtopk"),
    ONE_BI_JUMPRELU,
    ONE_SA_GSAE,
    *PLAIN_SAES,
)
