"""The training loop, and what joins networks, data, ranks and a run's files."""
