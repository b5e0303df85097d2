"""Small scripts beside the main road, each with --help."""
