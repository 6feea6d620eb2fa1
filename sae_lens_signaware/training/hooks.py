"""The model of a runner config: whether it is there, and its hook point's width."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HFValidationError
from sae_lens import LanguageModelSAERunnerConfig, TrainingSAEConfig
from sae_lens.load_model import load_model
from sae_lens.util import extract_stop_at_layer_from_tlens_hook_name
from torch import Tensor

from sae_lens_signaware.checks import ConfigError, one_line, require
from sae_lens_signaware.evaluation.models import (
    HookedRootModule,
    require_head,
    require_hook,
    require_positions,
    vocabulary_of,
)
from sae_lens_signaware.training.values import MODEL_CLASSES, require_device, require_one_of

OF_MODEL = {
    "unexpected keyword argument": "model_from_pretrained_kwargs",
    "`dtype` provided as a `str`": "model_from_pretrained_kwargs",
    "Unrecognized model in": "model_name",
    "you are trying to load has model type": "model_name",
    "mamba-lens must be installed": "model_class_name",
    "ignore_mismatched_sizes": "model_name: the weights do not fit its config.json",
}
"""What an error of SAELens or transformers says of the model -> the field that it is about."""

OF_MODEL_KWARGS = {
    "module 'torch' has no attribute": "model_from_pretrained_kwargs",
    "attn_implementation": "model_from_pretrained_kwargs",
    "FlashAttention": "model_from_pretrained_kwargs",
    "bitsandbytes": "model_from_pretrained_kwargs",
    "device_map": "model_from_pretrained_kwargs",
}
"""The same, where there are such keyword arguments; without them it is a defect."""

OF_TEXT = {
    "Dataset must have a": "dataset_path",
    "Unknown split": "dataset_path",
    "corresponds to no data": "dataset_path: the dataset has no row",
    "JSON parse error": "dataset_path",
    "Parquet magic bytes": "dataset_path",
    "Unable to fill buffer": "dataset_path, training_tokens: the text is short, or empty",
    "You need to specify either `text`": "dataset_path: every text must be a string",
    "text input must be of type `str`": "dataset_path: every text must be a string",
    "tokens.shape should be 1D": "dataset_path: every text must be a string",
    "tokenizer.chat_template is not set": "use_chat_formatting",
    "pretokenized dataset has context_size": "context_size, dataset_path",
}
"""What an error of SAELens, transformers or datasets says of the text -> the field."""

NO_TEXT = (
    *("Couldn't find any data file", "doesn't contain any data files"),
    *("Couldn't reach", "doesn't exist on the Hub"),
)
"""What the datasets library says where a path is neither here nor on the Hub."""


def _with_field(error: str, fields: Mapping[str, str]) -> str | None:
    """The error in one line after its field; None for one that is not known."""
    known = (f"{field}: {one_line(error)}" for words, field in fields.items() if words in error)
    return next(known, None)


@contextlib.contextmanager
def naming_what_is_wrong_in_text() -> Iterator[None]:
    """Say in one line, with the field of the config, what a library says of the text.

    Raises:
        ConfigError: as above.
    """
    try:
        yield
    except ValueError as error:
        line = _with_field(str(error), OF_TEXT)
        if line is None:
            raise
        raise ConfigError(line) from None
    except DatasetGenerationError as error:
        raise ConfigError(f"dataset_path: {one_line(error.__cause__ or error)}") from None


@contextlib.contextmanager
def naming_what_is_missing(
    model_name: str,
    model_class_name: str,
    model_from_pretrained_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Say in one line which module, model or text SAELens does not find.

    It hooks just the named modules of a transformers model; its HookedTransformer takes any name,
    see :func:`require_hook`. A missing folder is taken for a name on the Hub, and where the Hub
    cannot be reached, transformers' error names neither.

    Raises:
        ConfigError: naming the field of the config.
        OSError: naming the model or the text.
    """
    try:
        with naming_what_is_wrong_in_text():
            yield
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"model_name: a file of {model_name!r} is no JSON: {one_line(error)}"
        ) from None
    except HFValidationError as error:
        raise ConfigError(
            "dataset_path, model_name: SAELens asks the Hub which tokenizer a tokenized dataset is "
            f"of, and a local path has to look like a name there, as data/tokens: {one_line(error)}"
        ) from None
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        line = _line_of(str(error), model_name, model_class_name)
        if line is None and model_from_pretrained_kwargs:
            line = _with_field(str(error), OF_MODEL_KWARGS)
        if line is None:
            raise
        raise ConfigError(line) from error
    except StopIteration:
        raise ConfigError("dataset_path: the dataset has no row") from None
    except OSError as error:
        if any(words in str(error) for words in NO_TEXT):
            raise OSError(
                f"dataset_path: no text is there, and the Hub did not give it: {one_line(error)}"
            ) from error
        named = model_name in str(error) and "Repo id must be" not in str(error)
        # transformers raises OSError itself, the datasets library classes below it
        if type(error) is not OSError or named or Path(model_name).exists():
            raise
        raise OSError(
            f"model_name: {model_name!r} is no folder here, and the Hub did not give it: {error}"
        ) from error


def _line_of(error: str, model_name: str, model_class_name: str) -> str | None:
    """The line for what SAELens and transformers raise of a wrong config; None for a defect."""
    if "hook_names not found" in error:
        missing = error.rpartition(":")[2].strip(" []")
        return (
            f"hook_name: the model has no module {missing} (model_class_name {model_class_name}: "
            "names of its submodules, e.g. 'model.layers.15.mlp')"
        )
    if "Valid official model names" in error:  # and TransformerLens lists some hundred
        return (
            f"model_name: TransformerLens does not know {model_name!r}; a model of transformers "
            "needs model_class_name: AutoModelForCausalLM"
        )
    return _with_field(error, OF_MODEL)


def load_model_with_hooks(
    model_name: str,
    model_class_name: str,
    model_from_pretrained_kwargs: Mapping[str, Any] | None,
    hook_names: Sequence[str],
    device: str = "cpu",
) -> HookedRootModule:
    """Load a model as SAELens hooks it, with one clear line where it lacks a hook.

    Raises:
        InvalidInputError: it lacks one of ``hook_names``; no such class, or no such device here.
        OSError: there is no such model.
    """
    require_one_of("model_class_name", model_class_name, MODEL_CLASSES)
    require_device("device", device)
    with naming_what_is_missing(model_name, model_class_name, model_from_pretrained_kwargs):
        model = load_model(
            model_class_name,
            model_name,
            device=device,
            model_from_pretrained_kwargs=dict(model_from_pretrained_kwargs or {}),
            hook_names=list(hook_names),
        )
    for hook in hook_names:
        require_hook(model, hook)
    return model


def require_width(
    model: HookedRootModule,
    cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig],
    field: str = "sae.d_in",
) -> None:
    """Raise InvalidInputError where ``sae.d_in`` is not the width of the hook's activations.

    The width is read from one context. So one that is too long for the model is named as well, and
    a separator that is no token of it.

    Args:
        field: where the user has written it.
    """
    require_positions(model, "context_size", cfg.context_size)
    n, separator = vocabulary_of(model), cfg.sequence_separator_token
    if isinstance(separator, int) and n is not None:
        is_token = 0 <= separator < n
        require(is_token, "sequence_separator_token", separator, f"a token id from 0 to {n - 1}")
    shape = activations_of_one_context(model, cfg).shape
    hook, head = cfg.hook_name, cfg.hook_head_index
    require(len(shape) > 2, "hook_name", hook, "a hook of (batch, position, ...) activations")
    require_head(hook, head, shape)
    width = shape[2:].numel() if head is None else shape[-1]  # SAELens joins the heads
    require(cfg.sae.d_in == width, field, cfg.sae.d_in, f"{width}, the width of hook {hook!r}")


@torch.no_grad()
def activations_of_one_context(
    model: HookedRootModule, cfg: LanguageModelSAERunnerConfig[TrainingSAEConfig]
) -> Tensor:
    """Return what the hook holds for one context of token 0, before SAELens selects or joins heads.

    No text is read, and no random number is drawn: the training that follows is the same.
    """
    tokens = torch.zeros(1, cfg.context_size, dtype=torch.long)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        # the class's method: with compile_llm the object's own one is compiled for another shape
        _, cache = type(model).run_with_cache(
            model,
            tokens.to(next(model.parameters()).device),
            names_filter=[cfg.hook_name],
            stop_at_layer=extract_stop_at_layer_from_tlens_hook_name(cfg.hook_name),
            prepend_bos=False,
            **cfg.model_kwargs,
        )
    if cfg.hook_name not in cache:
        raise ConfigError(f"hook_name: the output of {cfg.hook_name!r} is no tensor")
    return cache[cfg.hook_name]
