"""Plot the training curves of runs as a PNG: loss and PSNR against the step.

    python -m tools.plot_runs runs/a runs/b --output curves.png

Each point of the loss is the median of `--window` logged values. The PSNR is that of the pairs
scored during training. The curves in weights/ are drawn with it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from config.cli import tool_options
from utils.errors import UserError, run_command

SETTINGS = ("event", "step", "lr", "gradient_norm")


@dataclass(frozen=True)
class Options:
    """What to plot."""

    runs: tuple[Path, ...]
    """Folders of runs."""
    output: Path = Path("curves.png")
    """Picture to write."""
    window: int = 5
    """Logged values per point of the loss."""


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The logged events of a run, in the order of their steps.

    Raises:
        UserError: the folder has no log, or no step is logged yet.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise UserError(f"no {path}: expected the folder of a run of train.py")
    complete = path.read_text().rpartition("\n")[0]  # the last line may be half written
    events = [json.loads(line) for line in complete.splitlines()]
    if not any(event["event"] == "step" for event in events):
        raise UserError(f"{path} has no step yet: try again later")
    return events


def draw(runs: dict[str, list[dict[str, Any]]], window: int) -> Figure:
    """Plot two panels, the loss (logarithmic) above the PSNR; one colour per run."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name, events in runs.items():
        steps = [event for event in events if event["event"] == "step"]
        loss = next(key for key in steps[0] if key not in SETTINGS)
        groups = [steps[i : i + window] for i in range(0, len(steps), window)]
        above.plot(
            [median(event["step"] for event in group) for group in groups],
            [median(event[loss] for event in group) for group in groups],
            label=f"{name}, {loss}",
        )
        scores = [event for event in events if event["event"] == "eval"]
        below.plot(
            [event["step"] for event in scores],
            [event["psnr_y"] for event in scores],
            marker="o",
            label=name,
        )
    above.set(yscale="log", ylabel="loss")
    below.set(xlabel="step", ylabel="PSNR in y, dB")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def main(arguments: list[str]) -> None:
    """Run `python -m tools.plot_runs RUN ... [flags]`."""
    options = tool_options(Options, arguments, "python -m tools.plot_runs", __doc__)
    if not options.runs:
        raise UserError("no runs: give one or more folders, as in runs/a runs/b")
    if options.window < 1:
        raise UserError(f"--window must be at least 1, got {options.window}")
    kinds = Figure().canvas.get_supported_filetypes()
    if options.output.suffix[1:] not in kinds:
        raise UserError(f"--output must end in one of .{', .'.join(kinds)}, got {options.output}")
    runs = {str(folder): read_log(folder) for folder in options.runs}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, options.window).savefig(options.output, dpi=100)
    print(f"written: {options.output}")


if __name__ == "__main__":
    run_command(main)
