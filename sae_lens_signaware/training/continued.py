"""A trained SAE that another training goes on from."""

from typing import Any

from sae_lens import TrainingSAE, TrainingSAEConfig

from sae_lens_signaware.checks import InvalidInputError, one_line, require

SHARED = (
    "architecture", "d_in", "d_sae", "normalize_activations", "apply_b_dec_to_input",
    "two_sided", "rescale_acts_by_decoder_norm", "polarity_tying",
)  # fmt: skip
"""What the weights were trained for, so that a config has to say the same: with another value they
are another function. The last three are fields of some architectures alone."""


def require_loadable(path: str, cfg: TrainingSAEConfig) -> None:
    """Load the SAE of ``from_pretrained_path`` before a language model is, and let it go again.

    Raises:
        InvalidInputError: it cannot be loaded, or ``cfg`` is of another SAE.
    """
    try:
        trained = TrainingSAE.load_from_disk(path, device="cpu")
    except Exception as error:  # whatever a broken file makes SAELens, json or safetensors raise
        kind, line = type(error).__name__, one_line(error)[:200]
        raise InvalidInputError(
            f"from_pretrained_path: {path!r} cannot be loaded: {kind}: {line}"
        ) from error
    with_settings_of(cfg, trained)


def with_settings_of(cfg: TrainingSAEConfig, trained: TrainingSAE[Any]) -> TrainingSAE[Any]:
    """Put the weights and the state of a trained SAE under the settings of a config.

    Raises:
        InvalidInputError: the config is of another SAE; one line that names the field.
    """
    asked, held = cfg.to_dict(), trained.cfg.to_dict()
    for name in SHARED:
        if name in held and name in asked:
            allowed = f"{held[name]!r}, as in from_pretrained_path"
            require(asked[name] == held[name], f"sae.{name}", asked[name], allowed)
    sae = TrainingSAE.from_dict(asked)
    try:
        sae.load_state_dict(trained.state_dict())
    except RuntimeError as error:  # another polarity_tying has other parameters
        raise InvalidInputError(
            f"sae: the weights of from_pretrained_path do not fit it: {one_line(error)}"
        ) from None
    return sae.to(trained.device)
