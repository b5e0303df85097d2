"""Deraining images of any size, with and without tiles."""

import hashlib
import os
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from config.networks import JDNetConfig
from models import Derainer, JDNet, Network, derainer, tiling
from models.network import Window
from utils import runtime
from utils.errors import UserError
from utils.image import read_image, to_pixels, to_tensor
from utils.runtime import free_memory

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "jdnet-small-real.safetensors"


class Shift(Network):
    """A network whose output encodes the position of each pixel in the whole image."""

    takes_window, stride = True, 16

    def __init__(self) -> None:
        super().__init__(JDNetConfig())

    def forward(self, rainy: Tensor, window: Window | None = None) -> Tensor:
        assert window is not None
        top, left, height, width = window
        h, w = rainy.shape[2:]
        rows = torch.arange(top, top + h).view(1, 1, h, 1) / height
        columns = torch.arange(left, left + w).view(1, 1, 1, w) / width
        return rainy + rows + columns


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 400))
def test_tiles_cover_the_image_and_get_their_window(h: int, w: int, tile: int) -> None:
    image = torch.rand(3, h, w)
    expected = Shift()(image.unsqueeze(0), (0, 0, h, w)).squeeze(0)
    torch.testing.assert_close(Derainer(Shift(), scale=1, tile=tile)(image), expected)


def test_tiled_jdnet_is_close_to_the_untiled_one() -> None:
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16, scales=2, self_attention=False)).eval()
    image = torch.rand(3, 64, 416)
    whole, tiled = Derainer(network, scale=1)(image), Derainer(network, scale=1, tile=256)(image)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("length", "tile"), [(257, 256), (500, 272), (4000, 512), (700, 688)])
def test_tiles_start_on_the_coarsest_grid_and_overlap(length: int, tile: int) -> None:
    spans = tiling.spans(length, tile, 16)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(start % 16 == 0 for start, _ in spans)
    assert all(128 < stop - start <= tile for start, stop in spans)
    assert all(b[0] == a[1] - 128 for a, b in pairwise(spans))
    lengths = [stop - start for start, stop in spans[:-1]]
    assert max(lengths) == min(lengths)
    assert len(spans) == -(-(length - 128) // (tile - 128))  # not more than needed


class Spy(Shift):
    """Keeps the sizes of its tiles. With `limit`, larger tiles raise `error`."""

    def __init__(self, limit: float = float("inf"), error: Exception | None = None) -> None:
        super().__init__()
        self.limit, self.error = limit, error
        self.sizes: list[tuple[int, int]] = []

    def forward(self, rainy: Tensor, window: Window | None = None) -> Tensor:
        h, w = rainy.shape[2:]
        if h * w > self.limit and self.error:
            raise self.error
        self.sizes.append((h, w))
        return super().forward(rainy, window)


@pytest.mark.parametrize(
    ("units", "free", "side"),
    [(2, 64e9, 1024), (8, 64e9, 880), (32, 64e9, 608), (8, 1e9, 416), (32, 0.1e9, 256)],
)
def test_tiles_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, units: int, free: float, side: int
) -> None:
    """The side follows from the network and the free memory; images of the data sets stay whole."""
    monkeypatch.setattr(derainer, "free_memory", lambda device: free)
    network = JDNet(JDNetConfig(units=units))
    derain = Derainer(network, scale=1)
    fits = derain._tile_that_fits(4000, 6000)
    assert fits == side
    if side > 256:
        assert fits**2 * network.bytes_per_pixel <= min(free / 2, 2 * 2**30)
    whole = derain._tile_that_fits(321, 481)
    assert (whole >= 481) == (free > 0.2e9)


def test_free_memory_is_part_of_the_machine() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_memory(torch.device("cpu")) < machine


def test_large_images_are_tiled_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derainer, "MAX_UNTILED", 100)
    monkeypatch.setattr(derainer, "LARGEST_TILE", 512)
    spy = Spy()
    Derainer(spy, scale=1)(torch.rand(3, 20, 1200))
    assert spy.sizes == [(20, 496), (20, 496), (20, 464)]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes."),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    MemoryError(),
]


def test_tiles_shrink_until_they_fit() -> None:
    image = torch.rand(3, 300, 600)
    expected = Shift()(image.unsqueeze(0), (0, 0, 300, 600)).squeeze(0)
    spy = Spy(280 * 280, OUT_OF_MEMORY[0])
    torch.testing.assert_close(Derainer(spy, scale=1)(image), expected)
    assert max(h * w for h, w in spy.sizes) <= 256 * 256


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:30])
def test_the_smallest_tile_is_too_large(error: Exception) -> None:
    with pytest.raises(UserError, match="out of memory even with tiles of 256x256 pixels"):
        Derainer(Spy(0, error), scale=1)(torch.rand(3, 8, 8))


def test_torch_runs_out_of_memory_as_expected() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert derainer._is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "message",
    ["shapes do not match", "CUDA error: an illegal memory access was encountered"],
)
def test_other_runtime_errors_are_raised(message: str) -> None:
    spy = Spy(0, RuntimeError(message))
    with pytest.raises(RuntimeError, match=message):
        Derainer(spy, scale=1)(torch.rand(3, 8, 8))
    assert not spy.sizes


def test_a_failed_tile_leaves_no_tensors() -> None:
    """Before the next try, the tensors of the failed one are gone, also those in a cycle."""
    alive: list[weakref.ref[Tensor]] = []
    seen: list[bool] = []

    class Leaky(Shift):
        def forward(self, rainy: Tensor, window: Window | None = None) -> Tensor:
            seen.append(any(reference() is not None for reference in alive))
            if rainy.shape[3] > 256:
                features = rainy + 1
                alive.append(weakref.ref(features))
                cycle: list[Any] = [features]
                cycle.append(cycle)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(rainy, window)

    Derainer(Leaky(), scale=1)(torch.rand(3, 20, 1000))
    assert len(alive) == 2
    assert not any(seen)


def test_the_time_of_a_long_run_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = torch.rand(3, 300, 700)
    Derainer(Shift(), scale=1, tile=256)(image, "quick.jpg")
    assert capsys.readouterr().out == ""
    clock = iter(range(0, 9000, 50))
    monkeypatch.setattr("models.tiling.time.monotonic", lambda: next(clock))
    Derainer(Shift(), scale=1, tile=256)(image)
    Derainer(Shift(), scale=1)(image, "one-tile.jpg")
    assert capsys.readouterr().out == ""
    Derainer(Shift(), scale=1, tile=256)(image, "photo.jpg")
    assert capsys.readouterr().out == "photo.jpg: 0.21 megapixels in 10 tiles, about 9 minutes\n"
    Derainer(Shift(), scale=1, tile=256, ensemble=True)(image, "a.jpg")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"a.jpg, pass {i} of 2" for i in (1, 2)]


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16)).eval()
    image = torch.rand(3, 40, 50)
    fast = Derainer(network, scale=1, precision="bfloat16")(image)
    assert fast.dtype == torch.float32
    exact = Derainer(network, scale=1, precision="float32")(image)
    assert 1e-5 < (fast - exact).abs().max() < 0.01


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"bf16": True, "neon": True}, torch.float32),  # of ARM: not tried
    ],
    ids=["AVX-512 BF16", "AMX", "AVX-512", "ARM"],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    instructions: dict[str, bool],
    chosen: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    runtime._note_slow_bfloat16.cache_clear()
    assert Derainer(Shift(), scale=1).precision == chosen
    assert capsys.readouterr().err == ""
    for _ in range(2):  # asked for by name
        assert Derainer(Shift(), precision="bfloat16").precision == torch.bfloat16
    note = "note: no bfloat16 instructions found for cpu: --precision float32 is usually faster"
    slow = chosen == torch.float32
    assert capsys.readouterr().err == f"{note} there (auto chooses)\n" * slow
    runtime._note_slow_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("cards", "device", "chosen"),
    [
        ([(8, 0), (9, 0)], "cuda", "bfloat16"),
        ([(9, 0), (7, 5)], "cuda", "float32"),  # DataParallel would use both
        ([(9, 0), (7, 5)], "cuda:0", "bfloat16"),
    ],
)
def test_auto_asks_all_gpus_of_the_device(
    cards: list[tuple[int, int]], device: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: cards[gpu])
    assert runtime.name_precision("auto", torch.device(device)) == chosen
    assert runtime.name_precision("tf32", torch.device(device)) == "tf32"


def test_tf32_is_for_convolutions_only() -> None:
    """The SSIM loss and the position of the attention are matrix products."""
    for name in ("tf32", "float32"):
        torch.backends.cuda.matmul.allow_tf32 = True
        assert runtime.choose_precision(name, torch.device("cuda")) == torch.float32
        assert torch.backends.cudnn.allow_tf32 == (name == "tf32")
        assert not torch.backends.cuda.matmul.allow_tf32


def test_an_ensemble_is_symmetric() -> None:
    """The mirror image of the result is the result for the mirror image."""
    torch.manual_seed(0)
    network = JDNet(JDNetConfig(units=1, channels=16, scales=2)).eval()
    image = torch.rand(3, 20, 27)
    averaged = Derainer(network, scale=1, ensemble=True)(image)
    assert not torch.equal(averaged, Derainer(network, scale=1)(image))
    mirrored = Derainer(network, scale=1, ensemble=True)(image.flip(2))
    torch.testing.assert_close(averaged, mirrored.flip(2))
    parts = Derainer(network, scale=1)(image), Derainer(network, scale=1)(image.flip(2)).flip(2)
    torch.testing.assert_close(averaged, (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 4)])
def test_pixels_stay_pixels(dtype: type[np.unsignedinteger[Any]], channels: int) -> None:
    """Of the same size, depth and alpha; a tensor gives the same values."""
    torch.manual_seed(0)
    derain = Derainer(JDNet(JDNetConfig(units=1, channels=16)).train(), precision="float32")
    peak = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, peak, (20, 30, channels), dtype, endpoint=True)
    derained = derain(pixels)
    assert (derained.dtype, derained.shape) == (pixels.dtype, pixels.shape)
    assert np.array_equal(derained[..., 3:], pixels[..., 3:])
    expected = derain(to_tensor(pixels))
    assert np.array_equal(derained[..., :3], to_pixels(expected, dtype))
    assert derain.network.training  # but it ran in evaluation mode
    derain.network.eval()
    torch.testing.assert_close(derain.network(to_tensor(pixels)[None])[0], expected)


def test_a_file_is_derained_with_its_tags(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(200, 200))
    derain = Derainer(WEIGHTS)
    derain.file(tmp_path / "a.png", tmp_path / "b" / "a.png")
    assert np.array_equal(read_image(tmp_path / "b" / "a.png"), derain(pixels))
    with Image.open(tmp_path / "b" / "a.png") as file:
        assert round(file.info["dpi"][0]) == 200
    with pytest.raises(UserError, match="nowhere"):
        Derainer(tmp_path / "nowhere.pt")


def test_a_derainer_says_what_it_is() -> None:
    derain = Derainer(WEIGHTS, precision="bfloat16", ensemble=True)
    assert not derain.network.training
    assert derain.describe()["precision"] == "bfloat16"
    assert str(derain) == f"JDNet ({WEIGHTS}, ensemble)"
    about = derain.describe()
    assert about["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert (about["network"], about["arguments"]["units"], about["ensemble"]) == ("jdnet", 8, True)
    assert str(Derainer(Shift(), scale=1)) == "Shift"


def test_weights_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read = Path.read_bytes

    def note(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", note)
    Derainer(WEIGHTS).describe()
    assert reads == [WEIGHTS]
