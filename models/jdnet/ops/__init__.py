"""Operators of JDNet: one public function each, with several implementations behind it."""

from models.jdnet.ops.pairwise_attention import (
    IMPLEMENTATIONS,
    choose_implementation,
    pairwise_attention,
    without_autocast,
)
from models.jdnet.ops.reference import pairwise_attention_reference
from models.jdnet.ops.scale_fusion import fuse_scales

__all__ = [
    "IMPLEMENTATIONS",
    "choose_implementation",
    "fuse_scales",
    "pairwise_attention",
    "pairwise_attention_reference",
    "without_autocast",
]
