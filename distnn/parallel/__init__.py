"""Ranks, nodes, shared vectors, slices, the ordered sum, updates. Knows no network."""
