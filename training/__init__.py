"""What train.py needs: schedule, losses, optimizers, the state of a run, and the dry run."""
