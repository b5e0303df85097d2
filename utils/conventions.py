"""Names of the metric conventions; `utils.metrics` defines them."""

from typing import Literal, get_args

Convention = Literal["y", "y-float", "y-prenet", "rgb", "rgb-jdnet"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
