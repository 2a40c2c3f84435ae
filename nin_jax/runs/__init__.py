"""Training runs: `fit`, the loop, progress, checkpoints and the files of a run."""
