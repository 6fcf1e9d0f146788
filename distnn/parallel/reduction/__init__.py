"""The ordered sum over slices, and the exchange of gradients and weights."""
