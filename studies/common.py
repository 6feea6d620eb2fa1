"""What the studies share: rows of sweeps, Markdown tables, figures, and running a sweep."""

import importlib
import io
import itertools
import json
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STUDIES = Path(__file__).parent
ROOT = STUDIES.parent
CELLS = [
    f"{model}, {hook}"
    for model in ("SmolLM2", "Gemma 3")
    for hook in ("mlp_out", "attn_out", "resid")
]
L0S = (8, 16, 32, 64, 128)
MARGIN = 0.002
"""R² by which two SAEs may differ and still be level."""
MAX_SPACING = 2.5
"""Factor in L0 between two runs up to which all of the line between them is read."""

LABELS = {
    "bi_jumprelu": "`bi_jumprelu`",
    "sa_gsae": "`sa_gsae`",
    "bi_batchtopk": "`bi_batchtopk`",
    "bi_batchtopk-annealed": "`bi_batchtopk`, annealed k",
    "bi_topk": "`bi_topk`",
    "bi_matryoshka_batchtopk": "`bi_matryoshka_batchtopk`",
    "batchtopk": "BatchTopK",
    "batchtopk-annealed": "BatchTopK, annealed k",
    "batchtopk-double": "BatchTopK, twice as wide",
    "jumprelu": "JumpReLU",
    "topk": "TopK",
    "abstopk": "AbsTopK",
    "matryoshka_batchtopk": "Matryoshka BatchTopK",
    "gated": "Gated",
    "paper_gated": "Gated (its paper)",
}
"""Of each SAE in tables and figures: in code letters ours, the others SAELens's."""

LOOKS = {  # colour on a light page, on a dark page, marker
    "sa_gsae": ("#0072b2", "#56b4e9", "o"),
    "bi_jumprelu": ("#008a64", "#2fc79a", "^"),
    "bi_batchtopk": ("#7b52b9", "#b79aea", "v"),
    "bi_matryoshka_batchtopk": ("#b5428b", "#ec8fc8", "<"),
    "gated": ("#b07500", "#e6b84a", "s"),
    "paper_gated": ("#d55e00", "#ff8c42", "D"),
    "jumprelu": ("#8c5a44", "#cf9f88", "P"),
    "batchtopk": ("#6f6f6f", "#a8a8a8", "X"),
    "matryoshka_batchtopk": ("#5c7080", "#9db4c4", "h"),
    "abstopk": ("#a33b3b", "#ef8a8a", "*"),
    "topk": ("#7a7a2a", "#c2c25e", "p"),
    "floor": ("#999999", "#808080", ""),
}
INK, RULE = "#555555", "#cccccc"
_DARK = {INK: "#c4c7cf", RULE: "#4a4d57"} | {light: dark for light, dark, _ in LOOKS.values()}
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes everywhere
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "sae_lens_signaware",
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "savefig.transparent": True,
}


# --- results


class Run(NamedTuple):
    """One SAE of a sweep, as ``result.json`` has it under ``columns`` and ``runs``."""

    cell: str
    sae: str
    seed: int
    value: float
    l0: float
    r2: float
    dead_share: float
    bipolar_share: float


def read_result(folder: Path) -> dict[str, Any]:
    """The ``result.json`` of a study."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def write_result(result: Mapping[str, Any], folder: Path) -> None:
    """Write ``result.json`` with each innermost list or object on a line, so that a run is one."""
    (folder / "result.json").write_text(_lines(result) + "\n", encoding="utf-8")


def _lines(value: Any, depth: int = 1) -> str:
    held = list(value.values()) if isinstance(value, Mapping) else value
    is_nested = isinstance(value, Mapping | list | tuple)
    if not is_nested or not any(isinstance(v, Mapping | list | tuple) for v in held):
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    parts = [_lines(v, depth + 1) for v in held]
    if isinstance(value, Mapping):
        parts = [f"{json.dumps(k)}: {part}" for k, part in zip(value, parts, strict=True)]
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    body = ",\n".join(" " * depth + part for part in parts)
    return f"{opening}\n{body}\n{' ' * (depth - 1)}{closing}"


def records(result: Mapping[str, Any], rows: str, columns: str = "columns") -> list[dict[str, Any]]:
    """The rows of a table in a result, each a dictionary by column."""
    return [dict(zip(result[columns], row, strict=True)) for row in result[rows]]


def runs_of(result: Mapping[str, Any]) -> list[Run]:
    """The runs of a result."""
    return [Run(**record) for record in records(result, "runs")]


def measured_with() -> dict[str, Any]:
    """The machine and the versions of a measurement, for its result."""
    import sae_lens
    import torch

    import sae_lens_signaware

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "package": f"sae_lens_signaware {sae_lens_signaware.__version__}",
        "sae_lens": sae_lens.__version__,
        "torch": torch.__version__,
        "cpu": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


# --- sweeps


def run_sweeps(study: Path, out: Path, pattern: str = "*.yaml") -> list[Run]:
    """Run, or go on with, the sweeps of a study, and return the runs of all.

    A sweep of STUDY/NAME.yaml, of those whose name matches, goes to OUT/STUDY/NAME. A cell is named "MODEL, CELL" in the runs. An
    SAE whose name ends in "-more-seeds" is joined with the one before that ending. To be called
    from the root of a clone, after studies/prepare.py.
    """
    from rich.console import Console

    from sae_lens_signaware.sweep import load_sweep_config, run_sweep

    found = []
    for path in sorted(study.glob(pattern)):
        config, runs = load_sweep_config(path)
        summary = run_sweep(config, runs, sweep_folder(path, out), Console())
        for result in summary.results:
            quality = result.quality
            run = Run(
                cell=f"{model_of(path)}, {result.cell}",
                sae=result.sae.removesuffix("-more-seeds"),
                seed=result.seed,
                value=result.value,
                l0=round(quality["l0"], 3),
                r2=round(quality["explained_variance"], 5),
                dead_share=round(quality["dead_share"], 5),
                bipolar_share=round(result.bipolar_share, 4),
            )
            found.append(run)
    return sorted(found, key=lambda run: (CELLS.index(run.cell), run.sae, run.seed, run.value))


def sweep_folder(config: Path, out: Path) -> Path:
    """Where a study's sweep is written."""
    return out.resolve() / config.parent.name / config.stem


def sae_folder(config: Path, out: Path, run: Run) -> Path:
    """Where a sweep of a study has saved the SAE of a run."""
    cell = run.cell.removeprefix(f"{model_of(config)}, ")
    place = sweep_folder(config, out) / "saes" / cell / f"seed-{run.seed}" / run.sae
    (found,) = place.glob(f"*-{run.value:g}")
    return found


def model_of(config: Path) -> str:
    """The model of a study's sweep, as tables name it."""
    return "SmolLM2" if "smollm2" in config.stem else "Gemma 3"


# --- R² at an L0


def of_sae(runs: Iterable[Run], cell: str, sae: str, seed: int | None = 0) -> list[Run]:
    """The runs of an SAE on a cell in the order of L0; of one seed, or of all where it is None."""
    mine = [r for r in runs if (r.cell, r.sae) == (cell, sae) and seed in (None, r.seed)]
    return sorted((r for r in mine if r.l0 > 0), key=lambda run: run.l0)


def r2_at(line: Sequence[Run], l0: float) -> float | None:
    """R² at an L0, linear in log L0 between runs; None where no run is near, or beyond a tenth.

    A frontier is bent, so the line between two runs that are far apart in L0 is read near them
    alone: where log(L0 / L0 a) · log(L0 b / L0) is at most (log 2.5 / 2)².
    """
    if len(line) < 2 or not line[0].l0 / 1.1 <= l0 <= line[-1].l0 * 1.1:
        return None
    a, b = next((ends for ends in itertools.pairwise(line) if l0 <= ends[1].l0), tuple(line[-2:]))
    if a.l0 == b.l0:
        return a.r2
    product = abs(math.log(l0 / a.l0) * math.log(l0 / b.l0))
    if product > (math.log(MAX_SPACING) / 2) ** 2 + 1e-9:
        return None
    return a.r2 + math.log(l0 / a.l0) / math.log(b.l0 / a.l0) * (b.r2 - a.r2)


def gap_at(
    runs: Sequence[Run], cell: str, sae: str, base: str, target: float, seed: int = 0
) -> float | None:
    """R² of ``sae`` where it was asked for ``target``, less that of ``base`` at the same L0."""
    asked = [r for r in of_sae(runs, cell, sae, seed) if r.value == target]
    other = r2_at(of_sae(runs, cell, base, seed), asked[0].l0) if asked else None
    return None if other is None else asked[0].r2 - other


def gaps_over_seeds(
    runs: Sequence[Run], cell: str, sae: str, base: str, target: float
) -> list[float]:
    """:func:`gap_at` of every seed that both have."""
    seeds = sorted({r.seed for r in runs})
    gaps = (gap_at(runs, cell, sae, base, target, seed) for seed in seeds)
    return [gap for gap in gaps if gap is not None]


# --- tables


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], n_left: int = 1) -> str:
    """A table of texts; the first ``n_left`` columns stand at the left."""
    rule = ["---"] * n_left + ["---:"] * (len(columns) - n_left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows)) + "\n"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign, "" where there is none."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def spread(gaps: Sequence[float]) -> str:
    """The mean of several gaps, with the lowest and the highest."""
    if not gaps:
        return ""
    low, high = signed(min(gaps)), signed(max(gaps))
    return f"{signed(statistics.fmean(gaps))} ({low} to {high})"


def fill_tables(text: str, tables: Mapping[str, str]) -> str:
    """Put each table between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` of a text."""

    def put(match: re.Match[str]) -> str:
        table = tables.get(match[1])
        return match[0] if table is None else f"<!-- table: {match[1]} -->\n\n{table}\n{END}"

    return re.sub(rf"<!-- table: (.+?) -->\n.*?{END}", put, text, flags=re.DOTALL)


END = "<!-- end of table -->"


# --- figures


def line_of(sae: str, label: str | None = None, dashed: bool = False) -> dict[str, Any]:
    """Keyword arguments of ``plot`` for an SAE: one colour and marker in every figure."""
    colour, _, marker = LOOKS[sae.split("-")[0]]
    style = "--" if dashed else "-"
    name = LABELS.get(sae, sae).replace("`", "") if label is None else label
    return {"color": colour, "marker": marker, "linestyle": style, "label": name}


def panels(n_rows: int, n_columns: int, height: float, top: float = 0.7, **kwargs: Any) -> Any:
    """A figure and its axes, (rows, columns); ``top`` inches are left for the legend."""
    whole = height * n_rows + top
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(9, whole), squeeze=False, **kwargs)
    # fixed margins: a computed layout differs in its last digits from machine to machine
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.5 / whole, top=1 - top / whole)
    figure.subplots_adjust(wspace=0.24, hspace=0.36)
    return figure, axes


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, at the top, in at most two rows."""
    handles, labels = axes.get_legend_handles_labels()
    n_columns = len(labels) if len(labels) <= 4 else math.ceil(len(labels) / 2)
    figure.legend(handles, labels, loc="upper center", ncols=n_columns, handlelength=2.6)


def gap_figure(runs: Sequence[Run], pairs: Mapping[tuple[str, str], dict[str, Any]]) -> Figure:
    """R² of an SAE minus that of another at the same L0, a panel a hook point, seed 0.

    Args:
        pairs: (SAE, baseline) -> its keyword arguments of ``plot``.
    """
    figure, axes = panels(2, 3, 2.3, sharex=True, sharey=True)
    for i, (axis, cell) in enumerate(zip(axes.flat, CELLS, strict=True)):
        for (sae, base), look in pairs.items():
            a, b = of_sae(runs, cell, sae), of_sae(runs, cell, base)
            read = [(run.l0, run.r2 - r2) for run in a if (r2 := r2_at(b, run.l0)) is not None]
            axis.plot(*(zip(*read, strict=True) if read else ([], [])), **look)
        label = f"level: ±{MARGIN:g}"
        axis.axhspan(-MARGIN, MARGIN, color=RULE, alpha=0.5, linewidth=0, label=label)
        axis.set_xscale("log", base=2)
        axis.set_xticks(L0S, [f"{l0}" for l0 in L0S])
        axis.minorticks_off()
        axis.set_title(cell, loc="left", fontsize=10)
        if i >= 3:
            axis.set_xlabel("L0")
        if i % 3 == 0:
            axis.set_ylabel("gap in R²")
    legend_above(figure, axes[0][0])
    return figure


def svg_of(figure: Figure, title: str) -> str:
    """A figure as SVG, whose colours follow the reader's colour scheme. Closes the figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    plt.close(figure)
    text = re.sub(r"^ +", "", buffer.getvalue(), flags=re.MULTILINE)
    text = re.sub(r'style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), text)
    names = {colour: f"--c{i}" for i, colour in enumerate(_DARK)}
    text = re.sub("|".join(names), lambda found: f"var({names[found[0].lower()]})", text)
    light = "".join(f"{names[colour]}:{colour};" for colour in _DARK)
    dark = "".join(f"{names[colour]}:{other};" for colour, other in _DARK.items())
    css = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    text = text.replace("</style>", f"{css}</style>", 1)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    text = re.sub(r"<[^>]*>", _rounded, text)  # not in the texts between the tags
    return re.sub(r" +\n", "\n", text)


def _rounded(tag: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


# --- what make.py asks of a study


def pages() -> dict[str, Path]:
    """Name -> folder of every study that has a result."""
    return {path.parent.name: path.parent for path in sorted(STUDIES.glob("*/page.py"))}


def made(study: Path) -> tuple[dict[str, str], str]:
    """The tables of a study by name, and its figure as SVG, from its committed result.

    Its ``page.py`` has ``TITLE``, ``tables(result)`` and ``figure(result)``.
    """
    page: Any = importlib.import_module(f"studies.{study.name}.page")
    result = read_result(study)
    with matplotlib.rc_context(STYLE):
        return page.tables(result), svg_of(page.figure(result), page.TITLE)


def bootstrap(values: Sequence[float], n: int = 2000) -> tuple[float, float]:
    """A 95% interval of the mean by bootstrap over the values, with a fixed seed."""
    drawn = np.random.default_rng(0).integers(len(values), size=(n, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)
