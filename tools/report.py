"""Write a page to open in a browser about an output folder of show.py or eval.py.

    python -m tools.report derained/
    python -m tools.report scores/rain100l/

Writes report/index.html into the folder. For show.py, the page has the results in derained.jsonl,
with a before/after slider for each photograph whose source still exists. For eval.py or train.py,
it has the scores, worst gain first, with a slider for each pair in strips/; `eval.py --report`
writes strips of all pairs. For `eval.py --compare`, it has all methods in one table and a slider
between any two of them.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from config.cli import tool_options
from report.page import write_report
from utils.errors import run_command


@dataclass(frozen=True)
class Options:
    """What to report."""

    folder: Path
    """Output folder of show.py, eval.py or train.py."""


def main(arguments: list[str]) -> None:
    """Run `python -m tools.report FOLDER`."""
    Image.MAX_IMAGE_PIXELS = None  # as in show.py, whose results they are
    options = tool_options(Options, arguments, "python -m tools.report", __doc__)
    print(f"report: {write_report(options.folder)}")


if __name__ == "__main__":
    run_command(main)
