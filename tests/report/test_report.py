"""The page about runs: read back by an HTML parser, with figures restated from the run's files."""

import json
import math
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from distnn import SGD, DivergenceError, Network, Trainer
from distnn.config.commands import ReportConfig
from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.report import charts, record, scales
from distnn.report.__main__ import report, write
from distnn.report.classes import confusion
from distnn.report.page import Applied, page
from distnn.report.palette import DARK, LIGHT
from distnn.report.png import png
from distnn.report.residuals import residuals
from distnn.run import checkpoint

VOID = {"meta", "link", "img", "source", "br", "input"}
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


class Read(HTMLParser):
    """Tags, attributes and text of a page; complains of tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def make_run(path: Path, epochs: int = 4, **changes: object) -> Path:
    """A run's directory, written by hand."""
    path.mkdir()
    (path / "config.toml").write_text(f'data = "digits"\nepochs = {epochs}\nbatch_size = 64\n')
    rows = [
        {"epoch": k, "step": 10 * k, "train_loss": 1 / k, "test_loss": 1.25 / k + 0.05 * (k > 3),
         "test_accuracy": 1 - 0.3137 / k}
        for k in range(1, epochs + 1)
    ]  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    times = [{"epoch": row["epoch"], "seconds": 0.5, "samples_per_second": 777} for row in rows]
    (path / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))
    summary = {"epochs": epochs, "weights_sha256": "ab" * 32, "seconds": 3.5, **rows[-1], **changes}
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def written(tmp_path: Path, *runs: Path) -> str:
    out = tmp_path / "page.html"
    write(ReportConfig(run=[str(run) for run in runs], output=str(out)))
    return out.read_text()


def test_a_page_has_the_runs_figures_and_no_address_outside(tmp_path: Path) -> None:
    text = written(tmp_path, make_run(tmp_path / "one"))
    found = Read(text)
    assert "92.16 %" in found.text  # 1 - 0.3137 / 4
    assert "0.3625" in found.text  # 1.25 / 4 + 0.05
    assert "ab" * 32 in found.text
    assert "no confusion matrix" in found.text
    assert "http" not in text.replace("http-equiv", "")
    for tag, attributes in found.tags:
        assert tag not in ("script", "iframe", "object", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"  # the policy of the page would refuse it
            if name in ("href", "src", "srcset", "action"):
                assert str(value).startswith(("#", "data:"))
    anchors = [a["href"] for tag, a in found.tags if tag == "a"]
    ids = {"#" + str(a["id"]) for _, a in found.tags if "id" in a}
    assert set(anchors) <= ids


def test_the_best_epoch_is_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", epochs=5)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    best = json.loads(lines[2]) | {"test_loss": 0.01}
    (run / "metrics.jsonl").write_text("\n".join([*lines[:2], json.dumps(best), *lines[3:], ""]))
    assert "best: epoch 3, 0.01" in Read(written(tmp_path, run)).text


def test_what_files_hold_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<b>evil", test_confusion=[[3, 1], [0, 4]], class_names=[EVIL, "\0"])
    (run / "config.toml").write_text(f"data = {json.dumps(EVIL)}\n")
    record_ = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    evil = record_ | {"epoch": 5, f"test_{EVIL}": 1.0, "train_loss": EVIL}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(evil) + "\n")
    (run / "outcome.json").write_text(json.dumps({"outcome": "diverged", "message": EVIL}))
    for text in (written(tmp_path, run), written(tmp_path, run, make_run(tmp_path / "two"))):
        found = Read(text)
        assert not {"script", "b"} & {tag for tag, _ in found.tags}
        assert all("onerror" not in attributes for _, attributes in found.tags)
        assert EVIL[:40] in found.text


@pytest.mark.parametrize("name", ["network", "data", "ranks", "fingerprint", "class_names"])
def test_a_forged_checkpoint_is_left_out(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "one")
    (run / "checkpoints").mkdir()
    network = Network([64, 10])
    meta = {
        "position": {"epoch": 4, "step": 0, "steps": 40, "loss": 0.0}, "network": network.config(),
        "task": "classification", "classes": 10, "optimizer": {"name": "sgd"}, "ranks": 3,
    }  # fmt: skip
    checkpoint.write(run / "checkpoints", "step-0000000040", {"W1": np.zeros((65, 10))}, meta)
    assert "is no training run's" not in written(tmp_path, run)
    assert "64-10" in written(tmp_path, run) or "64, 10" in written(tmp_path, run)
    forged = meta | {name: {"x": [5]} if name != "network" else []}
    checkpoint.write(run / "checkpoints", "step-0000000040", {"W1": np.zeros((65, 10))}, forged)
    assert "is no training run" in written(tmp_path, run)


def test_a_page_is_written_anew_and_nothing_else(tmp_path: Path) -> None:
    run, mine = make_run(tmp_path / "one"), tmp_path / "mine.html"
    words = [str(run), "--output", str(mine)]
    for _ in range(2):
        report(Communicator(MPI.COMM_SELF), words)
    mine.write_text("<p>my own page</p>")
    with pytest.raises(InputError, match=r"mine\.html: is there already, and is no page of distnn"):
        report(Communicator(MPI.COMM_SELF), words)
    assert mine.read_text() == "<p>my own page</p>"


def test_several_runs_are_compared(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", test_loss=0.125)
    (two / "config.toml").write_text('data = "digits"\nepochs = 4\nbatch_size = 128\n')
    found = Read(written(tmp_path, one, two))
    assert "2 runs compared" in found.text
    assert re.search(r"batch size\s*64\s*128", found.text)
    assert not re.search(r"epochs\s*4\s*4\s*Curves", found.text)  # does not differ
    wins = [k for k, (_, a) in enumerate(found.tags) if a.get("class") == "win"]
    assert len(wins) == 3  # the accuracy is the same in both, the loss is not


@pytest.mark.parametrize(
    ("content", "what"),
    [("[1]\n", "line 1"), ('{"epoch": 1}\nx\n', "line 2"), ('{"step": 1}\n', "no epoch")],
)
def test_damaged_metrics_are_refused_by_line(tmp_path: Path, content: str, what: str) -> None:
    run = make_run(tmp_path / "one")
    (run / "metrics.jsonl").write_text(content)
    with pytest.raises(InputError, match=what):
        record.read_run(str(run))


def test_files_that_are_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    with (run / "metrics.jsonl").open("r+b") as file:
        file.truncate(5 << 30)  # sparse
    with pytest.raises(InputError, match="larger than 256 MB"):
        record.read_run(str(run))


def test_torn_lines_and_repeated_epochs_are_read_as_a_resumed_run_means_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0}, {"epoch": 2, "a": None, "b": 5}]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"epoch": 3')
    columns = record.read_columns(path)
    assert list(columns["epoch"]) == [1, 2]
    assert columns["a"][0] == 1
    assert math.isnan(columns["a"][1])
    assert math.isnan(columns["b"][0])
    assert columns["b"][1] == 5


def test_states_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    assert record.read_run(str(run)).status == "finished"
    (run / "summary.json").unlink()
    assert record.read_run(str(run)).status == "stopped"
    (run / "outcome.json").write_text('{"outcome": "diverged", "message": "inf"}')
    assert record.read_run(str(run)).status == "diverged"
    (run / "metrics.jsonl").unlink()
    assert "No epoch is complete" in Read(written(tmp_path, run)).text


def test_a_run_of_many_epochs_and_classes_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (200, 200)).tolist()
    run = make_run(tmp_path / "one", epochs=1000, test_confusion=counts)
    text = written(tmp_path, run)
    Read(text)
    assert len(text) < 1 << 20


def test_thinned_lines_keep_their_peaks() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 900)
    y[54_321], y[77_000:77_400] = 9.0, np.nan
    xs, ys = charts.thinned(x, y)
    assert len(xs) <= charts.POINTS + 2
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert np.nanmax(ys) == 9
    assert np.isnan(ys).any()
    assert (y[xs.astype(int)][np.isfinite(ys)] == ys[np.isfinite(ys)]).all()


def test_paths_have_gaps_where_values_are_missing() -> None:
    x, y = scales.epoch_scale(0, 4), scales.Scale(0, 1, False, ())
    drawn = charts.path(x, y, np.arange(5.0), np.array([0, 1, np.nan, 0.5, np.nan]))
    assert drawn == "M0.0 220.0L250.0 0.0M750.0 110.0h0"


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e300, -1e300], [1e-300, 1e300], [np.nan], [7]])
def test_axes_of_any_values_have_finite_places(values: list[float]) -> None:
    for may_be_log in (False, True):
        scale = scales.scale_of(values, may_be_log=may_be_log)
        shares = scale.shares([v for v in values if np.isfinite(v)])
        assert ((shares >= 0) & (shares <= 1)).all()
        assert len(scale.ticks) >= 1


def test_ticks_are_round() -> None:
    assert scales.linear_ticks(0, 1) == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1))
    assert scales.log_ticks(0.02, 30) == pytest.approx((0.1, 1, 10))
    assert scales.epoch_scale(1, 4).ticks == (1, 2, 3, 4)


def test_scores_of_classes() -> None:
    view = confusion([[8, 2, 0], [1, 9, 0], [0, 0, 0]], ["a", "b", "c"])
    assert view is not None
    assert view.accuracy == pytest.approx(17 / 20)
    assert view.scores[0].precision == pytest.approx(8 / 9)
    assert view.scores[0].recall == pytest.approx(0.8)
    assert view.scores[1].f1 == pytest.approx(2 * 9 / (10 + 11))
    assert math.isnan(view.scores[2].recall)
    assert view.pairs[0][:3] == ("a", "b", 2)
    for wrong in ([[1]], [[1, 2]], [[1, -1], [0, 0]], [["x", 1], [1, 1]], 7, [[1, 2], 3]):
        assert confusion(wrong, None) is None


def test_residuals_of_a_regression(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=3000)
    predicted = true + 0.1 * rng.normal(size=3000)
    view = residuals("price", true, predicted)
    assert view.rmse == pytest.approx(np.sqrt(np.mean((predicted - true) ** 2)))
    assert view.r2 == pytest.approx(np.corrcoef(true, predicted)[0, 1] ** 2, abs=0.01)
    records = [record.read_run(str(make_run(tmp_path / "one")))]
    found = Read(page(records, applied=[Applied(residuals=[view])]))
    assert "price: predicted against true" in found.text


def test_ranks_keep_their_numbers_and_those_not_drawn_are_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    rows = [{"forward": 1e-6 * rank} for rank in range(1, 100)]
    (run / "phases.json").write_text(json.dumps({"ranks": ["damaged", *rows]}))
    text = written(tmp_path, run)
    assert "rank 0, forward" not in text
    for rank in (1, 64):  # each takes as many microseconds as its number
        assert f"rank {rank}, forward: {rank} microseconds" in text
    assert "rank 65, forward" not in text
    assert "Drawn are the first 64 of 99 ranks" in text
    (run / "phases.json").write_text(json.dumps({"ranks": rows[:64]}))
    text = written(tmp_path, run)
    assert "Phases of 64 ranks" in text
    assert "Drawn are" not in text


def test_a_picture_is_a_png() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    data = png(pixels, LIGHT.ramp)
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4])
    raw = zlib.decompress(data[start : start + length])
    assert raw == b"\0\0\1\2\0\3\4\5"
    assert int.from_bytes(data[start + length : start + length + 4]) == zlib.crc32(
        data[start - 4 : start + length]
    )


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio, its formula restated."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_told_apart(palette) -> None:
    for text in (palette.ink, palette.soft, palette.accent, palette.good, palette.bad):
        for ground in (palette.page, palette.panel):
            assert contrast(text, ground) >= 4.5
    for level, ground in enumerate(palette.ramp):
        assert contrast(palette.text_on_ramp[level >= palette.turns], ground) >= 4.5
    for line in palette.lines[: charts.COLOURS]:
        assert contrast(line, palette.panel) >= 3


def test_a_run_that_diverges_or_is_stopped_says_why(tmp_path: Path) -> None:
    """By the trainer itself: outcome.json is there, and gone when the run goes on."""
    X, T = np.ones((64, 3), np.float32), np.ones(64, np.float32)
    run = tmp_path / "run"

    def train(rate: float, resume: bool, epochs: int) -> None:
        network = Network([3, 4, 1], activation="identity", output="identity", loss="squared-error")
        options = {"batch_size": 8, "run_dir": str(run), "resume": resume}
        Trainer(network, SGD(rate), **options).fit(X, T, epochs=epochs)

    with pytest.raises(DivergenceError):
        train(1e30, resume=False, epochs=3)
    found = record.read_run(str(run))
    assert found.status == "diverged"
    assert "learning rate 1e+30" in found.remark
    with pytest.raises(DivergenceError):
        train(1e30, resume=True, epochs=3)
    assert "Diverged: the loss" in Read(written(tmp_path, run)).text
