"""The files of the packaged language models, each read once."""

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def each_read_once() -> Iterator[None]:
    """transformers reads a GGUF file anew for the config and the weights, ten seconds each time."""
    gguf = pytest.importorskip("gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
        yield


@contextlib.contextmanager
def each_loaded_once() -> Iterator[None]:
    """Loads a language model once for all tests of it that follow each other, as it takes 20 s.

    Each gets a copy, which has no hooks of another one.
    """
    auto: Any = pytest.importorskip("transformers").AutoModelForCausalLM
    load = functools.lru_cache(maxsize=1)(auto.from_pretrained)

    def from_pretrained(*args: Any, **kwargs: Any) -> Any:
        return copy.deepcopy(load(*args, **kwargs))

    with each_read_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "from_pretrained", from_pretrained)
        yield
