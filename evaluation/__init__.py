"""Scoring networks on image pairs, and the tables and files of the scores."""
