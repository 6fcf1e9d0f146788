"""The grid search that mpi4py.futures spreads over groups of ranks, beside scikit-learn's own."""

import ast
import re

import pytest

from launch import ROOT, mpirun

pytest.importorskip(
    "sklearn", reason="scikit-learn is not installed: pip install 'distnn[sklearn]'"
)

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from distnn.sklearn import MLPClassifier


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_groups_of_ranks_find_the_scores_of_a_search_in_one_process() -> None:
    run = mpirun(3, ROOT / "examples/grid_search.py", module="mpi4py")
    assert run.code == 0, run.stderr
    found = re.findall(r"^(\S+) (\{.*\})$", run.stdout, re.MULTILINE)
    settings = [ast.literal_eval(setting) for _, setting in found]
    assert len(settings) == 8
    grid = [{name: [value] for name, value in setting.items()} for setting in settings]
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(max_iter=10, random_state=0)
    search = GridSearchCV(model, grid, cv=2, refit=False).fit(X[:600] / 16, y[:600])
    scores = search.cv_results_["mean_test_score"].tolist()
    assert [score for score, _ in found] == [f"{score:.4f}" for score in scores]
    assert scores == sorted(scores, reverse=True)
