"""What an installed package must do: run in a clean environment, in an empty folder."""

import importlib.metadata
import importlib.resources
import importlib.util
import subprocess
import sys
from pathlib import Path

import torch
from sae_lens import SAE, SAETrainer, TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from typer.testing import CliRunner

import sae_lens_signaware as signaware
from sae_lens_signaware.cli import app


def batches():
    while True:
        yield torch.randn(64, 8)


def run_script(*command: str) -> str:
    """Output of the script that pip wrote."""
    program = Path(sys.executable).parent / "sae-lens-signaware"
    return subprocess.run(
        [str(program), *command], check=True, capture_output=True, text=True
    ).stdout


def run_here(*command: str) -> str:
    """Output of the same command in this process, which has loaded torch already."""
    return CliRunner().invoke(app, command, catch_exceptions=False).stdout


def main() -> None:
    package = importlib.resources.files("sae_lens_signaware")
    assert "site-packages" in str(package), package
    assert (package / "py.typed").is_file()
    assert importlib.metadata.version("sae-lens-signaware") == signaware.__version__
    extras = ("gguf", "matplotlib", "pytest", "ray", "mkdocs")
    assert not [name for name in extras if importlib.util.find_spec(name)]  # the core came alone

    ours = {
        architecture: config_class
        for architecture, (_, config_class) in SAE_TRAINING_CLASS_REGISTRY.items()
        if config_class.__module__.startswith("sae_lens_signaware.")
    }
    assert ours
    for architecture, config_class in ours.items():
        sparsity = "k" if hasattr(config_class, "k") else "target_l0"
        nested = "matryoshka" in architecture
        widths = {"matryoshka_widths": [4, 12]} if nested else {}
        cfg = config_class(**{"d_in": 8, "d_sae": 12, sparsity: 3}, **widths)
        trainer_cfg = SAETrainerConfig(
            total_training_samples=640, train_batch_size_samples=64, lr=1e-3, lr_end=1e-3
        )
        trained = SAETrainer(trainer_cfg, TrainingSAE.from_dict(cfg.to_dict()), batches()).fit()
        trained.save_inference_model(architecture)
        x = torch.randn(32, 8)
        sae = SAE.load_from_disk(architecture)
        # a BatchTopK chooses by the batch while it trains, and by a threshold once it is saved
        expected = trained.to_inference() if hasattr(trained, "to_inference") else trained
        torch.testing.assert_close(sae(x), expected(x))
        run_here("split", architecture, f"{architecture}-plain")
        torch.testing.assert_close(SAE.load_from_disk(f"{architecture}-plain")(x), sae(x))
        assert signaware.bipolar_census(sae, x).n_tokens == 32
        audited = run_here("audit", f"{architecture}-plain")
        assert "merging would free 12" in " ".join(audited.split())
    one = f"{next(iter(ours))}-plain"
    assert run_script("audit", one) == run_here("audit", one)
    assert "Usage: sae-lens-signaware train" in run_script("train", "--help")
    for command in ("train", "demo", "sweep", "protocol", "report", "push", "analyze", "merge"):
        assert f"sae-lens-signaware {command}" in run_here(command, "--help")
    print("smoke test passed")


if __name__ == "__main__":
    main()
