"""What the runner says of a text that it cannot train on."""

from pathlib import Path

import pytest
from datasets import Dataset

from sae_lens_signaware.checks import InvalidInputError
from sae_lens_signaware.training.runner import SignawareTrainingRunner
from tests.support.checked_runs import make_runner, proxy_model
from tests.support.runners import runner_config
from tests.support.saes import training_config

OPTIONS = {"model_class_name": "AutoModelForCausalLM", "hook_name": "transformer.h.0.mlp"}


@pytest.mark.parametrize(
    ("dataset", "field"),
    [
        (Dataset.from_dict({"text": [None] * 8}), "dataset_path: every text must be a string: "),
        (Dataset.from_dict({"text": [3] * 8}), "dataset_path: every text must be a string: "),
        (Dataset.from_dict({"text": [""] * 8}), "dataset_path, training_tokens: the text is short"),
        (Dataset.from_dict({"tokens": [[1, 2, 3]] * 8}), "context_size, dataset_path: pretokeniz"),
    ],
    ids=["null", "numbers", "empty", "short rows"],
)
def test_text_that_is_none_is_one_line(dataset: Dataset, field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=field) as error:
        make_runner(tmp_path, proxy_model(), dataset, **OPTIONS).run()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl", "", "dataset_path: the dataset has no row"),
        ("train.jsonl", '{"text": "a"', "dataset_path: "),
        ("train.parquet", "PAR1 and no end", "dataset_path: Parquet magic bytes not found"),
    ],
    ids=["empty", "cut", "cut-parquet"],
)
def test_a_file_of_text_that_is_none_is_one_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content)
    path = str(tmp_path / "data")
    cfg = runner_config(training_config("sa_gsae"), tmp_path, dataset_path=path, **OPTIONS)
    with pytest.raises(InvalidInputError, match=message) as error:
        SignawareTrainingRunner(cfg, override_model=proxy_model())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["no_folder_of_text", "data"])
def test_a_text_that_is_nowhere_is_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()  # without a file of text
    monkeypatch.chdir(tmp_path)
    cfg = runner_config(training_config("sa_gsae"), tmp_path, dataset_path=path, **OPTIONS)
    with pytest.raises(OSError, match=r"^dataset_path: no text is there, and the Hub did") as error:
        SignawareTrainingRunner(cfg, override_model=proxy_model())
    assert "\n" not in str(error.value)


def test_a_table_without_a_row_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"text": ["a"]}).select([]).to_parquet(str(tmp_path / "data/train.parquet"))
    path = str(tmp_path / "data")
    cfg = runner_config(training_config("sa_gsae"), tmp_path, dataset_path=path, **OPTIONS)
    with pytest.raises(InvalidInputError, match=r"^dataset_path: the dataset has no row"):
        SignawareTrainingRunner(cfg, override_model=proxy_model())
