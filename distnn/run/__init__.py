"""The life of one run: config, directory, checkpoints, metrics, progress."""
