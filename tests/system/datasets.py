"""Small data sets for runs that take a fraction of a second."""

import csv
from pathlib import Path

import numpy as np


def classes(path: Path, rows: int = 203, test_rows: int = 61) -> Path:
    """Three classes of 5 real features, around three corners: easy, not trivial."""
    draw = np.random.default_rng(7)
    y = draw.integers(0, 3, rows + test_rows)
    x = draw.normal(size=(rows + test_rows, 5)) + 2 * np.eye(3, 5)[y]
    np.savez(path, x_train=x[:rows], y_train=y[:rows], x_test=x[rows:], y_test=y[rows:])
    return path


def curve(path: Path, rows: int = 203, test_rows: int = 61) -> Path:
    """Two real outputs of three real features."""
    draw = np.random.default_rng(8)
    x = draw.uniform(-1, 1, (rows + test_rows, 3))
    y = np.stack([np.sin(2 * x[:, 0]) + x[:, 1], x[:, 1] * x[:, 2]], axis=1)
    np.savez(path, x_train=x[:rows], y_train=y[:rows], x_test=x[rows:], y_test=y[rows:])
    return path


def penguins(path: Path, rows: int = 150) -> Path:
    """A table with an identifier, text, gaps and named classes."""
    draw = np.random.default_rng(9)
    species, islands = ("Adelie", "Chinstrap", "Gentoo"), ("Biscoe", "Dream", "Torgersen")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "island", "bill length (mm)", "mass (g)", "species"])
        for number, kind in enumerate(draw.integers(0, 3, rows)):
            bill = "" if number % 17 == 0 else f"{draw.normal(38 + 5 * kind, 2):.1f}"
            mass = f"{draw.normal(3500 + 700 * kind, 300):.0f}"
            table.writerow([f"p{number}", islands[draw.integers(0, 3)], bill, mass, species[kind]])
    return path
