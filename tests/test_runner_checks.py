"""What the runner checks before training, and what it says and keeps at the end."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from rich.console import Console
from sae_lens import SAE, BatchTopKTrainingSAEConfig, LanguageModelSAETrainingRunner, TrainingSAE
from sae_lens.load_model import HookedProxyLM
from transformer_lens import HookedTransformer

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.saved import measured_quality
from sae_lens_signaware.hub.model_card import make_card
from sae_lens_signaware.saes.training import NON_FINITE_MESSAGE
from sae_lens_signaware.training.heldout import AFTER_TRAINING, TRAINED_ON_TOO
from sae_lens_signaware.training.runner import SignawareTrainingRunner, run_and_measure
from tests.support.hub_server import HubServer
from tests.support.models import tiny_gpt2, tiny_model_config, tiny_tokenizer, tokens
from tests.support.runners import runner_config
from tests.support.saes import D_IN, training_config

N_STEPS, BATCH = 20, 64  # of runner_config


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return HookedTransformer(tiny_model_config())


def proxy_model() -> HookedProxyLM:
    """A transformers model as SAELens hooks it, with dropout on: it draws random numbers."""
    torch.manual_seed(0)
    return HookedProxyLM(tiny_gpt2().train(), tiny_tokenizer(), ["transformer.h.0.mlp"])


def make_runner(
    folder: Path, model: Any, dataset: Any = None, d_in: int = D_IN, sae: Any = None, **kwargs: Any
) -> SignawareTrainingRunner:
    sae = sae or training_config("sa_gsae", d_in=d_in, target_l0=6.0)
    cfg = runner_config(sae, folder, **kwargs)
    return SignawareTrainingRunner(
        cfg, override_model=model, override_dataset=tokens() if dataset is None else dataset
    )


def run(runner: SignawareTrainingRunner) -> tuple[str, SAEQuality]:
    """What is printed, and what was measured."""
    out = StringIO()
    run_and_measure(runner, Console(file=out))
    quality = measured_quality(Path(str(runner.cfg.output_path)))
    assert quality is not None
    return out.getvalue(), quality


@pytest.mark.parametrize(
    ("hook", "head", "width"),
    [
        ("blocks.0.hook_mlp_out", None, 16),
        ("blocks.1.hook_resid_post", None, 16),
        ("blocks.0.mlp.hook_post", None, 64),
        ("blocks.0.attn.hook_z", None, 16),
        ("blocks.0.attn.hook_z", 1, 8),
        ("blocks.0.attn.hook_z", -1, 8),
    ],
)
def test_a_wrong_d_in_is_one_line_before_training(
    hook: str, head: int | None, width: int, model: HookedTransformer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"hook_name": hook, "hook_head_index": head, "training_tokens": 128}
    with pytest.raises(InvalidInputError) as error:
        make_runner(tmp_path, model, d_in=width + 1, **options)
    assert str(error.value) == (
        f"sae.d_in must be {width}, the width of hook {hook!r}, got {width + 1}"
    )
    make_runner(tmp_path, model, d_in=width, **options).run()
    assert SAE.load_from_disk(tmp_path / "out").cfg.d_in == width


def test_a_wrong_d_in_for_a_model_of_transformers(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "transformer.h.0.mlp",
    }
    with pytest.raises(InvalidInputError, match=r"sae\.d_in must be 16, the width of hook 'transf"):
        make_runner(tmp_path, proxy_model(), d_in=24, **options)
    make_runner(tmp_path, proxy_model(), **options).run()


@pytest.mark.parametrize(
    ("hook", "head", "message"),
    [
        ("blocks.0.attn.hook_z", 2, "hook_head_index must be below 2, got 2"),
        (
            "blocks.0.hook_mlp_out",
            0,
            "hook_head_index must be null: 'blocks.0.hook_mlp_out' has no",
        ),
    ],
)
def test_a_head_that_the_hook_lacks(
    hook: str, head: int, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_runner(tmp_path, model, hook_name=hook, hook_head_index=head)


def test_another_width_to_go_on_from(model: HookedTransformer, tmp_path: Path) -> None:
    pretrained = TrainingSAE.from_dict(training_config("sa_gsae", d_in=8).to_dict())
    pretrained.save_model(tmp_path / "pretrained")
    with pytest.raises(InvalidInputError, match=r"d_in of the SAE to train must be sae.d_in, 16, "):
        make_runner(tmp_path, model, from_pretrained_path=str(tmp_path / "pretrained"))


@pytest.mark.parametrize("hooked_by", ["transformer_lens", "transformers"])
def test_the_checks_leave_a_run_as_it_is_bit_for_bit(hooked_by: str, tmp_path: Path) -> None:
    def trained(runner_class: Any) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {}
        if hooked_by == "transformers":
            options["hook_name"] = "transformer.h.0.mlp"
            model: Any = proxy_model()
        else:
            model = HookedTransformer(tiny_model_config())
        torch.manual_seed(3)
        sae = training_config("sa_gsae", normalize_activations="expected_average_only_in")
        cfg = runner_config(sae, tmp_path, output_path=None, **options)
        runner = runner_class(cfg, override_model=model, override_dataset=tokens())
        return runner.run().state_dict()

    plain, checked = map(trained, (LanguageModelSAETrainingRunner, SignawareTrainingRunner))
    for name, value in plain.items():
        assert torch.equal(checked[name], value), name


def test_a_config_built_by_hand_is_checked_as_a_yaml_is(
    model: HookedTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="lr must be a number, got '3e-4': it is a text"):
        make_runner(tmp_path, model, lr="3e-4", lr_end=1e-5)


@pytest.mark.parametrize(
    ("field", "path", "message"),
    [
        ("output_path", "file", "file is a file"),
        ("output_path", "file/below/it", "file is a file"),
        ("output_path", "/", "a folder of its own"),
        ("checkpoint_path", "file", "file is a file"),
    ],
)
def test_a_folder_that_cannot_be_written_is_found_before_training(
    field: str, path: str, message: str, model: HookedTransformer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match=rf"^{field} must be .*{message}") as error:
        make_runner(tmp_path, model, n_checkpoints=1, **{field: str(tmp_path / path)})
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_current_folder_can_be_the_output(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_runner(tmp_path, model, output_path=".").run()
    SAE.load_from_disk(tmp_path)


def test_what_cannot_be_moved_to_the_output_is_kept_beside_it(
    model: HookedTransformer, tmp_path: Path
) -> None:
    blocked = tmp_path / "out" / "sae_weights.safetensors"
    blocked.mkdir(parents=True)
    (blocked / "x").touch()
    with pytest.raises(
        OSError, match=r"output_path: .* could not be written: .*; the trained SAE is"
    ) as error:
        run(make_runner(tmp_path, model))
    kept = Path(str(error.value).rpartition(" is in ")[2])
    assert kept.parent == tmp_path
    assert SAE.load_from_disk(kept).cfg.architecture() == "sa_gsae"
    assert (kept / "runner_cfg.json").exists()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["sae_weights.safetensors"]
    assert "\n" not in str(error.value)


def test_what_cannot_be_written_beside_the_output_is_kept_with_the_checkpoints(
    model: HookedTransformer, tmp_path: Path
) -> None:
    (tmp_path / ".out.partial").write_text("a file where the staging folder should be")
    runner = make_runner(tmp_path, model)
    with pytest.raises(OSError, match="the trained SAE is in") as error:
        runner.run()
    kept = Path(str(error.value).rpartition(" is in ")[2])
    assert kept.parent == Path(str(runner.cfg.checkpoint_path))
    loaded = SAE.load_from_disk(kept)
    x = torch.randn(4, D_IN)
    torch.testing.assert_close(loaded(x), runner.sae(x))


def test_a_last_checkpoint_that_fails_does_not_cost_the_sae(
    model: HookedTransformer, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, model, save_final_checkpoint=True)
    folder = Path(str(runner.cfg.checkpoint_path))
    folder.mkdir(parents=True)
    (folder / f"final_{N_STEPS * BATCH}").write_text("a file where the checkpoint should be")
    runner.run()
    assert SAE.load_from_disk(tmp_path / "out").cfg.architecture() == "sa_gsae"


def test_a_last_step_that_fails_saves_nothing(tmp_path: Path) -> None:
    broken = HookedTransformer(tiny_model_config())
    broken.W_E.data.fill_(torch.nan)
    with pytest.raises(Exception, match=NON_FINITE_MESSAGE):
        make_runner(tmp_path, broken, training_tokens=BATCH).run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("n_contexts", "tokens_from"),
    [
        (400, AFTER_TRAINING),
        (40, TRAINED_ON_TOO),  # trained on twice
        (100, TRAINED_ON_TOO),  # long enough to train on, not to measure on as well
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_quality_says_whether_its_tokens_were_trained_on(
    n_contexts: int,
    tokens_from: str,
    streaming: bool,
    model: HookedTransformer,
    hub: HubServer,
    tmp_path: Path,
) -> None:
    text: Any = tokens(n_contexts)
    printed, quality = run(
        make_runner(tmp_path, model, text.to_iterable_dataset() if streaming else text)
    )
    assert quality.tokens_from == tokens_from
    card = make_card("someone/text", "a", SAE.load_from_disk(tmp_path / "out"), quality)
    assert tokens_from in card.text
    assert ("Warning: measured on" in printed) == (tokens_from == TRAINED_ON_TOO)


def test_the_second_pass_over_the_text_is_known_after_a_resume(
    model: HookedTransformer, tmp_path: Path
) -> None:
    text: Dataset = tokens(100)
    options: dict[str, Any] = {"training_tokens": 1920, "n_eval_batches": 1}
    make_runner(tmp_path, model, text, save_final_checkpoint=True, **options).run()
    resumed = make_runner(tmp_path, model, text, resume_from_checkpoint=str(tmp_path), **options)
    assert run(resumed)[1].tokens_from == TRAINED_ON_TOO


def test_what_is_measured_is_the_sae_that_a_user_loads(
    model: HookedTransformer, tmp_path: Path
) -> None:
    sae = BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=24, k=4)
    _, quality = run(make_runner(tmp_path, model, sae=sae))
    assert quality.architecture == "jumprelu"  # SAELens saves batchtopk as that
    assert quality.loss_recovered is not None


@pytest.mark.parametrize("target", [6.0, None])
def test_a_missed_target_l0_is_printed(
    target: float | None, model: HookedTransformer, tmp_path: Path
) -> None:
    # two steps are too few to steer
    sae = training_config("sa_gsae", target_l0=target, l1_coefficient=0.01)
    printed, quality = run(make_runner(tmp_path, model, sae=sae, training_tokens=2 * BATCH))
    assert quality.l0 > 7
    expected = f"Warning: asked for L0 6, measured {quality.l0:.1f}\n"
    assert (expected in printed) == (target is not None)
