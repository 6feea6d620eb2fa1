"""Values of a runner config that have the right type, and that SAELens would stop at later."""

import json
import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from sae_lens import (
    JumpReLUTrainingSAEConfig,
    LanguageModelSAERunnerConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TrainingSAEConfig,
)
from sae_lens.constants import DTYPE_MAP

from sae_lens_signaware.checks import one_line, require, require_64_bits
from sae_lens_signaware.evaluation.calibration import PER_TOKEN
from sae_lens_signaware.saes.bi_matryoshka_batchtopk import require_widths

AT_LEAST_ONE = (
    "training_tokens", "train_batch_size_tokens", "context_size", "n_batches_in_buffer",
    "store_batch_size_prompts", "n_batches_for_norm_estimate", "feature_sampling_window",
    "dead_feature_window",
)  # fmt: skip
MAX_CONTEXT = 2**24
"""Tokens; no model has as many positions."""
SCHEDULERS = ("constant", "cosineannealing", "cosineannealingwarmrestarts")
LOGGER_AT_LEAST_ONE = ("wandb_log_frequency", "eval_every_n_wandb_logs")
MODEL_CLASSES = ("HookedTransformer", "HookedMamba", "AutoModelForCausalLM")
DEVICES = ("device", "llm_device", "act_store_device")
SAELENS_AUXK = ("topk", "batchtopk", "matryoshka_batchtopk", "abstopk")
"""Architectures of SAELens whose AuxK loss raises for a normalisation by token."""


def check_counts(values: Mapping[str, object], logger: Mapping[str, object]) -> None:
    """Check what a constructor of SAELens divides by or takes apart, of a config or of a file.

    Args:
        logger: what the section ``logger`` holds.

    Raises:
        InvalidInputError: the first field that is not.
    """
    fields = [(name, values.get(name)) for name in AT_LEAST_ONE]
    fields += [(f"logger.{name}", logger.get(name)) for name in LOGGER_AT_LEAST_ONE]
    for name, value in fields:
        if isinstance(value, int):
            require(value >= 1, name, value, "at least 1")
            # as range() takes; SAELens makes a list of the positions of a context
            most = MAX_CONTEXT if name == "context_size" else sys.maxsize
            require(value <= most, name, value, f"at most {most}")
    positions = values.get("seqpos_slice")
    if isinstance(positions, list | tuple):
        default = LanguageModelSAERunnerConfig.context_size
        _check_positions(list(positions), values.get("context_size", default))


def _check_positions(positions: list[Any], context_size: object) -> None:
    allowed = "one to three numbers, as slice() takes them"
    require(1 <= len(positions) <= 3, "seqpos_slice", positions, allowed)
    if not all(isinstance(number, int | None) for number in [*positions, context_size]):
        return  # named with their types
    # SAELens refuses a step of 1, and None as the third number
    step = positions[2] if len(positions) == 3 else 2
    is_above_1 = isinstance(step, int) and step > 1
    require(is_above_1, "seqpos_slice", positions, "without a step, or with one above 1")
    n_left = len(range(context_size)[slice(*positions)]) if isinstance(context_size, int) else 1
    allowed = f"a slice that leaves a position of context_size, {context_size}"
    require(n_left > 0, "seqpos_slice", positions, allowed)


def check_values(cfg: LanguageModelSAERunnerConfig[Any]) -> None:
    """Check numbers, dtypes and names of a runner config.

    Raises:
        InvalidInputError: the first field that is wrong.
    """
    check_counts(vars(cfg), vars(cfg.logger))
    steps = cfg.training_tokens // cfg.train_batch_size_tokens
    allowed = f"at least train_batch_size_tokens, {cfg.train_batch_size_tokens}"
    require(steps >= 1, "training_tokens", cfg.training_tokens, allowed)
    require(0 < cfg.lr < 1e30, "lr", cfg.lr, "a number above 0 and below 1e30")
    for name in ("adam_beta1", "adam_beta2"):
        value = getattr(cfg, name)
        require(0 <= value < 1, name, value, "at least 0 and below 1")
    _check_dtype("dtype", cfg.dtype, DTYPE_MAP)
    check_sae_dtype(cfg.sae)
    check_sae_values(cfg.sae)
    check_gated_dtype(cfg.sae, cfg.dtype, cfg.autocast)
    # SAELens looks at it when it loads the SAE, after the training
    reshaping, is_z = cfg.sae.reshape_activations, cfg.hook_name.endswith("_z")
    allowed = f"none, as hook_name {cfg.hook_name!r} does not end in _z"
    require(is_z or reshaping != "hook_z", "sae.reshape_activations", reshaping, allowed)
    require_json("sae", cfg.sae.to_dict())
    for name in ("model_kwargs", "model_from_pretrained_kwargs"):
        require_json(name, getattr(cfg, name) or {})
    require_64_bits("seed", cfg.seed)
    require_one_of("model_class_name", cfg.model_class_name, MODEL_CLASSES)
    mixing = cfg.activations_mixing_fraction
    require(0 <= mixing <= 1, "activations_mixing_fraction", mixing, "between 0 and 1")
    if cfg.logger.log_to_wandb:
        allowed, n = "at least 1 where logger.log_to_wandb is true", cfg.n_eval_batches
        fewer = "raise logger.eval_every_n_wandb_logs for fewer evaluations"
        require(n >= 1, "n_eval_batches", n, allowed, fewer)
    _check_schedule(cfg)


def check_sae_values(cfg: TrainingSAEConfig) -> None:
    """Check what SAELens's own classes take as it is, and stop at later.

    Raises:
        InvalidInputError: the first field that is wrong.
    """
    _check_widths(cfg)
    _check_saelens_own(cfg)


def _check_widths(cfg: TrainingSAEConfig) -> None:
    """Check the shape of an SAE, which SAELens's own classes take as it is."""
    for name in ("d_in", "d_sae"):
        require(getattr(cfg, name) >= 1, f"sae.{name}", getattr(cfg, name), "at least 1")
    k = getattr(cfg, "k", None)
    is_right = k is None or 0 < k <= cfg.d_sae
    require(is_right, "sae.k", k, f"above 0 and at most d_sae, {cfg.d_sae}")


def _check_saelens_own(cfg: TrainingSAEConfig) -> None:
    """Check what SAELens looks at when it makes an SAE of its own, or in the training."""
    if isinstance(cfg, MatryoshkaBatchTopKTrainingSAEConfig):
        require_widths("sae.matryoshka_widths", cfg.matryoshka_widths, cfg.d_sae)
    if isinstance(cfg, JumpReLUTrainingSAEConfig):
        bandwidth, target = cfg.jumprelu_bandwidth, cfg.target_l0
        require(bandwidth > 0, "sae.jumprelu_bandwidth", bandwidth, "a number above 0")
        if cfg.jumprelu_sparsity_loss_mode == "quadratic":
            is_right = target is not None and 0 < target <= cfg.d_sae
            allowed = f"above 0 and at most d_sae, {cfg.d_sae}, for the quadratic loss"
            require(is_right, "sae.target_l0", target, allowed)
    if cfg.architecture() in SAELENS_AUXK:
        require(
            cfg.normalize_activations not in PER_TOKEN,
            "sae.normalize_activations",
            cfg.normalize_activations,
            "none, expected_average_only_in or covariance_whitening",
            f"the AuxK loss of SAELens's {cfg.architecture()} stops at a dead latent otherwise",
        )


def check_gated_dtype(cfg: TrainingSAEConfig, dtype: str | torch.dtype, autocast: bool) -> None:
    """Check that SAELens's ``gated`` can take activations of a dtype: it does not cast its input.

    Raises:
        InvalidInputError: they are wider than the SAE.
    """
    own = DTYPE_MAP[str(cfg.dtype)]
    theirs = dtype if isinstance(dtype, torch.dtype) else DTYPE_MAP[dtype]
    require(
        cfg.architecture() != "gated" or autocast or torch.promote_types(own, theirs) == own,
        "sae.dtype",
        cfg.dtype,
        f"as wide as that of the activations, {theirs}, for SAELens's gated without autocast",
    )


def check_sae_dtype(cfg: TrainingSAEConfig) -> None:
    """Check the dtype that an SAE is trained in.

    float16 is refused: there the 1e-8 that SAELens's Adam adds to its denominator is 0, and a
    weight without a gradient becomes NaN in the first step.

    Raises:
        InvalidInputError: no dtype that an SAE can be trained in.
    """
    trainable = [name for name, dtype in DTYPE_MAP.items() if dtype != torch.float16]
    _check_dtype("sae.dtype", cfg.dtype, trainable)


def _check_dtype(field: str, value: object, names: Collection[str]) -> None:
    name = str(value)  # of a torch.dtype, "torch.float32"
    allowed = ", ".join(name for name in names if "." not in name)
    require(name in names, field, value, f"one of {allowed}")


def _check_schedule(cfg: LanguageModelSAERunnerConfig[Any]) -> None:
    """Check the fields of SAELens's learning rate scheduler, which stops at some of them late."""
    name = cfg.lr_scheduler_name.lower()
    require_one_of("lr_scheduler_name", name, SCHEDULERS)
    for field in ("lr_end", "lr_warm_up_steps", "lr_decay_steps"):
        value = getattr(cfg, field) or 0
        require(value >= 0, field, value, "at least 0")
    if name == SCHEDULERS[0]:
        return
    at_end = "above 0 where lr_decay_steps is set"
    require(cfg.lr_end != 0 or not cfg.lr_decay_steps, "lr_end", cfg.lr_end, at_end)
    end = cfg.lr / 10 if cfg.lr_end is None else cfg.lr_end  # as SAELens has it
    require(end <= cfg.lr, "lr_end", end, f"at most lr, {cfg.lr:g}")
    left = check_ramps(cfg, between=1)
    cycles, allowed = cfg.n_restart_cycles, f"between 1 and the {left} steps that are no ramp"
    if name == SCHEDULERS[2]:
        require(1 <= cycles <= left, "n_restart_cycles", cycles, allowed)


def check_ramps(cfg: LanguageModelSAERunnerConfig[Any], between: Literal[0, 1] = 0) -> int:
    """Check that warm-up and decay of the learning rate fit into the training.

    SAELens takes others: the decay then starts with the first step, and does not reach its end.
    So do the ramps of :func:`check_ramps_of_l0`.

    Args:
        between: steps that are to be between them.

    Returns:
        How many are.

    Raises:
        InvalidInputError: fewer are, or one of them is too long.
    """
    steps = cfg.training_tokens // cfg.train_batch_size_tokens
    left = steps - cfg.lr_warm_up_steps - cfg.lr_decay_steps
    ramps = f"{cfg.lr_warm_up_steps} + {cfg.lr_decay_steps}"
    allowed = f"{'below' if between else 'at most'} the {steps} steps of the training"
    require(left >= between, "lr_warm_up_steps + lr_decay_steps", ramps, allowed)
    check_ramps_of_l0(cfg.sae, steps)
    return left


def steers_l0(sae: TrainingSAEConfig) -> bool:
    """Whether the sparsity of an SAE is steered to its ``target_l0``."""
    # the quadratic loss of bi_jumprelu holds L0 by itself
    by_loss = getattr(sae, "jumprelu_sparsity_loss_mode", None) == "quadratic"
    is_asked = getattr(sae, "target_l0", None) is not None and hasattr(sae, "target_l0_rate")
    return is_asked and not by_loss


def check_ramps_of_l0(sae: TrainingSAEConfig, steps: int) -> None:
    """Check that an SAE can come to the L0 that it is asked for.

    Where ``target_l0`` steers the sparsity, its warm-up has to end before the training does: until
    then the coefficient is only lowered. So has ``k_anneal_steps``, or ``k`` is not reached.

    Args:
        steps: of the training.

    Raises:
        InvalidInputError: one of them is too long.
    """
    if steers_l0(sae):
        fields = sae.to_dict()  # NAME_warm_up_steps, of any architecture
        for name in (name for name in fields if name.endswith("_warm_up_steps")):
            value = fields[name]
            allowed = f"below the {steps} steps of the training where target_l0 is set"
            require(value < steps, f"sae.{name}", value, allowed)
    n_anneal, allowed = getattr(sae, "k_anneal_steps", 0), f"below the {steps} steps"
    require(n_anneal < steps, "sae.k_anneal_steps", n_anneal, f"{allowed} of the training")


def check_buffer(cfg: LanguageModelSAERunnerConfig[Any]) -> None:
    """Check that SAELens's buffer, which a training on text reads, holds a batch.

    Raises:
        InvalidInputError: it is smaller.
    """
    positions = range(cfg.context_size)[slice(*cfg.seqpos_slice)]
    # SAELens would read on for a batch for ever
    is_empty = cfg.exclude_special_tokens is True and cfg.prepend_bos and set(positions) == {0}
    allowed = "a slice of more than the BOS token, which exclude_special_tokens leaves out"
    require(not is_empty, "seqpos_slice", cfg.seqpos_slice, allowed)
    n_positions = len(positions)
    buffer, batch = cfg.n_batches_in_buffer * n_positions, cfg.train_batch_size_tokens
    product = f"{cfg.n_batches_in_buffer} * {n_positions}"
    allowed = f"at least train_batch_size_tokens, {batch}"
    require(buffer >= batch, "n_batches_in_buffer * positions of a context", product, allowed)


def require_json(field: str, values: Mapping[str, object]) -> None:
    """Raise InvalidInputError where a value of a config cannot stand in its cfg.json."""
    for name, value in values.items():
        try:
            json.dumps(value)
        except TypeError as error:
            allowed = "a number, a text or another value of JSON"
            require(False, f"{field}.{name}", value, allowed, one_line(error))


def require_one_of(field: str, value: object, names: tuple[str, ...]) -> None:
    """Raise InvalidInputError where ``value`` is not one of the names."""
    require(value in names, field, value, f"one of {', '.join(names)}")


def check_devices(cfg: LanguageModelSAERunnerConfig[Any]) -> None:
    """Check that this machine has the devices of a runner config.

    Raises:
        InvalidInputError: the first field whose device is not here, or is none.
    """
    for name, value in [(name, getattr(cfg, name)) for name in DEVICES] + [
        ("sae.device", cfg.sae.device)
    ]:
        if value is not None and value != "with_model":
            require_device(name, value)


def require_device(field: str, value: object) -> None:
    """Raise InvalidInputError where torch knows no device of this name, or it computes nothing."""
    why = _why_not(str(value))
    require(not why, field, str(value), "a device that computes here, such as cpu or cuda", why)


def _why_not(device: str) -> str:
    # what torch raises: of a name that it does not know or a device that is not here, of a torch
    # that was built without the device, and of a device that holds no data
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return one_line(error).split(". ")[0]
    return ""
