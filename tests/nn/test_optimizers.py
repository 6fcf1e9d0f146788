"""Each optimizer against its published rule, restated here as the paper writes it.

Restated rules are evaluated by numpy in the same precision, with the rule's numbers rounded to it
first; then they agree to the last bit, except where a reason is given.
"""

import numpy as np
import pytest

from distnn.errors import InputError
from distnn.nn import OPTIMIZERS, SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSProp
from distnn.nn.optimizers import descend

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
@pytest.mark.parametrize(("optimizer", "published"), CASES, ids=lambda case: repr(case))
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


@pytest.mark.parametrize("name", OPTIMIZERS)
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
    return float(w @ w), 2 * w


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
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("problem", [parabola, rosenbrock])
def test_goes_downhill(name, problem):
    lr = LEARNING_RATES[name][problem is rosenbrock]
    optimizer = OPTIMIZERS[name](lr, 0.0)
    w = np.array([-1.2, 1.0])
    state = [np.zeros(2) for _ in optimizer.state]
    first, _ = problem(w)
    for t in range(1, 2001):
        update(optimizer, t, lr, w, problem(w)[1], state)
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
