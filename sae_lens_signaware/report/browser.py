"""The browser of latents: controls, and places that the page's script fills from its data."""

import dataclasses
from collections.abc import Sequence

from sae_lens_signaware.report import markup
from sae_lens_signaware.report.load import LabelledLatents

LATENTS_DATA = "latents-data"

_SIDE = """
<div class="side {name}" aria-labelledby="side-{name}-title">
<h3 id="side-{name}-title">{sign} side</h3>
<dl id="side-{name}-numbers"></dl>
<ol id="side-{name}-contexts"></ol>
</div>"""

_BROWSER = """
<div id="browser" tabindex="0" role="group"
 aria-label="Browser of latents; left and right arrow keys change the latent">
<div class="controls">
<label for="choose-sae">SAE</label><select id="choose-sae">{options}</select>
<label for="choose-latent">Latent</label><select id="choose-latent"></select>
<label for="choose-order">Order</label><select id="choose-order">
<option value="energy">by energy</option>
<option value="min_share">most two-sided first</option></select>
<button type="button" id="previous">← Previous</button>
<button type="button" id="next">Next →</button>
<label class="box"><input type="checkbox" id="show-values"> values under tokens</label>
</div>
<p id="which" role="status"></p>
<p class="key" aria-hidden="true"><span class="ramp"></span>
token colour: <b class="minus">− side</b>
to <b class="plus">+ side</b>, stronger colour for a larger activation; the peak is underlined;
⏎ is a line break</p>
<div class="sides">{sides}</div>
<div class="dial" id="dial">
<h3>Dial</h3>
<p class="note" id="dial-what"></p>
<div class="dial-row">
<div class="dial-chart" id="dial-plot"></div><ul id="dial-verdicts"></ul></div>
</div>
</div>"""


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
        markup.note(
            "One latent at a time: the contexts in which each of its sides fires most strongly, "
            "strongest first, each from another prompt. Nothing here says that the two sides mean "
            "opposite things."
        )
        + _BROWSER.format(options=options, sides=sides)
        + markup.data(LATENTS_DATA, [_entry(one) for one in shown])
    )


def _entry(one: LabelledLatents) -> dict[str, object]:
    latents = one.latents
    return {
        "label": one.label,
        "plain_run": latents.plain_run,
        "n_tokens": latents.n_tokens,
        "pages": [_rounded(dataclasses.asdict(page)) for page in latents.pages],
    }


def _rounded(value: object) -> object:
    """Round floats to five digits: the page shows fewer, and stays small."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
