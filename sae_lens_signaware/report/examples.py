"""How one example of a latent is drawn: a function for each kind of examples."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from sae_lens_signaware.report.text import render

Draw = Callable[[dict[str, Any], float], Markup]


def tokens(example: dict[str, Any], largest: float) -> Markup:
    """Draw a context: each active token coloured by its sign and strength, the peak underlined.

    Args:
        example: ``tokens``, the activation of each in ``acts``, and the index ``peak``.
        largest: size of the activation that has the strongest colour.
    """
    strengths = [round(0.06 + 0.44 * strength(act, largest), 2) for act in example["acts"]]
    return render("tokens.html", example=example, strengths=strengths)


def strength(act: float, largest: float) -> float:
    """Size of an activation from 0 to 1."""
    return min(1.0, abs(act) / largest) if largest else 0.0


DRAW: dict[str, Draw] = {"tokens": tokens}
"""Kind of examples -> what draws one. A kind more is a function more here; its examples have
``acts``, by which they share a scale."""


def largest_act(page: dict[str, Any]) -> float:
    """The largest size of an activation in the examples of a latent."""
    examples = page["examples_pos"] + page["examples_neg"]
    return max((abs(act) for example in examples for act in example["acts"]), default=0.0)
