"""Pairwise attention as one operator: several implementations behind one function."""

from models.ops.pairwise_attention import (
    IMPLEMENTATIONS,
    choose_implementation,
    pairwise_attention,
    without_autocast,
)
from models.ops.reference import pairwise_attention_reference

__all__ = [
    "IMPLEMENTATIONS",
    "choose_implementation",
    "pairwise_attention",
    "pairwise_attention_reference",
    "without_autocast",
]
