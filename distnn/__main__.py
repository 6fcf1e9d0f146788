"""The commands, one line each: ``python -m distnn``."""

import sys

COMMANDS = {
    "train": "train a network, or go on with a run",
    "evaluate": "measure a trained run on a data set",
    "predict": "apply a trained run to new rows",
    "report": "write a page about runs",
    "export": "write a trained network for other programs",
    "bench": "measure a step on this machine",
    "doctor": "why is it slow, why does it not start",
}

if __name__ == "__main__":
    for name, purpose in COMMANDS.items():
        print(f"python -m distnn.{name:9} {purpose}")
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(f"distnn: {sys.argv[1]} is started by python -m distnn.{sys.argv[1]}")
