"""Labelled texts of opposites as CSV files: six sets built from templates, four rated by persons.

The two texts of a pair of a template differ in the opposite alone. The lists of the part to fit and
of the part to report have no content word in common, so that a probe cannot score by words that it
has seen. The rated texts are those of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text", ICWSM 2014, from the source archive of PyPI's
vaderSentiment 3.2.1; a label is the mean of the raters, from -4 (negative) to 4 (positive).
"""

import csv
import hashlib
import html
import io
import itertools
import random
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SDIST = "vaderSentiment-3.2.1.tar.gz"
"""`pip download --no-deps --no-binary :all: vaderSentiment==3.2.1` fetches it."""
RATED = {
    "valence_movies": "movieReviewSnippets_GroundTruth.txt",
    "valence_tweets": "tweets_GroundTruth.txt",
    "valence_products": "amazonReviewSnippets_GroundTruth.txt",
    "valence_editorials": "nytEditorialSnippets_GroundTruth.txt",
}


class Row(NamedTuple):
    """A line of a CSV; the label is a number or the name of a class, the part "fit" or "report"."""

    text: str
    label: str
    part: str


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


def template_texts(opposite: Opposite, n_pairs: int = 150, seed: int = 0) -> list[Row]:
    """Texts of both classes, ``n_pairs`` of each in each part; a pair has the same frame and items."""
    rows = []
    for name, part in (("fit", opposite.fit), ("report", opposite.report)):
        for low, high in random.Random(seed).sample(_all_pairs(part), n_pairs):
            rows += [Row(low, opposite.low, name), Row(high, opposite.high, name)]
    return rows


def _all_pairs(part: Part) -> list[tuple[str, str]]:
    """Both texts of every frame with every choice of items."""
    items = {
        slot: [_both(item.strip()) for item in items.split(",")]
        for slot, items in part.fillers.items()
    }
    pairs = []
    for frame in part.frames:
        for chosen in itertools.product(*items.values()):
            texts = []
            for i, text in enumerate(_both(frame)):
                words = {slot: item[i] for slot, item in zip(items, chosen, strict=True)}
                capitals = {slot.upper(): word.upper() for slot, word in words.items()}
                texts.append(text.format(**words, **capitals))
            pairs.append((texts[0], texts[1]))
    return pairs


def _both(item: str) -> tuple[str, str]:
    low, _, high = item.partition(" / ")
    return low, high or low


def rated_texts(sdist: Path) -> dict[str, list[Row]]:
    """The four sets of rated texts. Those of one document are in one part; equal ones count once."""
    with tarfile.open(sdist) as outer:
        inner = next(m for m in outer if m.name.endswith("hutto_ICWSM_2014.tar.gz"))
        file = outer.extractfile(inner)
        assert file is not None
        content = file.read()
    found: dict[str, list[Row]] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for name, wanted in RATED.items():
            member = next(m for m in archive.getmembers() if m.name.endswith(f"/{wanted}"))
            file = archive.extractfile(member)
            assert file is not None
            found[name] = rated_rows(name, file.read().decode("utf-8"))
    return found


def rated_rows(name: str, content: str) -> list[Row]:
    """The rows of a file of lines "ID, tab, rating, tab, text"; an ID is DOCUMENT_NUMBER."""
    rows: dict[str, Row] = {}
    for line in content.splitlines():
        identifier, rating, text = line.split("\t", 2)
        text = html.unescape(text).strip()
        document = f"{name}/{identifier.split('_')[0]}"
        part = "fit" if hashlib.sha256(document.encode()).digest()[0] % 2 else "report"
        rows.setdefault(text, Row(text, repr(float(rating)), part))
    return [row for text, row in rows.items() if text]


def write_texts(sets: Mapping[str, Sequence[Row]], folder: Path) -> list[Path]:
    """Write ``NAME.csv`` of each set."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, rows in sets.items():
        assert re.fullmatch(r"\w+", name)
        paths.append(folder / f"{name}.csv")
        with paths[-1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows(rows)
    return paths
