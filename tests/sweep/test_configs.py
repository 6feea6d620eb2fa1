"""The sweeps in configs/: how many runs they are, and that their figures can be compared."""

from pathlib import Path

import pytest

from sae_lens_signaware.experiments.sweep.config import load_sweep_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "n_runs", "n_comparisons", "out"),
    [
        # three seeds of four SAEs, one of seven more
        ("sweep-smollm2-135m", 3 * (3 * 4 + 7) * 5, 23, "main"),
        ("ablations-smollm2-135m", 3 * 10 * 2, 9, "ablations"),
        ("double-smollm2-135m", 3 * 2, 2, "double"),
        # three seeds of four SAEs, one of four, and two of three points; in one cell two more seeds,
        # and three points
        ("quadruple-smollm2-135m", 3 * ((3 * 4 + 4) * 5 + 2 * 3) + 2 * 5 + 3, 20, "quadruple"),
        # three seeds of one SAE and one more point in each cell; in one cell three of another, and
        # one of three points
        ("quadruple-auxk-smollm2-135m", 3 * (3 * 5 + 1) + 3 * 5 + 3, 2, "quadruple_auxk"),
        ("eightfold-smollm2-135m", 2 * 2, 1, "eightfold"),
        ("wide-smollm2-135m", 2 * 4 * 3, 3, "wide"),
        ("widest-smollm2-135m", (3 * 2 + 1) * 3, 2, "widest"),
        ("widest-quadruple-smollm2-135m", 2, 0, "widest_quadruple"),
    ],
)
def test_the_sweeps_of_the_repository_are_sound(
    name: str, n_runs: int, n_comparisons: int, out: str
) -> None:
    path = CONFIGS / f"{name}.yaml"
    first = path.read_text().splitlines()[0]
    assert first == f"# sae-lens-signaware sweep configs/{name}.yaml --out sweep_out/{out}"
    config, runs = load_sweep_config(path)
    assert len(runs) == n_runs == len({run.name for run in runs})
    assert len(config.compare) == n_comparisons


@pytest.mark.parametrize(
    ("name", "times", "window"),
    [
        ("ablations", 1, 1),
        ("double", 2, 1),
        ("quadruple", 4, 4),
        ("quadruple-auxk", 4, 1),
        ("eightfold", 8, 1),
        ("wide", 1, 1),
        ("widest", 1, 1),
        ("widest-quadruple", 4, 4),
    ],
)
def test_all_sweeps_train_on_the_same_activations_by_the_same_schedule(
    name: str, times: int, window: int
) -> None:
    """Lengths are ``times`` those of the main sweep, the window of dead latents ``window`` times."""
    a, b = (load_sweep_config(CONFIGS / f"{x}-smollm2-135m.yaml")[0] for x in ("sweep", name))
    lengths = {"training_tokens": times, "lr_decay_steps": times, "dead_feature_window": window}
    assert a.runner | {k: n * a.runner[k] for k, n in lengths.items()} == b.runner
    assert a.cache_folder == b.cache_folder
    hooks = {k: c.hook_name for k, c in a.cells.items()}
    assert hooks.items() >= {k: c.hook_name for k, c in b.cells.items()}.items()
    free = ("d_sae", "target_l0", "seeds")
    for sae, fields in b.saes.items():  # nor do the SAEs differ in more than width and warm-up
        if sae in a.saes:
            warm_up = [k for k in fields if k.endswith("warm_up_steps")]
            assert all(fields[k] == times * a.saes[sae][k] for k in warm_up)
            same = {k: v for k, v in fields.items() if k not in (*free, *warm_up)}
            assert same == {k: v for k, v in a.saes[sae].items() if k in same}
