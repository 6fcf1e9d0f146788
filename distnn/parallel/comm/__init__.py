"""Ranks, nodes and what they share: communicator, shared memory, barrier, status."""
