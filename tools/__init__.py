"""Small scripts beside the main road: `python -m tools.NAME --help`, from the root."""
