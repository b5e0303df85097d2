"""The networks' arguments. A network is built from one of these objects.

The docstring under a field is its --help text, so it stays one line.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from config.checks import require, require_positive


@dataclass(frozen=True)
class NetworkConfig:
    """Base class."""

    name: ClassVar[str]
    """Name of the network in weights files."""


@dataclass(frozen=True)
class JDNetConfig(NetworkConfig):
    """JDNet (ACM MM 2020). Table 2: R1 has both modules off, R2 self-attention off, R3 both on."""

    name: ClassVar[str] = "jdnet"

    units: int = 32
    """Densely connected joint units."""
    channels: int = 32
    """Feature channels, a multiple of 16."""
    scales: int = 4
    """Scales of the aggregation module (n in the paper)."""
    pooling: int = 4
    """Pooling factor of the self-calibrated convolution (r in the paper)."""
    footprint: int = 7
    """Side of the square attention footprint in pixels, odd."""
    self_attention: bool = True
    """Use the pairwise self-attention module."""
    self_calibration: bool = True
    """Use the self-calibrated convolution."""
    position: Literal["image", "patch"] = "image"
    """Attention coordinates: scaled to the image size, as released, or to a 64x64 patch."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "units", "pooling")
        require(
            self.channels >= 16 and self.channels % 16 == 0,
            f"--channels must be a multiple of 16, got {self.channels}",
        )
        require(self.scales >= 0, f"--scales must be at least 0, got {self.scales}")
        require(
            self.footprint >= 1 and self.footprint % 2 == 1,
            f"--footprint must be odd, got {self.footprint}",
        )


@dataclass(frozen=True)
class DCSFNConfig(NetworkConfig):
    """DCSFN (ACM MM 2020)."""

    name: ClassVar[str] = "dcsfn"

    units: int = 16
    """Blocks per encoder and decoder."""
    channels: int = 20
    """Feature channels."""
    cell: Literal["gru", "rnn"] = "gru"
    """Recurrent cells between the scales."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "units", "channels")


@dataclass(frozen=True)
class DANetConfig(NetworkConfig):
    """DANet (IJCAI 2022)."""

    name: ClassVar[str] = "danet"

    channels: int = 64
    """Feature channels, even."""
    blocks: int = 10
    """Residual blocks per sub-network."""
    reduction: int = 4
    """Reduction factor of the channel attention: channels divided by bottleneck width."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "channels", "blocks", "reduction")
        require(self.channels % 2 == 0, f"--channels must be even, got {self.channels}")
        require(self.reduction <= self.channels, "--reduction must not exceed --channels")


@dataclass(frozen=True)
class PReNetConfig(NetworkConfig):
    """PReNet (CVPR 2019). PReNet_r: --shared-blocks; PRN: --recurrence none; PRN_r: both."""

    name: ClassVar[str] = "prenet"

    stages: int = 6
    """Recurrent stages with shared weights."""
    channels: int = 32
    """Feature channels."""
    recurrence: Literal["lstm", "gru", "none"] = "lstm"
    """Recurrent layer that passes a state from stage to stage."""
    shared_blocks: bool = False
    """Apply one residual block five times instead of five different blocks."""
    global_residual: bool = True
    """Each stage estimates the negative rain layer instead of the background."""
    rainy_input: bool = True
    """Each stage gets the rainy image besides the previous stage's output."""
    recurrence_last: bool = False
    """Put the recurrent layer after the residual blocks instead of before them."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "stages", "channels")


@dataclass(frozen=True)
class RESCANConfig(NetworkConfig):
    """RESCAN (ECCV 2018)."""

    name: ClassVar[str] = "rescan"

    stages: int = 4
    """Recurrent stages with shared weights."""
    channels: int = 24
    """Feature channels."""
    depth: int = 7
    """Convolutions per stage, at least 3."""
    cell: Literal["conv", "rnn", "gru", "lstm"] = "gru"
    """Type of the cells, all convolutions of a stage but the last two."""
    frame: Literal["full", "add"] = "full"
    """Each stage estimates the full rain layer, or the residue left by the previous stages."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        require_positive(self, "stages", "channels")
        require(self.depth >= 3, f"--depth must be at least 3, got {self.depth}")
