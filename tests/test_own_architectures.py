"""What an architecture of a user may have beyond the example of the docs: a k, buffers of its own,
no threshold; and what `register` and the mixins refuse."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from sae_lens import (
    SAE,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
)
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from torch import Tensor
from transformer_lens import HookedTransformer

from sae_lens_signaware import saes
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.saes import state
from sae_lens_signaware.saes.config import MINUS_BIAS_INIT, minus_bias_init_of
from tests.support.checked_runs import make_runner
from tests.support.models import tiny_model_config
from tests.support.training import step_input

D_IN, D_SAE = 16, 200
GAIN = 0.123456


@dataclass
class Fields(saes.SignedFields):
    polarity_tying: Literal["full"] = "full"

    @classmethod
    def architecture(cls) -> str:
        return "own_topk"


@dataclass
class Config(Fields, saes.SignedSAEConfig):
    k: int = 4


class Own(saes.SignedSAEMixin):
    """z = gain * h of the k largest |h| of each token."""

    gain: torch.nn.Parameter

    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.gain = torch.nn.Parameter(torch.ones(1, device=self.device))

    def _activate(self, pre: Tensor, latents: saes.Latents) -> Tensor:
        keep = pre.abs().topk(self.cfg.k, dim=-1).indices
        kept = torch.zeros_like(pre).scatter(-1, keep, pre.gather(-1, keep))
        return kept * self.gain.to(pre.dtype)

    def to_plain(self) -> TopKSAE:
        one_side = {"b_enc": torch.zeros(2 * self.cfg.d_sae)}
        decoder = {"W_dec": torch.cat([self.W_dec, -self.W_dec]) * self.gain}
        fields = {"k": self.cfg.k, "rescale_acts_by_decoder_norm": False}
        return saes.make_plain(self, TopKSAE, TopKSAEConfig, one_side | decoder, fields=fields)


class OwnSAE(Own, SAE[Config]): ...


@dataclass
class TrainingConfig(Fields, saes.SignedTrainingFields, TopKTrainingSAEConfig):
    k: int = 4
    widths: tuple[int, ...] = (1, 2)  # JSON has a list in its place


class Training(saes.DeadLatentsMixin, Own, TrainingSAE[TrainingConfig]):
    _auxk_names = ("aux_loss_coefficient", "auxiliary_reconstruction_loss")
    _training_state = ("firing_ema", "n_seen")
    _kept_in_own_dtype = ("gain",)

    firing_ema: Tensor
    n_seen: Tensor

    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64, device=self.device))
        self.register_buffer("firing_ema", torch.zeros(self.cfg.d_sae, device=self.device))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(state, "_declared", set())
    saes.register(OwnSAE, Config, Training, TrainingConfig)
    yield
    for registry in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY):
        del registry["own_topk"]


def training(**fields: Any) -> Any:
    torch.manual_seed(0)
    return Training(TrainingConfig(d_in=D_IN, d_sae=D_SAE, **fields))


def test_a_field_of_the_plain_config_is_given() -> None:
    torch.manual_seed(0)
    sae = OwnSAE(Config(d_in=D_IN, d_sae=D_SAE, k=3))
    sae.gain.data.fill_(1.5)
    plain, x = saes.split_polarities(sae), torch.randn(9, D_IN)
    assert plain.cfg.k == 3
    torch.testing.assert_close(plain(x), sae(x))
    assert ((sae.encode(x) != 0).sum(1) == 3).all()


def test_without_a_threshold_a_step_goes_over_all_latents() -> None:
    sae = training()
    out = sae.training_forward_pass(step_input(torch.randn(9, D_IN)))
    assert not out.feature_acts.is_sparse
    assert sae.get_coefficients() == {}


def test_a_whitening_that_no_bias_takes_up_is_refused() -> None:
    whitened: Any = {"normalize_activations": "covariance_whitening"}
    training(**whitened, apply_b_dec_to_input=True)
    with pytest.raises(InvalidInputError, match=r"^apply_b_dec_to_input must be true .* own_topk"):
        training(**whitened, apply_b_dec_to_input=False)


def test_state_of_its_own_is_in_files_for_training_alone(tmp_path: Path) -> None:
    sae = training(dtype="bfloat16")
    sae.gain.data.fill_(GAIN)
    sae.firing_ema.fill_(0.25)
    sae.n_seen.fill_(100_001)
    sae.save_model(tmp_path / "whole")
    sae.save_inference_model(tmp_path / "inference")

    again: Any = TrainingSAE.load_from_disk(tmp_path / "whole")
    assert again.gain.dtype == torch.float32
    assert again.gain.item() == sae.gain.item()  # which bfloat16 does not hold
    assert (again.firing_ema == 0.25).all()
    assert again.n_seen == 100_001  # nor this
    for name in ("whole", "inference"):
        loaded = SAE.load_from_disk(tmp_path / name)
        assert type(loaded) is OwnSAE
        assert "firing_ema" not in loaded.state_dict()
    afresh: Any = TrainingSAE.load_from_disk(tmp_path / "inference")
    assert (afresh.firing_ema == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_in": -1}, "d_in must be a positive integer, got -1"),
        ({"d_sae": "24"}, "d_sae must be an integer, got '24'"),
        ({"polarity_tying": "nonsense"}, "polarity_tying must be one of full, got 'nonsense'"),
        ({"k": D_SAE + 1}, f"k must be a number above 0 and at most d_sae = {D_SAE}, got 201"),
        ({"k": 4.0}, "k must be an integer, got 4.0"),
        ({"aux_loss_coefficient": -1.0}, "aux_loss_coefficient must be a number >= 0, got -1.0"),
        ({"dead_after_tokens": -3}, "dead_after_tokens must be null or an integer >= 1, got -3"),
    ],
)
def test_a_config_checks_its_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        TrainingConfig(**{"d_in": D_IN, "d_sae": D_SAE, **fields})
    assert message in str(error.value)


@dataclass(kw_only=True)
class LossConfig(Fields, saes.SignedTrainingSAEConfig):
    l1_coefficient: float = 1.0
    l1_warm_up_steps: int = 0


class WithLoss(saes.SparsityLossMixin, Own, TrainingSAE[LossConfig]):
    _sparsity_coefficient = "l1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_l0": 6, "l1_coefficient": 0.0}, "l1_coefficient must be a number above 0 where"),
        ({"l1_coefficient": -1.0}, "l1_coefficient must be a number >= 0, got -1.0"),
        ({"l1_warm_up_steps": -5}, "l1_warm_up_steps must be a number >= 0, got -5"),
    ],
)
def test_a_sparsity_coefficient_is_checked(fields: dict[str, Any], message: str) -> None:
    WithLoss(LossConfig(d_in=D_IN, d_sae=D_SAE))
    with pytest.raises(InvalidInputError) as error:
        WithLoss(LossConfig(d_in=D_IN, d_sae=D_SAE, **fields))
    assert message in str(error.value)


@dataclass(kw_only=True)
class SidesConfig(Fields, saes.SignedTrainingFields, TopKTrainingSAEConfig):
    k: int = 4
    minus_bias_init: float | None = -1.0
    dead_threshold_decay: float = 0.01


class Sides(saes.SideBiasMixin, Training): ...


def test_the_biases_of_sides_are_not_rounded_in_16_bits(tmp_path: Path) -> None:
    cfg: Any = SidesConfig(d_in=D_IN, d_sae=D_SAE, dtype="bfloat16")
    sae: Any = Sides(cfg)
    kept = ("b_mag", "b_enc", "gain")  # of the mixin, and of the class that it is mixed into
    for name in kept:
        getattr(sae, name).data.fill_(GAIN)
    sae.save_model(tmp_path)
    resumed: Any = Sides(cfg)
    resumed.load_weights_from_checkpoint(tmp_path)
    for again in (resumed, sae.to(torch.bfloat16)):
        for name in kept:
            assert getattr(again, name).dtype == torch.float32, name
            assert (getattr(again, name) == torch.tensor(GAIN)).all(), name


def test_without_k_and_target_l0_the_bias_starts_at_its_largest() -> None:
    @dataclass(kw_only=True)
    class Neither(Fields, saes.SignedTrainingFields, TrainingSAEConfig):
        minus_bias_init: float | None = None

    assert minus_bias_init_of(Neither(d_in=D_IN, d_sae=D_SAE)) == MINUS_BIAS_INIT


def test_register_says_what_is_missing() -> None:
    class NoBias(saes.SideBiasMixin, Own, TrainingSAE[TrainingConfig]):
        _auxk_names = Training._auxk_names

    class NoName(saes.SparsityLossMixin, Own, TrainingSAE[LossConfig]): ...

    @dataclass
    class NoWindow(Fields, TrainingSAEConfig): ...

    @dataclass
    class NoTying(saes.SignedTrainingFields, TopKTrainingSAEConfig): ...

    class NoActivation(saes.DeadLatentsMixin, saes.SignedSAEMixin, TrainingSAE[TrainingConfig]):
        _auxk_names = Training._auxk_names

    for sae_class, config_class, message in (
        (NoName, LossConfig, "NoName._sparsity_coefficient must be the NAME of its field"),
        (WithLoss, TrainingConfig, "l1_coefficient, l1_warm_up_steps, target_l0"),
        (NoBias, TrainingConfig, "TrainingConfig lacks dead_threshold_decay, minus_bias_init, "),
        (Training, NoWindow, "NoWindow lacks aux_loss_coefficient, dead_after_tokens, "),
        (Training, NoTying, "NoTying.polarity_tying must be a Literal of the values"),
        (NoActivation, TrainingConfig, "NoActivation must be a class with _activate"),
    ):
        with pytest.raises(InvalidInputError) as error:
            saes.register_training(sae_class, config_class)
        assert message in str(error.value)
    assert SAE_TRAINING_CLASS_REGISTRY["own_topk"][0] is Training


@pytest.mark.parametrize("name", ["gian", "d_head"])
def test_a_name_that_a_fold_would_pass_over_is_refused(name: str) -> None:
    class Misnamed(Own, SAE[Config]):
        _scales_with_pre_activation = (name,)

    with pytest.raises(TypeError, match=f"Misnamed.* names '{name}', which is none of .*gain"):
        Misnamed(Config(d_in=D_IN, d_sae=D_SAE))


def test_state_that_one_architecture_declares_is_a_parameter_of_another(tmp_path: Path) -> None:
    state.declare_training_state(["gain"])
    sae = training()
    sae.save_inference_model(tmp_path)
    assert "gain" in SAE.load_from_disk(tmp_path).state_dict()


def test_coefficients_of_an_own_class_count() -> None:
    class Penalised(Own):
        def get_coefficients(self) -> dict[str, float]:
            return {"l1": 3.0}

    class OfOwn(saes.DeadLatentsMixin, Penalised, TrainingSAE[TrainingConfig]):
        _auxk_names = Training._auxk_names

    assert OfOwn(TrainingConfig(d_in=D_IN, d_sae=D_SAE)).get_coefficients() == {"l1": 3.0}


def test_a_training_with_a_tuple_in_its_config_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    model = HookedTransformer(tiny_model_config())
    cfg = TrainingConfig(d_in=model.cfg.d_model, d_sae=24)
    make_runner(tmp_path, model, sae=cfg, training_tokens=128, n_checkpoints=1).run()
    resumed = make_runner(tmp_path, model, sae=cfg, resume_from_checkpoint=str(tmp_path))
    assert isinstance(resumed.run(), Training)


@pytest.mark.parametrize("name", ["mse_loss", "auxiliary_reconstruction_loss"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_loss_of_its_own_takes_no_other_ones_place(
    name: str, sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "_losses", lambda *_: {name: torch.tensor(1.0)})
    line = f"^_losses must be names of the architecture's own, got '{name}'$"
    with pytest.raises(InvalidInputError, match=line):
        training(use_sparse_activations=sparse).training_forward_pass(
            step_input(torch.randn(8, D_IN))
        )
