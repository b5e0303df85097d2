"""A page on this computer to try the networks: drop a photograph, compare before and after.

    python -m tools.app --port 7860

It needs an environment of its own, because Gradio needs an older Pillow than the rest of this code:

    python3 -m venv .venv-app
    .venv-app/bin/pip install -r requirements-app.txt
    .venv-app/bin/python -m tools.app

The page opens at http://127.0.0.1:7860, which other computers cannot reach. The weights to choose
from are those of `weights/` and the best.pt of every run. The result is a PNG file with the size,
bit depth, profile and EXIF data of the photograph. Photographs and results are deleted after an
hour and at Ctrl+C.
"""

import os
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from config import CONFIGS, default_weights, shipped_weights
from config.cli import tool_options
from models.load import open_network
from utils.errors import UserError, run_command
from utils.image import read_photograph, write_image
from utils.inference import derain_pixels
from utils.runtime import choose_device, keep_freed_memory

LARGEST = "200mb"  # of an upload
HOUR = 3600  # seconds


@dataclass(frozen=True)
class Options:
    """How to serve the page."""

    port: int = 7860
    """Port of 127.0.0.1."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    browser: bool = True
    """Open the page in the browser."""


class Result(NamedTuple):
    """One derained photograph."""

    before: Path  # the photograph as PNG: browsers do not show every format
    after: Path  # PNG, same size, bit depth, profile and alpha
    text: str  # the time taken


def derain_file(source: Path, weights: Path, folder: Path, device: str = "auto") -> Result:
    """Derain the photograph `source` and write both pictures to `folder`, which is emptied first.

    Raises:
        UserError: the photograph or the weights cannot be read; the line has no folder names.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        rainy, tags = read_photograph(source)
    except UserError as error:
        raise UserError(str(error).replace(str(source), source.name)) from None
    place = choose_device(device)
    network = open_network(weights, place)
    start = time.perf_counter()
    pixels = derain_pixels(network, rainy, place)
    seconds = time.perf_counter() - start
    result = Result(
        folder / f"{source.stem}.png",
        folder / f"{source.stem}-derained.png",
        f"{rainy.shape[1]} x {rainy.shape[0]} pixels, {8 * rainy.itemsize} bits: {seconds:.1f} s",
    )
    write_image(result.before, rainy, tags)
    write_image(result.after, pixels, tags)
    return result


def find_weights() -> list[str]:
    """The weights that show.py uses, then the other shipped ones and those of the runs."""
    shipped = sorted({path for name in CONFIGS if (path := shipped_weights(name))})
    found = [default_weights("real"), *shipped, *sorted(Path("runs").glob("*/best.pt"))]
    return list(dict.fromkeys(map(str, found)))


def build(gr: Any, folder: Path, device: str) -> Any:
    """The page, with the module gradio as `gr`."""

    def respond(photograph: str | None, weights: str) -> tuple[Any, ...]:
        if photograph is None:
            return None, "", gr.DownloadButton(interactive=False)
        try:
            result = derain_file(Path(photograph), Path(weights), folder, device)
        except UserError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None
        pair = (str(result.before), str(result.after))
        return pair, result.text, gr.DownloadButton(value=result.after, interactive=True)

    choices = find_weights()
    with gr.Blocks(
        title="JDNet deraining", analytics_enabled=False, delete_cache=(HOUR, HOUR)
    ) as page:
        gr.Markdown("# JDNet: take the rain out of a photograph")
        with gr.Row():
            photograph = gr.File(label="Photograph", height=150)
            with gr.Column():
                weights = gr.Dropdown(choices, value=choices[0], label="Weights")
                text = gr.Markdown()
        slider = gr.ImageSlider(label="rainy | derained", interactive=False, buttons=["fullscreen"])
        download = gr.DownloadButton("Download the derained photograph", interactive=False)
        gr.on(
            [photograph.change, weights.change],
            respond,
            [photograph, weights],
            [slider, text, download],
            api_visibility="private",
        )
    return page


def main(arguments: list[str]) -> None:
    """Run `python -m tools.app`."""
    options = tool_options(Options, arguments, "python -m tools.app", __doc__)
    if find_spec("gradio") is None:
        raise UserError("no gradio: install requirements-app.txt, see python -m tools.app --help")
    with TemporaryDirectory(prefix="jdnet-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": f"{folder}/gradio", "GRADIO_ANALYTICS_ENABLED": "False"}
        import gradio as gr  # reads these variables

        keep_freed_memory()
        page = build(gr, Path(folder) / "results", options.device)
        print(f"http://127.0.0.1:{options.port}, Ctrl+C ends it", flush=True)
        page.launch(
            server_name="127.0.0.1",
            server_port=options.port,
            inbrowser=options.browser,
            share=False,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            max_file_size=LARGEST,
            theme=gr.themes.Default(font="system-ui", font_mono="monospace"),  # no fonts of others
        )


if __name__ == "__main__":
    run_command(main)
