"""The command lines and config files: what is accepted, and that all else is one line of error."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from distnn.config import commands
from distnn.config import options as module
from distnn.config.command_line import (
    HelpRequested,
    parse_bench,
    parse_doctor,
    parse_evaluate,
    parse_export,
    parse_predict,
    parse_train,
)
from distnn.config.option import options_of
from distnn.config.options import TrainConfig
from distnn.config.toml_file import LARGEST_CONFIG, read_recorded, to_toml
from distnn.errors import InputError

# The table of the public contract: flag, default.
CONTRACT = {
    "data": "digits", "test_data": None, "target": None, "hidden": [64], "activation": "relu",
    "output": None, "loss": None, "optimizer": "adam", "learning_rate": None, "momentum": None,
    "weight_decay": None, "clip_norm": None, "schedule": "constant", "warmup": 0, "batch_size": 64,
    "slices": None, "epochs": 20, "seed": 0, "precision": "float32", "reduce": "ordered",
    "update": "auto", "run_dir": None, "resume": False, "checkpoint_every": "1",
    "progress": "auto",
}  # fmt: skip


def config_file(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_defaults_are_the_contract():
    config = parse_train([])
    assert {name: getattr(config, name) for name in CONTRACT} == CONTRACT
    assert config == TrainConfig()
    assert config.given == frozenset()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--hidden", "128", "64"], {"hidden": [128, 64]}),
        (["--hidden", "8", "--epochs", "3"], {"hidden": [8], "epochs": 3}),
        (["--hidden"], {"hidden": []}),
        (["--batch-size=7"], {"batch_size": 7}),
        (["--batch_size", "7"], {"batch_size": 7}),
        (["--learning-rate", "1e-3"], {"learning_rate": 1e-3}),
        (["--learning-rate", "1"], {"learning_rate": 1.0}),
        (["--resume"], {"resume": True}),
        (["--no-resume"], {"resume": False}),
        (["--checkpoint-every", "500s"], {"checkpoint_every": "500s"}),
        (["--data", "a dir/with = signs"], {"data": "a dir/with = signs"}),
        (["--target", "Größe"], {"target": "Größe"}),
        (["--seed", str(2**63 - 1)], {"seed": 2**63 - 1}),
    ],
)
def test_flags(argv, expected):
    config = parse_train(argv)
    assert config == TrainConfig(**expected)
    assert config.given == set(expected)
    for name, value in expected.items():
        assert type(getattr(config, name)) is type(value)


def test_flags_win_over_the_file(tmp_path):
    path = config_file(tmp_path, "epochs = 5\nbatch_size = 32\nhidden = []\nlearning_rate = 1\n")
    config = parse_train([path, "--epochs", "7"])
    assert config == TrainConfig(epochs=7, batch_size=32, hidden=[], learning_rate=1.0)
    assert config.given == {"epochs", "batch_size", "hidden", "learning_rate"}
    assert parse_train(["--epochs", "7", path]) == config


def test_interval():
    assert parse_train([]).checkpoint_interval == ("epochs", 1)
    assert parse_train(["--checkpoint-every", "30s"]).checkpoint_interval == ("steps", 30)


def test_interval_in_a_file_may_be_a_number(tmp_path):
    assert parse_train([config_file(tmp_path, "checkpoint_every = 5")]).checkpoint_every == "5"


BAD_FLAGS = [
    (["--batchsize", "3"], ["--batchsize", "unknown", "did you mean --batch-size"]),
    (["--lr", "3"], ["--lr", "unknown", "did you mean --learning-rate"]),
    (["--qwerty"], ["--qwerty", "unknown", "see --help"]),
    (["-b", "3"], ["-b", "unknown"]),
    (["--batch-size", "x"], ["--batch-size", "'x'", "whole number"]),
    (["--batch-size", "1.5"], ["--batch-size", "'1.5'", "whole number"]),
    (["--batch-size", "0"], ["--batch-size", "0", "at least 1"]),
    (["--batch-size", "-4"], ["--batch-size", "-4", "at least 1"]),
    (["--batch-size", str(2**31)], ["--batch-size", "at most 2147483647"]),
    (["--batch-size", "9" * 5000], ["--batch-size"]),
    (["--batch-size"], ["--batch-size", "needs a value"]),
    (["--batch-size="], ["--batch-size"]),
    (["--batch-size", "3", "--batch-size", "4"], ["--batch-size", "twice"]),
    (["--hidden", "3", "--hidden", "4"], ["--hidden", "twice"]),
    (["--hidden", "--hidden"], ["--hidden", "twice"]),
    (["--resume", "--no-resume"], ["resume", "twice"]),
    (["--hidden", "0"], ["--hidden", "0", "at least 1"]),
    (["--hidden", "8", "-1"], ["--hidden", "-1", "at least 1"]),
    (["--hidden", "8,4"], ["--hidden", "'8,4'", "whole number", "write --hidden 8 4"]),
    (["--hidden", *["8"] * 1001], ["--hidden", "1001", "at most 1000"]),
    (["--config", "a.toml"], ["--config", "unknown", "give CONFIG without a flag"]),
    (["--seed", "١٢"], ["--seed", "'١٢'", "whole number"]),
    (["--seed", "1_0"], ["--seed", "'1_0'", "whole number"]),
    (["--learning-rate", "1_0"], ["--learning-rate", "'1_0'", "not a number"]),
    (["--slices", str(2**16 + 1)], ["--slices", "at most 65536"]),
    (["--batch", "3"], ["--batch", "unknown", "did you mean --batch-size"]),
    (["--data=--"], ["--data"]),
    (["--seed", "--epochs", "3"], ["--seed", "needs a value"]),
    (["--hidden", "8", "c.toml"], ["--hidden", "'c.toml'"]),
    (["--epochs", "0"], ["--epochs", "at least 1"]),
    (["--seed", "-1"], ["--seed", "-1", "at least 0"]),
    (["--seed", str(2**63)], ["--seed", "at most"]),
    (["--slices", "0"], ["--slices", "at least 1"]),
    (["--keep", "0"], ["--keep", "at least 1"]),
    (["--learning-rate", "-1e-3"], ["--learning-rate", "-0.001", "above 0"]),
    (["--learning-rate", "0"], ["--learning-rate", "above 0"]),
    (["--learning-rate", "nan"], ["--learning-rate", "nan", "finite"]),
    (["--learning-rate", "1e999"], ["--learning-rate", "finite"]),
    (["--learning-rate", "fast"], ["--learning-rate", "'fast'", "number"]),
    (["--momentum", "1"], ["--momentum", "below 1"]),
    (["--dropout", "1.0"], ["--dropout", "below 1"]),
    (["--dropout", "-0.1"], ["--dropout", "at least 0"]),
    (["--weight-decay", "-1"], ["--weight-decay", "at least 0"]),
    (["--clip-norm", "0"], ["--clip-norm", "above 0"]),
    (["--activation", "rely"], ["--activation", "'rely'", "did you mean relu"]),
    (["--optimizer", "zzz"], ["--optimizer", "'zzz'", "sgd", "adamw"]),
    (["--precision", "float16"], ["--precision", "'float16'", "did you mean bfloat16"]),
    (["--checkpoint-every", "0"], ["--checkpoint-every", "'0'", "N (epochs)"]),
    (["--checkpoint-every", "5m"], ["--checkpoint-every", "'5m'", "Ns (steps)"]),
    (["--checkpoint-every", "٣"], ["--checkpoint-every"]),
    (["--resume=maybe"], ["--resume", "maybe"]),
    (["a.toml", "b.toml"], ["b.toml", "unexpected"]),
    (["no-such.toml"], ["no-such.toml", "no such config file", "a TOML file"]),
    (["digits"], ["digits", "no such config file", "data with --data"]),
    (["/"], ["/", "not a file"]),
    (["/dev/zero"], ["/dev/zero", "not a file"]),
    (["x" * 5000], ["cannot be read"]),
    (["a\0b"], ["zero byte"]),
    ([""], ["empty"]),
    (["--data", ""], ["empty"]),
    (["--data", "\udcff"], ["UTF-8"]),
]


@pytest.mark.parametrize(("argv", "parts"), BAD_FLAGS, ids=lambda value: str(value)[:30])
def test_bad_flags(argv, parts):
    with pytest.raises(InputError) as caught:
        parse_train(argv)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + (len(argv[0]) if "cannot be read" in message else 0)
    for part in parts:
        assert part in message


BAD_CONFIGS = [
    ("batchsize = 3", ["unknown key 'batchsize'", "did you mean batch_size"]),
    ("batch-size = 3", ["unknown key", "did you mean batch_size"]),
    ("lr = 3", ["unknown key", "did you mean learning_rate"]),
    ("config = 'a'", ["unknown key"]),
    ("given = ['a']", ["unknown key"]),
    ("[train]\nseed = 1", ["unknown key 'train'"]),
    ("batch_size = 0", ["batch_size", "at least 1"]),
    ("batch_size = 1.5", ["batch_size", "1.5", "whole number"]),
    ("batch_size = '3'", ["batch_size", "'3'", "whole number"]),
    ("batch_size = true", ["batch_size", "True", "whole number"]),
    ("batch_size = 0x" + "f" * 9000, ["batch_size", "at most"]),
    ("batch_size = " + "9" * 9000, ["damaged"]),
    ("hidden = 3", ["hidden", "list"]),
    ("hidden = [8, 0]", ["hidden", "at least 1"]),
    ("hidden = [8, 'a']", ["hidden", "'a'"]),
    ("hidden = [8, [4]]", ["hidden", "[4]"]),
    ("hidden = [0x" + "f" * 9000 + "]\nseed = []", ["hidden"]),
    ("seed = [0x" + "f" * 9000 + "]", ["seed"]),
    ("learning_rate = nan", ["learning_rate", "finite"]),
    ("learning_rate = -inf", ["learning_rate", "finite"]),
    ("learning_rate = 0x" + "f" * 9000, ["learning_rate", "finite"]),
    ("resume = 1", ["resume", "true or false"]),
    ("data = 3", ["data", "quotes"]),
    ("data = ''", ["data", "empty"]),
    ("activation = 'rely'", ["activation", "did you mean relu"]),
    ("activation = 3", ["activation"]),
    ("checkpoint_every = '1x'", ["checkpoint_every", "N (epochs)"]),
    ("checkpoint_every = true", ["checkpoint_every"]),
    ("seed = 1979-05-27", ["seed", "whole number"]),
    ("epochs = 3\nhidden = [\n 1", ["damaged"]),
    ("epochs = 3\n\nseed == 4", ["damaged", "line 3"]),
    ("seed = 1\nseed = 2", ["damaged", "line 2"]),
    ("hidden = " + "[" * 5000, ["damaged"]),
    (b"seed = 1\ndata = '\xff'", ["damaged", "line 2", "UTF-8"]),
    (b"\x89PNG\r\n\x1a\n\0\0", ["damaged"]),
    (b"#" * (LARGEST_CONFIG + 1), ["1 MB"]),
]


@pytest.mark.parametrize(("text", "parts"), BAD_CONFIGS, ids=lambda value: str(value)[:30])
def test_bad_configs(tmp_path, text, parts):
    path = config_file(tmp_path, text)
    with pytest.raises(InputError) as caught:
        parse_train([path])
    message = str(caught.value)
    assert message.startswith(path)
    assert "\n" not in message
    assert len(message) < 600 + len(path)
    for part in parts:
        assert part in message


COMMANDS = [
    (parse_train, TrainConfig),
    (parse_evaluate, commands.EvaluateConfig),
    (parse_predict, commands.PredictConfig),
    (parse_bench, commands.BenchConfig),
    (parse_doctor, commands.DoctorConfig),
    (parse_export, commands.ExportConfig),
]


@pytest.mark.parametrize(("parse", "cls"), COMMANDS)
def test_help_names_every_flag(parse, cls):
    with pytest.raises(HelpRequested) as caught:
        parse(["--help"])
    text = caught.value.text
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.replace("[", " ").replace("]", " ").replace(",", " ").split())
    for one in options_of(cls).values():
        assert one.flag in words
        assert one.help.split()[0] in text
        assert set(one.choices) <= words


def test_help_is_grouped_and_shows_defaults_and_ranges():
    with pytest.raises(HelpRequested) as caught:
        parse_train(["--epochs", "3", "-h"])
    text = " ".join(caught.value.text.split())
    headings = ["data:", "network:", "optimization:", "parallel:", "run:", "output:"]
    places = [text.index(f" {heading} -") for heading in headings]
    assert places == sorted(places)
    for part in ["[0 to below 1]", "[above 0]", "[at least 0]", "(default: 64)", "[ordered, mpi]"]:
        assert part in text


def test_version():
    with pytest.raises(HelpRequested, match=r"^distnn \d"):
        parse_train(["--version"])


def test_help_in_a_bad_command_line_is_not_needed_to_fail():
    with pytest.raises((HelpRequested, InputError)):
        parse_train(["--epochs", "x", "--help"])


def test_evaluate_and_predict():
    evaluated = parse_evaluate(["runs/a", "--checkpoint", "best"])
    assert (evaluated.run_dir, evaluated.checkpoint, evaluated.data) == ("runs/a", "best", None)
    predicted = parse_predict(["runs/a", "--data", "x.csv", "--output", "y.npy"])
    assert (predicted.run_dir, predicted.data, predicted.output) == ("runs/a", "x.csv", "y.npy")
    assert not predicted.probabilities
    assert type(predicted).from_dict(predicted.to_dict()) == predicted


@pytest.mark.parametrize(
    ("parse", "argv", "part"),
    [
        (parse_evaluate, [], "RUN_DIR"),
        (parse_evaluate, ["a", "--epochs", "3"], "--epochs"),
        (parse_predict, ["a", "--output", "y.npy"], "--data"),
        (parse_predict, ["a", "--data", "x.csv"], "--output"),
        (parse_predict, ["a", "--data", "x.csv", "--output", "y.txt"], "'y.txt'"),
        (parse_evaluate, ["--run-dir", "a"], "give RUN_DIR without a flag"),
        (parse_bench, ["--networks", "99999999999-9999999999:1"], "cannot be used"),
        (parse_doctor, ["--epochs", "3"], "unknown flag"),
        (parse_predict, ["a", "--dat", "x.csv", "--output", "y.csv"], "did you mean --data"),
    ],
)
def test_bad_flags_of_evaluate_and_predict(parse, argv, part):
    with pytest.raises(InputError, match=part):
        parse(argv)


def values_of(one):
    """Values that an option allows, restated here from the dataclass."""
    if one.choices:
        return st.sampled_from(one.choices)
    if one.name == "checkpoint_every":
        return st.from_regex(r"\A[1-9][0-9]{0,5}s?\Z")
    if one.name == "trace_steps":
        return st.from_regex(r"\A[1-9][0-9]{0,5}:[1-9][0-9]{0,5}\Z")
    if one.type is str:
        characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
        return st.text(characters, min_size=1)
    if one.type is bool:
        return st.booleans()
    if one.type is float:
        low = one.above if one.above is not None else one.least
        return st.floats(
            low, one.below, exclude_min=one.above is not None, exclude_max=one.below is not None,
            allow_nan=False, allow_infinity=False,
        )  # fmt: skip
    whole = st.integers(one.least, one.most)
    return st.lists(whole, max_size=4) if one.type == list[int] else whole


def any_config():
    fields = {
        one.name: values_of(one) | st.none() if one.optional else values_of(one)
        for one in options_of(TrainConfig).values()
    }
    return st.builds(TrainConfig, **fields)


@given(any_config())
def test_options_travel_as_json(config):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.check()


@given(any_config())
def test_config_repeats_the_run(tmp_path_factory, config):
    directory = tmp_path_factory.mktemp("toml")
    text = to_toml(config)
    values = tomllib.loads(text)
    of_this_start = {
        name: getattr(config, name)
        for name in ("run_dir", "resume", "allow_changed_data", "progress", "trace", "trace_steps")
    }
    assert not of_this_start.keys() & values.keys()
    (directory / "config.toml").write_text(text, encoding="utf-8", newline="")
    again = read_recorded(directory / "config.toml")
    elsewhere = dataclasses.replace(again, **of_this_start)
    assert to_toml(elsewhere) == text
    for name in set(config.to_dict()) - {"data", "test_data", "validation"}:
        assert getattr(elsewhere, name) == getattr(config, name)


def test_paths_in_a_recorded_config_are_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = tomllib.loads(to_toml(TrainConfig(data="a.npz", test_data="b/c.npz")))
    assert values["data"] == str(tmp_path / "a.npz")
    assert values["test_data"] == str(tmp_path / "b" / "c.npz")
    assert tomllib.loads(to_toml(TrainConfig()))["data"] == "digits"


def test_check_names_the_setting():
    with pytest.raises(InputError, match="batch_size: 0 must be at least 1"):
        TrainConfig(batch_size=0).check()


def refusal(call):
    """The message of the InputError that `call` raises, empty if it raises nothing."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


words = st.sampled_from(
    ["--" + name.replace("_", "-") for name in CONTRACT]
    + [
        "--",
        "-",
        "--no-resume",
        "--hidden.0",
        "=",
        "1",
        "-1",
        "0",
        "nan",
        "s",
        "true",
        "[1,2]",
        "{}",
    ]
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(words | st.text(max_size=8) | st.builds("{}={}".format, words, words), max_size=6))
def test_any_command_line_is_understood_or_refused(argv):
    with contextlib.suppress(HelpRequested):
        assert "\n" not in refusal(lambda: parse_train(argv).check())


keys = st.sampled_from(list(CONTRACT)) | st.text("abc_-.\"' []", max_size=6)
literals = st.sampled_from(
    ["1", "-1", "0", "1.5", "nan", "inf", "true", "'relu'", '"1s"', "[]", "[1, 2]", "[[1]]", "{}",
     "{a = 1}", "1979-05-27", "12:00:00", '"""', "0x7f", "1e400", '"\\u0000"', "'digits'"]
)  # fmt: skip
lines = st.builds("{} = {}".format, keys, literals | st.text(max_size=6))


@hypothesis_settings(max_examples=1000, deadline=None)
@given(
    st.lists(lines, max_size=5).map("\n".join).map(str.encode)
    | st.binary(max_size=60)
    | st.builds(lambda text, at, byte: text[:at] + byte + text[at:],
                st.just(to_toml(TrainConfig()).encode()), st.integers(0, 300),
              st.binary(max_size=2))
)  # fmt: skip
def test_any_config_is_understood_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    message = refusal(lambda: read_recorded(path).check())
    assert "\n" not in message
    assert not message or message.startswith(str(path))


def test_importing_the_options_does_not_import_the_parser():
    code = "import sys, distnn.config.toml_file; sys.exit('argparse' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_those_of_the_mathematics():
    activations = pytest.importorskip("distnn.nn.activations")
    losses = pytest.importorskip("distnn.nn.losses")
    initializers = pytest.importorskip("distnn.nn.initializers")
    outputs = pytest.importorskip("distnn.nn.outputs")
    assert set(module.ACTIVATIONS) == set(activations.ACTIVATIONS)
    assert set(module.OUTPUTS) == set(outputs.OUTPUTS)
    assert set(module.LOSSES) == set(losses.LOSSES)
    assert set(module.INITIALIZERS) == set(initializers.INITIALIZERS)


def test_names_of_optimizers_and_schedules_are_those_of_the_mathematics():
    optimizers = pytest.importorskip("distnn.nn.optimizers")
    schedules = pytest.importorskip("distnn.nn.schedules")
    assert set(module.OPTIMIZERS) == set(optimizers.OPTIMIZERS)
    assert set(module.SCHEDULES) == set(schedules.SCHEDULES)
