"""Train SAEs on small worlds and ask three questions of them (20 minutes of one core).

    python studies/protocols_a_to_c/run.py

A: a signed axis on a dial. B: anomalies under a budget of latents. C: consolidation of antipodal
pairs. The names are those of arXiv 2605.28149's appendix, of which we had no text; the details are
ours. Results go to result.json beside this file, or to --out.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

import torch

from studies.common import measured_with, write_result
from studies.protocols_a_to_c import anomaly, consolidation, dial
from studies.synthetic import measure_all, read_config, row

HERE = Path(__file__).parent


def run_dial(config: Any) -> list[list[Any]]:
    """Protocol A: a row an SAE."""
    found = measure_all(config, config.target_l0, functools.partial(dial.prepare, config))
    return [row({"sae": sae} | of, dial.COLUMNS) for sae, of in found.items()]


def run_anomaly(config: Any) -> list[list[Any]]:
    """Protocol B: a row an SAE and budget."""
    found = measure_all(config, config.target_l0, functools.partial(anomaly.prepare, config))
    rows = []
    for sae, of in found.items():
        for n in config.data.budgets:
            names = ("auroc", "direction")
            at = {name: of[f"{name} {n}"] for name in names} | {"auroc_sd": of[f"auroc {n}_sd"]}
            rows.append(row({"sae": sae, "latents": n} | of | at, anomaly.COLUMNS))
    return rows


def run_consolidation(config: Any) -> list[list[Any]]:
    """Protocol C: a row an SAE and share of pairs."""
    rows = []
    for share in config.data.pair_shares:
        prepare = functools.partial(consolidation.prepare, config, share=share)
        found = measure_all(config, config.target_l0, prepare)
        about = {"pair_share": share}
        rows += [row({"sae": sae} | about | of, consolidation.COLUMNS) for sae, of in found.items()]
    return rows


PROTOCOLS = {
    "a": (dial.COLUMNS, run_dial),
    "b": (anomaly.COLUMNS, run_anomaly),
    "c": (consolidation.COLUMNS, run_consolidation),
}


def main() -> None:
    """Run the three configs beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--configs", type=Path, default=HERE, help="folder of a.yaml, b.yaml, c.yaml"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"measured_with": measured_with()}
    for name, (columns, run) in PROTOCOLS.items():
        rows = run(read_config(args.configs / f"{name}.yaml"))
        result[name] = {"columns": list(columns), "rows": rows}
    write_result(result, args.out)


if __name__ == "__main__":
    main()
