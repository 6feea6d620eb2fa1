"""What a sweep refuses, before it trains."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from sae_lens_signaware.experiments.sweep.config import load_sweep_config
from sae_lens_signaware.experiments.sweep.store import SweepStore
from tests.support.cli import invoke
from tests.support.configs import write
from tests.sweep.examples import last_line, sweep_values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(seed=[0]), "seed: unknown field; did you mean 'seeds'?"),
        (lambda v: v.pop("n_cached_tokens"), "n_cached_tokens: missing; it has no default"),
        (lambda v: v.update(n_heldout_tokens=0), "n_heldout_tokens: Input should be greater"),
        (lambda v: v["cells"]["mlp"].update(d=1), "cells.mlp.d: unknown field"),
        (
            lambda v: v.update(n_heldout_tokens="64"),
            "n_heldout_tokens: Input should be a valid integer, got '64': it is a text; write the",
        ),
        (lambda v: v.update(seeds=[0, "1"]), "seeds.1: Input should be a valid integer, got '1'"),
        (lambda v: v.update(num_cpus=float("inf")), "num_cpus: Input should be a finite number"),
        (
            lambda v: v["saes"]["half"].update(d_sae="24"),
            "saes.half.d_sae must be an integer, got '24': it is a text",
        ),
        (lambda v: v["runner"].update(lr="0.1"), "runner.lr must be a number, got '0.1': it is"),
        (
            lambda v: v.update(compare=[["half", "ful"]]),
            "compare: no SAE 'ful'; did you mean 'full'",
        ),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=1.0),
            "saes.half: exactly one field must",
        ),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=[]),
            "of values to sweep, at least one value, got {'l1_coefficient': []}",
        ),
        (lambda v: v["saes"]["half"].update(l1_coefficient=[1, 1]), "comes twice"),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=[1000000, 1000001]),
            "comes twice; names have six digits of a value",
        ),
        (lambda v: v.update(seeds=[0, 0]), "seeds must be each seed once, got [0, 0]"),
        (
            lambda v: v["saes"].update(
                half={"architecture": "jumprelu", "d_sae": 24, "target_l0": [4, 8]}
            ),
            "saes.half.target_l0: jumprelu does not read it with these settings; sweep a",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"runner": {"foo": 1}}}),
            "cells.mlp.saes.half.runner.foo: not a field of which an SAE may have its own",
        ),
        (lambda v: v["runner"].update(hook_eval="x"), "runner.hook_eval: has no effect"),
        (lambda v: v["cells"].update({"a:b": v["cells"].pop("mlp")}), "that all systems can give"),
        (lambda v: v["cells"].update({"con": v["cells"].pop("mlp")}), "that all systems can give"),
        (lambda v: v["cells"].update({"a.": v["cells"].pop("mlp")}), "that all systems can give"),
        (
            lambda v: v["cells"].update({"MLP": v["cells"]["mlp"]}),
            "cells: 'mlp' and 'MLP' would share a folder",
        ),
        (
            lambda v: v["saes"]["half"].update(runner={"lr": "0.1"}),
            "saes.half.runner.lr must be a number, got '0.1'",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"runner": {"lr": -1.0}}}),
            "cells.mlp.saes.half.runner.lr must be a number above 0 and below 1e30, got -1.0",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"d_sae": "24"}}),
            "cells.mlp.saes.half.d_sae must be an integer, got '24'",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"l1_coefficient": [None]}}),
            "cells.mlp.saes.half.l1_coefficient: what is swept must be numbers, got None",
        ),
        (
            lambda v: v.update(n_cached_tokens=10**13),
            "n_cached_tokens, n_heldout_tokens: the activations of 10,000,000,000,000 tokens do",
        ),
        (lambda v: v["saes"]["half"].update(l1_coefficent=1), "saes.half.l1_coefficent: unknown"),
        (lambda v: v["saes"]["half"].update(architecture="sa_gae"), "saes.half.architecture: unk"),
        (lambda v: v["saes"]["half"].update(seeds=[2]), "saes.half.seeds: must be a list out of"),
        (
            lambda v: v["saes"]["full"].update(seeds=[]),
            "saes.full.seeds: must name a seed in at ",
        ),
        (
            lambda v: [sae.update(seeds=[]) for sae in v["saes"].values()],
            "saes.half.seeds: must name a seed in at least one cell, got []",
        ),
        (
            lambda v: v["runner"].update(model_class_name="HookedTransformer"),
            "needs model_class_name: AutoModelForCausalLM",
        ),
        (
            lambda v: v["runner"].update(model_from_pretrained_kwargs={"foo": 1}),
            "model_from_pretrained_kwargs: GPT2LMHeadModel.__init__() got an unexpected keyword",
        ),
        (lambda v: v["cells"]["mlp"].update(saes={"hal": {}}), "cells.mlp.saes: no SAE 'hal'; did"),
        (lambda v: v.update(latents={"saes": ["halb"], "value": 1}), "latents.saes: no SAE 'halb'"),
        (lambda v: v["runner"].update(lrr=1), "runner.lrr: unknown field; did you mean 'lr'"),
        (
            lambda v: (v["runner"].update(lrr=1), v["saes"]["half"].update(runner={"lr": 1e-3})),
            "runner.lrr: unknown field; did you mean 'lr'",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"seeds": [9]}}),
            "cells.mlp.saes.half.seeds: must be a list out of",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"d_in": 5}}),
            "cells.mlp.saes.half.d_in: is that of the cell",
        ),
        (
            lambda v: v["cells"]["mlp"].update(saes={"half": {"l1_coefficient": 0.1}}),
            "cells.mlp.saes.half: exactly one field must hold a list of values to sweep",
        ),
        (lambda v: v["runner"].update(seed=1), "runner.seed: is set by the sweep"),
        (lambda v: v.update(cache_dtype="half"), "cache_dtype: Input should be 'float32', 'float"),
        (
            lambda v: v["saes"]["half"].update(runner={"context_size": 8}),
            "saes.half.runner.context_size: not a field of which an SAE may have its own",
        ),
        (lambda v: v["saes"]["half"].update(runner={"lr_ed": 8}), "own; did you mean 'lr_end'?"),
        (
            lambda v: v["saes"]["half"].update(runner=[1]),
            "saes.half.runner: must be a mapping of fields, got [1]",
        ),
        (lambda v: v.update(n_cached_tokens=10**6), "n_cached_tokens, n_heldout_tokens:"),
        (
            lambda v: v["cells"]["mlp"].update(hook_name="transformer.h.7"),
            "hook_name: the model has no module 'transformer.h.7' (model_class_name Auto",
        ),
        (
            lambda v: v["cells"]["mlp"].update(d_in=8),
            "cells.mlp.d_in must be 16, the width of hook 'transformer.h.0.mlp', got 8",
        ),
        (
            lambda v: v.update(n_cached_tokens=63),
            "at least runner.train_batch_size_tokens, 64, got",
        ),
        (
            lambda v: v["saes"]["half"].update(l1_coefficient=0.1, polarity_tying=["full", "none"]),
            "saes.half.polarity_tying: what is swept must be numbers, got 'full'",
        ),
        (lambda v: v["saes"]["half"].update(l1_coefficient=[None]), "must be numbers, got None"),
        (lambda v: v["saes"]["half"].update(seeds=[[0]]), "saes.half.seeds: must be a list out of"),
        (lambda v: v.update({1: 2, "zz": 3}), "1: unknown field"),
        (
            lambda v: v["saes"]["half"].update(normalize_activations="layer_norm"),
            "latents.saes: normalize_activations of half must not be a per-token",
        ),
        (lambda v: v["latents"].update(value=3), "latents.value must be one of the values of half"),
        (
            lambda v: v.update(compare=[["half", "half"]]),
            "compare must be two different names of saes, got ['half', 'half']",
        ),
        (
            lambda v: v["latents"].update(plain="half"),
            "latents.plain must be an SAE without signed latents, got 'half' of architecture sa_gs",
        ),
        (
            lambda v: [v["saes"][name].update(seeds=[i]) for i, name in enumerate(v["saes"])],
            "compare: half and full share no seed",
        ),
        (lambda v: v["runner"].update(logger={}), "runner.logger: is set by the sweep"),
        (lambda v: v["runner"].update(compile_sae=True), "runner.compile_sae: has no effect"),
        (lambda v: v["runner"].update(n_eval_batches=3), "runner.n_eval_batches: has no effect"),
        (lambda v: v["runner"].update(llm_device="cpu"), "runner.llm_device: has no effect"),
        (lambda v: v["runner"].update(prefetch_llm_batches=2), "runner.prefetch_llm_batches: has"),
        (lambda v: v["saes"]["half"].update(d_in=16), "saes.half.d_in: is that of the cell, leave"),
        (
            lambda v: v.update(heldout_dataset_path=v["runner"]["dataset_path"]),
            "heldout_dataset_path must be another text than runner.dataset_path, got '",
        ),
        (
            lambda v: v.update(heldout_dataset_path=v["runner"]["dataset_path"] + "/../train"),
            "heldout_dataset_path must be another text than runner.dataset_path, got '",
        ),
        (
            lambda v: [
                v["cells"].update({"mlp-a": v["cells"]["mlp"]}),
                v["saes"].update({"a-half": v["saes"]["half"]}),
                v["latents"].update(saes=["half", "a-half"]),
            ],
            "latents.saes: half at mlp-a and a-half at mlp would share the file mlp-a-half-*.json",
        ),
        (lambda v: v["cells"].update({"../x": v["cells"].pop("mlp")}), "cells: a name must not"),
        (lambda v: v["cells"].update({"a\tb": v["cells"].pop("mlp")}), "cells: a name must not"),
        (
            lambda v: v["cells"].update({"é" * 51: v["cells"].pop("mlp")}),
            "cells: bytes of a name must be at most 100, got 102",
        ),
        (lambda v: v.update(seeds=[2**63]), "seeds must be 64 bits, which torch takes, got 922337"),
        (
            lambda v: v["runner"].update(lr_warm_up_steps=13),
            "runner.lr_warm_up_steps + lr_decay_steps must be at most the 12 steps",
        ),
        (
            lambda v: v["saes"]["half"].update(runner={"lr_decay_steps": 13}),
            "saes.half.runner.lr_warm_up_steps + lr_decay_steps must be at most the 12 steps",
        ),
        (
            lambda v: v.update(heldout_dataset_path="a\0b"),
            "heldout_dataset_path, runner.dataset_path: must be paths or names, got 'a\\x00b'",
        ),
        (
            lambda v: v["runner"].update(sequence_separator_token=-1),
            "sequence_separator_token must be a token id from 0 to 63, got -1",
        ),
        (
            lambda v: v["runner"].update(exclude_special_tokens=[2**63]),
            "exclude_special_tokens must be 64 bits, which torch takes, got 9223372036854775808",
        ),
        (
            lambda v: v.update(heldout_dataset_path=""),
            "heldout_dataset_path must be a text, or nul",
        ),
        (lambda v: v.update(threads=10**12), "threads: Input should be less than or equal to 4096"),
        (
            lambda v: v["saes"]["full"].update(device="meta"),
            "saes.full.device must be a device that computes here, such as cpu or cuda, got 'meta'",
        ),
        (
            lambda v: v["runner"].update(model_from_pretrained_kwargs={"dtype": "fp16"}),
            "model_from_pretrained_kwargs: ",
        ),
        (
            lambda v: v["runner"].update(
                model_from_pretrained_kwargs={"attn_implementation": "flash_attention_9"}
            ),
            "model_from_pretrained_kwargs: ",
        ),
        (lambda v: v["runner"].update(use_chat_formatting=True), "use_chat_formatting: "),
        (
            lambda v: v.update(cache_folder=v["runner"]["dataset_path"] + "/train.parquet"),
            "cache_folder must be a folder, got ",
        ),
    ],
)
def test_wrong_configs(change: Any, message: str, data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    change(values)
    result = invoke(
        "sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 2, result.stderr
    assert message in last_line(result)
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_text_without_a_column_of_text(data: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Dataset.from_dict({"body": ["w1 w2"] * 40}).to_parquet(tmp_path / "train" / "train.parquet")
    values = sweep_values(data)
    values["runner"]["dataset_path"] = str(tmp_path / "train")
    result = invoke(
        "sweep", str(write(values, tmp_path / "s.yaml")), "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 2, result.stderr
    assert "Error: dataset_path: Dataset must have a" in last_line(result)


def test_a_list_that_is_one_value_is_not_swept(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["saes"]["half"] = {
        "architecture": "matryoshka_batchtopk",
        "d_sae": 24,
        "matryoshka_widths": [8, 24],
        "k": [2, 4],
    }
    del values["latents"]
    _, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    mine = [run for run in runs if run.sae == "half"]
    assert {run.value for run in mine} == {2, 4}
    assert all(run.cfg.sae.matryoshka_widths == [8, 24] for run in mine)


def test_runner_fields_of_an_sae_and_of_its_cell_add_up(data: Path, tmp_path: Path) -> None:
    values = sweep_values(data)
    values["saes"]["half"]["runner"] = {"lr": 0.01, "dead_feature_window": 77}
    values["cells"]["mlp"]["saes"] = {"half": {"runner": {"lr": 0.02, "adam_beta1": 0.5}}}
    _, runs = load_sweep_config(write(values, tmp_path / "s.yaml"))
    cfgs = {run.cell: run.cfg for run in runs if run.sae == "half"}
    of = {
        cell: (cfg.lr, cfg.dead_feature_window, cfg.adam_beta1 == 0.5) for cell, cfg in cfgs.items()
    }
    assert of == {"mlp": (0.02, 77, True), "resid": (0.01, 77, False)}


OTHER_CACHES: dict[str, dict[str, Any]] = {
    "runner": {
        "dtype": "bfloat16",
        "disable_concat_sequences": True,
        "model_kwargs": {"a": 1},
        "model_from_pretrained_kwargs": {"a": 1},
        "hook_head_index": 0,
        "context_size": 8,
        "prepend_bos": False,
        "exclude_special_tokens": True,
        "seqpos_slice": [1, -1],
        "autocast_lm": True,
        "sequence_separator_token": "eos",
        "use_chat_formatting": True,
    },
    "sweep": {"n_cached_tokens": 256, "n_heldout_tokens": 128, "heldout_dataset_path": None},
}


@pytest.mark.parametrize(
    ("part", "field"), [(part, field) for part, fields in OTHER_CACHES.items() for field in fields]
)
def test_what_the_activations_depend_on_makes_another_cache(
    part: str, field: str, data: Path, tmp_path: Path
) -> None:
    values, change = sweep_values(data), {field: OTHER_CACHES[part][field]}
    other = values | (change if part == "sweep" else {"runner": values["runner"] | change})
    identities = []
    for asked in (values, other):
        config, runs = load_sweep_config(write(asked, tmp_path / "s.yaml"))
        identities.append(SweepStore(config, tmp_path).identity_of_cache(runs[0]))
    for identity in identities:
        del identity["content"]  # of another text
    assert identities[0] != identities[1]
