"""The operators: one function each, whatever runs behind it."""

from models.ops.pairwise_attention import (
    IMPLEMENTATIONS,
    choose_implementation,
    pairwise_attention,
    without_autocast,
)
from models.ops.reference import pairwise_attention_reference
from models.ops.scale_fusion import fuse_scales

__all__ = [
    "IMPLEMENTATIONS",
    "choose_implementation",
    "fuse_scales",
    "pairwise_attention",
    "pairwise_attention_reference",
    "without_autocast",
]
