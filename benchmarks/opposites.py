"""Sparse probes of many SAEs over the texts of natural opposites, by axis, side and pair.

    python -m sae_lens_signaware.experiments.opposites opposites_out/data --vader opposites_out
    python benchmarks/opposites.py opposites_out/data --saes sweep_out/main/saes \\
        --model demo_out/model --model-class AutoModelForCausalLM \\
        --model-kwargs '{"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}'

The model runs once over each CSV, for the hook points of all SAEs. Its activations and every result
stay in --cache, so that a call that was stopped goes on where it was, and one that has more SAEs
probes only these. Needs the extra `probe`.
"""

import argparse
import functools
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from own_command import own_command
from result_rows import write_rows
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sae_lens import SAE
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME

import sae_lens_signaware as signaware
from sae_lens_signaware.checks import ConfigError, InvalidInputError
from sae_lens_signaware.evaluation.models import HookedRootModule
from sae_lens_signaware.evaluation.probe_ends import Ends
from sae_lens_signaware.evaluation.probe_results import Probe
from sae_lens_signaware.evaluation.probe_scores import require_scikit_learn
from sae_lens_signaware.evaluation.saved import measured_quality
from sae_lens_signaware.files import sha256_of
from sae_lens_signaware.training.hooks import load_model_with_hooks

FORMS = ("axis", "side", "pair")
PROBE_COLUMNS = ("form", "k", "value", "low", "high", "more features")
END_COLUMNS = ("form", "feature", "verdict", "+ texts", "+ at its end", "- texts", "- at its end")


class Texts(NamedTuple):
    """The texts of a CSV, at most so many of each part."""

    name: str
    held: signaware.LabelledTexts
    sha256: str


class Subject(NamedTuple):
    """An SAE of the list, and its hook point."""

    path: Path
    sae: SAE[Any]
    hook_name: str
    sha256: str


def read_texts(path: Path, max_texts: int | None) -> Texts:
    """Read a CSV with a column "part"; of each part the first ``max_texts``."""
    held = signaware.read_labelled_texts(path, part_column="part")
    assert held.parts is not None
    seen: dict[str, int] = {}
    keep = []
    for i, part in enumerate(held.parts):
        seen[part] = seen.get(part, 0) + 1
        if max_texts is None or seen[part] <= max_texts:
            keep.append(i)
    columns = [[column[i] for i in keep] for column in held]
    digest = hashlib.sha256(json.dumps(columns).encode()).hexdigest()
    return Texts(path.stem, signaware.LabelledTexts(*columns), digest)


def find_saes(places: Iterable[Path], hook_name: str | None) -> list[Subject]:
    """Load every SAE that lies in one of the folders, or below it."""
    subjects = []
    for place in places:
        found = sorted(path.parent for path in place.rglob(SAE_CFG_FILENAME))
        folders = [path for path in found if (path / SAE_WEIGHTS_FILENAME).exists()]
        if not folders:
            raise ConfigError(f"saes: {place} holds no SAE")
        for folder in folders:
            sae = signaware.load_sae_reference(str(folder))
            hook = hook_name or sae.cfg.metadata.hook_name
            if hook is None:
                raise ConfigError(f"saes: {folder} does not say its hook; give --hook-name")
            subjects.append(Subject(folder, sae, hook, sha256_of(folder / SAE_WEIGHTS_FILENAME)))
    return subjects


def digest(*parts: object) -> str:
    """A short name for what these parts decide."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Cache:
    """Activations and results on disk."""

    def __init__(self, args: argparse.Namespace, hooks: Sequence[str]) -> None:
        self.args, self.hooks = args, hooks
        self.model: HookedRootModule | None = None

    def activations(self, texts: Texts, progress: Progress) -> dict[str, signaware.TextActivations]:
        """Return the activations of each hook point; one run of the model makes those missing."""
        model = (self.args.model, self.args.model_kwargs, self.args.context_size)
        paths = {
            hook: self.args.cache / f"{texts.name}-{digest(texts.sha256, hook, model)}.safetensors"
            for hook in self.hooks
        }
        missing = [hook for hook, path in paths.items() if not path.exists()]
        if missing:
            if self.model is None:
                kwargs = json.loads(self.args.model_kwargs)
                self.model = load_model_with_hooks(
                    self.args.model, self.args.model_class, kwargs, self.hooks, self.args.device
                )
            task = progress.add_task(f"Model on {texts.name}", total=len(texts.held.texts))
            made = signaware.text_activations(
                self.model,
                texts.held.texts,
                missing,
                context_size=self.args.context_size,
                advance=functools.partial(progress.advance, task),
            )
            for hook, source in zip(missing, made, strict=True):
                source.write(paths[hook])
        return {hook: signaware.TextActivations.read(path, hook) for hook, path in paths.items()}

    def probes(
        self, texts: Texts, subject: Subject, source: signaware.TextActivations, with_raw: bool
    ) -> signaware.SparseProbes:
        """Return the probes of an SAE, from disk where they are there."""
        args = self.args
        options = (args.aggregation, args.max_cosine, args.resamples, args.seed, with_raw)
        model = (args.model, args.model_kwargs, args.context_size)
        name = digest(texts.sha256, subject.sha256, subject.hook_name, model, options)
        path = args.cache / "probes" / f"{name}.json"
        if not path.exists():
            signaware.probe(
                subject.sae,
                source,
                texts.held.labels,
                parts=texts.held.parts,
                aggregation=args.aggregation,
                max_cosine=args.max_cosine,
                n_resamples=args.resamples,
                seed=args.seed,
                with_raw=with_raw,
            ).write(path)
        return signaware.SparseProbes.read(path)


def row_of(
    texts: Texts, subject: Subject, result: signaware.SparseProbes, raw: Probe
) -> dict[str, Any]:
    """One SAE on one set, as the JSON holds it: rounded, and a probe and an end a line."""
    probes = [p for p in result.probes if p.form != "raw"] + [raw]
    return {
        "set": texts.name,
        "sae": str(subject.path),
        "metric": result.metric,
        "n_fit": result.n_fit,
        "n_report": result.n_report,
        "probes": [probe_row(p) for p in probes],
        "ends": [end_row(ends) for ends in result.ends],
    }


def about(subject: Subject) -> dict[str, Any]:
    """An SAE, with what was measured of it where it was trained."""
    cfg, quality = subject.sae.cfg, measured_quality(subject.path)
    found = {"architecture": cfg.architecture(), "d_sae": cfg.d_sae}
    if quality is not None:
        measured = (quality.l0, quality.explained_variance, quality.bipolar_share)
        found |= dict(zip(("l0", "r2", "bipolar_share"), map(known, measured), strict=True))
    return found


def probe_row(of: Probe) -> list[Any]:
    """The values of PROBE_COLUMNS; the features are those of the next smaller k, and more."""
    new = of.features[of.k // 2 :]
    return [of.form, of.k, *map(known, (of.value, of.low, of.high)), ", ".join(new)]


def end_row(of: Ends) -> list[Any]:
    """The values of END_COLUMNS."""
    sides = [(side.n_texts, known(side.at_end)) for side in (of.pos, of.neg)]
    return [of.form, of.feature, of.verdict, *sides[0], *sides[1]]


def known(value: float) -> float | None:
    """Four digits, or None for a NaN."""
    return None if math.isnan(value) else round(value, 4)


def run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Probe every SAE on every set; what the JSON holds, but for the command."""
    require_scikit_learn()
    sets = [read_texts(path, args.max_texts) for path in sorted(args.data.glob("*.csv"))]
    if not sets:
        raise ConfigError(f"data: {args.data} holds no *.csv")
    subjects = find_saes(args.saes, args.hook_name)
    cache = Cache(args, sorted({subject.hook_name for subject in subjects}))
    rows = []
    with Progress(console=console) as progress:
        task = progress.add_task("SAEs and sets", total=len(sets) * len(subjects))
        for texts in sets:
            activations = cache.activations(texts, progress)
            raw: dict[str, Probe] = {}  # it is the same for every SAE of a hook point
            for subject in subjects:
                hook = subject.hook_name
                result = cache.probes(texts, subject, activations[hook], hook not in raw)
                raw.setdefault(hook, result.probes[-1])
                rows.append(row_of(texts, subject, result, raw[hook]))
                progress.advance(task)
    return {
        "probe_columns": PROBE_COLUMNS,
        "end_columns": END_COLUMNS,
        "saes": {str(subject.path): about(subject) for subject in subjects},
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """One row for each SAE and set: scores with one feature, and with sixteen by side."""
    out = Table(title="Sparse probes of natural opposites", title_justify="left")
    names = ("set", "SAE", "score", *(f"{f} k=1" for f in FORMS), "side k=16", "raw", "axis: ends")
    for name in names:
        out.add_column(name)
    for row in result["rows"]:
        sae = result["saes"][row["sae"]]
        scores = {(form, k): value for form, k, value, *_ in row["probes"]}
        shown = [(form, 1) for form in FORMS] + [("side", 16)]
        verdicts = [verdict for form, _, verdict, *_ in row["ends"] if form == "axis"]
        out.add_row(
            row["set"],
            f"{Path(row['sae']).name} ({sae['architecture']} {sae['d_sae']:,})",
            row["metric"],
            *(f"{scores[key]:.3f}" if key in scores else "-" for key in shown),
            f"{row['probes'][-1][2]:.3f}",
            *(verdicts or ["-"]),
        )
    return out


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("data", type=Path, help="folder of CSV files: text, label, part")
    made.add_argument("--saes", type=Path, nargs="+", required=True, help="folders of SAEs")
    made.add_argument("--model", required=True, help="folder or Hub id")
    made.add_argument("--model-class", default="HookedTransformer")
    made.add_argument("--model-kwargs", default="{}", metavar="JSON")
    made.add_argument("--hook-name", help="of all SAEs; as each says, where left out")
    made.add_argument("--context-size", type=int, default=256)
    made.add_argument("--max-texts", type=int, help="texts of each part at most")
    made.add_argument("--aggregation", default="sum", choices=("sum", "mean", "max"))
    made.add_argument("--max-cosine", type=float, default=-0.5)
    made.add_argument("--resamples", type=int, default=1000)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--device", default="cpu")
    made.add_argument("--cache", type=Path, default=Path("opposites_out/cache"))
    made.add_argument("--json", type=Path, default=Path("results/opposites.json"))
    return made


def main() -> None:
    args = parser().parse_args()
    console = Console(width=180)
    try:
        result = run(args, console)
    except InvalidInputError as error:
        sys.exit(f"Error: {error}")
    console.print(table(result))
    write_rows({"command": own_command(), **result}, args.json)


if __name__ == "__main__":
    main()
