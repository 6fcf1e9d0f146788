"""Before and after: the same script with scikit-learn's classifier and with distnn's.

python examples/from_scikit_learn.py
mpirun -n 4 python -m mpi4py examples/from_scikit_learn.py   # all ranks train distnn's

One line differs: the import. Needs scikit-learn: pip install 'distnn[sklearn]'
"""

import time
import warnings

from mpi4py import MPI
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Before
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distnn.sklearn import MLPClassifier as After

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = load_digits(return_X_y=True)
parts = train_test_split(X.astype("float32"), y, random_state=0)  # a seed: the same on every rank
X_train, X_test, y_train, y_test = parts

for name, kind in (("scikit-learn", Before), ("distnn", After)):
    network = kind((128,), batch_size=64, max_iter=40, random_state=0, verbose=False)
    model = make_pipeline(StandardScaler(), network)
    start = time.perf_counter()
    model.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    if MPI.COMM_WORLD.rank == 0:
        print(f"{name:12} {model.score(X_test, y_test):.1%} right, {seconds:.2f} s")
