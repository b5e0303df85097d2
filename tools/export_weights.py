"""Turn a finished run into weights to share: safetensors that say what they are.

    python -m tools.export_weights runs/rain100l weights/jdnet-rain100l.safetensors

Metadata: network, data and its release, recipe, steps, test scores, commit. No path of your
machine goes in. The SHA-256 is printed, for the model card.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.cli import tool_options
from utils import checkpoint
from utils.errors import UserError, run_command


@dataclass(frozen=True)
class Options:
    """What to export."""

    run: Path
    """Folder of a finished run of train.py."""
    target: Path
    """File to write, NAME.safetensors."""


def about(metadata: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """What the file says of itself, from what a run wrote."""
    config = metadata["config"]
    return {
        "data": {
            key: value for key, value in config["data"].items() if not key.endswith("_folder")
        },
        "data_sha256": metadata["data_sha256"],
        "init_sha256": metadata.get("init_sha256"),
        "training": config["training"],
        "precision": config["machine"]["precision"],
        "steps": metadata["step"],
        "test_pairs": scores["pairs"],
        "score": {
            convention: {"psnr": mean["psnr"], "ssim": mean["ssim"]}
            for convention, mean in scores["mean"].items()
        },
        "commit": metadata["provenance"]["commit"],
        "torch": metadata["provenance"]["torch"],
    }


def main(arguments: list[str]) -> None:
    """Run `python -m tools.export_weights RUN TARGET`."""
    options = tool_options(Options, arguments, "python -m tools.export_weights", __doc__)
    if options.target.suffix != ".safetensors":
        raise UserError(f"expected NAME.safetensors, got {options.target}")
    scores = options.run / "scores.json"
    if not scores.is_file():
        raise UserError(f"no {scores}: run train.py to its end, it scores the test pairs there")
    weights = checkpoint.load_weights(options.run / "best.pt")
    facts = about(weights.metadata, json.loads(scores.read_text()))
    checkpoint.save_weights(options.target, weights._replace(metadata=facts))
    print(json.dumps(facts, indent=2))
    print(f"written: {options.target}")
    print(f"SHA-256: {hashlib.sha256(options.target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    run_command(main)
