"""Derain images: one, several, or folders of them. No ground truth needed.

python show.py photos/ --weights runs/rain100h/best.pt --output derained
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from config.cli import show_config
from config.schema import JDNet
from data import find_rainy
from eval import default_weights, open_network
from utils.errors import UserError, run_command
from utils.image import Pixels, read_image, side_by_side, to_pixels, to_tensor, write_image
from utils.inference import derain
from utils.runtime import choose_device, keep_freed_memory


def main(arguments: list[str]) -> None:
    """Run `show.py IMAGE|FOLDER ... [flags]`.

    An image that cannot be read is left out; the others are derained all the same.
    """
    keep_freed_memory()
    settings = show_config(arguments)
    targets = _targets(settings.inputs, settings.output)
    weights = settings.weights or default_weights("real")
    device = choose_device(settings.machine.device)
    network = open_network(weights, JDNet(), device)
    precision = getattr(torch, settings.machine.precision)
    failures: list[UserError] = []
    for source, target in tqdm(targets.items(), "deraining", disable=None, leave=False):
        try:
            rainy = read_image(source)
        except UserError as failure:
            failures.append(failure)
            continue
        derained = derain(network, to_tensor(rainy).to(device), settings.tile, precision)
        result = _with_alpha(to_pixels(derained, rainy.dtype.type), rainy)
        write_image(target, result)
        if settings.strips:
            write_image(target.parent / "strips" / target.name, side_by_side(rainy, result))
    if len(failures) < len(targets):
        done = len(targets) - len(failures)
        print(f"derained {done} images with {weights}, written to {settings.output}/")
    if failures:
        raise UserError(f"left out {len(failures)} images; the first: {failures[0]}")


def _targets(inputs: Iterable[Path], output: Path) -> dict[Path, Path]:
    """Where each image goes: same name, PNG; suffix kept where two differ in nothing else.

    Raises:
        UserError: an input is missing, or a target would overwrite an input or another target.
    """
    found = [file for path in inputs for file in (find_rainy(path) if path.is_dir() else [path])]
    sources = list(dict.fromkeys(found))  # a file may also be named beside its folder
    if missing := [source for source in sources if not source.is_file()]:
        raise UserError(f"no file or folder {missing[0]}")
    stems = Counter(source.stem for source in sources)
    targets = {
        source: output / ((source.stem if stems[source.stem] == 1 else source.name) + ".png")
        for source in sources
    }
    if len(set(targets.values())) < len(targets):
        raise UserError("two inputs have the same name: derain them into folders of their own")
    if {s.resolve() for s in sources} & {t.resolve() for t in targets.values()}:
        raise UserError(f"{output} holds the inputs themselves: name another folder with --output")
    return targets


def _with_alpha(result: Pixels, source: Pixels) -> Pixels:
    return np.concatenate([result, source[..., 3:]], axis=2)


if __name__ == "__main__":
    run_command(main)
