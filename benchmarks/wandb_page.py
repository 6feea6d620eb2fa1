"""The signed metrics of a Weights & Biases run, from its offline log.

    WANDB_MODE=offline sae-lens-signaware train configs/smollm2-135m-mlp_out-bi_batchtopk.yaml \\
        --log_to_wandb true --wandb_log_frequency 5 --eval_every_n_wandb_logs 1000 \\
        --training_tokens 153600 --lr_decay_steps 225 --n_batches_in_buffer 16 --n_checkpoints 0
    python benchmarks/wandb_page.py wandb/offline-run-*/run-*.wandb

Writes results/wandb.json, of which benchmarks/figures.py draws the figure. The log is a LevelDB log
of protocol buffers. W&B has no public reader for it, so what is read here is the format of wandb
0.31.
"""

import argparse
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figure_drawing import Series, panels
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from sae_lens_signaware.files import write_json

ROOT = Path(__file__).parent.parent
BLOCK, HEADER = 32_768, struct.Struct("<IHB")
MAGIC = b":W&B"
FULL, FIRST, LAST = 1, 2, 4

PANELS = {  # title -> metric in the log, its label and the colour of a series
    "R² of the batch": [("metrics/explained_variance", "R²", "bi_batchtopk")],
    "active latents per token": [
        ("l0_pos", "+ sides", "bi_jumprelu"),
        ("l0_neg", "− sides", "bi_matryoshka_batchtopk"),
    ],
    "bipolar latents of the batch": [("bipolar_share_of_batch", "share", "sa_gsae")],
    "threshold": [("topk_threshold", "topk_threshold", "gated")],
}


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records of a W&B log; each may be cut into parts at the ends of blocks.

    Raises:
        ValueError: it is no such log.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not a W&B log")
    offset, record = 7, b""
    while offset + HEADER.size <= len(data):
        left = BLOCK - offset % BLOCK
        if left < HEADER.size:
            offset += left
            continue
        _, length, kind = HEADER.unpack_from(data, offset)
        offset += HEADER.size
        if offset + length > len(data):
            return  # the rest is not written yet
        part = data[offset : offset + length]
        offset += length
        record = part if kind in (FULL, FIRST) else record + part
        if kind in (FULL, LAST):
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    """The logged steps of a run: metric -> value, and ``_step``."""
    from wandb.proto import wandb_internal_pb2  # here: the figure alone needs no wandb

    steps = []
    for record in log_records(path.read_bytes()):
        # protobuf makes its classes when the module is imported
        parsed = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        parsed.ParseFromString(record)
        if parsed.WhichOneof("record_type") == "history":
            items = parsed.history.item
            steps.append(
                {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            )
    return steps


def signed_history(steps: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """The metrics of :data:`PANELS`: name -> [step, value] where it was logged."""
    named = {}
    for metrics in PANELS.values():
        for metric, _, _ in metrics:
            key = next((k for step in steps for k in step if k.endswith(metric)), None)
            if key is not None:
                found = [[step["_step"], step[key]] for step in steps if key in step]
                named[metric] = [[int(at), float(f"{value:.4g}")] for at, value in found]
    return named


def wandb_figure(metrics: dict[str, list[list[float]]]) -> Figure:
    """One panel for each group of metrics, against the training step."""
    figure, axes = panels(1, len(PANELS), 2.1, top=0.4)
    figure.subplots_adjust(wspace=0.32)
    for axis, (title, series) in zip(axes[0], PANELS.items(), strict=True):
        for metric, label, colour in series:
            line = Series(metric, label, colour).line() | {"marker": ""}
            axis.plot(*zip(*metrics[metric], strict=True), **line)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("step")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if len(series) > 1:
            axis.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path, help="run-ID.wandb of an offline run")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "wandb.json")
    args = parser.parse_args()
    commands = (__doc__ or "").split("\n\n")[1].replace("\\\n", "").splitlines()
    command = "; ".join(" ".join(line.split()) for line in commands)
    write_json({"command": command, "metrics": signed_history(history(args.log))}, args.out)


if __name__ == "__main__":
    main()
