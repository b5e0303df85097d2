"""Command-line tools: `python -m tools.NAME --help`, run from the repository root."""
