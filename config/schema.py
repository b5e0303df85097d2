"""All settings of a run as frozen, typed dataclasses.

The docstring under a field is its --help text, so it stays one line.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from config.checks import require, require_finite, require_positive
from config.networks import JDNetConfig, NetworkConfig
from utils.conventions import Convention

Layout = Literal[
    "rain100", "two-folders", "side-by-side", "list", "cityscapes", "masked", "photographs"
]
Order = Literal["clean-rainy", "rainy-clean"]
Heaviness = Literal["light", "heavy", "mixed"]
Augmentation = Literal["none", "flip", "eight", "jitter"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
ImageFormat = Literal["png", "jpg", "tiff", "webp", "same"]


@dataclass(frozen=True)
class Folders:
    """A dataset on disk."""

    dataset: str
    """Dataset name, used to look up published scores and expected counts."""
    train_folder: Path | None
    """Training set, a folder or a list file; None for a test-only dataset."""
    test_folder: Path | None
    """Test set, a folder or a list file; None trains without scoring a test set."""
    layout: Layout = "rain100"
    """Layout of the pairs; README's Data section shows each tree."""
    order: Order = "clean-rainy"
    """Order of the halves of a side-by-side image, left to right."""
    test_sets: tuple[str, ...] = ()
    """Subfolders of the test set that are test sets of their own; () if it is one set."""
    clean: tuple[Path, ...] = ()
    """Folders of extra clean training scenes; Rain100 pairs provide their clean images."""
    layers: tuple[Path, ...] = ()
    """Folders of extra rain layers: Rain100 pairs, or grey images of rain on black."""


@dataclass(frozen=True)
class Synthetic:
    """Photographs bundled with scikit-image, with modelled rain. Needs no download."""

    train_pairs: int = 200
    """Training pairs."""
    test_pairs: int = 8
    """Test pairs, from other scenes."""
    image_size: int = 192
    """Side of the square images in pixels, 16 to 300."""
    heaviness: Heaviness = "light"
    """Heaviness of the rain; mixed has light and heavy rain on every scene in turn."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "train_pairs", "test_pairs")
        fits = 16 <= self.image_size <= 300
        require(fits, f"--image-size must be between 16 and 300, got {self.image_size}")


@dataclass(frozen=True)
class Rain:
    """The rain of the training patches, and structures that look like rain.

    By default every patch keeps its own rain and scene.

    An exchanged layer comes from a source drawn at random, whatever the source's number of layers:
    the training pairs, or one of the folders of --layers.
    """

    exchange: float = 0.0
    """Fraction of patches with the rain layer of a random pair or of --layers."""
    modelled: float = 0.0
    """Fraction of patches with modelled rain, light and heavy equally often."""
    layer_size: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest random factor on the size of an exchanged layer."""
    layer_gain: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest random factor on the brightness of an exchanged layer."""
    layer_angle: float = 0.0
    """Maximum random rotation of an exchanged layer in degrees."""
    structures: float = 0.0
    """Fraction of patches with bars, wires, grids or text drawn into both images."""
    bright: float = 0.0
    """Fraction of patches with a lightened scene, like snow, a wall or the sky."""
    drops: float = 0.0
    """Fraction of patches with short bright drops near the camera, half of them without streaks."""
    dry: float = 0.0
    """Fraction of patches without rain."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_finite(self, "exchange", "modelled", "layer_angle")
        require_finite(self, "structures", "bright", "drops", "dry")
        require(
            self.exchange + self.modelled <= 1,
            f"--exchange and --modelled must sum to at most 1, got {self.exchange:g} and "
            f"{self.modelled:g}",
        )
        for flag, (low, high) in (("size", self.layer_size), ("gain", self.layer_gain)):
            require(
                0.1 <= low <= high <= 10,
                f"--layer-{flag} must be two ascending factors in [0.1, 10], got {low:g} {high:g}",
            )
        require(
            self.layer_angle <= 180, f"--layer-angle must be at most 180, got {self.layer_angle:g}"
        )
        require(self.structures <= 1, f"--structures must be at most 1, got {self.structures:g}")
        require(self.bright <= 1, f"--bright must be at most 1, got {self.bright:g}")
        require(
            self.drops + self.dry <= 1,
            f"--drops and --dry must sum to at most 1, got {self.drops:g} and {self.dry:g}",
        )


@dataclass(frozen=True)
class Camera:
    """Camera degradations of both images of a training patch; 0 disables each.

    The strength of each is drawn uniformly up to its maximum, the JPEG quality from its minimum up.
    """

    blur: float = 0.0
    """Maximum blur of both images of a patch: Gaussian standard deviation in pixels."""
    veil: float = 0.0
    """Maximum opacity of grey mist over both images of a patch, below 1."""
    noise: float = 0.0
    """Maximum noise of both images of a patch: standard deviation in 8-bit levels."""
    jpeg: int = 0
    """Minimum JPEG quality of both images of a patch, 1 to 100; 0 disables compression."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_finite(self, "blur", "veil", "noise", "jpeg")
        require(self.veil < 1, f"--veil must be below 1, got {self.veil:g}")
        require(self.jpeg <= 100, f"--jpeg must be at most 100, got {self.jpeg}")


@dataclass(frozen=True)
class Training:
    """Training recipe. The defaults are the paper's (section 3.6), except for gradient clipping."""

    loss: Literal["ssim", "ssim-l1", "mae", "mse", "mse-stages", "danet"] = "ssim"
    """ssim: negative SSIM; ssim-l1: plus L1; mae, mse: Table 3; mse-stages: RESCAN; danet."""
    l1_weight: float = 1.0
    """Weight of the L1 term of ssim-l1."""
    batch_size: int = 12
    """Patches per forward pass, in total over all GPUs and processes."""
    accumulate: int = 1
    """Forward passes per step (gradient accumulation)."""
    patch_size: int = 64
    """Side of the square training patches in pixels."""
    augment: Augmentation = "none"
    """flip: mirror; eight: also rotate by 90 degrees; jitter: scale, mirror and rotate (DCSFN)."""
    passes: float = 1000
    """Training length in epochs: patches drawn per training scene."""
    steps: int | None = None
    """Training length in steps; overrides --passes."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam: as in the paper; muon: Muon for the filters, Adam for biases and norms."""
    lr: float = 5e-4
    """Base learning rate."""
    weight_decay: float = 0.0
    """Weight decay of Muon: each step multiplies the filters by 1 - lr * weight_decay."""
    schedule: Literal["multistep", "cosine", "trapezoid"] = "multistep"
    """multistep: cut at milestones; cosine: to 0; trapezoid: warm up, hold, fall linearly to 0."""
    warmup: int = 100
    """Warm-up steps of the trapezoid schedule."""
    cooldown: float = 0.3
    """Final fraction of the training over which the trapezoid schedule falls."""
    milestones: tuple[float, ...] = (3 / 5, 4 / 5)
    """Fractions of the training after which the multistep schedule cuts the learning rate."""
    decay: float = 0.1
    """Factor applied to the learning rate at each milestone."""
    clip: float | None = 1.0
    """Maximum norm of the whole gradient; None disables clipping, as in the released code."""
    ema: float = 0.0
    """Decay per step of an exponential moving average (EMA) of the weights. Validation scores the
    average, and best.pt contains it; 0: none."""
    validation: int = 0
    """Training pairs, and layers of every --layers folder, held out to select best.pt; 0: none."""
    seed: int = 66
    """Seed of the initial weights and the patches."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "batch_size", "accumulate", "patch_size")
        require_positive(self, "passes", "steps", "lr", "clip", "decay")
        require_finite(self, "validation", "seed", "l1_weight", "weight_decay")
        require_finite(self, "warmup", "cooldown")
        fits = all(0 <= share <= 1 for share in self.milestones)
        require(fits, f"--milestones must be between 0 and 1, got {self.milestones}")
        require(self.seed < 2**63, f"--seed must be below 2^63, got {self.seed}")
        require(self.cooldown <= 1, f"--cooldown must be at most 1, got {self.cooldown:g}")
        require(0 <= self.ema < 1, f"--ema must be at least 0 and below 1, got {self.ema:g}")
        require(
            self.optimizer == "muon" or not self.weight_decay,
            "--weight-decay needs --optimizer muon",
        )


@dataclass(frozen=True)
class Monitoring:
    """Logging, evaluation and saving during training."""

    log_every: int = 50
    """Steps between log entries."""
    eval_every: int = 5000
    """Steps between evaluations."""
    eval_pairs: int = 10
    """Test pairs scored during training if --validation is 0; all are scored at the end."""
    save_minutes: float = 5
    """Minutes between saves of the resume state."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "log_every", "eval_every", "eval_pairs")
        require_finite(self, "save_minutes")


@dataclass(frozen=True)
class Machine:
    """Device, precision and threads."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; auto uses the GPUs if there are any."""
    precision: Precision = "float32"
    """Precision of the convolutions; auto: bfloat16 where it is faster; tf32 needs a GPU."""
    threads: int | None = None
    """CPU threads; None keeps PyTorch's default, all cores."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "threads")


@dataclass(frozen=True)
class Inference:
    """How a network is applied to images."""

    tile: int = 0
    """Largest tile side in pixels; 0: only tile above one megapixel, as large as memory allows."""
    ensemble: bool = False
    """Average the results for the image and for its mirror image, which takes twice as long."""
    scale: float | Literal["auto"] = "auto"
    """Reduce images by this factor, at least 1; auto: so that their streaks fit the network, with a
    second look at a smaller picture."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        fits = self.scale == "auto" or 1 <= self.scale <= 64
        require(fits, f"--scale must be auto or between 1 and 64, got {self.scale}")
        fits = self.tile == 0 or self.tile >= 256
        require(fits, f"--tile must be 0 or at least 256, got {self.tile}")


@dataclass(frozen=True)
class Config:
    """One training run."""

    name: str
    """Name of the run, which is stored in runs/NAME unless --run is given."""
    data: Folders | Synthetic
    rain: Rain = Rain()
    camera: Camera = Camera()
    network: NetworkConfig = JDNetConfig()
    training: Training = Training()
    monitoring: Monitoring = Monitoring()
    machine: Machine = Machine()
    init_from: Path | None = None
    """Initial weights, of the same network or of a JDNet with fewer units."""
    workers: int | None = None
    """Data loading processes; None: two, or all cores for images that do not fit in memory."""
    run: Path | None = None
    """Folder of the run; default runs/NAME."""
    dry_run: bool = False
    """Print the plan, time a few steps, and exit without training."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.workers is not None:
            require_finite(self, "workers")
        fits = self.training.loss != "danet" or self.network.name == "danet"
        require(fits, f"--loss danet needs the outputs of DANet, not of {self.network.name}")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of weights on one dataset."""

    name: str
    """Name that decides the default of --weights and --output."""
    data: Folders | Synthetic
    network: NetworkConfig = JDNetConfig()
    machine: Machine = Machine()
    weights: Path | None = None
    """Weights; default runs/NAME/best.pt if it exists, else the preset's file in weights/."""
    compare: tuple[Path, ...] = ()
    """Weights, run folders or NAME=FOLDER of derained images to score instead, in one table."""
    conventions: tuple[Convention, ...] = ("y", "y-float", "rgb", "rgb-jdnet")
    """Metric conventions, defined in docs/metrics.md."""
    match: str = "*"
    """Score only the pairs whose names match this pattern, such as 'ntu*'."""
    limit: int | None = None
    """Score only the first LIMIT pairs."""
    output: Path | None = None
    """Folder for scores.csv and scores.json; default scores/NAME."""
    inference: Inference = Inference(scale=1.0)
    report: bool = False
    """Also write OUTPUT/report/index.html, a page with sortable scores and before/after sliders."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "limit")
        paired = not isinstance(self.data, Folders) or self.data.layout != "photographs"
        require(paired or not self.report, "without ground truth, show.py writes the --report")
        either = not (self.weights and self.compare)
        require(either, "--weights does not go with --compare: list all weights there")
        require(bool(self.conventions), "--conventions needs at least one convention")


@dataclass(frozen=True)
class ShowConfig:
    """Derain images and videos. No ground truth, no dataset."""

    inputs: tuple[Path, ...]
    """Images, videos, folders of them, or patterns such as 'photos/*.jpg'."""
    kind: Literal["photo", "light", "heavy"] = "photo"
    """Kind of rain: weights of the preset real, rain100l-small or rain100h-small."""
    weights: Path | None = None
    """Weights; default runs/PRESET/best.pt if it exists, else the preset's file in weights/."""
    output: Path = Path("derained")
    """Folder for the results, with the input's name; videos become MP4."""
    format: ImageFormat = "png"
    """Format of the images; same keeps the input's."""
    quality: int = 95
    """Quality of JPEG and WebP images, 1 to 100."""
    recursive: bool = False
    """Also derain the folders inside folders; the output has the same tree."""
    skip_existing: bool = False
    """Leave out inputs whose result exists, for example to continue an interrupted run."""
    strips: bool = False
    """Also write rainy | derained side by side, under strips/."""
    report: bool = False
    """Also write OUTPUT/report/index.html, a page with before/after sliders."""
    frames: int | None = None
    """Frames of a video looked at together, default 7; 1: each by itself. Given, it also makes a
    video of images whose names differ in a number at the end."""
    inference: Inference = Inference()
    machine: Machine = Machine(precision="auto")

    def __post_init__(self) -> None:
        """Validate the settings."""
        fits = 1 <= self.quality <= 100
        require(fits, f"--quality must be between 1 and 100, got {self.quality}")
        fits = self.frames is None or 1 <= self.frames <= 31
        require(fits, f"--frames must be between 1 and 31, got {self.frames}")


def as_dict(settings: Any) -> dict[str, Any]:
    """Convert a dataclass to plain JSON values, including the network's name."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    if hasattr(settings, "network"):
        plain["network"] = {"name": settings.network.name, **plain["network"]}
    return plain
