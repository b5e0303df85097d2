"""Write an image of the first twelve training patches, rainy above clean.

    python -m tools.show_patches rain100l-small
    python -m tools.show_patches real --run look

Takes the presets and flags of train.py, and writes patches.png to the folder of the run. Check it
before a long training: is the rain where it should be, and does it look like rain?
"""

from pathlib import Path

import numpy as np

from config.cli import train_config
from data.open import open_training
from data.patches import Patches
from utils.errors import run_command
from utils.image import Pixels, hstack, to_pixels, write_image

ROWS, COLUMNS = 2, 6
ZOOM = 2  # magnification of the patches


def draw(patches: Patches) -> Pixels:
    """Draw the first patches, each rainy one above its clean one: uint8 [H, W, 3]."""
    rows: list[Pixels] = []
    for row in range(ROWS):
        pairs = [patches[row * COLUMNS + column] for column in range(COLUMNS)]
        rows += [
            hstack(*(to_pixels(pair.rainy) for pair in pairs)),
            hstack(*(to_pixels(pair.clean) for pair in pairs)),
        ]
    turned = [row.swapaxes(0, 1) for row in rows]
    picture = hstack(*turned).swapaxes(0, 1)
    return np.ascontiguousarray(picture.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1))


def main(arguments: list[str]) -> None:
    """Run `python -m tools.show_patches [PRESET] [flags of train.py]`."""
    config = train_config(arguments, "python -m tools.show_patches", __doc__)
    target = (config.run or Path("runs") / config.name) / "patches.png"
    write_image(target, draw(open_training(config).patches))
    print(f"written: {target}")


if __name__ == "__main__":
    run_command(main)
