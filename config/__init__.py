"""What to run: a module for each dataset, `small` and `siblings` for other networks. No torch."""

from config import rain12, rain100h, rain100l, rain1200, real, siblings, small, synthetic
from config.schema import Config

CONFIGS: dict[str, Config] = {
    config.name: config
    for config in (
        synthetic.CONFIG,
        rain100h.CONFIG,
        rain100l.CONFIG,
        rain12.CONFIG,
        rain1200.CONFIG,
        real.CONFIG,
        *small.SMALL,
        *siblings.SIBLINGS,
    )
}
