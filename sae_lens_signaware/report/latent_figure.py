"""One latent as an SVG figure: both sides with numbers, histogram, top logits and contexts.

A figure in a page cannot measure its text, so tokens stand in columns of a monospaced font and are
stretched to them where a system's font has another width.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.evaluation.examples import Context
from sae_lens_signaware.evaluation.logits import TokenLogit
from sae_lens_signaware.experiments.sweep.latent_results import LatentPage, SAELatents
from sae_lens_signaware.report import markup
from sae_lens_signaware.report.browser import bars
from sae_lens_signaware.report.colours import AXIS, DARK, GRID, INK, MINUS, PAPER, PLUS, QUIET

WIDTH, MARGIN = 820, 20
COLUMN, FONT_SIZE = 7.2, 12  # of the monospaced font; a character is 0.6 of its size
ROW = 23
TEXT_AT = MARGIN + 64  # behind the column of values
N_COLUMNS = int((WIDTH - MARGIN - TEXT_AT) / COLUMN)
PEAK_COLUMN = N_COLUMNS // 2
HISTOGRAM = (190, 40)

# What XML cannot hold, half a surrogate pair included
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_FILLS = {
    "paper": PAPER, "ink": INK, "quiet": QUIET, "plus": PLUS, "minus": MINUS,
}  # fmt: skip
_STROKES = {"edge": GRID, "axis": AXIS, "mark": INK}


def latent_figure(
    latents: SAELatents, latent: int, title: str | None = None, n_contexts: int = 4
) -> str:
    """Return the SVG of one latent; it follows the reader's light or dark scheme.

    Args:
        latents: of one SAE.
        latent: its index in the SAE; it must be among the pages of ``latents``.
        title: stands behind the latent's number; None names the cell and the SAE.
        n_contexts: contexts of each side at most.

    Raises:
        ConfigError: ``latents`` has no page of ``latent``.
    """
    pages = {page.latent: page for page in latents.pages}
    if latent not in pages:
        known = ", ".join(map(str, sorted(pages))) or "none"
        raise ConfigError(f"latent: must be one of {known}, got {latent}")
    page = pages[latent]
    if title is None:
        title = f"{latents.cell}, {latents.architecture} of {latents.d_sae:,} latents"
    special = frozenset(latents.special_tokens)
    parts = [
        _text(MARGIN, 32, f"Latent {latent}", "ink head"),
        _text(MARGIN + 28 + 10 * len(f"Latent {latent}"), 32, title, "quiet"),
    ]
    y = 46
    for side in ("pos", "neg"):
        drawn, y = _side(page, side, y, special, n_contexts)
        parts += drawn
    height = y + 6
    label = f"Latent {latent}: top tokens and contexts of its + side and of its {markup.MINUS} side"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{_escaped(label)}">\n<style>{_style()}</style>\n'
        f'<rect class="paper edge" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>'
        "\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _side(
    page: LatentPage, side: str, y: float, special: frozenset[str], n_contexts: int
) -> tuple[list[str], float]:
    """Draw one side below ``y``; return its parts and where it ends."""
    sign, fill = ("+", "plus") if side == "pos" else (markup.MINUS, "minus")
    rate = getattr(page, f"firing_rate_{side}")
    contexts: tuple[Context, ...] = getattr(page, f"examples_{side}")
    fired, contexts = bool(contexts), contexts[:n_contexts]
    height = 58 + ROW * max(1, len(contexts))
    parts = [
        f'<rect class="{fill}" x="{MARGIN}" y="{y + 6:g}" width="4" height="{height - 8}" rx="2"/>',
        _text(MARGIN + 14, y + 20, f"{sign} side", "ink bold"),
        _text(MARGIN + 70, y + 20, f"fires on {100 * rate:.3g}% of tokens", "quiet"),
    ]
    if page.histogram is not None:
        parts += _histogram(page, side, fill, y)
    if page.top_logits is not None:
        parts.append(_text(MARGIN + 14, y + 43, f"{sign}W_dec promotes", "quiet"))
        end = WIDTH - MARGIN - HISTOGRAM[0] - 20
        parts += _chips(getattr(page.top_logits, side), MARGIN + 140, end, y + 43, special)
    both = page.examples_pos + page.examples_neg
    strongest = max((abs(value) for c in both for value in c.activations), default=1.0)
    for i, context in enumerate(contexts):
        parts += _context(context, y + 72 + ROW * i, strongest, special)
    if not fired:
        parts.append(_text(TEXT_AT, y + 72, "fired in none of the prompts searched", "quiet"))
    return parts, y + height + 10


def _histogram(page: LatentPage, side: str, fill: str, y: float) -> Iterator[str]:
    assert page.histogram is not None
    width, height = HISTOGRAM
    left, foot = WIDTH - MARGIN - width, y + 4 + height
    step = width / max(1, len(page.histogram.pos))
    path = "".join(
        f"M{left + i * step + 0.5:.1f},{foot:g}v-{max(1.5, share * height):.1f}h{step - 1:.1f}"
        f"V{foot:g}z"
        for i, share, _ in bars(page.histogram)[side]
    )
    yield f'<path class="{fill}" d="{path}"/>'
    yield f'<path class="axis" d="M{left},{foot + 0.5:g}h{width}"/>'
    largest = page.histogram.width * len(page.histogram.pos)
    yield _text(left, foot + 12, "0", "quiet small")
    yield _text(left + width / 2, foot + 12, "activation; log count", "quiet small middle")
    yield _text(left + width, foot + 12, f"{largest:.3g}", "quiet small end")


def _chips(
    logits: Sequence[TokenLogit], x: float, end: float, y: float, special: frozenset[str]
) -> Iterator[str]:
    for token, _ in logits:
        width = COLUMN * _columns(_visible(token).strip(" ") or " ") + 10
        if x + width > end:
            return
        yield _box(x, y, width, "edge")
        yield from _token(_visible(token).strip(" "), x + 5, y, token in special)
        x += width + 6


def _context(
    context: Context, y: float, strongest: float, special: frozenset[str]
) -> Iterator[str]:
    yield _text(TEXT_AT - 10, y, markup.number(context.value, "+.3g"), "quiet end")
    for i, column in _places(context):
        token, value = context.tokens[i], context.activations[i]
        words, x = _fitting(token), TEXT_AT + COLUMN * column
        width = COLUMN * _columns(words)
        if value:
            opacity = 0.08 + 0.57 * min(1.0, abs(value) / strongest)
            fill = "plus" if value > 0 else "minus"
            yield _box(x, y, width, fill, f' fill-opacity="{opacity:.2f}"')
        if i == context.peak:
            yield f'<path class="mark" d="M{x:.1f},{y + 4:g}h{width:.1f}"/>'
        yield from _token(words, x, y, token in special, bold=i == context.peak)


def _places(context: Context) -> Iterator[tuple[int, int]]:
    """Index and column of each token that has its place in the row, with the peak in the middle."""
    widths = [_columns(_fitting(token)) for token in context.tokens]
    left = right = PEAK_COLUMN
    for i in range(context.peak - 1, -1, -1):
        left -= widths[i]
        if left < 0:
            break
        yield i, left
    for i in range(context.peak, len(widths)):
        if right + widths[i] > N_COLUMNS:
            break
        yield i, right
        right += widths[i]


def _token(words: str, x: float, y: float, special: bool, bold: bool = False) -> Iterator[str]:
    inner = words.strip(" ")
    if not inner:
        return
    x += COLUMN * (len(words) - len(words.lstrip(" ")))
    width = COLUMN * _columns(inner)
    classes = ("quiet" if special else "ink") + (" mono bold" if bold else " mono")
    yield (
        f'<text class="{classes}" x="{x:.1f}" y="{y:g}" textLength="{width:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{_escaped(inner)}</text>'
    )
    if special:
        yield _box(x, y, width, "axis dotted")


def _box(x: float, y: float, width: float, classes: str, more: str = "") -> str:
    """Draw a box around a text at ``x``, ``y``."""
    return (
        f'<rect class="{classes}" x="{x:.1f}" y="{y - 13:g}" width="{width:.1f}" height="18" '
        f'rx="3"{more}/>'
    )


def _visible(token: str) -> str:
    # as the browser of latents shows it
    token = re.sub("\r\n|[\r\n\u2028\u2029]", "⏎", token).replace("\t", "⇥")
    return token or "∅"


def _fitting(token: str) -> str:
    """The token as it is shown, cut where the row has no place for more even of a peak."""
    words = _visible(token)
    if _columns(words) <= N_COLUMNS - PEAK_COLUMN:
        return words
    while _columns(words) >= N_COLUMNS - PEAK_COLUMN:
        words = words[:-1]
    return f"{words}…"


def _columns(words: str) -> int:
    """Columns of a monospaced font that a text takes."""
    return max(1, sum(map(_columns_of, words)))


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # marks on the one before
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escaped(words: str) -> str:
    return markup.text(_NOT_XML.sub("\ufffd", words))


def _text(x: float, y: float, words: str, classes: str) -> str:
    return f'<text class="{classes}" x="{x:g}" y="{y:g}">{_escaped(words)}</text>'


def _style() -> str:
    def rules(colour_of: dict[str, str]) -> str:
        fills = (f".{name}{{fill:{colour_of.get(c, c)}}}" for name, c in _FILLS.items())
        strokes = (f".{name}{{stroke:{colour_of.get(c, c)}}}" for name, c in _STROKES.items())
        return "".join([*fills, *strokes])

    return (
        "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif}"
        f".mono{{font:{FONT_SIZE}px ui-monospace,'SF Mono',Menlo,Consolas,'Liberation Mono',"
        "monospace}.bold{font-weight:700}.head{font-size:18px;font-weight:700}"
        ".small{font-size:10.5px}.end{text-anchor:end}.middle{text-anchor:middle}.axis,.mark{fill:none}"
        ".edge{fill:none}.mark{stroke-width:2}.dotted{stroke-dasharray:1.5 1.5}"
        f"{rules({})}@media (prefers-color-scheme:dark){{{rules(DARK)}}}"
    )
