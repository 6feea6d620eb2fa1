"""What a result of a sweep depends on, and whether two such identities are the same."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sae_lens.constants import DTYPE_MAP

from sae_lens_signaware.experiments.sweep.config import Run, SweepConfig
from sae_lens_signaware.files import as_json
from sae_lens_signaware.saes.config import BEFORE_DEAD_AFTER_TOKENS
from sae_lens_signaware.training.checkpoints import OF_ACTIVATIONS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Identity = dict[str, Any]
Content = dict[str, str | None]
"""Digests by what they are of; None where one cannot be had. Results of 0.1.0 have none at all."""


class Match(enum.Enum):
    """Agreement of a result or cache on disk with the one that is asked for."""

    OTHER = "other"
    """Of another config, or no identity."""

    OTHER_CONTENT = "other content"
    """Paths and settings match, the digest of model or text does not."""

    UNCHECKED = "unchecked"
    """Paths and settings match; a digest that can be had now was not kept."""

    SAME = "same"

    @property
    def is_accepted(self) -> bool:
        """Whether the result is taken."""
        return self in (Match.UNCHECKED, Match.SAME)


def identity_of_cache(config: SweepConfig, run: Run, content: Content) -> Identity:
    """Return all that the activations of a run's cell depend on."""
    values = {name: getattr(run.cfg, name) for name in OF_ACTIVATIONS} | {
        "n_cached_tokens": config.n_cached_tokens,
        "n_heldout_tokens": config.n_heldout_tokens,
        "heldout_dataset_path": config.heldout_dataset_path,
        "content": content,
    }
    cache_dtype = other_cache_dtype(run)
    if cache_dtype is not None:  # results of before there was a choice stay valid
        values["cache_dtype"] = cache_dtype
    return as_json(values)


def other_cache_dtype(run: Run) -> str | None:
    """Name the dtype of the run's cache where it is not that of the runner; else None."""
    if run.cache_dtype == DTYPE_MAP[run.cfg.dtype]:
        return None
    return str(run.cache_dtype).removeprefix("torch.")


def identity_of_run(config: SweepConfig, run: Run, content: Content) -> Identity:
    """Return all that the result of a run depends on."""
    values = {
        "sae": run.cfg.sae.to_dict(),
        "trainer": dataclasses.asdict(run.cfg.to_sae_trainer_config()),
        "seed": run.seed,
        "cache": identity_of_cache(config, run, content),
    }
    return as_json(values)


def match_of_cache(on_disk: object, asked: Identity) -> Match:
    """Compare the identity of a cache on disk with the one that is asked for."""
    if not isinstance(on_disk, dict):
        return Match.OTHER
    have, need = dict(on_disk), dict(asked)
    contents = have.pop("content", {}), need.pop("content", {})
    return _match_of_content(*contents) if have == need else Match.OTHER


def match_of_run(on_disk: object, asked: Identity, run: Run) -> Match:
    """Compare the identity of a result on disk with the one that is asked for.

    A field that came with a later version of the package stood at its default before there was one,
    or at what switches it off, so that an upgrade does not train everything again.
    """
    have, need = _comparable(on_disk), _comparable(asked)
    if have is None or need is None:
        return Match.OTHER
    for part, cfg in (("sae", run.cfg.sae), ("trainer", run.cfg.to_sae_trainer_config())):
        later = {k: v for k, v in values_before(cfg).items() if k in need[part]}
        have[part] = {**later, **have[part]}
    of_cache = match_of_cache(have.pop("cache"), need.pop("cache"))
    return of_cache if have == need else Match.OTHER


def _match_of_content(have: object, need: Mapping[str, str | None]) -> Match:
    known = have if isinstance(have, dict) else {}
    checkable = {name: digest for name, digest in need.items() if digest is not None}
    if any(known.get(name) not in (None, digest) for name, digest in checkable.items()):
        return Match.OTHER_CONTENT
    return Match.SAME if all(known.get(name) for name in checkable) else Match.UNCHECKED


def _comparable(identity: object) -> Identity | None:
    # SAELens's metadata hold the fields of the SAE once more; None: no identity, but whatever a
    # file may hold
    match identity:
        case {"sae": {"metadata": {**metadata}, **sae}, "trainer": {**trainer}, **rest} if (
            "cache" in rest
        ):
            metadata.pop("training_architecture_details", None)
            return {**rest, "sae": {**sae, "metadata": metadata}, "trainer": trainer}
    return None


def values_before(cfg: "DataclassInstance") -> dict[str, object]:
    """What each field that a config of an earlier version lacks stood at."""
    fields = dataclasses.fields(cfg)
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return defaults | BEFORE_DEAD_AFTER_TOKENS
