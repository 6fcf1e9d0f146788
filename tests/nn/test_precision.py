"""Passes with bfloat16 factors: within a bound derived from the format, and the same in slices.

The bound follows the errors through a pass. u = 2**-8 rounds a factor, and g = k 2**-24 / (1 - k
2**-24) bounds the float32 sum of k exact products (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, eq. 3.5). With |X| the exact factors' sizes and E[X] the bound of X's error before
rounding,

    F[X]    = E[X] + u (|X| + E[X])                                 of a factor
    E[X Y]  = F[X] |Y| + |X| F[Y] + F[X] F[Y] + g (|X| + F[X]) (|Y| + F[Y])
    E[A]    = max |h'| E[Z]                                         of an activation
    E[D]    = (|h'| + E[h']) E[D W.T] + |D W.T| E[h'],  E[h'] = max |h''| E[Z]

and for softmax with cross-entropy, a_i changes at most by the factor exp(2 max E[Z]). What is
element-wise is computed in float32, which SMALL covers.
"""

import numpy as np
import pytest

from distnn.errors import InputError
from distnn.nn import ACTIVATIONS, LOSSES, OUTPUTS, Network, SlicePass, onednn, products
from distnn.nn.bfloat16 import UNIT_ROUNDOFF, round_to_bfloat16

U, SINGLE = UNIT_ROUNDOFF, 2.0**-24
SMALL = 64 * SINGLE  # relative, of some element-wise functions one after the other
# most of |h'| and of |h''|
SLOPES = {"tanh": (1, 4 / 3 / 3**0.5), "sigmoid": (1 / 4, 1 / 6 / 3**0.5), "identity": (1, 0)}
DERIVATIVES = {
    "tanh": lambda A: 1 - A * A,
    "sigmoid": lambda A: A * (1 - A),
    "identity": np.ones_like,
}
KINKED = ("relu", "leaky-relu", "mean-absolute-error")  # derivatives that jump
LIBRARIES = ["numpy", "onednn"]


@pytest.fixture(params=LIBRARIES)
def library(request):
    if request.param == "onednn":
        try:
            onednn.shared()
        except InputError:
            pytest.skip("oneDNN is not installed")
    products.use(request.param)
    yield request.param
    products.use("numpy")


def factor(X, E):
    return E + U * (abs(X) + E) + 2.0**-126


def product(X, EX, Y, EY):
    """The product of X and Y, and the bound of its error."""
    FX, FY = factor(X, EX), factor(Y, EY)
    k = X.shape[1]
    g = k * SINGLE / (1 - k * SINGLE)
    sizes = (abs(X) + FX) @ (abs(Y) + FY)
    return X @ Y, FX @ abs(Y) + abs(X) @ FY + FX @ FY + g * sizes


def with_ones(A, E):
    return np.insert(A, 0, 1, axis=1), np.insert(E, 0, 0, axis=1)


def exact_and_bound(net, X, T):
    """Gradients of softmax with cross-entropy in float64, and the bounds of bfloat16's errors."""
    h, (slope, bend) = net.activation, SLOPES[net.activation]
    value = {"tanh": np.tanh, "sigmoid": lambda Z: 1 / (1 + np.exp(-Z)), "identity": lambda Z: Z}[h]
    W = [w.astype("f8") for w in net.weights]
    none = [np.zeros(w.shape) for w in W]
    A, slopes = [np.insert(X.astype("f4").astype("f8"), 0, 1, axis=1)], []
    EA = [np.zeros(A[0].shape)]
    for l, w in enumerate(W):
        Z, EZ = product(A[l], EA[l], w, none[l])
        if l + 1 < len(W):
            H = value(Z)
            slopes.append((DERIVATIVES[h](H), bend * EZ + SMALL))
            H, E = with_ones(H, slope * EZ + SMALL * abs(H))
            A.append(H)
            EA.append(E)
    Y = np.exp(Z - Z.max(axis=1, keepdims=True))
    Y /= Y.sum(axis=1, keepdims=True)
    D = (Y - T) / len(X)
    ED = (np.expm1(2 * EZ.max(axis=1, keepdims=True)) * Y + SMALL) / len(X)
    gradients, bounds = [], []
    for l in range(len(W) - 1, -1, -1):
        G, E = product(A[l].T, EA[l].T, D, ED)
        gradients.insert(0, G)
        bounds.insert(0, E)
        if l:
            P, EP = product(D, ED, W[l][1:].T, none[l][1:].T)
            s, Es = slopes[l - 1]
            D, ED = P * s, (abs(s) + Es) * EP + abs(P) * Es + SMALL * abs(P * s)
    return gradients, bounds


@pytest.mark.parametrize("activation", sorted(SLOPES))
@pytest.mark.parametrize("hidden", [(), (40,), (12, 8)])
def test_gradients_are_within_the_bound(library, activation, hidden):
    rng = np.random.default_rng(len(hidden))
    X, T = rng.standard_normal((50, 64)), np.eye(10)[rng.integers(0, 10, 50)]
    net = Network([64, *hidden, 10], activation, dtype="bfloat16", seed=3)
    exact, bounds = exact_and_bound(net, X, T)
    _, gradients = net.loss_and_gradients(X, T)
    single = Network([64, *hidden, 10], activation, dtype="float32", seed=3)
    _, singles = single.loss_and_gradients(X, T)
    for G, E, mine, fine in zip(exact, bounds, gradients, singles, strict=True):
        assert mine.dtype == np.float32
        assert (abs(mine - G) <= E).all()
        # errors seldom add up as the bound has it: in norm they are those of one rounding or two
        assert U / 4 < apart(mine, G) < 2 * U
        assert apart(fine, G) < U / 1000


def apart(G, exact):
    """In norm, relative."""
    return np.linalg.norm(G - exact) / np.linalg.norm(exact)


def pairs():
    """Every output and loss that go together."""
    for output in OUTPUTS:
        for loss in LOSSES:
            try:
                Network([2, 3], output=output, loss=loss)
            except InputError:
                continue
            yield output, loss


@pytest.mark.parametrize(("output", "loss"), list(pairs()))
def test_every_activation_and_loss(output, loss):
    """In norm, 8 roundings' worth apart from float64; behind a kink, one item weighs more."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((60, 20))
    targets = LOSSES[loss]
    T = rng.standard_normal((60, 4)) if targets.lowest < 0 else rng.random((60, 4))
    for activation in ACTIVATIONS:
        found = {}
        for dtype in ("float64", "bfloat16"):
            net = Network([20, 16, 4], activation, output, loss, dtype, seed=1)
            net.weights[0][...] = rounded(net.weights[0])  # the same for both
            net.weights[1][...] = rounded(net.weights[1])
            found[dtype] = net.loss_and_gradients(X, T)
        (loss64, exact), (loss16, gradients) = found["float64"], found["bfloat16"]
        assert loss16 == pytest.approx(loss64, rel=8 * U), activation
        for G, mine in zip(exact, gradients, strict=True):
            has_kink = output in KINKED or loss in KINKED
            assert apart(mine, G) < (0.3 if has_kink else 8 * U), activation


def rounded(W):
    out = np.empty(W.shape, np.float32)
    round_to_bfloat16(W.astype(np.float32), out)
    return out


def test_weights_used_again_are_those_rounded_before(library):
    """Slices after the first use what the first one rounded; backward does, too."""
    rng = np.random.default_rng(2)
    X, T = rng.standard_normal((12, 7)).astype("f4"), np.eye(3, dtype="f4")[rng.integers(0, 3, 12)]
    net = Network([7, 9, 3], dtype="bfloat16")
    run = SlicePass(net, 12)
    A0 = run.input(12)
    A0[:, 1:] = X
    first = run.forward(A0, T)
    net.weights[0][...] *= 2  # behind its back
    assert run.forward(A0, T, are_new=False) == first
    assert run.forward(A0, T) != first


def test_the_network_says_its_precision_and_keeps_float32():
    net = Network([3, 2], dtype="bfloat16")
    assert (net.precision, net.dtype, net.weights[0].dtype) == ("bfloat16", "float32", "float32")
    assert net.config()["dtype"] == "bfloat16"
    again = Network(**net.config())
    assert again.precision == "bfloat16"
    assert np.array_equal(again.weights[0], Network([3, 2]).weights[0])


def test_a_forward_pass_multiplies_rounded_numbers():
    """One layer of identity by hand: 1 + 2**-9 is 1 in bfloat16, and sums are not rounded to it."""
    net = Network([2, 1], output="identity", loss="squared-error", dtype="bfloat16")
    net.weights[0][...] = [[2.0**-10], [1 + 2.0**-9], [1]]
    assert net.forward([[1, 1 + 2.0**-9]])[0, 0] == 2 + 2.0**-10
