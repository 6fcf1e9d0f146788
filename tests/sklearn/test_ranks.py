"""The estimators on any number of ranks, and without MPI."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'distnn[sklearn]'"
)

from scipy.sparse import csr_array
from sklearn.base import clone

from distnn.errors import InputError
from distnn.parallel.comm.mpi import MPI
from distnn.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(150, 6))
Y = np.arange(150) % 3
SMALL: dict[str, Any] = {"hidden_layer_sizes": (9,), "max_iter": 6, "batch_size": 40}
SETTINGS = [
    MLPClassifier(**SMALL, random_state=0),
    MLPClassifier(**SMALL, random_state=0, early_stopping=True),
    MLPClassifier(**SMALL, random_state=0, solver="sgd", learning_rate="adaptive", tol=1.0),
    MLPRegressor(**SMALL, random_state=0, alpha=1.0),
    MLPRegressor(  # diverges in the second epoch, and keeps the weights of the first
        **SMALL, random_state=0, activation="identity", solver="sgd", learning_rate_init=1.0,
        early_stopping=True,
    ),
]  # fmt: skip


def weights(model: Any) -> bytes:
    return b"".join(W.tobytes() for W in (*model.coefs_, *model.intercepts_))


@pytest.mark.mpi
@pytest.mark.parametrize("model", SETTINGS, ids=str)
@pytest.mark.parametrize("rows", [X, csr_array(X)], ids=["dense", "sparse"])
def test_all_ranks_make_the_weights_that_one_makes(model: Any, rows: Any) -> None:
    alone, together = clone(model).set_params(comm=MPI.COMM_SELF), clone(model)
    for one in (alone, together):
        one.fit(rows, Y)
        one.partial_fit(rows, Y) if not model.early_stopping else None
    assert weights(alone) == weights(together)
    assert alone.loss_curve_ == together.loss_curve_
    assert MPI.COMM_WORLD.allgather(weights(together)) == [weights(alone)] * MPI.COMM_WORLD.size


@pytest.mark.mpi
def test_without_a_random_state_all_ranks_have_the_same() -> None:
    model = MLPClassifier(**SMALL).fit(X, Y)
    assert len(set(MPI.COMM_WORLD.allgather(weights(model)))) == 1


@pytest.mark.mpi
def test_ranks_that_give_different_rows_are_told() -> None:
    mine = X[: 150 - MPI.COMM_WORLD.rank]
    with pytest.raises(InputError, match="shape of X"):
        MLPClassifier(**SMALL).fit(mine, Y[: len(mine)])
    mine = csr_array(X + MPI.COMM_WORLD.rank)
    with pytest.raises(InputError, match="X and y"):
        MLPClassifier(**SMALL).fit(mine, Y)


@pytest.mark.mpi
def test_ranks_outside_a_communicator_do_not_wait() -> None:
    world = MPI.COMM_WORLD
    part = world.Split(int(world.rank > 0), world.rank)
    model = clone(MLPClassifier(**SMALL, random_state=0, comm=part))
    assert model.comm is part
    if world.rank > 0:
        model.fit(X, Y)
        model.predict(X)  # each rank by itself
    assert world.allreduce(1) == world.size


WITHOUT = """
import sys
sys.modules["mpi4py"] = None  # as if it were not installed
import distnn.sklearn
assert not any(name.startswith("distnn.parallel") for name in sys.modules), "MPI at import"
import warnings; warnings.simplefilter("ignore")
import numpy as np
X = np.random.default_rng(0).normal(size=(150, 6))
model = distnn.sklearn.MLPClassifier((9,), max_iter=6, batch_size=40, random_state=0)
model.fit(X, np.arange(150) % 3)
import hashlib
weights = b"".join(W.tobytes() for W in (*model.coefs_, *model.intercepts_))
print(hashlib.sha256(weights).hexdigest())
"""


def test_one_process_needs_no_mpi() -> None:
    with_mpi = WITHOUT.replace('sys.modules["mpi4py"] = None', "")
    run = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        for script in (WITHOUT, with_mpi)
    ]
    assert run[0].stdout == run[1].stdout


def test_one_of_several_processes_does_need_it() -> None:
    script = "import os; os.environ['PMI_SIZE'] = '2'\n" + WITHOUT
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "pip install mpi4py" in run.stderr.splitlines()[-1]
