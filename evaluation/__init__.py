"""Scoring networks on image pairs, and writing tables and files of scores."""
