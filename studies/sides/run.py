"""Probe the sides of SAEs on labelled texts, and measure whether their effects are opposite.

    python studies/sides/run.py --vader FOLDER

Trains the SAEs of the sweeps beside this file first, or goes on with them (half a day). FOLDER holds
vaderSentiment-3.2.1.tar.gz, of which the rated texts are: `pip download --no-deps --no-binary :all:
vaderSentiment==3.2.1` fetches it. Results go to result.json.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import datasets
import torch
import yaml
from sae_lens import SAE
from sae_lens.load_model import load_model
from torch import Tensor

from sae_lens_signaware.evaluation.probe import probe
from sae_lens_signaware.evaluation.texts import read_labelled_texts, text_activations
from studies.common import measured_with, model_of, run_sweeps, sae_folder, write_result
from studies.sides import opposites, opposition
from studies.sides.ends import both_stand_for_ends, feature_values

HERE = Path(__file__).parent
PROBE_COLUMNS = (
    *("cell", "sae", "set", "metric", "axis", "side", "pair", "sides_8"),
    *("axis_ends", "pair_ends"),
)
OPPOSITION_COLUMNS = (
    *("cell", "sae", "d_sae", "bipolar", "measured"),
    *("above_chance", "opposition_median", "chance"),
)
SIGNED = ("bi_jumprelu", "sa_gsae", "bi_batchtopk", "bi_matryoshka_batchtopk")
LENGTH, N_PROMPTS, K = 64, 512, 12
N_LATENTS = {"SmolLM2": 16, "Gemma 3": 10}


def prompts_of(model: Any, texts: Sequence[str], n: int, length: int = LENGTH) -> Tensor:
    """At most n prompts of ``length`` token ids, evenly over the texts, each from BOS on."""
    tokenizer = model.tokenizer
    bos = tokenizer.bos_token_id
    width, rows = length - 1, []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows += [[bos, *ids[at : at + width]] for at in range(0, len(ids) - width, width)]
    return torch.tensor(rows[:: max(1, len(rows) // n)][:n])


@torch.no_grad()
def probe_row(sae: SAE[Any], texts: Any, activations: Any) -> list[Any]:
    """The columns of ``PROBE_COLUMNS`` from "metric" on, for one set of texts."""
    found = probe(sae, activations, texts.labels, parts=texts.parts, ks=(1, 8), with_raw=False)
    value = {(p.form, p.k): round(float(p.value), 3) for p in found.probes}
    best = {p.form: p.features[0] for p in found.probes if p.k == 1}

    def ends(form: str) -> int | None:
        if form not in best:
            return None
        values = feature_values(sae, activations, best[form])
        return int(both_stand_for_ends(values, texts.labels, texts.parts))

    return [
        found.metric,
        *(value.get((form, 1)) for form in ("axis", "side", "pair")),
        value.get(("side", 8)),
        ends("axis"),
        ends("pair"),
    ]


def measure_model(config: Path, args: argparse.Namespace, sets: Sequence[Path]) -> Any:
    """The rows of both tables for the SAEs of one sweep."""
    runs = run_sweeps(HERE, args.sweeps, config.name)
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    runner = values["runner"]
    model = load_model(
        runner["model_class_name"],
        runner["model_name"],
        device=args.device,
        model_from_pretrained_kwargs=runner["model_from_pretrained_kwargs"],
        hook_names=[cell["hook_name"] for cell in values["cells"].values()],
    )
    heldout = datasets.Dataset.from_parquet(f"{args.heldout}/train.parquet")
    prompts = prompts_of(model, heldout["text"], N_PROMPTS)
    name, probes, effects = model_of(config), [], []
    for cell, of_cell in itertools.groupby(runs, key=lambda run: run.cell):
        saes = {
            run.sae: SAE.load_from_disk(sae_folder(config, args.sweeps, run)) for run in of_cell
        }
        hook = next(iter(saes.values())).cfg.metadata.hook_name
        for path in sets:
            texts = read_labelled_texts(path)
            (activations,) = text_activations(model, texts.texts, [hook])
            for sae_name, sae in saes.items():
                probes.append([cell, sae_name, path.stem, *probe_row(sae, texts, activations)])
        for sae_name in SIGNED:
            found = opposition.measure(model, saes[sae_name], prompts, N_LATENTS[name], K)
            effects.append([cell, sae_name, *(found[c] for c in OPPOSITION_COLUMNS[2:])])
            print(cell, sae_name, found, flush=True)
    return probes, effects


def main() -> None:
    """Run both measures on both models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"), help="their output")
    parser.add_argument("--heldout", type=Path, default=Path("demo_out/data/heldout"))
    parser.add_argument("--vader", type=Path, required=True, help="folder of the sdist")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    sets = {name: opposites.template_texts(of) for name, of in opposites.OPPOSITES.items()}
    sets |= opposites.rated_texts(args.vader / opposites.SDIST)
    paths = opposites.write_texts(sets, args.sweeps / "sides" / "texts")
    probes, effects = [], []
    for config in sorted(HERE.glob("*.yaml")):
        of_probes, of_effects = measure_model(config, args, paths)
        probes += of_probes
        effects += of_effects
    result = {
        "measured_with": measured_with(),
        "probe_columns": list(PROBE_COLUMNS),
        "probes": probes,
        "opposition_columns": list(OPPOSITION_COLUMNS),
        "opposition": effects,
    }
    write_result(result, HERE)


if __name__ == "__main__":
    main()
