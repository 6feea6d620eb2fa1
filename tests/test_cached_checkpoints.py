"""The folder of a checkpoint on cached activations: always one whole, and nobody else's."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import GatedTrainingSAEConfig

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training import cached as cached_training
from sae_lens_signaware.training.cached import InterruptedTraining, train_on_cache
from tests.support.saes import D_IN, training_config
from tests.support.training import StopsAfter, trainer_config


def test_of_an_earlier_and_a_later_checkpoint_one_is_always_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
    checkpoint = tmp_path / "c"

    def train(folder: Path = checkpoint) -> Any:
        return train_on_cache(
            training_config("sa_gsae"), trainer_config(30), activations, 1, folder
        )

    def dies(path: Any, **kwargs: Any) -> None:
        if Path(path) == checkpoint and checkpoint.exists():
            (checkpoint / "trainer_state.pt").unlink()
            raise KeyboardInterrupt  # a kill -9 leaves the same files
        remove(path, **kwargs)

    remove = cached_training.shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train()
        patch.setattr(cached_training.shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            train()
    resumed, n_steps = train()
    assert n_steps == 30 - 2 * 9
    for name, value in train(tmp_path / "whole")[0].state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert not list(tmp_path.glob(".*"))


def test_half_a_checkpoint_is_removed_and_the_earlier_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))

    def train() -> Any:
        cfg = training_config("sa_gsae"), trainer_config(30)
        return train_on_cache(*cfg, activations, 1, tmp_path / "c")[1]

    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train()
        patch.setattr(cached_training, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            train()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert train() == 30 - 9


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_checkpoint_is_left_alone(kind: str, tmp_path: Path) -> None:
    mine = tmp_path / "c" / "thesis.txt" if kind == "folder" else tmp_path / "c"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InvalidInputError, match="checkpoint must be a folder that is new, empty"):
        train_on_cache(
            training_config("sa_gsae"), trainer_config(12), activations, 1, str(tmp_path / "c")
        )
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_not_even_where_a_kill_has_left_a_checkpoint_beside_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, left = tmp_path / "c", tmp_path / ".c.partial"

    def train() -> Any:
        cfg = training_config("sa_gsae"), trainer_config(30)
        activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))
        return train_on_cache(*cfg, activations, 1, checkpoint)[1]

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train()
    checkpoint.rename(left)  # as a kill -9 leaves it, before it has its name
    mine = checkpoint / "thesis.txt" if kind == "folder" else checkpoint
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    with pytest.raises(InvalidInputError, match="checkpoint must be a folder that is new, empty"):
        train()
    assert mine.read_text() == "years of work"
    mine.unlink()
    assert train() == 30 - 9  # and the checkpoint was kept too


def test_a_place_that_takes_no_checkpoint_is_one_line_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def train(checkpoint: Path) -> None:
        activations = torch.randn(500, D_IN)
        train_on_cache(training_config("sa_gsae"), trainer_config(2), activations, 1, checkpoint)

    with pytest.raises(
        InvalidInputError, match=r"^checkpoint's folder must be a folder, got .*is a"
    ):
        train(tmp_path / "file" / "c")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda path: path == tmp_path / "volume")
        with pytest.raises(
            InvalidInputError, match=r"checkpoint must be .* can be renamed.*mounted"
        ):
            train(tmp_path / "volume")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("leads_somewhere", [True, False])
def test_a_link_to_a_checkpoint_is_followed(
    leads_somewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, link = tmp_path / "volume" / "c", tmp_path / "c"
    folder.parent.mkdir()
    if leads_somewhere:
        folder.mkdir()
    link.symlink_to(folder)
    activations = torch.randn(500, D_IN, generator=torch.Generator().manual_seed(0))

    def train() -> int:
        return train_on_cache(training_config("sa_gsae"), trainer_config(30), activations, 1, link)[
            1
        ]

    with monkeypatch.context() as patch:
        patch.setattr(cached_training, "ShuffledEpochs", StopsAfter)
        with pytest.raises(InterruptedTraining):
            train()
    assert link.is_symlink()
    assert (folder / cached_training.DONE_FILENAME).exists()
    assert train() == 30 - 9


@pytest.mark.parametrize(
    ("of_sae", "of_trainer", "field"),
    [
        ({}, {"device": torch.device("cpu")}, "trainer_cfg.device"),
        # SAELens's own configs keep what they are given
        ({"dtype": torch.float32}, {}, "sae_cfg.dtype"),
        ({"device": torch.device("cpu")}, {}, "sae_cfg.device"),
    ],
)
def test_settings_that_no_checkpoint_holds_are_one_line_before_the_training(
    of_sae: dict[str, Any], of_trainer: dict[str, Any], field: str, tmp_path: Path
) -> None:
    sae_cfg = GatedTrainingSAEConfig(d_in=D_IN, d_sae=24, **of_sae)
    trainer_cfg = dataclasses.replace(trainer_config(2), **of_trainer)
    with pytest.raises(InvalidInputError, match=f"^{field} must be a number, a text"):
        train_on_cache(sae_cfg, trainer_cfg, torch.randn(500, D_IN), 1, tmp_path / "c")


def test_numpys_seed_and_saelens_default_of_lr_end_train(tmp_path: Path) -> None:
    activations = torch.randn(500, D_IN)
    steps = dataclasses.replace(trainer_config(8), lr_end=None, lr_decay_steps=0, lr=1e-2)
    saes = [
        train_on_cache(training_config("sa_gsae"), cfg, activations, seed, tmp_path / "c")[0]
        for cfg, seed in (
            (steps, np.int64(3)),
            (dataclasses.replace(steps, lr_end=1e-3), 3),  # as SAELens's runner has it
        )
    ]
    assert torch.equal(saes[0].W_dec, saes[1].W_dec)
