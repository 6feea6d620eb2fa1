"""The sweeps of the search: what is changed, and that the rest is as in the comparison."""

import functools
import re
from pathlib import Path

from sae_lens_signaware.experiments.sweep import config as sweep_config

FOLDER = Path(__file__).parents[2] / "configs"
EQUAL_WIDTH = FOLDER / "equal-width-smollm2-135m.yaml"
EQUAL_WIDTH_GEMMA3 = FOLDER / "equal-width-gemma3-270m.yaml"
SEARCH = FOLDER / "search-smollm2-135m.yaml"
SEARCH_GEMMA3 = FOLDER / "search-gemma3-270m.yaml"
LOW_RATE = FOLDER / "low-rate-smollm2-135m.yaml"
load_sweep_config = functools.cache(sweep_config.load_sweep_config)


def test_the_lower_rates_are_held_against_the_search() -> None:
    """An SAE is that of the search but for what its name says."""
    (search, _), (low, runs) = load_sweep_config(SEARCH), load_sweep_config(LOW_RATE)
    assert low.runner == search.runner
    assert low.cache_folder == search.cache_folder
    named = {"rate": "target_l0_rate", "minus": "minus_bias_init", "decay": "dead_threshold_decay"}
    named |= {"anneal": "k_anneal_steps", "auxk": "aux_k", "start": "jumprelu_init_threshold"}
    named["norm"] = "decoder_init_norm"
    own_names = {"jumprelu": "jumprelu-bandwidth-0.5-1e-3"}
    for run in runs:
        match = re.fullmatch(r"(\w+)-([13]e-[34])(.*)", run.sae)
        assert match is not None
        architecture, rate, rest = match.groups()
        assert run.cfg.lr == float(rate)
        expected = {named[k]: float(v) for k, v in re.findall(r"-([a-z]+)-([\d.]+)", rest)}
        if "jumprelu_init_threshold" in expected:
            expected["decoder_init_norm"] = 1
        name = own_names.get(architecture, f"{architecture}-1e-3-26k")
        left_out = {"runner", "dead_after_tokens"}  # the latter is the default there
        of_search = {k: v for k, v in search.saes[name].items() if k not in left_out}
        own = {k: v for k, v in low.saes[run.sae].items() if k != "runner"}
        assert own == of_search | expected
    assert {run.cfg.sae.dead_after_tokens for run in runs if run.sae.startswith("bi_")} == {25_600}


def test_every_sae_is_searched_at_both_rates_and_with_each_window_by_the_schedule_of_the_rest() -> (
    None
):
    (search, runs), (equal, _) = load_sweep_config(SEARCH), load_sweep_config(EQUAL_WIDTH)
    assert search.runner == equal.runner
    rates: dict[str, set[float]] = {}
    windows: dict[str, set[int]] = {}
    for run in runs:
        sae = re.split(r"-(?:bandwidth|default|tanh|quadratic|[13]e-3)", run.sae)[0]
        rates.setdefault(sae, set()).add(run.cfg.lr)
        if f"{sae}-3e-3-" in run.sae:
            tokens = getattr(run.cfg.sae, "dead_after_tokens", None)
            tokens = tokens or run.cfg.dead_feature_window * run.cfg.train_batch_size_tokens
            assert run.sae == f"{sae}-3e-3-{tokens / 1000:.0f}k"
            windows.setdefault(sae, set()).add(tokens)
    assert set(map(frozenset, rates.values())) == {frozenset({1e-3, 3e-3})}
    compared = {fields["architecture"] for fields in equal.saes.values()}
    assert compared == {fields["architecture"] for fields in search.saes.values()}
    # Gated has no loss for dead latents
    assert windows.pop("paper-gated") == {25_600}
    assert set(windows) == set(rates) - {"paper-gated", "gated", "jumprelu"}
    assert set(map(frozenset, windows.values())) == {frozenset({25_600, 76_800, 307_200})}


def test_both_rates_are_searched_on_the_second_model_for_the_saes_of_equal_width() -> None:
    (search, runs), (equal, _) = (load_sweep_config(p) for p in (SEARCH_GEMMA3, EQUAL_WIDTH_GEMMA3))
    (first, _) = load_sweep_config(SEARCH)
    assert search.runner == equal.runner
    assert search.heldout_dataset_path == first.heldout_dataset_path
    own_names = {"bi_jumprelu": "bi_jumprelu-warm-up-400-full"}
    asked = {"k", "target_l0", "seeds"}  # the search has one seed and an L0 of 32
    rates: dict[str, list[float]] = {}
    for name, fields in search.saes.items():
        match = re.fullmatch(r"([\w-]+?)(-bandwidth-0.5)?-([13]e-3)(-26k)?(-rate-0.003)?", name)
        assert match is not None
        of_equal = equal.saes[own_names.get(match[1], f"{match[1]}-full")]
        rest = {k: v for k, v in fields.items() if k not in {*asked, "runner", "target_l0_rate"}}
        assert rest == {k: v for k, v in of_equal.items() if k not in asked}
        assert fields.get("k", fields.get("target_l0", [32])) == [32]
        assert fields.get("target_l0_rate") == (0.003 if match[5] else None)
        rate = {run.cfg.lr for run in runs if run.sae == name}
        assert rate == {float(match[3])}
        rates.setdefault(match[1], []).extend(rate)
    assert all(sorted(of_sae) == [1e-3, 3e-3] for of_sae in rates.values())
    assert len(rates) == 12
    assert len(runs) == 12 * 2 * 3
