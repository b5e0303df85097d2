"""What to run: one module a dataset, and `siblings` for the other networks. No torch here."""

from config import rain12, rain100h, rain100l, rain1200, real, siblings, synthetic
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
        *siblings.SIBLINGS,
    )
}
