"""A grid search spread over groups of ranks, each of which trains one setting at a time:

mpirun -n 5 python -m mpi4py examples/grid_search.py

Rank 0 hands out the settings, by mpi4py.futures, to the first rank of each group of RANKS_OF_GROUP
ranks; the group trains it together, and gets the next one when it is done. The scores do not depend
on the groups, nor on who trains what.

GridSearchCV itself runs under mpirun as it is: every rank runs the same search, and all train each
setting together (n_jobs must stay 1). For many small trainings groups are quicker.
Needs scikit-learn: pip install 'distnn[sklearn]'
"""

import warnings

from mpi4py import MPI
from mpi4py.futures import MPICommExecutor
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, cross_val_score

from distnn.sklearn import MLPClassifier

RANKS_OF_GROUP = 2
warnings.simplefilter("ignore", ConvergenceWarning)
world = MPI.COMM_WORLD
comm = world.Split(-(-world.rank // RANKS_OF_GROUP), world.rank)  # rank 0 is alone, and waits
leaders = world.Split(0 if comm.rank == 0 else MPI.UNDEFINED, world.rank)

X, y = (part[:600] for part in load_digits(return_X_y=True))
grid = ParameterGrid(
    {
        "alpha": [1e-4, 1e-2],
        "hidden_layer_sizes": [(32,), (64,)],
        "learning_rate_init": [0.001, 0.01],
    }
)


def score(setting):
    """The mean score of a setting, trained by this group; its first rank alone is called."""
    comm.bcast(setting)
    return together(setting)


def together(setting):
    model = MLPClassifier(**setting, max_iter=10, random_state=0, comm=comm)
    return cross_val_score(model, X / 16, y, cv=2).mean()


if comm.rank == 0:
    with MPICommExecutor(leaders) as executor:
        if executor is not None:  # rank 0
            scores = list(executor.map(score, grid))
    comm.bcast(None)
    if world.rank == 0:
        for number in sorted(range(len(grid)), key=scores.__getitem__, reverse=True):
            print(f"{scores[number]:.4f} {grid[number]}")
else:
    while (setting := comm.bcast(None)) is not None:
        together(setting)
