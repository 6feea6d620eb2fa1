"""Train the SAEs of a study that is a sweep alone, and write their runs to its result.json.

    python studies/sweeps.py equal_width   # two days of two cores
    python studies/sweeps.py half_width    # a day of two cores
    python studies/sweeps.py rates         # two hours of one core

A call that was stopped goes on where it was.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # studies/ is no installed package

import studies.equal_width.annealed  # noqa: F401  # registers annealed_batchtopk
from studies.common import STUDIES, Run, measured_with, run_sweeps, write_result


def main() -> None:
    """Run the sweeps in the folder of the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=["equal_width", "half_width", "rates"])
    parser.add_argument("--sweeps", type=Path, default=Path("sweep_out"), help="their output")
    args = parser.parse_args()
    result = {
        "measured_with": measured_with(),
        "columns": list(Run._fields),
        "runs": [list(run) for run in run_sweeps(STUDIES / args.study, args.sweeps)],
    }
    write_result(result, STUDIES / args.study)


if __name__ == "__main__":
    main()
