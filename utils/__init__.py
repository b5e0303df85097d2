"""Helpers for tensors, files and the machine, independent of configs, data and networks."""
