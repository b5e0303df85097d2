"""Every setting of a run: frozen, typed, and none computed from another.

The line under a field is its --help text, so each stays one line.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from utils.conventions import Convention
from utils.errors import UserError

Layout = Literal["rain100", "two-folders", "side-by-side"]
Order = Literal["clean-rainy", "rainy-clean"]
Heaviness = Literal["light", "heavy", "mixed"]
Augmentation = Literal["none", "flip", "eight", "jitter"]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _require_finite(section: object, *names: str) -> None:
    for name in names:
        value, flag = getattr(section, name), "--" + name.replace("_", "-")
        _require(0 <= value < float("inf"), f"{flag} must not be negative or infinite, got {value}")


def _require_positive(section: object, *names: str) -> None:
    for name in names:
        value, flag = getattr(section, name), "--" + name.replace("_", "-")
        fits = value is None or 0 < value < float("inf")
        _require(fits, f"{flag} must be positive and finite, got {value}")


class Published(NamedTuple):
    """One row of a published table. It compares with ours in its own convention only."""

    method: str
    convention: Convention
    psnr: float  # dB
    ssim: float


@dataclass(frozen=True)
class Release:
    """Reference facts of one release of a dataset."""

    train_pairs: int
    test_pairs: int
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Folders:
    """A dataset on disk."""

    dataset: str
    """Name of the dataset, to find its published scores and expected counts."""
    train_folder: Path | None
    """Training set; None for a set that is only scored."""
    test_folder: Path
    """Test set."""
    layout: Layout = "rain100"
    """Where the two images of a pair lie; README's Data section shows each tree."""
    order: Order = "clean-rainy"
    """Halves of a side-by-side image, left to right."""
    release: str = "old"
    """Release of the dataset: scores of two releases do not compare."""
    clean: tuple[Path, ...] = ()
    """Folders of images without rain that join the training scenes; Rain100 pairs give theirs."""
    layers: tuple[Path, ...] = ()
    """Folders of grey rain layers on black that join the exchange; Rain100 pairs give theirs."""


@dataclass(frozen=True)
class Synthetic:
    """Photographs bundled with scikit-image under modelled rain: no download."""

    train_pairs: int = 200
    """Training pairs."""
    test_pairs: int = 8
    """Test pairs, of other scenes."""
    image_size: int = 192
    """Side of the square images, pixels."""
    heaviness: Heaviness = "light"
    """Kind of rain."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _require_positive(self, "train_pairs", "test_pairs")
        _require(16 <= self.image_size <= 300, "--image-size must lie in 16..300")


@dataclass(frozen=True)
class JDNetConfig:
    """JDNet (ACM MM 2020). R1 of Table 2: both switches off; R2: only calibration; R3: both on."""

    name: ClassVar[str] = "jdnet"

    units: int = 32
    """Densely connected joint units."""
    channels: int = 32
    """Feature channels, a multiple of 16."""
    scales: int = 4
    """Scales of the aggregation module (the paper's n)."""
    pooling: int = 4
    """Pooling of the self-calibrated convolution (the paper's r)."""
    footprint: int = 7
    """Side of the attention's square footprint, odd."""
    self_attention: bool = True
    """Pairwise self-attention module."""
    self_calibration: bool = True
    """Self-calibrated convolution."""
    position: Literal["image", "patch"] = "image"
    """Attention's coordinates: scaled to the image, as released, or as in a 64x64 patch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _require_positive(self, "units", "pooling")
        _require(
            self.channels >= 16 and self.channels % 16 == 0,
            f"--channels must be a multiple of 16, got {self.channels}",
        )
        _require(self.scales >= 0, f"--scales must be at least 0, got {self.scales}")
        _require(
            self.footprint >= 1 and self.footprint % 2 == 1,
            f"--footprint must be odd, got {self.footprint}",
        )


@dataclass(frozen=True)
class DCSFNConfig:
    """DCSFN (ACM MM 2020)."""

    name: ClassVar[str] = "dcsfn"

    units: int = 16
    """Blocks in each encoder and decoder."""
    channels: int = 20
    """Feature channels."""
    cell: Literal["gru", "rnn"] = "gru"
    """Kind of the cells between the scales."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _require_positive(self, "units", "channels")


@dataclass(frozen=True)
class DANetConfig:
    """DANet (IJCAI 2022)."""

    name: ClassVar[str] = "danet"

    channels: int = 64
    """Feature channels, even."""
    blocks: int = 10
    """Residual blocks in each sub-network."""
    reduction: int = 4
    """Channels over the bottleneck of the channel attention."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _require_positive(self, "channels", "blocks", "reduction")
        _require(self.channels % 2 == 0, f"--channels must be even, got {self.channels}")
        _require(self.reduction <= self.channels, "--reduction must not exceed --channels")


@dataclass(frozen=True)
class PReNetConfig:
    """PReNet (CVPR 2019). PReNet_r: --shared-blocks; PRN: --recurrence none; PRN_r: both."""

    name: ClassVar[str] = "prenet"

    stages: int = 6
    """Stages, all of them sharing their weights."""
    channels: int = 32
    """Feature channels."""
    recurrence: Literal["lstm", "gru", "none"] = "lstm"
    """What carries a state from stage to stage."""
    shared_blocks: bool = False
    """One residual block applied five times in place of five."""
    global_residual: bool = True
    """A stage estimates the negative rain layer, not the background."""
    rainy_input: bool = True
    """A stage sees the rainy image beside the stage before's result."""
    recurrence_last: bool = False
    """The recurrent layer comes after the residual blocks."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _require_positive(self, "stages", "channels")


@dataclass(frozen=True)
class RESCANConfig:
    """RESCAN (ECCV 2018)."""

    name: ClassVar[str] = "rescan"

    stages: int = 4
    """Stages, all of them sharing their weights."""
    channels: int = 24
    """Feature channels."""
    depth: int = 7
    """Convolutions in a stage, at least 3."""
    cell: Literal["conv", "rnn", "gru", "lstm"] = "gru"
    """Kind of the cells."""
    frame: Literal["full", "add"] = "full"
    """A stage estimates the whole rain layer, or what the stages before it missed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _require_positive(self, "stages", "channels")
        _require(self.depth >= 3, f"--depth must be at least 3, got {self.depth}")


NetworkConfig = JDNetConfig | DCSFNConfig | DANetConfig | PReNetConfig | RESCANConfig


@dataclass(frozen=True)
class Training:
    """The recipe. The defaults are the paper's (section 3.6), but for the clipping."""

    loss: Literal["ssim", "ssim-l1", "mae", "mse", "mse-stages", "danet"] = "ssim"
    """Negative SSIM; the same plus L1; absolute or squared error (Table 3); RESCAN's; DANet's."""
    l1_weight: float = 1.0
    """Weight of the L1 term of ssim-l1."""
    batch_size: int = 12
    """Patches per forward pass, over all GPUs."""
    accumulate: int = 1
    """Forward passes per step: makes a large batch out of what fits."""
    patch_size: int = 64
    """Side of the square training patches, pixels."""
    augment: Augmentation = "none"
    """Mirror patches; also turn them by quarters; or scale, mirror and turn them freely (DCSFN)."""
    exchange: float = 0.0
    """Share of the patches that carry the rain layer of another pair, or one of --layers."""
    modelled: float = 0.0
    """Share of the patches under modelled rain, light and heavy in equal parts."""
    blur: float = 0.0
    """Largest blur of both images of a patch, standard deviation in pixels."""
    veil: float = 0.0
    """Largest share of grey mist over both images of a patch."""
    noise: float = 0.0
    """Largest noise of both images of a patch, standard deviation in levels of 255."""
    jpeg: int = 0
    """Lowest JPEG quality of both images of a patch, 1 to 100; 0 does not compress."""
    passes: float = 1000
    """Length: patches drawn for every training scene, as the released code counts epochs."""
    steps: int | None = None
    """Length in steps, instead of passes."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Adam, as in the paper; or Muon for the filters and Adam for biases and norms."""
    lr: float = 5e-4
    """Learning rate."""
    weight_decay: float = 0.0
    """Decay of the filters: a step of Muon multiplies them by 1 - lr * weight_decay."""
    schedule: Literal["multistep", "cosine", "trapezoid"] = "multistep"
    """Learning rate: cut at each milestone; a half cosine to 0; or rise, stay, fall to 0."""
    warmup: int = 100
    """Steps over which the trapezoid rises."""
    cooldown: float = 0.3
    """Share of the length over which the trapezoid falls, at the end."""
    milestones: tuple[float, ...] = (3 / 5, 4 / 5)
    """Shares of the length after which the learning rate is cut."""
    decay: float = 0.1
    """Factor by which it is cut."""
    clip: float | None = 1.0
    """Largest norm of the whole gradient; None, as released, does not clip."""
    validation: int = 0
    """Training pairs held out to choose best.pt; with 0 the last weights are taken."""
    seed: int = 66
    """Seed of weights and patches."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        _require_positive(self, "batch_size", "accumulate", "patch_size")
        _require_positive(self, "passes", "steps", "lr", "clip", "decay")
        _require_finite(self, "validation", "seed", "l1_weight", "weight_decay", "warmup")
        _require_finite(self, "exchange", "modelled", "blur", "veil", "noise", "jpeg", "cooldown")
        _require(
            self.exchange + self.modelled <= 1,
            f"--exchange and --modelled are shares: at most 1 together, got {self.exchange:g} and "
            f"{self.modelled:g}",
        )
        _require(self.veil < 1, f"--veil must be below 1, got {self.veil:g}")
        _require(self.jpeg <= 100, f"--jpeg must be at most 100, got {self.jpeg}")
        _require(self.cooldown <= 1, f"--cooldown must be at most 1, got {self.cooldown:g}")
        _require(
            self.optimizer == "muon" or not self.weight_decay,
            "--weight-decay is Muon's: set --optimizer muon",
        )


@dataclass(frozen=True)
class Monitoring:
    """What is looked at and written down on the way."""

    log_every: int = 50
    """Steps between two lines of the log."""
    eval_every: int = 5000
    """Steps between two evaluations."""
    eval_pairs: int = 10
    """Test pairs scored on the way when there is no validation; at the end all test pairs are."""
    save_minutes: float = 5
    """Minutes between two saves of the resume state."""

    def __post_init__(self) -> None:
        """Refuse what cannot be counted."""
        _require_positive(self, "log_every", "eval_every", "eval_pairs")
        _require_finite(self, "save_minutes")


@dataclass(frozen=True)
class Machine:
    """Where and how the arithmetic runs."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ...; auto takes every visible GPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the convolutions; the loss is always float32."""
    threads: int | None = None
    """Threads of the CPU's arithmetic; None leaves it to PyTorch, which takes all cores."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        _require_positive(self, "threads")


@dataclass(frozen=True)
class Config:
    """One training run."""

    name: str
    """Dataset, as tables name it; the run goes to runs/NAME unless --run says otherwise."""
    data: Folders | Synthetic
    network: NetworkConfig = JDNetConfig()
    training: Training = Training()
    monitoring: Monitoring = Monitoring()
    machine: Machine = Machine()
    init_from: Path | None = None
    """Weights to start from: of the same network, or of a JDNet of fewer units."""
    workers: int = 2
    """Processes that cut patches; 0 cuts them in the main one. Never changes the patches."""
    run: Path | None = None
    """Folder of the run instead of runs/NAME."""
    dry_run: bool = False
    """Print what would be done, time two steps, and train nothing."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        _require_finite(self, "workers")


@dataclass(frozen=True)
class EvalConfig:
    """One scoring of one set of weights on one dataset."""

    name: str
    """Dataset, as the tables name it."""
    data: Folders | Synthetic
    network: NetworkConfig = JDNetConfig()
    machine: Machine = Machine()
    weights: Path | None = None
    """Weights; where not given runs/NAME/best.pt, else those in weights/ for the dataset."""
    compare: tuple[Path, ...] = ()
    """Weights, or folders of runs, to score instead and set side by side in one table."""
    conventions: tuple[Convention, ...] = ("y", "y-float", "rgb", "rgb-jdnet")
    """Conventions to score in, as README's Metrics section defines them."""
    limit: int | None = None
    """Score the first so many pairs only."""
    output: Path | None = None
    """Folder for scores.csv and scores.json; scores/NAME where not given."""
    tile: int = 0
    """Side of the tiles in pixels; 0 takes images up to a megapixel whole."""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to score."""
        _require_positive(self, "limit")
        _require_finite(self, "tile")
        _require(bool(self.conventions), "--conventions needs at least one")


@dataclass(frozen=True)
class ShowConfig:
    """Derain images and videos. No ground truth, no dataset."""

    inputs: tuple[Path, ...]
    """Images, videos, or folders of them."""
    weights: Path | None = None
    """Weights; those in weights/ for photographs where not given."""
    output: Path = Path("derained")
    """Folder for the results, PNG or MP4 under the same names."""
    strips: bool = False
    """Also write rainy | derained side by side, under strips/."""
    tile: int = 0
    """Side of the tiles in pixels; 0 takes images up to a megapixel whole."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        _require_finite(self, "tile")


@dataclass(frozen=True)
class Dataset:
    """What a dataset module defines: its preset, and facts to compare with."""

    config: Config
    releases: dict[str, Release] = field(default_factory=dict)
    """By name, as in `Folders.release`."""
    weights: str | None = None
    """File under weights/ that eval.py takes for this preset."""


def as_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values, the network's name among them."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    if hasattr(settings, "network"):
        plain["network"] = {"name": settings.network.name, **plain["network"]}
    return plain
