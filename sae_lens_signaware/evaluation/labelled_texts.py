"""Texts with labels: read from a CSV, checked, and split into a part to fit and one to report."""

import csv
import math
import numbers
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sae_lens_signaware.checks import ConfigError, InvalidInputError, nearest, require, short

MIN_TEXTS = 10
"""Texts that the part to fit, and the part to report, must have at least."""

MIN_TEXTS_OF_CLASS = 2
"""Texts of each class that each of the parts must have at least."""

MAX_FIELD = 2**31 - 1
"""Characters of a text in a CSV at most: what a C long holds on every system."""

FIT, REPORT = "fit", "report"


class LabelledTexts(NamedTuple):
    """Texts, their labels, and the part of each where a column of the CSV gives it.

    Attributes:
        texts, labels: as the file has them, in its order.
        parts: "fit" or "report" for each text, or None.
    """

    texts: list[str]
    labels: list[str]
    parts: list[str] | None


class Labels(NamedTuple):
    """Labels as numbers.

    Attributes:
        values: (n,) float64; of two classes, 0 and 1.
        classes: the names of the classes 0 and 1; None where the labels are numbers.
    """

    values: np.ndarray
    classes: tuple[str, str] | None

    @property
    def metric(self) -> Literal["rho", "auc"]:
        """What a score is: Spearman's rho for numbers, the area under the ROC curve for classes."""
        return "rho" if self.classes is None else "auc"


def read_labelled_texts(
    path: str | Path,
    text_column: str = "text",
    label_column: str = "label",
    part_column: str | None = None,
) -> LabelledTexts:
    """Read a CSV file in UTF-8 whose first line names the columns.

    Args:
        text_column, label_column: their names.
        part_column: that of a column with "fit" or "report" for each text; None for none.

    Raises:
        ConfigError: the file is missing or no such CSV, lacks a column, or a row lacks a value.
        InvalidInputError: a text is empty.
    """
    path = Path(path)
    columns = {"text_column": text_column, "label_column": label_column}
    if part_column is not None:
        columns["part_column"] = part_column
    rows: list[list[str]] = []
    limit = csv.field_size_limit(MAX_FIELD)  # Python's is 131,072, and it is global
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which is no part of the first name
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(path, csv.reader(file, strict=True), columns):
                require_text(row[0], f"data: {path}, row {number}, {text_column}")
                rows.append(row)
    except FileNotFoundError:
        raise ConfigError(f"data: {path} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"data: {path} is a folder; name a CSV file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"data: {path} must be UTF-8: {error}") from None
    except csv.Error as error:
        raise ConfigError(f"data: {path} is no CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise ConfigError(f"data: {path} has no row below its first line")
    texts, labels, *parts = (list(column) for column in zip(*rows, strict=True))
    return LabelledTexts(texts, labels, parts[0] if parts else None)


def _rows(
    path: Path, lines: Iterator[list[str]], columns: dict[str, str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each row, the header's being 1, and its values of ``columns``."""
    header = next(lines, [])
    places = []
    for field, name in columns.items():
        if header.count(name) != 1:
            what = "no column" if name not in header else "more than one column"
            raise ConfigError(
                f"{field}: {path} has {what} {name!r}"
                + nearest(name, header, None if header else "it has no column")
            )
        places.append(header.index(name))
    for number, row in enumerate(lines, start=2):
        if not row:  # an empty line
            continue
        if len(row) != len(header):
            raise ConfigError(
                f"data: {path}, row {number} must have {len(header)} value(s), got {len(row)}"
            )
        yield number, [row[place] for place in places]


def require_text(text: object, field: str) -> None:
    """Raise InvalidInputError where ``text`` is no text, or holds white space alone."""
    require(isinstance(text, str) and bool(text.strip()), field, text, "a text that is not empty")


def labels_of(labels: Sequence[object]) -> Labels:
    """Take labels for numbers, or for two classes where they have two different values.

    So two different numbers are two classes, and the higher one is class 1. Of names, class 1 is
    the second in alphabetical order.

    Raises:
        InvalidInputError: a label is empty, neither a string nor a number, or not finite; there is
            one value only; or names have more than two.
    """
    for row, label in enumerate(labels, start=1):
        label = label.strip() if isinstance(label, str) else label
        is_label = isinstance(label, str | bool | np.bool_ | numbers.Real) and label != ""
        require(is_label, f"label of text {row}", label, "a number or a class")
    floats = [_number(label) for label in labels]
    names = [str(label).strip() for label in labels]
    are_names = None in floats  # all of them, and beside a name "inf" and "nan" are names too
    if are_names:
        values, codes = np.unique(names, return_inverse=True)
    else:
        for row, (label, number) in enumerate(zip(labels, floats, strict=True), start=1):
            require(math.isfinite(number or 0), f"label of text {row}", label, "finite")
        values, codes = np.unique(np.array(floats, dtype=float), return_inverse=True)
    if len(values) < 2:
        only = short(names[0]) if names else "no label"
        raise InvalidInputError(f"labels must have at least two different values, got only {only}")
    if len(values) == 2:
        # repr, for numbers that differ in a late digit are two names
        low, high = (str(v) if are_names else repr(float(v)).removesuffix(".0") for v in values)
        return Labels(codes.astype(float), (low, high))
    if are_names:
        odd = short(names[floats.index(None)])
        raise InvalidInputError(
            "labels must be numbers, or have two different values, "
            f"got {len(values)} values, one of them {odd}"
        )
    return Labels(values[codes], None)


def _number(label: object) -> float | None:
    """The label, a string or a number, as a number; None where it is a name."""
    if isinstance(label, str) and "_" in label:
        return None  # Python takes 1_1 for 11
    try:
        # whatever it is, float tells
        return float(label)  # pyright: ignore[reportArgumentType]
    except (ValueError, OverflowError):
        return None


def fit_mask(labels: Labels, parts: Sequence[str] | None, seed: int = 0) -> np.ndarray:
    """Tell which texts are fitted on, (n,) bool; the others are reported on.

    Args:
        parts: "fit" or "report" for each text. None draws one half by ``seed``, of each class.

    Raises:
        InvalidInputError: another part; a part has too few texts, or only one value of the label.
    """
    n = len(labels.values)
    if parts is None:
        fit = _random_half(labels, seed)
    else:
        require(len(parts) == n, "parts", len(parts), f"one for each of the {n} texts")
        for part in parts:
            require(part in (FIT, REPORT), "part", part, f"{FIT!r} or {REPORT!r}")
        fit = np.array([part == FIT for part in parts])
    for name, mask in ((FIT, fit), (REPORT, ~fit)):
        _require_enough(name, labels, mask)
    return fit


def _random_half(labels: Labels, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    fit = np.zeros(len(labels.values), dtype=bool)
    groups = labels.values if labels.classes else np.zeros(len(fit))
    for group in np.unique(groups):
        members = generator.permutation(np.flatnonzero(groups == group))
        fit[members[: len(members) // 2]] = True
    return fit


def _require_enough(name: str, labels: Labels, mask: np.ndarray) -> None:
    n = int(mask.sum())
    require(n >= MIN_TEXTS, f"texts of the part {name!r}", n, f"at least {MIN_TEXTS}")
    if labels.classes is None:
        n_values = len(np.unique(labels.values[mask]))
        require(n_values > 1, f"labels of the part {name!r}", n_values, "of two values at least")
        return
    for value, label in enumerate(labels.classes):
        n = int((labels.values[mask] == value).sum())
        require(
            n >= MIN_TEXTS_OF_CLASS,
            f"texts of class {label!r} in the part {name!r}",
            n,
            f"at least {MIN_TEXTS_OF_CLASS}",
        )
