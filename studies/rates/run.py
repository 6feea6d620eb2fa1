"""Train the SAEs of this study, and write their runs to result.json (two hours of one core).

    python studies/rates/run.py

A call that was stopped goes on where it was.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # studies/ is no installed package

from studies.common import Run, measured_with, run_sweeps, write_result

HERE = Path(__file__).parent


def main() -> None:
    """Run the sweep beside this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"), help="their output")
    runs = run_sweeps(HERE, parser.parse_args().sweeps)
    result = {
        "measured_with": measured_with(),
        "columns": list(Run._fields),
        "runs": [list(run) for run in runs],
    }
    write_result(result, HERE)


if __name__ == "__main__":
    main()
