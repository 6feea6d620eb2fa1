"""What the runner keeps at the end of training, and what is measured and said then."""

import signal
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from datasets import Dataset
from rich.console import Console
from sae_lens import SAE, BatchTopKTrainingSAEConfig, JumpReLUTrainingSAEConfig
from transformer_lens import HookedTransformer

from sae_lens_signaware.evaluation.quality import SAEQuality
from sae_lens_signaware.evaluation.saved import measured_quality
from sae_lens_signaware.hub.model_card import make_card
from sae_lens_signaware.saes.finite_losses import NON_FINITE_MESSAGE
from sae_lens_signaware.saes.sa_gsae import SAGatedTrainingSAE
from sae_lens_signaware.training import heldout
from sae_lens_signaware.training.heldout import AFTER_TRAINING, TRAINED_ON_TOO
from sae_lens_signaware.training.measured_run import announce_interruption, run_and_measure
from sae_lens_signaware.training.output import move_into
from sae_lens_signaware.training.runner import SignawareTrainingRunner, find_checkpoint
from tests.support.checked_runs import make_runner
from tests.support.hub_server import HubServer
from tests.support.models import tiny_model_config, tokens
from tests.support.saes import D_IN, training_config

N_STEPS, BATCH = 20, 64  # of runner_config


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return HookedTransformer(tiny_model_config())


def run(runner: SignawareTrainingRunner) -> tuple[str, SAEQuality]:
    """What is printed, and what was measured."""
    out = StringIO()
    run_and_measure(runner, Console(file=out))
    quality = measured_quality(Path(str(runner.cfg.output_path)))
    assert quality is not None
    return out.getvalue(), quality


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


def test_a_folder_that_is_there_is_filled_from_inside(
    model: HookedTransformer, tmp_path: Path
) -> None:
    # beside a mounted volume there is another file system, from which no file can be moved in
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.partial").write_text("a file where the staging folder would be")
    make_runner(tmp_path, model).run()
    assert SAE.load_from_disk(tmp_path / "out").cfg.architecture() == "sa_gsae"
    assert all(path.is_file() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("is_there", [False, True])
def test_what_a_killed_save_has_left_is_not_taken_into_the_output(
    is_there: bool, model: HookedTransformer, tmp_path: Path
) -> None:
    runner, out = make_runner(tmp_path, model), tmp_path / "out"
    staging = out / ".partial" if is_there else tmp_path / ".out.partial"
    staging.mkdir(parents=True)
    (staging / "sparsity.safetensors").write_text("of another SAE")
    runner.save_final_sae(runner.sae, str(out))
    names = {path.name for path in out.iterdir()}
    assert "sae_weights.safetensors" in names
    assert "sparsity.safetensors" not in names


def interrupt_the_move_of_b(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C where b would go from staging to out."""
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if (self, target) == (folder / "staging" / "b", folder / "out" / "b"):
            raise KeyboardInterrupt
        return replace(self, target)

    patch.setattr(Path, "replace", interrupted)


@pytest.mark.parametrize("earlier", [[], ["a"], ["a", "b", "c"]])
def test_ctrl_c_while_the_files_are_moved_moves_all_back(
    earlier: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c"]
    (tmp_path / "staging").mkdir()
    for name in names:
        (tmp_path / "staging" / name).touch()
    interrupt_the_move_of_b(tmp_path, monkeypatch)
    (tmp_path / "out").mkdir()
    for name in earlier:
        (tmp_path / "out" / name).write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        move_into(tmp_path / "staging", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "staging").iterdir()) == names
    held = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert held == dict.fromkeys(earlier, "earlier")


def test_a_link_in_the_output_folder_moves_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / "staging" / name).write_text("new")
    (tmp_path / "mine").write_text("earlier")
    (tmp_path / "out" / "a").symlink_to("../mine")  # which leads nowhere from staging/.replaced
    interrupt_the_move_of_b(tmp_path, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        move_into(tmp_path / "staging", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    assert (tmp_path / "out" / "a").read_text() == "earlier"
    assert sorted(path.name for path in (tmp_path / "staging").iterdir()) == ["a", "b"]


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


def test_ctrl_c_while_the_sae_is_saved_does_not_cost_it(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(tmp_path, model)
    save = runner.sae.save_inference_model

    def interrupted(path: Path) -> None:
        save(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.sae, "save_inference_model", interrupted)
    out = StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_and_measure(runner, Console(file=out))
    kept = Path(out.getvalue().strip().rpartition(" is in ")[2])
    assert SAE.load_from_disk(kept).cfg.architecture() == "sa_gsae"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "reason"), [(None, "checkpoint_path is null"), ("checkpoints", "none was written yet")]
)
def test_an_interruption_says_why_there_is_no_checkpoint(
    path: str | None, reason: str, model: HookedTransformer, tmp_path: Path
) -> None:
    out = StringIO()
    runner = make_runner(tmp_path, model, checkpoint_path=path and str(tmp_path / path))
    announce_interruption(runner, Console(file=out))
    assert out.getvalue() == f"Interrupted. No checkpoint: {reason}.\n"


def test_a_last_checkpoint_that_fails_does_not_cost_the_sae(
    model: HookedTransformer, tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, model, save_final_checkpoint=True)
    folder = Path(str(runner.cfg.checkpoint_path))
    folder.mkdir(parents=True)
    (folder / f"final_{N_STEPS * BATCH}").write_text("a file where the checkpoint should be")
    runner.run()
    assert SAE.load_from_disk(tmp_path / "out").cfg.architecture() == "sa_gsae"


def test_a_last_checkpoint_that_fails_does_not_cost_a_resumed_sae(
    model: HookedTransformer, tmp_path: Path
) -> None:
    first = make_runner(tmp_path / "first", model, n_checkpoints=1)
    first.run()
    resume = str(first.cfg.checkpoint_path)
    runner = make_runner(tmp_path, model, save_final_checkpoint=True, resume_from_checkpoint=resume)
    folder = Path(str(runner.cfg.checkpoint_path))
    folder.mkdir(parents=True)
    (folder / f"final_{N_STEPS * BATCH}").write_text("a file where the checkpoint should be")
    steps: list[int] = []
    model_step = SAGatedTrainingSAE.training_forward_pass

    def counted(self: Any, step_input: Any) -> Any:
        steps.append(step_input.n_training_steps)
        return model_step(self, step_input)

    with mock.patch.object(SAGatedTrainingSAE, "training_forward_pass", counted):
        runner.run()
    n_before = int(find_checkpoint(resume).name) // BATCH
    assert 0 < n_before < N_STEPS
    assert steps == list(range(n_before, N_STEPS))  # no step is counted twice
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


def test_a_measurement_that_is_interrupted_leaves_no_claim(
    model: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(heldout, "add_loss_recovered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_and_measure(make_runner(tmp_path, model, tokens(100)), Console(file=StringIO()))
    assert measured_quality(tmp_path / "out") is None


def test_the_second_pass_over_the_text_is_known_after_a_resume(
    model: HookedTransformer, tmp_path: Path
) -> None:
    text: Dataset = tokens(100)
    options: dict[str, Any] = {"training_tokens": 1920, "n_eval_batches": 1}
    make_runner(tmp_path, model, text, save_final_checkpoint=True, **options).run()
    resumed = make_runner(tmp_path, model, text, resume_from_checkpoint=str(tmp_path), **options)
    assert run(resumed)[1].tokens_from == TRAINED_ON_TOO


def test_the_second_pass_is_known_where_batches_are_made_in_advance(
    model: HookedTransformer, tmp_path: Path
) -> None:
    short, long = (
        run(make_runner(tmp_path / str(n), model, tokens(n), prefetch_llm_batches=True))[1]
        for n in (40, 400)
    )
    assert (short.tokens_from, long.tokens_from) == (TRAINED_ON_TOO, AFTER_TRAINING)


def test_signals_mean_after_a_training_what_they_meant_before(
    model: HookedTransformer, tmp_path: Path
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for n in (0, 2):  # SAELens prefetches, and handles signals itself
        make_runner(tmp_path / str(n), model, tokens(40), prefetch_llm_batches=n).run()
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_measured_is_the_sae_that_a_user_loads(
    model: HookedTransformer, tmp_path: Path
) -> None:
    sae = BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=24, k=4)
    _, quality = run(make_runner(tmp_path, model, sae=sae))
    assert quality.architecture == "jumprelu"  # SAELens saves batchtopk as that
    assert quality.loss_recovered is not None


def test_brackets_in_the_path_are_no_markup(model: HookedTransformer, tmp_path: Path) -> None:
    printed, quality = run(make_runner(tmp_path / "k [/2]", model))
    assert f"k [/2]/out: L0 {quality.l0:.1f}" in printed


def test_a_loss_recovered_that_is_no_number_is_not_defined(
    model: HookedTransformer, tmp_path: Path
) -> None:
    # the model divides by what this hook holds
    printed, quality = run(make_runner(tmp_path, model, d_in=1, hook_name="ln_final.hook_scale"))
    assert "loss recovered not defined" in " ".join(printed.split())
    assert quality.loss_recovered is None
    assert quality.loss_recovered_tokens is None


@pytest.mark.parametrize(
    ("sae", "asked"),
    [
        (training_config("sa_gsae", target_l0=6.0, l1_coefficient=0.01), 6),
        (training_config("sa_gsae", l1_coefficient=0.01), None),
        (training_config("bi_batchtopk", k=1.5), 1.5),
        # SAELens's own reads its target_l0 in the quadratic loss alone
        (JumpReLUTrainingSAEConfig(d_in=D_IN, d_sae=24, target_l0=1.5), None),
    ],
)
def test_a_missed_l0_is_printed_where_one_was_asked_for(
    sae: Any, asked: float | None, model: HookedTransformer, tmp_path: Path
) -> None:
    # two steps are too few to steer
    printed, quality = run(make_runner(tmp_path, model, sae=sae, training_tokens=2 * BATCH))
    assert quality.l0 > 7
    expected = [f"Warning: asked for L0 {asked:g}, measured {quality.l0:.1f}"] if asked else []
    assert [line for line in printed.splitlines() if "asked for" in line] == expected
