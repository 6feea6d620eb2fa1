"""The files of the packaged language models, each read once."""

import contextlib
import functools
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def each_read_once() -> Iterator[None]:
    """transformers reads a GGUF file anew for the config and the weights, ten seconds each time."""
    gguf = pytest.importorskip("gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", functools.cache(gguf.GGUFReader))
        yield
