"""Remove the rain from images of any size: a network with its device, precision and tiling."""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from config.networks import NetworkConfig
from models.load import network_of
from models.network import Network, Window
from models.scale import choose_scale, derain_reduced, look_again
from models.tiling import OVERLAP, SMALLEST, derain_tiles
from utils.checkpoint import Weights, load_weights
from utils.errors import UserError
from utils.files import refuse_overwriting
from utils.image import Pixels, to_pixels, to_tensor, with_alpha
from utils.photo.decode import read_photograph
from utils.photo.encode import FORMATS, write_photograph
from utils.runtime import autocast, choose_device, choose_precision, free_memory

MAX_UNTILED = 1_000_000  # pixels
LARGEST_TILE = 1024  # pixels; larger tiles save little time
TILE_MEMORY = 2 * 2**30  # bytes, on the CPU; with it 24 megapixels need less than 4 GB in all


class Derainer:
    """A network that is ready to be applied to images.

        derain = Derainer("weights/jdnet-small-real.safetensors")
        derain.file("photo.jpg", "derained.png")

    Args:
        network: a weights file, or a network, which stays on its device.
        device: for a weights file: auto, cpu, cuda, cuda:1 ...; auto uses a GPU if there is one.
        precision: of the convolutions: float32, tf32, bfloat16, or auto: bfloat16 where the device
            has instructions for it, else float32.
        tile: largest side of the tiles in pixels, at least 256. 0 uses no tiles for images of up to
            one megapixel that fit into half of the free memory, and otherwise the largest tiles
            that fit. Tiles overlap by 128 pixels and are blended. If memory runs out, the tile side
            is halved and the image restarted.
        ensemble: average the results for the image and for its mirror image.
        scale: the factor by which images are reduced before the network sees them, from 1 up; see
            `models.scale`. "auto" chooses it for every image, by the width of its streaks, returns
            images as they are in which hardly any rain is found, and restores regions whose rain
            is not found about as strong in a smaller picture.
        fallback: config of the network if a weights file does not describe it.

    Attributes:
        network: the network, on `device`.
        device: where it computes.
        weights: the weights file; None for a network in memory.

    Raises:
        UserError: the weights cannot be read or do not fit, or the device is not available.
    """

    def __init__(
        self,
        network: Network | str | Path,
        device: str = "auto",
        precision: str = "auto",
        tile: int = 0,
        ensemble: bool = False,
        scale: float | Literal["auto"] = "auto",
        fallback: NetworkConfig | None = None,
    ) -> None:
        self.weights: Weights | None = None
        if isinstance(network, Network):
            tensors = (*network.parameters(), *network.buffers())
            self.device = tensors[0].device if tensors else torch.device("cpu")
            self.network = network
        else:
            self.weights = load_weights(Path(network))
            self.device = choose_device(device)
            self.network = network_of(self.weights, fallback).place(self.device).eval()
        self.precision = choose_precision(precision, self.device)
        self.tile, self.ensemble, self.scale = tile, ensemble, scale

    @overload
    def __call__(self, rainy: Tensor, name: str = "", scale: float | None = None) -> Tensor: ...
    @overload
    def __call__(self, rainy: Pixels, name: str = "", scale: float | None = None) -> Pixels: ...
    def __call__(
        self, rainy: Tensor | Pixels, name: str = "", scale: float | None = None
    ) -> Tensor | Pixels:
        """Remove the rain from one image.

        Args:
            rainy: float32 [3, H, W] in [0, 1]; or pixels [H, W, 3], or [H, W, 4] with alpha, uint8
                or uint16. RGB.
            name: of a progress bar for the tiles. With it, the expected time is printed when it is
                long.
            scale: None chooses it as `choose_scale` does. A Derainer with "auto" takes its second
                look at any scale.

        Returns:
            An image of the same kind and size. A tensor is on the device of `rainy`, and not
            clamped; pixels keep their alpha.

        Raises:
            UserError: the image is of another shape or type, or there is not enough memory for the
                smallest tile.
        """
        image = _as_tensor(rainy).to(self.device)
        scale = self.choose_scale(image) if scale is None else scale
        with self._evaluating():
            derained = derain_reduced(lambda reduced: self._derain(reduced, name), image, scale)
            if self.scale == "auto":
                second = f"{name}, second look" if name else ""
                derained = look_again(lambda x: self._derain(x, second), image, derained, scale)
        if isinstance(rainy, Tensor):
            return derained.to(rainy.device)
        return with_alpha(to_pixels(derained, rainy.dtype.type), rainy)

    def choose_scale(self, rainy: Tensor | Pixels) -> float:
        """The scale for an image: the given one, or with "auto" the one that fits its streaks.

        Args:
            rainy: as for a call.

        Raises:
            UserError: the image is of another shape or type.
        """
        if self.scale != "auto":
            return self.scale
        image = _as_tensor(rainy).to(self.device)
        with self._evaluating(), autocast(self.device, self.precision):
            return choose_scale(lambda tiles: self.network(tiles).float(), image)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The network in evaluation mode, without gradients."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.network.train(training)

    def file(self, source: str | Path, target: str | Path, quality: int = 95) -> None:
        """Derain a photograph; size, bit depth, alpha, colour profile and EXIF data are kept.

        Args:
            source: the photograph.
            target: where to write the result; its suffix decides the format.
            quality: of JPEG and WebP, 1 to 100.

        Raises:
            UserError: the photograph cannot be read, the result cannot be written, or both are one
                file.
        """
        source, target = Path(source), Path(target)
        if target.suffix.lower() not in FORMATS:
            raise UserError(f"cannot write {target}: expected a name with {', '.join(FORMATS)}")
        refuse_overwriting(source, target)
        rainy, tags = read_photograph(source)
        write_photograph(target, self(rainy, source.name), tags, quality)

    def describe(self) -> dict[str, Any]:
        """What result files say: weights file, its SHA-256, arguments of the network, precision."""
        return {
            **(self.weights.describe() if self.weights else {}),
            "precision": str(self.precision).removeprefix("torch."),
            "ensemble": self.ensemble,
            "scale": self.scale,
        }

    def __str__(self) -> str:
        """Name of the network, its weights file, and `ensemble` if it is one."""
        name = type(self.network).__name__
        parts = [str(self.weights.path)] if self.weights else []
        parts += ["ensemble"] if self.ensemble else []
        return f"{name} ({', '.join(parts)})" if parts else name

    def _derain(self, rainy: Tensor, name: str) -> Tensor:
        if not self.ensemble:
            return self._in_tiles(rainy, name)
        straight, mirrored = (
            self._in_tiles(image, f"{name}, pass {i} of 2" if name else "")
            for i, image in enumerate((rainy, rainy.flip(2)), 1)
        )
        return (straight + mirrored.flip(2)) / 2

    def _in_tiles(self, rainy: Tensor, name: str) -> Tensor:
        h, w = rainy.shape[1:]
        stride = self.network.stride
        tile = self._round(self.tile or self._tile_that_fits(h, w), up=True)
        while True:
            try:
                with autocast(self.device, self.precision):
                    return derain_tiles(self._apply, rainy, tile, stride, name)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            # The error is deleted here, and with its traceback the tensors of the failed tile.
            gc.collect()
            if rainy.is_cuda:
                torch.cuda.empty_cache()
            if tile <= self._round(SMALLEST, up=True):
                raise UserError(
                    f"out of memory even with tiles of {tile}x{tile} pixels: "
                    "free some memory or change --device"
                )
            tile = self._round(min(tile, max(h, w)) // 2)

    def _apply(self, tile: Tensor, window: Window) -> Tensor:
        return self.network(tile, window) if self.network.takes_window else self.network(tile)

    def _round(self, tile: int, up: bool = False) -> int:
        """A tile side such that tiles that overlap start at multiples of the network's stride."""
        stride = self.network.stride
        steps = (math.ceil if up else math.floor)((tile - OVERLAP) / stride)
        return OVERLAP + max(steps, math.ceil((SMALLEST - OVERLAP) / stride)) * stride

    def _tile_that_fits(self, h: int, w: int) -> int:
        memory, per_pixel = free_memory(self.device) / 2, self.network.bytes_per_pixel
        if h * w <= min(MAX_UNTILED, memory / per_pixel):
            return max(h, w)
        if self.device.type != "cuda":
            memory = min(memory, TILE_MEMORY)
        return self._round(min(int(math.sqrt(memory / per_pixel)), LARGEST_TILE))


def _as_tensor(image: Tensor | Pixels) -> Tensor:
    """Check an image, and convert pixels: -> floats [3, H, W]."""
    if isinstance(image, Tensor):
        fits = image.dim() == 3 and image.shape[0] == 3 and image.is_floating_point()
    else:
        fits = image.ndim == 3 and image.shape[2] in (3, 4) and image.dtype in ("u1", "u2")
    if not fits:
        raise UserError(
            f"cannot derain an image of shape {list(image.shape)}, {image.dtype}: expected pixels "
            "[H, W, 3 or 4], uint8 or uint16, or a floating-point tensor [3, H, W]"
        )
    return image if isinstance(image, Tensor) else to_tensor(image)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. Only torch's own allocator for GPUs has an error of its own."""
    texts = (
        "DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory",  # Windows
        "could not create a primitive",  # oneDNN, which runs the convolutions
        "CUDA error: out of memory",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in texts
    )
