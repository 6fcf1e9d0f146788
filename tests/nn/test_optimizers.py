"""Each optimizer against its published rule, restated here as the paper writes it.

Restated rules are evaluated by numpy in the same precision, with the rule's numbers rounded to it
first; then they agree to the last bit, except where a reason is given.
"""

import numpy as np
import pytest

from distnn.errors import InputError
from distnn.nn.optimizers import (
    LAMB,
    LARS,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Muon,
    NAdamW,
    Nesterov,
    RMSProp,
    descend,
)
from distnn.nn.optimizers.base import BLOCK, sum_of_squares
from distnn.nn.optimizers.muon import orthogonalise

sqrt = np.sqrt


def published_sgd(c, t, w, g, s):
    return w - c["lr"] * g, ()


def published_momentum(c, t, w, g, s):
    v = c["mu"] * s[0] + g
    return w - c["lr"] * v, (v,)


def published_nesterov(c, t, w, g, s):
    v = c["mu"] * s[0] + g
    return w - c["lr"] * (g + c["mu"] * v), (v,)


def published_adagrad(c, t, w, g, s):
    n = s[0] + g * g
    return w - c["lr"] * (g / (sqrt(n) + c["eps"])), (n,)


def published_rmsprop(c, t, w, g, s):
    v = c["rho"] * s[0] + c["1-rho"] * (g * g)
    return w - c["lr"] * (g / (sqrt(v) + c["eps"])), (v,)


def published_adam(c, t, w, g, s):
    m = c["b1"] * s[0] + c["1-b1"] * g
    v = c["b2"] * s[1] + c["1-b2"] * (g * g)
    return w - c["lr_t"] * (m / (sqrt(v) + c["eps"])), (m, v)


def published_adamw(c, t, w, g, s):
    return published_adam(c, t, c["1-lr*wd"] * w, g, s)


LR, WD = 0.05, 0.02
ELEMENTWISE = [name for name, rule in OPTIMIZERS.items() if rule.scope == "element"]
CASES = [
    (SGD(LR), published_sgd),
    (SGD(LR, weight_decay=WD), published_sgd),
    (Momentum(LR, momentum=0.8), published_momentum),
    (Momentum(LR, weight_decay=WD, momentum=0.8), published_momentum),
    (Nesterov(LR, momentum=0.8), published_nesterov),
    (Nesterov(LR, weight_decay=WD, momentum=0.8), published_nesterov),
    (AdaGrad(LR), published_adagrad),
    (AdaGrad(LR, weight_decay=WD), published_adagrad),
    (RMSProp(LR, rho=0.85), published_rmsprop),
    (RMSProp(LR, weight_decay=WD, rho=0.85), published_rmsprop),
    (Adam(LR, beta1=0.8, beta2=0.99), published_adam),
    (Adam(LR, weight_decay=WD, beta1=0.8, beta2=0.99), published_adam),
    (AdamW(LR, weight_decay=0.0, beta1=0.8, beta2=0.99), published_adamw),
    (AdamW(LR, weight_decay=WD, beta1=0.8, beta2=0.99), published_adamw),
]


def constants(optimizer, t, learning_rate, dtype):
    """The numbers of the papers, computed exactly and rounded once."""
    numbers = {"lr": learning_rate, "wd": optimizer.weight_decay}
    numbers["1-lr*wd"] = 1 - learning_rate * optimizer.weight_decay
    own = vars(optimizer)
    if "momentum" in own:
        numbers["mu"] = own["momentum"]
    if "rho" in own:
        numbers["rho"], numbers["1-rho"] = own["rho"], 1 - own["rho"]
    if "epsilon" in own:
        numbers["eps"] = own["epsilon"]
    if "beta1" in own:
        b1, b2 = own["beta1"], own["beta2"]
        numbers |= {"b1": b1, "1-b1": 1 - b1, "b2": b2, "1-b2": 1 - b2}
        numbers["lr_t"] = learning_rate * (1 - b2**t) ** 0.5 / (1 - b1**t)
    return {name: np.dtype(dtype).type(value) for name, value in numbers.items()}


def start(optimizer, n, dtype):
    rng = np.random.default_rng(8)
    w = rng.standard_normal(n).astype(dtype)
    state = [np.zeros(n, dtype) for _ in optimizer.state]
    gradients = [rng.standard_normal(n).astype(dtype) for _ in range(6)]
    return w, state, gradients


def update(optimizer, t, lr, w, g, state):
    scratch = np.full((2, len(w)), np.nan, w.dtype)
    optimizer.rule(t, lr, w.dtype)(w, g, state, scratch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("optimizer", "published"), CASES, ids=lambda case: getattr(case, "__name__", repr(case))
)
def test_published_rule_bit_by_bit(optimizer, published, dtype):
    w, state, gradients = start(optimizer, 1001, dtype)
    expected, expected_state = w.copy(), tuple(s.copy() for s in state)
    for t, g in enumerate(gradients, start=1):
        lr = LR / t  # a schedule
        c = constants(optimizer, t, lr, dtype)
        decayed = g if published is published_adamw or not c["wd"] else g + c["wd"] * expected
        expected, expected_state = published(c, t, expected, decayed, expected_state)
        update(optimizer, t, lr, w, g.copy(), state)
        assert w.tobytes() == expected.tobytes()
        for mine, theirs in zip(state, expected_state, strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_adam_is_algorithm_1_but_for_epsilon():
    """Algorithm 1 divides by sqrt(v^) + eps with v^ = v / (1 - beta2^t); the efficient order of
    the same section divides by sqrt(v) + eps, which is the same for eps' = eps sqrt(1 - beta2^t).
    """
    w, state, gradients = start(Adam(), 50, "float64")
    expected, m, v = w.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        eps_hat = 1e-8
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        eps = eps_hat / sqrt(1 - 0.999**t)
        expected = expected - 0.001 * m_hat / (sqrt(v_hat) + eps)
        update(Adam(), t, 0.001, w, g.copy(), state)
    np.testing.assert_allclose(w, expected, rtol=1e-13)


def test_adamw_is_algorithm_2():
    """Not to the last bit: the paper takes the decay off in the sum of the update, here it is one
    multiplication in front."""
    optimizer = AdamW(0.01, weight_decay=0.1)
    w, state, gradients = start(optimizer, 50, "float64")
    expected, m, v = w.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        lr_t = 0.01 * sqrt(1 - 0.999**t) / (1 - 0.9**t)
        expected = expected - lr_t * m / (sqrt(v) + 1e-8) - 0.01 * 0.1 * expected
        update(optimizer, t, 0.01, w, g.copy(), state)
    np.testing.assert_allclose(w, expected, rtol=1e-13)


def matrices(optimizer, shape, dtype="float64", steps=4):
    """A layer's weights, its state, and gradients."""
    rng = np.random.default_rng(3)
    W = rng.standard_normal(shape).astype(dtype)
    W[0] = 0  # biases begin there
    return W, *(
        [make(shape) for _ in range(count)]
        for make, count in (
            (lambda s: np.zeros(s, dtype), len(optimizer.state)),
            (lambda s: rng.standard_normal(s).astype(dtype), steps),
        )
    )


def matrix_update(optimizer, t, lr, W, G, state, layer=0, layers=2):
    scratch = np.full((optimizer.scratch, *W.shape), np.nan, W.dtype)
    optimizer.rules(t, lr, W.dtype, layers)[layer](W, G, state, scratch)


def test_nadamw_is_pytorchs_nadam_with_decoupled_decay():
    """torch/optim/nadam.py, _single_tensor_nadam, with decoupled_weight_decay=True."""
    optimizer = NAdamW(LR, weight_decay=WD, beta1=0.8, beta2=0.99, epsilon=1e-3)
    w, state, gradients = start(optimizer, 50, "float64")
    expected, m, v, mu_product = w.copy(), 0.0, 0.0, 1.0
    for t, g in enumerate(gradients, start=1):
        lr = LR / t
        expected *= 1 - lr * WD
        bias_correction2 = 1 - 0.99**t
        mu = 0.8 * (1.0 - 0.5 * (0.96 ** (t * 0.004)))
        mu_next = 0.8 * (1.0 - 0.5 * (0.96 ** ((t + 1) * 0.004)))
        mu_product *= mu
        m, v = m + (g - m) * (1 - 0.8), 0.99 * v + (1 - 0.99) * g * g
        denom = sqrt(v / bias_correction2) + 1e-3
        expected += (-lr * (1.0 - mu) / (1.0 - mu_product)) * g / denom
        expected += (-lr * mu_next) / (1.0 - mu_product * mu_next) * m / denom
        update(optimizer, t, lr, w, g.copy(), state)
    np.testing.assert_allclose(w, expected, rtol=1e-12)


def test_nadamw_late_in_a_run():
    """Where 1 less the product of the momenta is 1."""
    optimizer = NAdamW(0.1, weight_decay=0.0, epsilon=0.0)
    w, m, v = np.zeros(1), np.ones(1), np.ones(1)
    update(optimizer, 100_000, 0.1, w, np.ones(1), [m, v])
    assert w == pytest.approx([-0.1 * (0.9 + 0.1)])


SHAPES = [(4, 3), (3, 7), (BLOCK // 100 + 2, 301)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, WD])
def test_lars_is_algorithm_1(shape, decay):
    optimizer = LARS(LR, weight_decay=decay, momentum=0.8, trust=0.03)
    W, state, gradients = matrices(optimizer, shape)
    w, b = W[1:].copy(), W[0].copy()
    v, v_b = np.zeros_like(w), np.zeros_like(b)
    for t, G in enumerate(gradients, start=1):
        lr, g = LR / t, G[1:]
        local = 0.03 * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w))
        v = 0.8 * v + lr * local * (g + decay * w)
        w = w - v
        v_b = 0.8 * v_b + lr * G[0]
        b = b - v_b
        matrix_update(optimizer, t, lr, W, G.copy(), state)
    np.testing.assert_allclose(W, np.vstack([b, w]), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, WD])
def test_lamb_is_algorithm_2(shape, decay):
    optimizer = LAMB(LR, weight_decay=decay, beta1=0.8, beta2=0.99, epsilon=1e-3)
    W, state, gradients = matrices(optimizer, shape)
    expected, m, v = W.copy(), np.zeros_like(W), np.zeros_like(W)
    for t, G in enumerate(gradients, start=1):
        lr = LR / t
        m, v = 0.8 * m + 0.2 * G, 0.99 * v + 0.01 * G**2
        r = (m / (1 - 0.8**t)) / (sqrt(v / (1 - 0.99**t)) + 1e-3)
        u = r[1:] + decay * expected[1:]
        ratio = np.linalg.norm(expected[1:]) / np.linalg.norm(u)
        expected[1:] -= lr * ratio * u
        expected[0] -= lr * r[0]
        matrix_update(optimizer, t, lr, W, G.copy(), state)
    np.testing.assert_allclose(W, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", [LARS(), LAMB()])
def test_weights_and_gradients_of_nothing_have_ratio_1(optimizer):
    W, state, (G, *_) = matrices(optimizer, (4, 3))
    W[:] = 0
    matrix_update(optimizer, 1, 0.5, W, G.copy(), state)
    expected = -0.5 * (G if optimizer.name == "lars" else np.sign(G))
    np.testing.assert_allclose(W, expected, rtol=1e-3)
    before, state[0][:] = W.copy(), 0
    if optimizer.name == "lars":
        matrix_update(optimizer, 2, 0.5, W, np.zeros_like(G), state)
        np.testing.assert_allclose(W, before, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, WD])
def test_muon_is_its_published_form(shape, decay):
    """Nesterov's momentum, five steps of the quintic iteration on the matrix of n_out rows, and the
    scale of the larger side; AdamW for the bias row."""
    optimizer = Muon(LR, weight_decay=decay, momentum=0.9, adam_share=0.1)
    W, state, gradients = matrices(optimizer, shape, steps=3)
    w, b, buffer = W[1:].T.copy(), W[0].copy(), 0.0
    m = v = np.zeros_like(b)
    for t, G in enumerate(gradients, start=1):
        lr, g = LR / t, G[1:].T  # (n_out, n_in), as the original has it
        buffer = 0.9 * buffer + g
        X = g + 0.9 * buffer
        X = X / (np.linalg.norm(X) + 1e-7)
        for _ in range(5):
            A = X @ X.T
            X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
        scale = max(1, g.shape[0] / g.shape[1]) ** 0.5
        w = w * (1 - lr * decay) - lr * scale * X
        m, v = 0.9 * m + 0.1 * G[0], 0.95 * v + 0.05 * G[0] ** 2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
        b = b * (1 - 0.1 * lr * decay) - 0.1 * lr * m_hat / (sqrt(v_hat) + 1e-10)
        matrix_update(optimizer, t, lr, W, G.copy(), state)
    np.testing.assert_allclose(W, np.vstack([b, w.T]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 20), (1, 9), (9, 1)])
def test_orthogonalised_singular_values_are_near_1_and_vectors_stay(shape):
    X = np.random.default_rng(5).standard_normal(shape)
    if shape == (20, 20):
        X += 3 * np.eye(20)
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    result = orthogonalise(X.copy(), *(np.empty(shape) for _ in range(3)))
    inside = U.T @ result @ Vt.T
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-9
    large = S / np.linalg.norm(S) > 0.01
    assert (np.abs(np.diag(inside)[large] - 0.95) < 0.3).all()


def test_the_last_layer_of_muon_takes_adamw():
    muon, shape = Muon(LR, weight_decay=WD), (6, 4)
    adam = AdamW(LR / 10, weight_decay=WD, beta2=0.95, epsilon=1e-10)
    W, state, gradients = matrices(muon, shape)
    other, other_state = W.copy(), [s.copy() for s in state]
    for t, G in enumerate(gradients, start=1):
        matrix_update(muon, t, LR, W, G.copy(), state, layer=1)
        matrix_update(adam, t, 0.1 * LR, other, G.copy(), other_state)
    assert W.tobytes() == other.tobytes()


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 5000])
def test_sum_of_squares(n):
    x = np.random.default_rng(n).standard_normal(n)
    assert sum_of_squares(x) == pytest.approx(float(x @ x), rel=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, WD])
def test_plain_is_sgd_without_decay(name, decay):
    optimizer = OPTIMIZERS[name](weight_decay=decay)
    assert optimizer.is_plain == (name == "sgd" and decay == 0)


def test_descent_along_a_scaled_gradient_is_the_plain_rule():
    w, _, gradients = start(SGD(), 1001, "float32")
    lr, other = np.float32(LR), w.copy()
    for t, g in enumerate(gradients, start=1):
        update(SGD(), t, LR, w, g.copy(), [])
        descend(other, g * lr, (), ())
    assert other.tobytes() == w.tobytes()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_blocks_do_not_change_bits(name):
    optimizer = OPTIMIZERS[name](weight_decay=WD)
    whole, state, gradients = start(optimizer, 1001, "float32")
    cut, cut_state = whole.copy(), [s.copy() for s in state]
    for t, g in enumerate(gradients, start=1):
        update(optimizer, t, LR, whole, g.copy(), state)
        rule, scratch = optimizer.rule(t, LR, "float32"), np.empty((2, 97), "f4")
        for lo in range(0, 1001, 97):
            hi = min(lo + 97, 1001)
            block = [s[lo:hi] for s in cut_state]
            rule(cut[lo:hi], g[lo:hi].copy(), block, scratch[:, : hi - lo])
    assert cut.tobytes() == whole.tobytes()
    assert [s.tobytes() for s in cut_state] == [s.tobytes() for s in state]


def parabola(w):
    return float(w @ w), 2 * w  # the first of two is the bias, as for all these functions


def rosenbrock(w):
    x, y = w
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return value, np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


LEARNING_RATES = {  # for (parabola, Rosenbrock)
    "sgd": (0.1, 1e-3),
    "momentum": (0.01, 1e-4),
    "nesterov": (0.01, 1e-4),
    "adagrad": (0.5, 0.1),
    "rmsprop": (0.01, 0.001),
    "adam": (0.05, 0.02),
    "adamw": (0.05, 0.02),
    "nadamw": (0.05, 0.02),
    "lars": (0.05, 1e-3),
    "lamb": (0.02, 0.01),
    "muon": (0.02, 0.005),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("problem", [parabola, rosenbrock])
def test_goes_downhill(name, problem):
    lr = LEARNING_RATES[name][problem is rosenbrock]
    # the gradient of this weight is many times as long as the weight: it takes much trust
    optimizer = LARS(lr, 0.0, trust=0.5) if name == "lars" else OPTIMIZERS[name](lr, 0.0)
    w = np.array([-1.2, 1.0])
    state = [np.zeros(2) for _ in optimizer.state]
    first, _ = problem(w)
    for t in range(1, 2001):
        rate = lr if t < 1500 else lr / 10  # some steps have the same length wherever they begin
        if optimizer.scope == "element":
            update(optimizer, t, rate, w, problem(w)[1], state)
        else:  # a matrix with a bias and one weight
            W, G = w.reshape(2, 1), problem(w)[1].reshape(2, 1)
            one = [each.reshape(2, 1) for each in state]
            rule = optimizer.rule(t, rate, w.dtype)
            rule(W, G, one, np.empty((optimizer.scratch, 2, 1)))
    assert problem(w)[0] < 0.1 * first


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_config_rebuilds(name):
    optimizer = OPTIMIZERS[name](0.123, 0.004)
    again = OPTIMIZERS[name](**optimizer.config())
    assert vars(again) == vars(optimizer)
    assert OPTIMIZERS[name].name == name
    assert eval_free_repr(optimizer) == eval_free_repr(again)


def eval_free_repr(optimizer):
    assert repr(optimizer).startswith(type(optimizer).__name__ + "(learning_rate=0.123")
    return repr(optimizer)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SGD(-1), "learning_rate"),
        (lambda: SGD(float("nan")), "learning_rate"),
        (lambda: SGD("fast"), "learning_rate"),
        (lambda: Adam(weight_decay=-0.1), "weight_decay"),
        (lambda: Adam(beta1=1.0), "beta1"),
        (lambda: Momentum(momentum=1.5), "momentum"),
        (lambda: RMSProp(rho=-0.1), "rho"),
        (lambda: AdaGrad(epsilon=float("inf")), "epsilon"),
    ],
)
def test_numbers_out_of_range(make, field):
    with pytest.raises(InputError, match=f"^{field}: "):
        make()
