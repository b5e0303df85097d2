"""Published scores, to stand beside our own and never to be passed off as them.

A row is comparable with ours in its own convention and on its own release only.
"""

from typing import NamedTuple

from config.schema import Convention


class Published(NamedTuple):
    """One row of somebody's table."""

    method: str
    convention: Convention
    psnr: float  # dB
    ssim: float


# (dataset, release, test pairs) -> rows. Sources: the PReNet and RCDNet repositories; BRN, DFN and
# Restormer as quoted by later tables; JDNet: Table 1 of the paper, scored by its released script.
PUBLISHED: dict[tuple[str, str, int], tuple[Published, ...]] = {
    ("rain100h", "old", 100): (
        Published("PReNet (1254 training pairs)", "y-prenet", 29.46, 0.899),
        Published("RCDNet (1800 training pairs)", "y-float", 31.28, 0.909),
        Published("Restormer (1800, retrained)", "y", 31.96, 0.916),
    ),
    ("rain100l", "old", 100): (
        Published("PReNet", "y-prenet", 37.48, 0.979),
        Published("RCDNet", "y-float", 40.00, 0.986),
        Published("Restormer (retrained)", "y", 39.98, 0.987),
    ),
    ("rain100h", "new", 200): (Published("JDNet, paper", "rgb-jdnet", 30.02, 0.92),),
    ("rain100l", "new", 200): (Published("JDNet, paper", "rgb-jdnet", 38.65, 0.99),),
    ("rain12", "old", 12): (
        Published("JDNet, paper (Rain100H model)", "rgb-jdnet", 37.02, 0.97),
        Published("PReNet (Rain100L model)", "y-prenet", 36.66, 0.961),
    ),
}
