"""Tables and plots of what `study.py` has trained: python draw.py results/NAME.jsonl [--target 0.9]

Writes NAME.md and, where matplotlib is installed, NAME.png beside the file.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from study import BASE, BUDGETS, RECIPES, Cell

from distnn.training.batches import Batches

MODEL_RANKS = 64
RANKS_PER_NODE = 16
SHOWN = {
    "warmup": "", "short": ", short warm-up", "growing": ", growing for 5 epochs",
    "growing-long": ", growing for 8 epochs",
}  # fmt: skip
OF_RECIPE: dict[str, dict[str, Any]] = {
    "warmup": {"linestyle": "-"},
    "short": {"linestyle": "--", "alpha": 0.6},
    "growing": {"linestyle": ":", "fillstyle": "none", "markersize": 8},
    "growing-long": {"linestyle": "-.", "fillstyle": "none", "markersize": 12},
}
Setting = tuple[str, str, str, int]  # budget, optimizer, recipe, batch
Finals = dict[Setting, list[dict[str, Any]]]
Timings = dict[tuple[str, int], dict[int, float]]  # by optimizer and ranks: batch -> seconds a step


def read(path: Path) -> tuple[Finals, Timings]:
    """The measured trainings, and the seconds per step."""
    finals: Finals = defaultdict(list)
    timings: Timings = defaultdict(dict)
    for record in map(json.loads, path.read_text().splitlines()):
        cell = Cell(*record["cell"])
        if record.get("diverged"):
            continue
        if cell.stage == "final":
            finals[cell.budget, cell.optimizer, cell.recipe, cell.batch].append(record)
        elif cell.stage == "timing":
            timings[cell.optimizer, cell.ranks][cell.batch] = record["seconds"] / record["steps"]
    return finals, timings


def to_target(records: Sequence[Mapping[str, Any]], target: float) -> float | None:
    """Mean number of epochs until the score is reached; None if a seed does not reach it."""
    epochs = [
        next((n for n, score in enumerate(one["score"], 1) if score >= target), None)
        for one in records
    ]
    return None if None in epochs else mean(epochs)  # type: ignore[type-var]


def modelled(by_batch: Mapping[int, float], weights: int, gigabits: float) -> dict[int, float]:
    """Seconds per step on 64 ranks, by the model: compute shared by the ranks, update not.

    One rank's seconds are a B + u, fitted by least squares of relative errors. On P ranks in N
    nodes a step is the larger of a B / P + u / P and the time of 2 (N - 1) / N gradients on each
    node's link, which go beside the passes.
    """
    batches, seconds = np.array(list(by_batch)), np.array(list(by_batch.values()))
    design = np.stack([batches / seconds, 1 / seconds], axis=1)
    (slope, fixed), *_ = np.linalg.lstsq(design, np.ones(len(batches)), rcond=None)
    nodes = MODEL_RANKS // RANKS_PER_NODE
    link = 2 * (nodes - 1) / nodes * 4 * weights * 8 / (gigabits * 1e9)
    return {int(b): float(max((slope * b + max(fixed, 0)) / MODEL_RANKS, link)) for b in batches}


def seconds_of(epochs: float, batches: Batches, by_batch: Mapping[int, float]) -> float:
    """Of so many epochs, the last in part; a step of a size that was not timed is interpolated."""
    timed = sorted(by_batch)
    seconds = 0.0
    for epoch in range(int(np.ceil(epochs))):
        step = np.interp(batches.size(epoch), timed, [by_batch[b] for b in timed])
        seconds += min(1, epochs - epoch) * batches.steps(epoch) * float(step)
    return seconds


def table(rows: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Optimizers by batch sizes, as Markdown."""
    batches = sorted({batch for row in rows.values() for batch in row})
    lines = [
        "| | " + " | ".join(f"{b:,}" for b in batches) + " |",
        "|---" * (len(batches) + 1) + "|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(row.get(b, "") for b in batches) + " |")
    return lines


def tables(finals: Finals, timings: Timings, target: float, gigabits: float) -> list[str]:
    """All tables of a data set."""
    by: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    weights = next(iter(finals.values()))[0]["weights"] if finals else 0
    for (budget, optimizer, recipe, batch), records in finals.items():
        name = optimizer + SHOWN[recipe]
        scores = [one["score"][-1] for one in records]
        spread = f" ± {(max(scores) - min(scores)) / 2:.2%}" if len(scores) > 1 else ""
        by[f"Score, budget of {budget}"][name][batch] = f"{mean(scores):.2%}{spread}"
        if budget != "epochs":
            continue
        epochs = to_target(records, target)
        by[f"Epochs to {target:g}"][name][batch] = (
            "not reached" if epochs is None else f"{epochs:.1f}"
        )
        known = [value for one in records for value in one["noise_scale"] if value is not None]
        by["Noise scale, median of epochs"][name][batch] = f"{median(known):.0f}" if known else "-"
        if epochs is None:
            continue
        growth = RECIPES[recipe].get("batch_warmup_epochs", 0)
        batches = Batches(records[0]["items"], BASE, batch, growth)
        by_ranks = {r: by_batch for (n, r), by_batch in timings.items() if n == optimizer}
        if len(by_ranks.get(1, {})) > 1:
            by_ranks[MODEL_RANKS] = modelled(by_ranks[1], weights, gigabits)
        for ranks, by_batch in sorted(by_ranks.items()):
            if batch in by_batch:
                model = f", {gigabits:g} Gbit/s, by the model" if ranks == MODEL_RANKS else ""
                title = f"Seconds to {target:g} on {ranks} ranks{model}"
                by[title][name][batch] = f"{seconds_of(epochs, batches, by_batch):.2f}"
    return [line for title, rows in by.items() for line in ("", f"**{title}**", "", *table(rows))]


def of_rule(number: int) -> dict[str, Any]:
    """Marker and colour of the optimizer of a number."""
    return {"marker": "osD^vP*X"[number % 8], "color": f"C{number % 10}"}


def plot(finals: Finals, target: float, path: Path) -> None:
    """Score against batch size for both budgets, and epochs to the target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    budgets = [budget for budget in BUDGETS if any(setting[0] == budget for setting in finals)]
    figure, axes = pyplot.subplots(
        1, len(budgets) + 1, figsize=(5.5 * len(budgets) + 7, 5), layout="constrained"
    )
    batches = sorted({batch for *_, batch in finals})
    rules = list(dict.fromkeys(optimizer for _, optimizer, _, _ in finals))
    recipes = [recipe for recipe in RECIPES if any(setting[2] == recipe for setting in finals)]
    for budget, optimizer, recipe in dict.fromkeys(setting[:3] for setting in finals):
        found = {s[3]: r for s, r in sorted(finals.items()) if s[:3] == (budget, optimizer, recipe)}
        style = {**of_rule(rules.index(optimizer)), **OF_RECIPE[recipe]}
        scores = [mean(x["score"][-1] for x in records) for records in found.values()]
        axes[budgets.index(budget)].plot(list(found), scores, **style)
        if budget == "epochs":
            needed = {batch: to_target(records, target) for batch, records in found.items()}
            known = [batch for batch in needed if needed[batch] is not None]
            axes[-1].plot(known, [needed[batch] for batch in known], **style)
    titles = [f"test score, same {budget}" for budget in budgets] + [f"epochs to {target:g}"]
    for one, title in zip(axes, titles, strict=True):
        one.set(xscale="log", xlabel="batch size", title=title)
        one.set_xticks(batches, [f"{batch:,}" for batch in batches])
        one.minorticks_off()
        one.grid(alpha=0.3)
    for number, name in enumerate(rules):
        axes[-1].plot([], [], label=name, **of_rule(number))
    for recipe in recipes:
        name = SHOWN[recipe].removeprefix(", ") or "batches of one size"
        axes[-1].plot([], [], label=name, color="black", marker="o", **OF_RECIPE[recipe])
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the flags and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--target", type=float, default=0.9, help="score whose cost is compared")
    parser.add_argument("--gigabits", type=float, default=10.0, help="of a link, for the model")
    given = parser.parse_args()
    finals, timings = read(given.results)
    lines = [f"# {given.results.stem}", *tables(finals, timings, given.target, given.gigabits)]
    given.results.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    try:
        plot(finals, given.target, given.results.with_suffix(".png"))
    except ImportError:
        print("\nno plot: pip install matplotlib")


if __name__ == "__main__":
    main()
