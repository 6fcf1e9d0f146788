"""scikit-learn's multi-layer perceptrons, trained by distnn on all ranks there are.

Needs scikit-learn: ``pip install 'distnn[sklearn]'``. Nothing here starts MPI before the first fit,
and one process by itself needs no MPI at all. See README.md beside this file.
"""

from distnn.errors import InputError

try:
    import sklearn
except ImportError as error:
    if getattr(error, "name", None) != "sklearn":
        raise
    remedy = "pip install 'distnn[sklearn]'"
    raise InputError("scikit-learn is not installed", "distnn.sklearn", remedy) from None

from distnn.sklearn.estimators import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

del sklearn
