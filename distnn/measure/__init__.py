"""Measuring: what a step's time is spent on, and what the machine would allow."""
