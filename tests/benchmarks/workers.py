"""One contender of the comparison, in processes of its own: prints seconds per step as JSON.

    python workers.py NAME OPTIMIZER SECONDS NETWORKS     NAME: of CONTENDERS, at the end
    mpirun -n N python workers.py distnn ...; torchrun --nproc-per-node N workers.py torch ...

Everyone gets rows and labels drawn alike, one BLAS thread per process, and some steps to warm up.
"""

import json
import os
import sys
import time
import warnings
from functools import partial

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402 - after the number of threads is set

ITEMS = 4096
RATES = {"sgd": 0.1, "adam": 0.001}


def data(layers):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ITEMS, layers[0]), np.float32)
    return X, rng.integers(0, layers[-1], ITEMS)


def per_step(step, seconds, least=3):
    """Seconds per step(i), with a barrier of the caller's inside the last one if it needs one."""
    for i in range(3):
        step(i)
    start = time.perf_counter()
    step(3)
    count = max(least, int(seconds / max(time.perf_counter() - start, 1e-6)))
    count = min(count, 2000)
    start = time.perf_counter()
    for i in range(count):
        step(i)
    return (time.perf_counter() - start) / count


def distnn(cases, optimizer, seconds, is_whole=False, **options):
    """With 8 slices, or one for each rank."""
    from distnn.config.commands import BenchConfig
    from distnn.diagnostics.steps import Bench
    from distnn.parallel.comm.communicator import Communicator
    from distnn.training.consistency import agree_on_blas

    comm, found = Communicator(), []
    slices = comm.size if is_whole else None
    config = BenchConfig(optimizer=optimizer, slices=slices, **options)
    agree_on_blas(comm, config.blas, config.precision)
    for case in cases:
        bench = Bench(comm, case, config)
        with np.errstate(all="ignore"):
            bench.run(3)
            steps = min(2000, max(3, int(seconds / bench.run(3))))
            found.append(bench.run(steps))
        bench.close()
    return found if comm.is_first else None


def torch(cases, optimizer, seconds, is_autocast=False):
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if ranks > 1:
        dist.init_process_group("gloo")
    units, found = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}, []
    for case in cases:
        torch.manual_seed(0)
        parts = []
        for n_in, n_out in zip(case.layers, case.layers[1:], strict=False):
            parts += [nn.Linear(n_in, n_out), units[case.activation]()]
        model = nn.Sequential(*parts[:-1])
        if ranks > 1:
            model = DistributedDataParallel(model, gradient_as_bucket_view=True)
        if optimizer == "sgd":
            rule = torch.optim.SGD(model.parameters(), RATES[optimizer], foreach=True)
        else:
            rule = torch.optim.Adam(model.parameters(), RATES[optimizer], fused=True)
        X, T = map(torch.from_numpy, data(case.layers))
        loss, b = nn.CrossEntropyLoss(), case.batch // ranks

        def step(i, case=case, model=model, rule=rule, X=X, T=T, loss=loss, b=b):
            start = (i * case.batch) % (ITEMS - case.batch + 1) + rank * b
            rule.zero_grad(set_to_none=False)
            with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
                error = loss(model(X[start : start + b]), T[start : start + b])
            error.backward()
            rule.step()

        if ranks == 1:
            found.append(per_step(step, seconds))
            continue
        for i in range(3):
            step(i)
        start = time.perf_counter()
        step(3)
        count = torch.tensor(min(2000, max(3, int(seconds / (time.perf_counter() - start)))))
        dist.broadcast(count, 0)
        start = time.perf_counter()
        for i in range(int(count)):
            step(i)
        dist.barrier()
        found.append((time.perf_counter() - start) / int(count))
    if ranks > 1:
        dist.destroy_process_group()
    return found if rank == 0 else None


def sklearn(cases, optimizer, seconds):
    from sklearn.neural_network import MLPClassifier

    found = []
    for case in cases:
        if case.batch * sum(case.layers) > 2_000_000:
            found.append(None)  # minutes
            continue
        net = MLPClassifier(
            case.layers[1:-1],
            activation={"sigmoid": "logistic"}.get(case.activation, case.activation),
            solver=optimizer,
            batch_size=case.batch,
            learning_rate_init=RATES[optimizer],
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
        )
        X, T = data(case.layers)
        classes, steps = np.unique(T), ITEMS // case.batch

        def epoch(i, net=net, X=X, T=T, classes=classes):
            net.partial_fit(X, T, classes=classes)

        found.append(per_step(epoch, seconds / 2, least=1) / steps)
    return found


def jax(cases, optimizer, seconds):
    # XLA starts as many threads as there are cores, whatever its flags say
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax
    import jax.numpy as jnp

    units, found = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}, []
    for case in cases:
        rng, h = np.random.default_rng(0), units[case.activation]
        pairs = list(zip(case.layers, case.layers[1:], strict=False))
        weights = [jnp.array(rng.standard_normal((i, o), np.float32) / i**0.5) for i, o in pairs]
        biases = [jnp.zeros(o) for _, o in pairs]
        X, T = map(jnp.asarray, data(case.layers))

        def loss(parameters, x, t, h=h):
            *hidden, (W, b) = zip(*parameters, strict=True)
            for V, c in hidden:
                x = h(x @ V + c)
            logs = jax.nn.log_softmax(x @ W + b)
            return -jnp.take_along_axis(logs, t[:, None], 1).mean()

        def update(parameters, moments, t, x, y, loss=loss):
            g = jax.grad(loss)(parameters, x, y)
            if optimizer == "sgd":
                return jax.tree.map(lambda w, d: w - RATES["sgd"] * d, parameters, g), moments
            m = jax.tree.map(lambda m, d: 0.9 * m + 0.1 * d, moments[0], g)
            v = jax.tree.map(lambda v, d: 0.999 * v + 0.001 * d * d, moments[1], g)
            rate = RATES["adam"] * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            new = jax.tree.map(
                lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), parameters, m, v
            )
            return new, (m, v)

        compiled = jax.jit(update, donate_argnums=(0, 1))
        state = [(weights, biases), None]
        zeros = jax.tree.map(jnp.zeros_like, state[0])
        state[1] = (zeros, jax.tree.map(jnp.zeros_like, zeros)) if optimizer == "adam" else ()

        def step(i, case=case, state=state, compiled=compiled, X=X, T=T):
            start = (i * case.batch) % (ITEMS - case.batch + 1)
            rows = slice(start, start + case.batch)
            state[:] = compiled(*state, i + 1.0, X[rows], T[rows])
            jax.block_until_ready(state)

        found.append(per_step(step, seconds))
    return found


# Ours: rank 0 or all ranks update, whole batches on as many ranks as slices (what peers do), the
# libraries of products, and products of bfloat16 factors.
CONTENDERS = {
    "distnn": partial(distnn, update="rank0", blas="numpy"),
    "sharded": partial(distnn, update="sharded", blas="numpy"),
    "whole": partial(distnn, is_whole=True, blas="numpy"),
    "onednn": partial(distnn, is_whole=True, blas="onednn"),
    "mkl": partial(distnn, is_whole=True, blas="mkl"),
    "bfloat16": partial(distnn, is_whole=True, blas="onednn", precision="bfloat16"),
    "torch": torch,
    "autocast": partial(torch, is_autocast=True),
    "sklearn": sklearn,
    "jax": jax,
}


def main():
    from distnn.diagnostics.steps import Case

    name, optimizer, seconds, networks = sys.argv[1:]
    warnings.simplefilter("ignore")
    found = CONTENDERS[name](Case.all_of(networks), optimizer, float(seconds))
    if found is not None:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
