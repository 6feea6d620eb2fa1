"""What the measures take, and the one line that says what they do not."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import ActivationsStore, Transcoder, TranscoderConfig
from sae_lens.registry import get_sae_class
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import save_file
from transformer_lens import HookedTransformer

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.dial import nearest_antipodal_pair
from sae_lens_signaware.evaluation.histograms import activation_histograms
from tests.support.cli import assert_one_line_error, invoke
from tests.support.hub_server import HubServer
from tests.support.models import (
    HOOK,
    hooked_transformer,
    prompt_ids,
    tiny_model_config,
    tokens,
)
from tests.support.runners import runner_config
from tests.support.saes import D_IN, make_sae, make_training_sae, training_config


def quality_of(sae: Any, activations: Any) -> Any:
    return signaware.measure_quality(sae, activations, "noise")[0]


def merged_from(sae: Any, activations: Any) -> Any:
    plain = signaware.split_polarities(sae)
    merged: Any = signaware.merge_antipodal(plain, activations)  # type: ignore[arg-type]
    return merged.cfg.metadata.merged_from


def histogram_of(sae: Any, activations: Any) -> Any:
    return activation_histograms(sae, activations, [0])


MEASURES: list[Callable[[Any, Any], Any]] = [
    signaware.bipolar_census,
    signaware.polarity_calibration,
    signaware.antipodal_audit,
    signaware.analyze_sae,
    quality_of,
    merged_from,
]
each_measure = pytest.mark.parametrize("measure", MEASURES)


def tensors_in(value: Any) -> list[torch.Tensor]:
    values = value.values() if isinstance(value, dict) else vars(value).values()
    return [
        torch.as_tensor(v, dtype=torch.float64)
        for v in values
        if isinstance(v, torch.Tensor | float | int)
    ]


@each_measure
def test_activations_of_a_hook_are_taken_with_their_positions(
    measure: Callable[[Any, Any], Any],
) -> None:
    sae, x = make_sae("sa_gsae", "none"), torch.randn(6, 50, D_IN)
    if measure is signaware.antipodal_audit:
        sae = signaware.split_polarities(sae)  # each latent as a pair of antipodes
    flat = measure(sae, x.flatten(0, 1))
    if measure in (signaware.antipodal_audit, merged_from):
        n_pairs = flat["n_pairs"] if isinstance(flat, dict) else flat.n_pairs
        assert n_pairs > 0
    for activations in (x, list(x.split(2)), iter([x[:5], x[5]])):
        got = measure(sae, activations)
        if isinstance(flat, signaware.evaluation.Analysis):
            assert got.explained_variance == pytest.approx(flat.explained_variance)
            got, flat_tensors = got.census, tensors_in(flat.census)
        else:
            flat_tensors = tensors_in(flat)
        assert flat_tensors
        for a, b in zip(tensors_in(got), flat_tensors, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_a_whole_cache_of_a_model_is_measured() -> None:
    sae, model = make_sae("sa_gsae"), HookedTransformer(tiny_model_config())
    _, cache = model.run_with_cache(torch.randint(0, 64, (3, 7)))
    assert signaware.bipolar_census(sae, cache[HOOK]).n_tokens == 21


NO_TENSOR = "activations must be a tensor or an iterable of tensors, got "


@each_measure
@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ([], "activations must hold at least one token, got none"),
        (torch.zeros(0, D_IN), "activations must hold at least one token, got none"),
        (torch.zeros(2, 0, D_IN), "activations must hold at least one token, got none"),
        (
            torch.zeros(3, D_IN + 1),
            "activations must be (n, 16) or (batch, position, 16) for this SAE, got (3, 17)",
        ),
        (
            torch.zeros(2, 3, 4, D_IN),
            "activations must be (n, 16) or (batch, position, 16) for this SAE, got (2, 3, 4, 16)",
        ),
        (torch.zeros(D_IN), "(batch, position, 16) for this SAE, got (16,)"),
        (torch.full((3, D_IN), torch.nan), "activations must be finite, got NaN or inf"),
        (torch.full((3, D_IN), -torch.inf), "activations must be finite, got NaN or inf"),
        (torch.full((3, D_IN), 1e30), "activations must be from -1e+15 to 1e+15, got 1"),
        (torch.full((3, D_IN), -1e30), "activations must be from -1e+15 to 1e+15, got -1"),
        (torch.tensor([[1.0] * 15 + [-1e30]]), "activations must be from -1e+15 to 1e+15, got -1"),
        (
            torch.zeros(3, D_IN, dtype=torch.int64),
            "floating-point numbers of 16 bits or more, got torch.int64; .float() converts them",
        ),
        (
            torch.zeros(3, D_IN).to_sparse(),
            "activations must be dense; see .to_dense(), got",
        ),
        (torch.zeros(3, D_IN, dtype=torch.bool), "got torch.bool; .float() converts them"),
        (
            torch.zeros(3, D_IN, dtype=torch.float8_e5m2),
            "got torch.float8_e5m2; .float() converts them",
        ),
        (
            np.zeros((3, D_IN), dtype=np.float32),
            NO_TENSOR + "numpy.ndarray; torch.from_numpy(...) makes a tensor of it",
        ),
        (
            [np.zeros((3, D_IN), dtype=np.float32)],
            "activations[0] must be a tensor, got numpy.ndarray; torch.from_numpy(...) makes",
        ),
        ([torch.randn(3, D_IN), [1.0] * D_IN], "activations[1] must be a tensor, got list"),
        ({HOOK: torch.zeros(3, D_IN)}, NO_TENSOR + "dict"),
        ("acts.safetensors", NO_TENSOR + "str"),
        (7, NO_TENSOR + "int"),
    ],
)
def test_other_activations_give_one_line(
    measure: Callable[[Any, Any], Any], activations: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        measure(make_sae("sa_gsae"), activations)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_largest_activations_that_are_taken_have_an_explained_variance() -> None:
    sae = make_sae("sa_gsae")
    x = torch.randn(4096, D_IN)
    x *= 1e15 / x.abs().max()
    assert abs(quality_of(sae, x).explained_variance) < 1e6


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
@pytest.mark.parametrize("measure", [signaware.analyze_sae, quality_of])
def test_constant_activations_have_no_explained_variance(
    measure: Callable[[Any, Any], Any], value: float
) -> None:
    x = value * torch.linspace(0.5, 2.0, D_IN).expand(5000, D_IN)
    message = "must differ more from token to token, got a variance"
    with pytest.raises(InvalidInputError, match=message):
        measure(make_sae("sa_gsae"), x)
    assert signaware.bipolar_census(make_sae("sa_gsae"), x).n_tokens == 5000


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_activations_that_differ_a_little_have_one(offset: float) -> None:
    sae, x = make_sae("sa_gsae"), offset + torch.randn(3000, D_IN)
    error = (x.double() - sae(x).double()).square().sum()
    total = (x.double() - x.double().mean(0)).square().sum()
    assert quality_of(sae, x).explained_variance == pytest.approx(
        1 - (error / total).item(), rel=1e-3
    )


@pytest.mark.parametrize("measure", [signaware.analyze_sae, quality_of])
def test_an_output_that_overflows_is_refused(measure: Callable[[Any, Any], Any]) -> None:
    sae = make_sae("sa_gsae")
    with torch.no_grad():
        sae.b_dec.fill_(1e30)
    with pytest.raises(InvalidInputError, match="SAE must give outputs whose squared error"):
        measure(sae, torch.randn(50, D_IN))


def test_the_evaluator_leaves_out_an_explained_variance_that_is_not_defined() -> None:
    evaluator = signaware.SignedEvaluator(n_batches=1)
    sae: Any = make_training_sae("sa_gsae")
    constant = evaluator(sae, iter([torch.ones(64, D_IN)]), ActivationScaler())
    assert constant["signed/n_tokens"] == 64
    assert "signed/explained_variance" not in constant
    noise = evaluator(sae, iter([torch.randn(64, D_IN)]), ActivationScaler())
    assert set(noise) >= {*constant, "signed/explained_variance"}


@pytest.mark.parametrize(
    ("command", "file", "flags", "said"),
    [
        ("analyze", "none", (), "none cannot be read"),
        ("audit", "none", (), "none cannot be read"),
        ("audit", "acts", ("--max-cosine", "1"), "max_cosine must be"),
        ("merge", "none", (), "none cannot be read"),
        ("merge", "acts", ("--max-cosine", "1"), "max_cosine must be"),
    ],
)
def test_other_input_is_looked_at_before_an_sae_is_downloaded(
    command: str, file: str, flags: tuple[str, ...], said: str, tmp_path: Path, hub: HubServer
) -> None:
    save_file({"heldout": torch.randn(5, D_IN)}, tmp_path / "acts")
    out = [str(tmp_path / "new")] if command == "merge" else []
    args = [*out, "--activations", str(tmp_path / file), *flags]
    assert_one_line_error(invoke(command, "someone/nothing-there:a", *args), 2, said)
    assert not hub.log


@pytest.mark.parametrize("value", [1e30, 2.0])
def test_analyze_refuses_what_has_no_explained_variance(value: float, tmp_path: Path) -> None:
    make_sae("sa_gsae").save_model(tmp_path / "sae")
    save_file({"heldout": torch.full((20, D_IN), value)}, tmp_path / "acts.safetensors")
    args = ["--activations", str(tmp_path / "acts.safetensors"), "--out", str(tmp_path / "out")]
    result = invoke("analyze", str(tmp_path / "sae"), *args)
    assert_one_line_error(result, 2, "activations must ")
    assert not (tmp_path / "out").exists()


def test_an_endless_store_is_refused_before_it_is_read(tmp_path: Path) -> None:
    cfg = runner_config(training_config("sa_gsae"), tmp_path)
    store = ActivationsStore.from_config(HookedTransformer(tiny_model_config()), cfg, tokens())
    for measure in (signaware.bipolar_census, signaware.polarity_calibration):
        with pytest.raises(ValueError, match=r"must come to an end, got an ActivationsStore"):
            measure(make_sae("sa_gsae"), store)
    assert signaware.bipolar_census(make_sae("sa_gsae"), islice(store, 2)).n_tokens == 128


def test_hook_z_saes_are_measured_on_flat_activations() -> None:
    flat = make_sae("sa_gsae")
    heads = make_sae("sa_gsae", reshape_activations="hook_z")
    heads(torch.randn(2, 3, 4, D_IN // 4))  # as the model gives it
    x = torch.randn(300, D_IN)
    a, b = (quality_of(sae, x) for sae in (flat, heads))
    assert (a.l0, a.explained_variance) == (b.l0, b.explained_variance)
    assert signaware.antipodal_audit(heads, x).n_tokens == 300
    assert heads.hook_z_reshaping_mode


def test_what_reconstructs_another_activation_is_refused() -> None:
    sae_class, config_class = get_sae_class("transcoder")
    sae: Any = sae_class(config_class(d_in=D_IN, d_sae=8, d_out=D_IN, apply_b_dec_to_input=False))
    for measure in (signaware.bipolar_census, signaware.antipodal_audit):
        with pytest.raises(ValueError, match="token by token, got 'transcoder'"):
            measure(sae, torch.randn(4, D_IN))


def with_a_token_of_zeros() -> tuple[Any, torch.Tensor]:
    sae = make_sae("bi_jumprelu", normalize_activations="constant_norm_rescale")
    x = torch.randn(50, D_IN)
    x[3] = 0  # its norm cannot be rescaled
    return sae, x


def beyond_float16() -> tuple[Any, torch.Tensor]:
    x = torch.randn(50, D_IN)
    x[3, 0] = 1e6
    return make_sae("bi_jumprelu", dtype="float16"), x


@pytest.mark.parametrize("measure", [signaware.bipolar_census, quality_of, histogram_of])
@pytest.mark.parametrize("case", [with_a_token_of_zeros, beyond_float16])
def test_latents_that_are_not_finite_are_not_counted(
    measure: Callable[[Any, Any], Any], case: Callable[[], tuple[Any, torch.Tensor]]
) -> None:
    with pytest.raises(InvalidInputError, match=r"^SAE must give finite latents, got NaN"):
        measure(*case())


def test_a_transcoder_is_not_dialled() -> None:
    model = hooked_transformer()
    transcoder = Transcoder(
        TranscoderConfig(d_in=16, d_out=16, d_sae=8, apply_b_dec_to_input=False)
    )
    transcoder.cfg.metadata.hook_name = HOOK
    prompts = prompt_ids(4)
    calls: dict[str, Callable[[], Any]] = {
        "dial": lambda: signaware.polarity_dial(model, transcoder, 0, prompts, [1.0]),
        "opposition": lambda: signaware.side_opposition(model, transcoder, prompts, [0, 1]),
        "logits": lambda: signaware.top_logits(model, transcoder, [0]),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidInputError, match="reconstructs its own input") as error:
            call()
        assert "\n" not in str(error.value), name


def test_latents_and_numbers_out_of_range_are_refused() -> None:
    model, sae = hooked_transformer(), make_sae("sa_gsae")
    for call, message in (
        (lambda: signaware.top_logits(model, sae, [-1]), "latents must be from 0 to 23, got -1"),
        (lambda: signaware.top_logits(model, sae, [1], k=0), "k must be at least 1, got 0"),
        (lambda: activation_histograms(sae, torch.randn(4, 16), [-1], 4), "latents must be from 0"),
        (lambda: nearest_antipodal_pair(sae, torch.randn(1)), "direction must be .16,., one of"),
        (lambda: signaware.bipolar_census(torch.randn(4, 16), sae), "sae must be an SAE of SAELe"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()


def test_a_measure_leaves_an_sae_of_hook_z_as_it_was() -> None:
    sae = make_sae("sa_gsae", reshape_activations="hook_z")
    z = sae.encode(torch.randn(5, 2, D_IN // 2))
    expected = sae.decode(z)
    assert expected.shape == (5, 2, D_IN // 2)
    signaware.bipolar_census(sae, torch.randn(40, D_IN))
    torch.testing.assert_close(sae.decode(z), expected)
    assert sae.hook_z_reshaping_mode


@pytest.mark.parametrize("measure", [signaware.bipolar_census, quality_of])
def test_a_measure_between_encode_and_decode_changes_nothing(measure: Callable[..., Any]) -> None:
    sae, x = make_sae("sa_gsae", normalize_activations="layer_norm"), torch.randn(40, D_IN)
    expected = sae(x)
    z = sae.encode(x)
    measure(sae, 5 * torch.randn(40, D_IN) + 3)
    torch.testing.assert_close(sae.decode(z), expected)
