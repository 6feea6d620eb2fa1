"""Opposites built from templates: two texts of each pair differ in the opposite alone.

The lists of the part to fit and of the part to report have no content word in common, so that a
probe cannot score by words that it has seen.
"""

import itertools
import random
from typing import NamedTuple

from sae_lens_signaware.checks import require
from sae_lens_signaware.experiments.opposites.write import Row

N_PAIRS = 150
"""Pairs of texts in each part."""


class Part(NamedTuple):
    """Frames and the lists that fill them.

    Attributes:
        frames: texts with slots ``{name}``. A frame ``"low / high"`` has one text for each class.
        fillers: for each slot, items with a comma between them; ``"low / high"`` likewise.
    """

    frames: list[str]
    fillers: dict[str, str]


class Opposite(NamedTuple):
    """Two classes, and the parts that their texts are built from."""

    low: str
    high: str
    fit: Part
    report: Part


OBJECTS = (
    "gate, letter, table, wall, basket, boat, lamp, window",
    "fence, parcel, bench, roof, bucket, wagon, candle, door",
)
PERSONS = (
    "farmer, teacher, sailor, nurse, baker, painter, lawyer, student",
    "butcher, doctor, pilot, clerk, tailor, singer, judge, visitor",
)
OPPOSITES = {
    "tense": Opposite(
        "present",
        "past",
        Part(
            ["The {who} {does} the {what}."],
            {
                "who": PERSONS[0],
                "does": "opens / opened, paints / painted, carries / carried, sells / sold, "
                "finds / found, builds / built, keeps / kept, drops / dropped",
                "what": OBJECTS[0],
            },
        ),
        Part(
            ["A {who} {does} this {what}."],
            {
                "who": PERSONS[1],
                "does": "cleans / cleaned, moves / moved, watches / watched, buys / bought, "
                "brings / brought, draws / drew, holds / held, repairs / repaired",
                "what": OBJECTS[1],
            },
        ),
    ),
    "number": Opposite(
        "singular",
        "plural",
        Part(
            ["The {who} waited near the {what}.", "The {who} stood beside the {what}."],
            {
                "who": "dog / dogs, farmer / farmers, horse / horses, child / children, "
                "teacher / teachers, bird / birds, man / men, wolf / wolves, king / kings",
                "what": f"{OBJECTS[0]}, river, station, bridge, church",
            },
        ),
        Part(
            [
                "Some time ago my {who} slept behind that {what}.",
                "Long ago my {who} vanished inside that {what}.",
            ],
            {
                "who": "cat / cats, doctor / doctors, goat / goats, woman / women, "
                "cousin / cousins, goose / geese, mouse / mice, thief / thieves, guest / guests",
                "what": f"{OBJECTS[1]}, mill, market, tower, barn",
            },
        ),
    ),
    "negation": Opposite(
        "negated",
        "affirmed",
        Part(
            [
                "The {what} is not {how}. / The {what} is still {how}.",
                "The {what} was never {how}. / The {what} was always {how}.",
                "The {what} will not be {how}. / The {what} will soon be {how}.",
            ],
            {
                "what": f"{OBJECTS[0]}, street, kitchen",
                "how": "open, empty, ready, warm, visible, dry, clean, full, green, heavy",
            },
        ),
        Part(
            [
                "That {what} seems no longer {how}. / That {what} seems once again {how}.",
                "That {what} looks hardly {how}. / That {what} looks clearly {how}.",
                "That {what} feels by no means {how}. / That {what} feels in every way {how}.",
            ],
            {
                "what": f"{OBJECTS[1]}, garden, cellar",
                "how": "quiet, safe, wet, cheap, cold, bright, useful, narrow, old, round",
            },
        ),
    ),
    "quantity": Opposite(
        "down",
        "up",
        Part(
            ["The {what} {does} {when}."],
            {
                "what": "price of bread, number of trains, rent, rate of interest, "
                "output of the mine, traffic, level of the lake, tax on wine",
                "does": "fell / rose, decreased / increased, shrank / grew, dropped / climbed",
                "when": "last year, in March, after the war, within a week, again",
            },
        ),
        Part(
            ["Our {what} {does} {when}."],
            {
                "what": "sales, wages, exports, costs, membership, debts, stocks, harvest",
                "does": "went down / went up, contracted / expanded, plunged / soared, "
                "halved / doubled",
                "when": "during June, since Monday, this summer, before Easter, at once",
            },
        ),
    ),
    "formality": Opposite(
        "informal",
        "formal",
        Part(
            [
                "hey, I wanna {do} the {what} / Sir, I would gladly {do} the {what}",
                "come on, I just can't {do} the {what} / Regrettably, I cannot {do} the {what}",
            ],
            {
                "do": "get / obtain, buy / purchase, show / demonstrate, start / commence, "
                "fix / restore, ask for / request, throw out / discard",
                "what": f"{OBJECTS[0]}, ticket, report, passport",
            },
        ),
        Part(
            [
                "yeah, we gotta {do} this {what} / Indeed, we must {do} this {what}",
                "ok guys, let's {do} this {what} / Gentlemen, permit us to {do} this {what}",
            ],
            {
                "do": "keep / retain, use / employ, need / require, check / verify, "
                "try / attempt, set up / establish, look into / investigate",
                "what": f"{OBJECTS[1]}, invoice, licence, contract",
            },
        ),
    ),
    "case": Opposite(
        "lower",
        "upper",
        Part(
            [
                "the {who} opened the {what} / THE {WHO} OPENED THE {WHAT}",
                "the {who} lost the {what} / THE {WHO} LOST THE {WHAT}",
            ],
            {"who": PERSONS[0], "what": f"{OBJECTS[0]}, ticket, report, box, map"},
        ),
        Part(
            [
                "some {who} repaired my {what} / SOME {WHO} REPAIRED MY {WHAT}",
                "some {who} wanted my {what} / SOME {WHO} WANTED MY {WHAT}",
            ],
            {"who": PERSONS[1], "what": f"{OBJECTS[1]}, engine, watch, shoe, bell"},
        ),
    ),
}


def template_texts(opposite: Opposite, n_pairs: int = N_PAIRS, seed: int = 0) -> list[Row]:
    """Build texts of both classes, ``n_pairs`` of each in each part.

    A pair has the same frame and the same items.

    Raises:
        InvalidInputError: the lists give fewer pairs.
    """
    rows = []
    for name, part in (("fit", opposite.fit), ("report", opposite.report)):
        pairs = _all_pairs(part)
        allowed = f"from 1 to {len(pairs)}"
        require(
            1 <= n_pairs <= len(pairs),
            f"pairs of {opposite.low} and {opposite.high}",
            n_pairs,
            allowed,
        )
        for low, high in random.Random(seed).sample(pairs, n_pairs):
            rows += [Row(low, opposite.low, name), Row(high, opposite.high, name)]
    return rows


def _all_pairs(part: Part) -> list[tuple[str, str]]:
    """Every frame with every choice of items, in both classes."""
    slots = list(part.fillers)
    items = [[_both(item) for item in part.fillers[slot].split(", ")] for slot in slots]
    pairs = []
    for frame in part.frames:
        for chosen in itertools.product(*items):
            low, high = (
                text.format(**_words(slots, [item[i] for item in chosen]))
                for i, text in enumerate(_both(frame))
            )
            pairs.append((low, high))
    return pairs


def _both(item: str) -> tuple[str, str]:
    low, _, high = item.partition(" / ")
    return low, high or low


def _words(slots: list[str], chosen: list[str]) -> dict[str, str]:
    """Items by slot; a slot in capitals has its item in capitals."""
    words = dict(zip(slots, chosen, strict=True))
    return words | {slot.upper(): word.upper() for slot, word in words.items()}
