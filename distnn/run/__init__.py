"""The life of one run: settings, directory, checkpoints, metrics, progress."""
