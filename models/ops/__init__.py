"""Pairwise attention as one operator: several implementations behind one function."""

from models.ops.pairwise_attention import pairwise_attention, pairwise_attention_reference

__all__ = ["pairwise_attention", "pairwise_attention_reference"]
