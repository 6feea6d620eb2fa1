"""The browser of latents: controls, and places that the page's script fills from its data."""

import dataclasses
import math
from collections.abc import Sequence

from sae_lens_signaware.evaluation.histograms import Histogram
from sae_lens_signaware.report import markup
from sae_lens_signaware.report.load import LabelledLatents

LATENTS_DATA = "latents-data"

_SIDE = """
<div class="side {name}" role="group" aria-labelledby="side-{name}-title">
<h3 id="side-{name}-title">{sign} side</h3>
<dl id="side-{name}-numbers"></dl>
<div id="side-{name}-histogram"><h4>Sizes of its activations (bars: tokens, log scale)</h4>
<div id="side-{name}-bars"></div></div>
<div id="side-{name}-logits"><h4>Tokens that {sign}W<sub>dec</sub> promotes most</h4>
<ul class="logits" id="side-{name}-promoted"></ul></div>
<h4>Where it fires most strongly</h4>
<ol class="contexts" id="side-{name}-contexts"></ol>
</div>"""

_BROWSER = """
<div id="browser" tabindex="0" role="group"
 aria-label="Browser of latents; left and right arrow keys change the latent">
<div class="controls">
<div class="field"><label for="choose-sae">SAE</label>
<select id="choose-sae">{options}</select></div>
<div class="field"><label for="choose-latent">Latent (strongest tokens: + / −)</label>
<select id="choose-latent"></select></div>
<div class="steps"><button type="button" id="previous">← Previous</button>
<button type="button" id="next">Next →</button></div>
</div>
<div class="controls">
<div class="field"><label for="jump">Go to latent</label>
<input type="number" id="jump" min="0" step="1" placeholder="its number"></div>
<div class="field"><label for="filter">With token</label>
<input type="search" id="filter" placeholder="any text" autocomplete="off"></div>
<div class="field"><label for="choose-order">Order</label><select id="choose-order">
<option value="energy">by energy</option>
<option value="min_share">most two-sided first</option></select></div>
<label class="box"><input type="checkbox" id="show-values"> values under tokens</label>
</div>
<p id="found" role="status"></p>
<p id="which" role="status"></p>
<p class="key" aria-hidden="true"><span class="ramp"></span>
token colour: <b class="minus">− side</b>
to <b class="plus">+ side</b>, stronger colour for a larger activation; the peak is underlined;
⏎ is a line break; special tokens have a dotted border</p>
<div class="sides" id="sides">{sides}</div>
<div class="dial" id="dial">
<h3>Dial</h3>
<p class="note">c times the latent's unit direction is added to the stream at every position. The
effect is the change of the difference of two logits at the last position, mean over prompts. The
two are those of the tokens that the direction raises and lowers most, by the unembedding. A plain
pair writes the one latent for c &gt; 0 and the other for c &lt; 0, and has two tokens of its
own.</p>
<div class="dial-row">
<div class="dial-chart" id="dial-plot"></div><ul id="dial-verdicts"></ul></div>
</div>
</div>"""

ABOUT = (
    "One latent at a time: how large the activations of each of its sides are, which tokens each "
    "side promotes, and the contexts in which each fires most strongly, strongest first, each from "
    "another prompt. Nothing here says that the two sides mean opposite things."
)


def browser(all_latents: Sequence[LabelledLatents]) -> str:
    """Return the HTML of the controls, both sides of one latent, its numbers and its dial."""
    shown = [one for one in all_latents if one.latents.pages]
    options = "".join(
        f'<option value="{i}">{markup.text(one.label)}</option>' for i, one in enumerate(shown)
    )
    sides = "".join(
        _SIDE.format(name=name, sign=sign) for name, sign in (("pos", "+"), ("neg", markup.MINUS))
    )
    return (
        markup.note(ABOUT)
        + _BROWSER.format(options=options, sides=sides)
        + markup.data(LATENTS_DATA, [_entry(one) for one in shown])
    )


def bars(histogram: Histogram) -> dict[str, list[tuple[int, float, int]]]:
    """Return the bars of each side that are not empty: bin, height from 0 to 1, count.

    Heights are logarithmic, on one scale for both sides: the tail of few large activations would
    not be seen on a linear one.
    """
    most = math.log1p(max(*histogram.pos, *histogram.neg, 1))
    return {
        side: [
            (i, math.log1p(count) / most, count)
            for i, count in enumerate(getattr(histogram, side))
            if count
        ]
        for side in ("pos", "neg")
    }


def _entry(one: LabelledLatents) -> dict[str, object]:
    latents = one.latents
    pages = []
    for page in latents.pages:
        values = dataclasses.asdict(page)
        if page.histogram is not None:
            scale = {"width": page.histogram.width, "n_bins": len(page.histogram.pos)}
            values["histogram"] = scale | bars(page.histogram)
        pages.append(_rounded(values))
    return {
        "label": one.label,
        "plain_run": latents.plain_run,
        "n_tokens": latents.n_tokens,
        "d_sae": latents.d_sae,
        "special_tokens": latents.special_tokens,
        "pages": pages,
    }


def _rounded(value: object) -> object:
    """Round floats to four digits: the page shows fewer, and stays small."""
    if isinstance(value, float):
        short = float(f"{value:.4g}")
        return int(short) if short.is_integer() else short
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
