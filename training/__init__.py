"""Parts of train.py: schedule, losses, optimizers, the state of a run, and the dry run."""
