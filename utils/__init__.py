"""Tensors and files. Knows nothing of rain, configs or networks."""
