"""Records the picture in README.md:  python launch/recording.py [FILE.svg]

Runs the commands that the picture shows, in a folder that is deleted afterwards: the same training
on 1, 2 and 8 ranks, then a run that is killed and goes on with 3. Ends with code 1, and without a
picture, if the hashes of the weights differ.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

from invariance import MORE_RANKS_THAN_CORES

TRAIN = "mpirun -n {} python -m distnn.train"
KILLED_IN = 12  # the epoch after which the run is killed
PLAYED_IN = 8.0  # seconds of the animation, in which all pauses keep their proportion
PROMPT = "$ "
HASH = re.compile(r"[0-9a-f]{64}")

CHARACTER, LINE, MARGIN = 8.43, 19, 18  # width and height in pixels of 14px text
STYLE = """
  svg { color-scheme: light dark; }
  .back { fill: #f6f8fa; stroke: #d0d7de; }
  text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
         fill: #57606a; white-space: pre; }
  .typed { fill: #1f2328; }
  .hash { fill: #116329; }
  @media (prefers-color-scheme: dark) {
    .back { fill: #161b22; stroke: #30363d; }
    text { fill: #8b949e; }
    .typed { fill: #e6edf3; }
    .hash { fill: #56d364; }
  }
  @media (prefers-reduced-motion: no-preference) {
    text { animation: hidden var(--after) step-end; }
  }
  @keyframes hidden { from { visibility: hidden; } to { visibility: visible; } }
"""


class Terminal:
    """Runs commands and keeps what a terminal would show, with the seconds until it did."""

    def __init__(self, folder: Path) -> None:
        beside = str(Path(sys.executable).parent)
        self.settings = {
            "cwd": folder,
            "env": MORE_RANKS_THAN_CORES | os.environ
            | {"PATH": os.pathsep.join([beside, os.environ["PATH"]])},
            "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True,
        }  # fmt: skip
        self.lines: list[tuple[float, str]] = []
        self.start = time.monotonic()

    def show(self, line: str) -> None:
        """A line appears now."""
        self.lines.append((time.monotonic() - self.start, line))

    def run(self, command: str) -> None:
        """A command from beginning to end."""
        self.show(PROMPT + command)
        done = subprocess.run(["sh", "-c", command], **self.settings, check=True)
        for line in done.stdout.splitlines():
            self.show(line)

    def run_and_kill(self, command: str, until: str) -> None:
        """A command in the background, killed as soon as it prints a line with `until`."""
        self.show(f"{PROMPT}{command} &")
        job = subprocess.Popen(["sh", "-c", f"exec {command}"], **self.settings)
        printed = iter(job.stdout.readline, "")
        for line in printed:
            self.show(line.rstrip())
            if until in line:
                break
        self.show(f"{PROMPT}kill -9 %1")
        job.send_signal(signal.SIGKILL)
        for line in printed:
            self.show(line.rstrip())
        job.wait()


def main() -> int:
    """Record, compare, write."""
    target = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).with_suffix(".svg")).absolute()
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder))
        for ranks in (1, 2, 8):
            terminal.run(f"{TRAIN.format(ranks)} --progress off | grep sha256")
        terminal.run_and_kill(f"{TRAIN.format(8)} --run-dir runs/a", f"epoch {KILLED_IN}/")
        terminal.run(f"{TRAIN.format(3)} --run-dir runs/a --resume")
    hashes = HASH.findall("\n".join(line for _, line in terminal.lines))
    if len(hashes) != 4 or len(set(hashes)) != 1:
        print("\n".join(line for _, line in terminal.lines), file=sys.stderr)
        return 1
    target.write_text(picture(shortened(terminal.lines)))
    return 0


def shortened(lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """All but the first and the last of successive epochs left out, with a line of dots instead."""
    kept: list[tuple[float, str]] = []
    for index, (seconds, line) in enumerate(lines):
        around = [text for _, text in lines[max(index - 1, 0) : index + 2]]
        if all(text.startswith("epoch") for text in around) and len(around) == 3:
            if kept[-1][1] != "...":
                kept.append((seconds, "..."))
        else:
            kept.append((seconds, line))
    return kept


def picture(lines: list[tuple[float, str]]) -> str:
    """The SVG. Without animation it shows the last state: all lines."""
    width = round(max(len(line) for _, line in lines) * CHARACTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    speed = PLAYED_IN / lines[-1][0]
    rows = [row(number, speed * seconds, line) for number, (seconds, line) in enumerate(lines)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img" xml:space="preserve">',
        "<title>One hash of the weights on 1, 2 and 8 ranks, and after a kill on 8 ranks"
        " and a resume on 3</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *rows,
        "</svg>\n",
    ])  # fmt: skip


def row(number: int, seconds: float, line: str) -> str:
    """One line of the terminal; a hash in it stands out."""
    kind = ' class="typed"' if line.startswith(PROMPT) else ""
    text = HASH.sub(r'<tspan class="hash">\g<0></tspan>', escape(line, quote=False))
    y = MARGIN + (number + 0.75) * LINE
    return f'<text{kind} x="{MARGIN}" y="{y:g}" style="--after:{seconds:.2f}s">{text}</text>'


if __name__ == "__main__":
    sys.exit(main())
