"""The command that probes: what it writes, and its one line before long work."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table

import sae_lens_signaware as signaware
from sae_lens_signaware.cli import probing
from tests.support.cli import assert_one_line_error, invoke
from tests.support.models import tiny_gpt2, tiny_tokenizer
from tests.support.saes import D_IN, make_sae
from tests.test_probe_inputs import GPT2_HOOK, write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, an SAE of one of its hook points, and labelled texts."""
    tiny_gpt2().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    sae = make_sae("sa_gsae")
    sae.cfg.metadata.hook_name = GPT2_HOOK
    sae.cfg.metadata.model_class_name = "AutoModelForCausalLM"
    sae.save_model(tmp_path / "sae")
    rng = np.random.default_rng(0)
    lines = [f"{' '.join(f'w{i}' for i in rng.integers(0, 63, 4))},{n}" for n in range(40)]
    write_csv(tmp_path / "texts.csv", "\n".join(["text,label", *lines]) + "\n")
    return tmp_path


def call(folder: Path, *args: str, data: str = "texts.csv") -> Any:
    held = ("--data", str(folder / data), "--model", str(folder / "model"))
    return invoke("probe", str(folder / "sae"), *held, *args)


def test_the_command_prints_and_writes_what_the_function_gives(folder: Path) -> None:
    result = call(folder, "--k", "1", "--k", "3", "--out", str(folder / "probes.json"))
    assert result.exit_code == 0, result.stderr
    held = signaware.SparseProbes.read(folder / "probes.json")
    assert {(p.form, p.k) for p in held.probes} >= {("axis", 3), ("side", 1), ("raw", D_IN)}
    assert f"{held.of('axis', 3).value:.3f}" in result.stdout
    assert held.hook_name == GPT2_HOOK
    assert json.loads((folder / "probes.json").read_text())["ends"][0]["verdict"]
    model = signaware.training.hooks.load_model_with_hooks(
        str(folder / "model"), "AutoModelForCausalLM", None, [GPT2_HOOK]
    )
    texts = signaware.read_labelled_texts(folder / "texts.csv")
    (source,) = signaware.text_activations(model, texts.texts, [GPT2_HOOK])
    again = signaware.probe(
        signaware.load_sae_reference(str(folder / "sae")), source, texts.labels, ks=[1, 3]
    )
    assert again.probes == held.probes


def test_the_command_says_in_one_line_what_is_wrong(folder: Path) -> None:
    assert_one_line_error(call(folder, "--text-column", "texts"), 2, "did you mean 'text'?")
    assert_one_line_error(call(folder, "--text-column", "xyz"), 2, "'xyz'; known: label, text")
    assert_one_line_error(call(folder, data="none.csv"), 2, "does not exist")
    hook = call(folder, "--hook-name", "transformer.h.9.mlp")
    assert hook.exit_code == 2
    # above it is the progress bar of transformers, which loads the model
    assert hook.stderr.splitlines()[-1].startswith("Error: hook_name: the model has no module")
    kwargs = call(folder, "--model-kwargs", "{gguf_file}")
    assert_one_line_error(kwargs, 2, "model-kwargs must be JSON, got '{gguf_file}'")
    assert_one_line_error(call(folder, "--model-kwargs", "3"), 2, "must be a JSON object, got '3'")
    assert_one_line_error(call(folder, "--out", str(folder)), 2, f"out: {folder} is a folder; name")
    assert_one_line_error(call(folder, "--model-class", "Foo"), 2, "model_class_name must be one")
    assert_one_line_error(
        call(folder, "--device", "gpu"), 2, "device must be a device that computes"
    )
    # one line alone, so no model was loaded
    assert_one_line_error(call(folder, "--max-cosine", "0.5"), 2, "max_cosine must be from -1 to")
    assert_one_line_error(call(folder, "--k", "0"), 2, "ks must be numbers of at least 1, got [0]")
    too_short = call(folder, "--context-size", "1")
    assert_one_line_error(too_short, 2, "context_size must be at least 2, got 1")
    one_class = "\n".join(["text,label", *["w1,a"] * 40])
    write_csv(folder / "one.csv", one_class)
    assert_one_line_error(call(folder, data="one.csv"), 2, "got only 'a'")
    write_csv(folder / "few.csv", "text,label\nw1,1\nw2,2\nw3,3\n")
    assert_one_line_error(call(folder, data="few.csv"), 2, "at least 10, got 1")
    sae = signaware.load_sae_reference(str(folder / "sae"))
    sae.cfg.metadata.hook_name = None
    sae.save_model(folder / "sae")
    assert_one_line_error(call(folder), 2, "give --hook-name")


def test_without_scikit_learn_one_line_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name == "sklearn" else find_spec(name, *args),
    )
    result = call(folder)
    assert_one_line_error(result, 2, "scikit-learn is not installed")
    assert "pip install 'sae-lens-signaware[probe]'" in result.stderr


def test_options_are_checked_before_the_sae_is_loaded(folder: Path) -> None:
    for option, value in (("--context-size", "0"), ("--model-kwargs", "3"), ("--k", "0")):
        result = invoke("probe", "none", "--data", str(folder / "texts.csv"), option, value)
        assert result.exit_code == 2
        assert "none has no cfg.json" not in result.stderr


def test_another_model_is_not_loaded_with_what_the_sae_says_of_its_own(folder: Path) -> None:
    sae = signaware.load_sae_reference(folder / "sae")
    sae.cfg.metadata.model_from_pretrained_kwargs = {"gguf_file": "x.gguf"}
    sae.save_model(folder / "sae")
    assert call(folder, "--k", "1").exit_code == 0


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("hook_name", ["a"], "metadata.hook_name must be a text or null, got ['a']"),
        ("model_class_name", 5, "metadata.model_class_name must be a text or null, got 5"),
        ("model_name", 5, "metadata.model_name must be a text or null, got 5"),
        ("model_from_pretrained_kwargs", 5, "metadata.model_from_pretrained_kwargs must be"),
    ],
)
def test_metadata_of_another_type_is_one_line(
    field: str, value: Any, line: str, folder: Path
) -> None:
    path = folder / "sae" / "cfg.json"
    held = json.loads(path.read_text())
    held["metadata"][field] = value
    path.write_text(json.dumps(held))
    result = invoke("probe", str(folder / "sae"), "--data", str(folder / "texts.csv"))
    assert_one_line_error(result, 2, line)


def test_an_sae_of_another_width_is_found_before_all_texts_are_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = make_sae("sa_gsae", d_in=D_IN + 1)
    sae.cfg.metadata = signaware.load_sae_reference(folder / "sae").cfg.metadata
    sae.save_model(folder / "sae")
    ran = []
    run = signaware.text_activations

    def counted(model: Any, texts: Any, **others: Any) -> Any:
        ran.append(len(texts))
        return run(model, texts, **others)

    monkeypatch.setattr("sae_lens_signaware.evaluation.text_activations", counted)
    result = call(folder)
    assert result.exit_code == 2
    assert f"activations must be {D_IN + 1} wide, got '{D_IN} wide'" in result.stderr
    assert ran == [1]


def test_the_result_is_written_before_it_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = probing.console.print

    def full(*what: Any, **how: Any) -> None:
        if isinstance(next(iter(what), None), Table):
            raise OSError("No space left on device")
        prints(*what, **how)  # of the progress bar

    monkeypatch.setattr(probing.console, "print", full)
    result = call(folder, "--k", "1", "--out", str(folder / "probes.json"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: No space left on device"
    assert signaware.SparseProbes.read(folder / "probes.json").probes
