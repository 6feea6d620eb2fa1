"""The one error class for a user's input, and the helpers that raise it."""

import difflib
import re
from collections.abc import Iterable


class InvalidInputError(ValueError):
    """A wrong input, in one line: the field, its value, and what is allowed.

    The command line prints it and exits with 2.
    """


def require(ok: bool, field: str, value: object, allowed: str) -> None:
    """Raise InvalidInputError unless ``ok``: "FIELD must be ALLOWED, got VALUE"."""
    if not ok:
        raise InvalidInputError(f"{field} must be {allowed}, got {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "; did you mean 'x'?", or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def one_line(error: BaseException) -> str:
    """The message of an error on one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def require_hub_ids(repo_id: str, sae_id: str) -> None:
    """Raise InvalidInputError unless the Hub and :func:`~sae_lens_signaware.push` take these."""
    require(bool(re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id)), "repo_id", repo_id, "owner/name")
    is_path = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", sae_id) and not sae_id.endswith("-plain")
    allowed = "a folder name, without '-plain' at its end, which its twin has"
    require(bool(is_path), "sae_id", sae_id, allowed)
