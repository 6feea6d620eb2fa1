"""One latent as an SVG figure: histogram, and of both sides the tokens promoted and the contexts.

A figure in a page cannot measure its text, so tokens stand in columns of a monospaced font and are
stretched to them where a system's font has another width.

    python studies/pretrained/latent_figure.py docs/latents/NAME.json LATENT > docs/assets/latent.svg
"""

import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_signaware.report.drawing import bars, largest_act, strength
from sae_lens_signaware.report.load import read_latents
from sae_lens_signaware.report.text import environment, visible

# in pixels of a figure that fills a phone's screen
WIDTH, MARGIN, COLUMN = 420, 14, 8.1
TEXT_AT = MARGIN + 60  # behind the column of values
N_COLUMNS = int((WIDTH - MARGIN - TEXT_AT) / COLUMN)
PEAK_COLUMN = 20
N_CONTEXTS = 4


class Piece(NamedTuple):
    """A token in its place; ``act`` and ``strength`` (0 to 1) are 0 where it is not active."""

    text: str
    x: float
    width: float
    act: float = 0.0
    strength: float = 0.0
    peak: bool = False


def latent_figure(name: str, page: dict[str, Any]) -> str:
    """Return the SVG of the page of one latent."""
    largest = largest_act(page)
    sides = []
    for side, sign in (("pos", "+"), ("neg", "−")):
        contexts = [
            {"act": example["acts"][example["peak"]], "pieces": context(example, largest)}
            for example in page[f"examples_{side}"][:N_CONTEXTS]
        ]
        rate, promoted = page[f"firing_rate_{side}"], chips(page[f"logits_{side}"])
        sides.append(
            {"side": side, "sign": sign, "rate": rate, "promoted": promoted, "contexts": contexts}
        )
    template = (Path(__file__).parent / "latent.svg").read_text(encoding="utf-8")
    return (
        environment()
        .from_string(template)
        .render(
            width=WIDTH,
            margin=MARGIN,
            name=name,
            page=page,
            bars=bars(page["histogram"]),
            edges=page["histogram"]["edges"],
            sides=sides,
        )
    )


def chips(logits: list[tuple[str, float]]) -> list[Piece]:
    """The promoted tokens for which there is room, strongest first."""
    x, found = MARGIN + 82.0, []
    for token, _ in logits:
        text = visible(token).strip(" ") or "␣"
        width = COLUMN * columns(text)
        if x + width + 5 > WIDTH - MARGIN:
            break
        found.append(Piece(text, x, width))
        x += width + 16
    return found


def context(example: dict[str, Any], largest: float) -> list[Piece]:
    """The tokens of a context for which there is room, with the peak always in one place."""
    texts, peak = [visible(token) for token in example["tokens"]], example["peak"]
    texts[peak] = shortened(texts[peak], N_COLUMNS - PEAK_COLUMN)
    places, start = {}, PEAK_COLUMN
    for i in range(peak - 1, -1, -1):
        start -= columns(texts[i])
        if start < 0:
            break
        places[i] = start
    end = PEAK_COLUMN
    for i in range(peak, len(texts)):
        if end + columns(texts[i]) > N_COLUMNS:
            break
        places[i] = end
        end += columns(texts[i])
    return [
        Piece(
            text=texts[i],
            x=TEXT_AT + COLUMN * column,
            width=COLUMN * columns(texts[i]),
            act=(act := example["acts"][i]),
            strength=strength(act, largest),
            peak=i == peak,
        )
        for i, column in sorted(places.items())
    ]


def shortened(text: str, n_columns: int) -> str:
    """Cut a text to so many columns, with an ellipsis where something is cut."""
    if columns(text) <= n_columns:
        return text
    while columns(text) >= n_columns:
        text = text[:-1]
    return f"{text}…"


def columns(text: str) -> int:
    """Columns of a monospaced font that a text takes: 2 of a wide character, 0 of a mark."""
    marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return max(1, len(text) - marks + wide)


if __name__ == "__main__":
    held = read_latents(Path(sys.argv[1]))
    print(latent_figure(held.name, {p["latent"]: p for p in held.pages}[int(sys.argv[2])]))
