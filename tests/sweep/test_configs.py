"""The sweeps in configs/: each is valid, and its figures can be set beside those of the others."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sae_lens_signaware.experiments.sweep import config as sweep_config

FOLDER = Path(__file__).parents[2] / "configs"
SWEEPS = sorted(p for p in FOLDER.glob("*.yaml") if "cells" in yaml.safe_load(p.read_text()))
MAIN = FOLDER / "sweep-smollm2-135m.yaml"
# the recipe against dead latents, and the plain peers
BY_THE_RECIPE = [
    FOLDER / "dead-latents-smollm2-135m.yaml",
    FOLDER / "equal-width-peers-smollm2-135m.yaml",
]
# the same recipe on the second model
GEMMA3 = FOLDER / "dead-latents-gemma3-270m.yaml"
# on activations of their own: each token once
EQUAL_WIDTH = FOLDER / "equal-width-smollm2-135m.yaml"
SEARCH = FOLDER / "search-smollm2-135m.yaml"
LOW_RATE = FOLDER / "low-rate-smollm2-135m.yaml"
ON_VALIDATION = [
    SEARCH,
    LOW_RATE,
    FOLDER / "revival-smollm2-135m.yaml",
    FOLDER / "gemma-resid-gemma3-270m.yaml",
    FOLDER / "k-anneal-gemma3-270m.yaml",
    FOLDER / "search-gemma3-270m.yaml",
    FOLDER / "warm-up-smollm2-135m.yaml",
]
ONE_PASS = [EQUAL_WIDTH, FOLDER / "equal-width-gemma3-270m.yaml", *ON_VALIDATION]
# lengths of training, on the activations of another sweep
LENGTHS = {
    FOLDER / "equal-time-smollm2-135m.yaml": EQUAL_WIDTH,
    FOLDER / "start-smollm2-135m.yaml": SEARCH,
}
# trainings that differ in one option, beside the SAEs of another sweep
ENDS = {
    FOLDER / "ends-smollm2-135m.yaml": EQUAL_WIDTH,
    FOLDER / "ends-gemma3-270m.yaml": FOLDER / "equal-width-gemma3-270m.yaml",
}
# bi_jumprelu of equal width, with both sides open from the start
PAIRS = {
    FOLDER / "pairs-smollm2-135m.yaml": EQUAL_WIDTH,
    FOLDER / "pairs-gemma3-270m.yaml": FOLDER / "equal-width-gemma3-270m.yaml",
}
# the SAEs of another sweep, wider
WIDTHS = {
    FOLDER / "widths-smollm2-135m.yaml": EQUAL_WIDTH,
    FOLDER / "widths-gemma3-270m.yaml": FOLDER / "equal-width-gemma3-270m.yaml",
}
# those of equal width, for twice as many steps
LONGER = FOLDER / "longer-smollm2-135m.yaml"
# read once a process: some are asked for by ten tests
load_sweep_config = functools.cache(sweep_config.load_sweep_config)
each_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)


def out_of(path: Path) -> str:
    """The folder that the command in the first line of a sweep writes to."""
    command = rf"# sae-lens-signaware sweep configs/{path.name} --out (sweep_out/\w+)"
    match = re.fullmatch(command, path.read_text().splitlines()[0])
    assert match is not None
    return match[1]


def test_each_sweep_has_a_folder_of_its_own() -> None:
    assert MAIN in SWEEPS
    assert len({out_of(path) for path in SWEEPS}) == len(SWEEPS)


@each_sweep
def test_every_sae_is_trained_and_every_run_has_a_name_of_its_own(path: Path) -> None:
    config, runs = load_sweep_config(path)
    assert {run.sae for run in runs} == set(config.saes)
    assert {run.cell for run in runs} == set(config.cells)
    assert len({run.name for run in runs}) == len(runs)


@each_sweep
def test_what_is_compared_shares_seeds_and_differs_in_width_as_it_says(path: Path) -> None:
    config, runs = load_sweep_config(path)
    assert len(set(config.compare)) == len(config.compare)
    for a, b in config.compare:
        assert a != b
        for cell in config.cells:
            seeds_a, seeds_b = (
                {run.seed for run in runs if (run.cell, run.sae) == (cell, sae)} for sae in (a, b)
            )
            assert seeds_a <= seeds_b or seeds_b <= seeds_a
        ratio = config.saes[b]["d_sae"] / config.saes[a]["d_sae"]
        if "-half" in a:
            assert ratio == (2 if "-full" in b else 1)


@pytest.mark.parametrize("path", ONE_PASS, ids=lambda path: path.stem)
def test_a_sweep_of_one_pass_trains_on_no_token_twice(path: Path) -> None:
    config, runs = load_sweep_config(path)
    for run in runs:
        n_estimate = run.cfg.n_batches_for_norm_estimate * run.cfg.train_batch_size_tokens
        assert config.n_cached_tokens == run.cfg.training_tokens + n_estimate
        assert run.cfg.training_tokens == 2_048_000
    text = "validation" if path in ON_VALIDATION else "heldout"
    assert config.heldout_dataset_path == f"demo_out/data/{text}"
    assert config.cache_dtype == "float16"


@pytest.mark.parametrize("path", LENGTHS, ids=lambda path: path.stem)
def test_a_sweep_of_lengths_keeps_the_activations_and_the_shares_of_the_schedule(
    path: Path,
) -> None:
    (config, runs), (other, _) = load_sweep_config(path), load_sweep_config(LENGTHS[path])
    assert config.runner == other.runner
    for field in ("cache_folder", "n_cached_tokens", "n_heldout_tokens", "heldout_dataset_path"):
        assert getattr(config, field) == getattr(other, field)
    for cell, fields in config.cells.items():
        assert fields.hook_name == other.cells[cell].hook_name
    for run in runs:
        n_steps = run.cfg.training_tokens // run.cfg.train_batch_size_tokens
        assert n_steps in (250, 500, 1000, 2000, 4000, 8000)
        assert run.cfg.lr_decay_steps == n_steps * 3 // 4
        sae = run.cfg.sae.to_dict()
        warm_up = sae.get("l0_warm_up_steps", sae.get("l1_warm_up_steps"))
        if "batchtopk" not in run.cfg.sae.architecture():
            assert warm_up == n_steps // 5


def loaded_with(path: Path, beside: Path) -> tuple[Any, Any]:
    """Two sweeps that train on the same activations by the same schedule."""
    config, other = load_sweep_config(path)[0], load_sweep_config(beside)[0]
    assert config.runner == other.runner
    for field in ("cache_folder", "cache_dtype", "n_cached_tokens", "heldout_dataset_path"):
        assert getattr(config, field) == getattr(other, field)
    for cell, fields in config.cells.items():
        assert fields.hook_name == other.cells[cell].hook_name
    return config, other


@pytest.mark.parametrize("path", WIDTHS, ids=lambda path: path.stem)
def test_wider_saes_differ_from_those_of_equal_width_in_their_width_alone(path: Path) -> None:
    config, other = loaded_with(path, WIDTHS[path])
    bases = {"bi_jumprelu": "bi_jumprelu-warm-up-400-full"}
    for name, fields in config.saes.items():
        match = re.fullmatch(r"(\w+?)((?:-window-\d+)?(?:-warm-up-\d+)?|-no-revival)-(\d+)", name)
        assert match is not None
        architecture, options, times = match.groups()
        base = other.saes[bases.get(architecture, f"{architecture}-full")]
        assert fields["d_sae"] == int(times) * config.cells["mlp_out"].d_in
        free = {"d_sae", "seeds", "target_l0", "k", "l0_coefficient"}
        changed = {
            {"warm-up": "l0_warm_up_steps", "window": "dead_after_tokens"}[option]: int(value)
            for option, value in re.findall(r"-(window|warm-up)-(\d+)", options)
        }
        if options == "-no-revival":
            changed = {"auxk_coefficient": 0, "dead_threshold_decay": 0}
        assert fields | changed == fields
        free |= set(changed)
        alone, of_base = ({k: v for k, v in f.items() if k not in free} for f in (fields, base))
        assert alone == of_base


def test_a_longer_training_differs_from_equal_width_in_its_steps_alone() -> None:
    (config, _), (other, _) = load_sweep_config(LONGER), load_sweep_config(EQUAL_WIDTH)
    twice = {k: 2 * other.runner[k] for k in ("training_tokens", "lr_decay_steps")}
    assert config.runner == {**other.runner, **twice}
    same = ("n_cached_tokens", "n_heldout_tokens", "heldout_dataset_path", "cache_dtype", "threads")
    assert all(getattr(config, name) == getattr(other, name) for name in same)
    assert config.cache_folder == other.cache_folder
    warm_ups = set()
    for name, fields in config.saes.items():
        base = dict(other.saes[f"{fields['architecture']}-full"])
        free = {"d_sae", "seeds", "target_l0", "k", "l0_coefficient", "l0_warm_up_steps"}
        alone, of_base = ({k: v for k, v in f.items() if k not in free} for f in (fields, base))
        assert alone == of_base, name
        assert np.array(fields["d_sae"]).item() == base["d_sae"]
        warm_ups.add(fields.get("l0_warm_up_steps"))
    assert warm_ups == {None, 800, 1600}  # a tenth and a fifth


@pytest.mark.parametrize("path", ENDS, ids=lambda path: path.stem)
def test_what_may_join_two_ends_differs_from_equal_width_in_one_option(path: Path) -> None:
    config, other = loaded_with(path, ENDS[path])
    options = set()
    for fields in config.saes.values():
        base = other.saes[f"{fields['architecture']}-full"]
        given = {k: v for k, v in fields.items() if v is not None}
        (option,) = (
            k for k in given if k not in ("target_l0", "seeds") and given[k] != base.get(k)
        )
        options.add((option, given[option]))
    width = other.saes["bi_jumprelu-full"]["d_sae"]
    expected = {("minus_bias_init", 0), ("polarity_tying", "none"), ("d_sae", 2 * width)}
    assert options == expected


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_signed_sae_that_starts_with_both_sides_open_differs_in_that_alone(path: Path) -> None:
    config, other = loaded_with(path, PAIRS[path])
    l0s = {"full": [8, 32, 128], "half": [32, 128], "full-more-seeds": [32]}
    for name, fields in config.saes.items():
        assert fields["target_l0"] == l0s[name.removeprefix("bi_jumprelu-both-sides-")]
        base = other.saes[name.replace("both-sides", "warm-up-400")]
        apart = {"target_l0", "seeds"}
        own, shared = ({k: v for k, v in of.items() if k not in apart} for of in (fields, base))
        assert own == {**shared, "minus_bias_init": 0}


def test_the_sweeps_of_equal_width_differ_in_the_model_and_its_widths_alone() -> None:
    smollm2, gemma3 = (load_sweep_config(path)[0] for path in ONE_PASS[:2])
    # on Gemma an annealed k is compared as well, and on its residual stream another bandwidth
    own = set(gemma3.saes) - set(smollm2.saes)
    shared = [pair for pair in gemma3.compare if not own & set(pair)]
    assert list(smollm2.compare) == shared
    assert own == {
        "bi_batchtopk-anneal-400-full",
        "bi_batchtopk-anneal-400-aux-k-8-full",
        "bi_jumprelu-bandwidth-0.1-full",
        "bi_jumprelu-bandwidth-0.1-warm-up-400-full",
        "jumprelu-bandwidth-0.1-full",
    }
    of_width = ("d_sae", "matryoshka_widths")
    for sae, fields in smollm2.saes.items():
        other = gemma3.saes[sae]
        assert {k: v for k, v in fields.items() if k not in of_width} == {
            k: v for k, v in other.items() if k not in of_width
        }
        assert fields["d_sae"] / 576 == other["d_sae"] / 640
    of_model = ("model_name", "model_from_pretrained_kwargs")
    assert {k: v for k, v in smollm2.runner.items() if k not in of_model} == {
        k: v for k, v in gemma3.runner.items() if k not in of_model
    }


def test_the_second_model_has_the_recipe_of_the_first() -> None:
    (smollm2, _), (gemma3, _) = (load_sweep_config(path) for path in (BY_THE_RECIPE[0], GEMMA3))
    of_the_model = {"model_name", "model_from_pretrained_kwargs", "dead_feature_window"}
    shared = [
        {k: v for k, v in c.runner.items() if k not in of_the_model} for c in (smollm2, gemma3)
    ]
    assert shared[0] == shared[1]
    assert smollm2.heldout_dataset_path == gemma3.heldout_dataset_path
    assert smollm2.cache_folder != gemma3.cache_folder
    width = ("d_sae", "matryoshka_widths")
    for name, fields in smollm2.saes.items():
        assert gemma3.saes[name]["d_sae"] == 2 * gemma3.cells["resid"].d_in
        same = {k: v for k, v in gemma3.saes[name].items() if k not in width}
        assert same == {k: v for k, v in fields.items() if k not in width}


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in SWEEPS
        if p not in (MAIN, GEMMA3, *ONE_PASS, *LENGTHS, *ENDS, *WIDTHS, LONGER, *PAIRS)
    ],
    ids=lambda path: path.stem,
)
def test_all_sweeps_train_on_the_same_activations_by_the_same_schedule(path: Path) -> None:
    """Some train a whole number of times as long, with a schedule that is as many times longer."""
    (main, _), (other, _) = load_sweep_config(MAIN), load_sweep_config(path)
    times, rest = divmod(other.runner["training_tokens"], main.runner["training_tokens"])
    assert times >= 1
    assert rest == 0
    expected = dict(main.runner)
    expected["training_tokens"] *= times
    expected["lr_decay_steps"] *= times
    # a latent counts as dead after as many steps, or after as large a share of the training
    same_window = other.runner.get("dead_feature_window") == main.runner["dead_feature_window"]
    expected["dead_feature_window"] *= 1 if same_window else times
    # the recipe against dead latents has its own decay, and its SAEs count dead latents themselves
    own = {"lr_decay_steps", "dead_feature_window"} if path in BY_THE_RECIPE else set()
    assert {k: v for k, v in other.runner.items() if k not in own} == {
        k: v for k, v in expected.items() if k not in own
    }
    assert other.cache_folder == main.cache_folder
    hooks = {name: cell.hook_name for name, cell in main.cells.items()}
    assert hooks.items() >= {name: cell.hook_name for name, cell in other.cells.items()}.items()
    free = ("d_sae", "target_l0", "seeds")
    for sae, fields in other.saes.items():  # nor do the SAEs differ in more than width and warm-up
        if sae in main.saes:
            warm_up = [name for name in fields if name.endswith("warm_up_steps")]
            assert all(fields[name] == times * main.saes[sae][name] for name in warm_up)
            same = {k: v for k, v in fields.items() if k not in (*free, *warm_up)}
            assert same == {k: v for k, v in main.saes[sae].items() if k in same}
