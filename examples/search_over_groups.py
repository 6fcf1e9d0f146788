"""A grid search spread over groups of ranks, each of which trains one setting at a time:

mpirun -n 4 python -m mpi4py examples/search_over_groups.py

GridSearchCV itself runs under mpirun as it is: every rank runs the same search, and all train each
setting together (n_jobs must stay 1). For many small trainings groups are quicker: here each group
of RANKS_OF_GROUP ranks has a communicator of its own and takes every so many-th setting.
The scores do not depend on the groups. Needs scikit-learn: pip install 'distnn[sklearn]'
"""

import warnings

from mpi4py import MPI
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, cross_val_score

from distnn.sklearn import MLPClassifier

RANKS_OF_GROUP = 2
warnings.simplefilter("ignore", ConvergenceWarning)
world = MPI.COMM_WORLD
group, groups = world.rank // RANKS_OF_GROUP, -(-world.size // RANKS_OF_GROUP)
comm = world.Split(group, world.rank)

X, y = load_digits(return_X_y=True)
grid = ParameterGrid(
    {
        "alpha": [1e-4, 1e-2],
        "hidden_layer_sizes": [(32,), (64,)],
        "learning_rate_init": [0.001, 0.01],
    }
)
scores = {}
for number in range(group, len(grid), groups):
    model = MLPClassifier(**grid[number], max_iter=10, random_state=0, comm=comm)
    scores[number] = cross_val_score(model, X / 16, y, cv=3).mean()

found = world.gather(scores if comm.rank == 0 else {})
if found is not None:
    scores = {number: score for part in found for number, score in part.items()}
    for number in sorted(scores, key=scores.get, reverse=True):
        print(f"{scores[number]:.4f} {grid[number]}")
