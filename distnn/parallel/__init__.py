"""Ranks, nodes, shared vectors, slices, the ordered sum, updates. Knows vectors, never a network."""
