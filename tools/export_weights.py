"""Export the weights of a finished run as a self-describing safetensors file.

    python -m tools.export_weights runs/rain100l weights/jdnet-rain100l.safetensors

The metadata holds the network, the data, the training settings, the number of
steps, the test scores and the commit, but no paths on your machine. Prints the SHA-256, for the
model card.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.cli import tool_options
from utils import checkpoint
from utils.checkpoint import load_weights
from utils.errors import UserError, run_command
from utils.files import refuse_overwriting


@dataclass(frozen=True)
class Options:
    """What to export."""

    run: Path
    """Folder of a finished run of train.py."""
    target: Path
    """File to write, NAME.safetensors."""


def about(metadata: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Metadata of the exported file, from the metadata of the weights and the scores of the run."""
    config = metadata["config"]
    return {
        "data": {
            key: [Path(folder).name for folder in value] if key in ("clean", "layers") else value
            for key, value in config["data"].items()
            if not key.endswith("_folder")
        },
        "data_sha256": metadata["data_sha256"],
        "init_sha256": metadata.get("init_sha256"),
        "rain": config["rain"],
        "camera": config["camera"],
        "training": config["training"],
        "precision": config["machine"]["precision"],
        "steps": metadata["step"],
        # Without validation, the value in `metadata` is of a few test pairs.
        "validation_psnr_y": (
            metadata["validation_psnr_y"] if config["training"]["validation"] else None
        ),
        "test_pairs": scores["pairs"],
        "score": {
            convention: {"psnr": mean["psnr"], "ssim": mean["ssim"]}
            for convention, mean in scores["mean"].items()
        },
        "version": metadata["provenance"]["version"],
        "commit": metadata["provenance"]["commit"],
        "torch": metadata["provenance"]["torch"],
    }


def main(arguments: list[str]) -> None:
    """Run `python -m tools.export_weights RUN TARGET`."""
    options = tool_options(Options, arguments, "python -m tools.export_weights", __doc__)
    if options.target.suffix != ".safetensors":
        raise UserError(f"expected NAME.safetensors, got {options.target}")
    refuse_overwriting(options.run / "best.pt", options.target)
    scores = options.run / "scores.json"
    if not scores.is_file():
        raise UserError(f"no {scores}: finish the run, train.py scores the test pairs at the end")
    weights, scored = load_weights(options.run / "best.pt"), json.loads(scores.read_text())
    if scored["sha256"] != weights.sha256:
        raise UserError(f"{scores} are not those of {options.run}/best.pt: finish the run")
    facts = about(weights.metadata, scored)
    checkpoint.save_weights(options.target, weights._replace(metadata=facts))
    print(json.dumps(facts, indent=2))
    print(f"written: {options.target}")
    print(f"SHA-256: {hashlib.sha256(options.target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    run_command(main)
