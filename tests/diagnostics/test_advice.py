"""What the doctor advises, from invented ranks and links."""

import dataclasses

from distnn.diagnostics.advice import Link, Rank, advice

GOOD = Rank(
    host="a", node=0, cores=(0, 1, 2, 3), machine_cores=4, blas="openblas 0.3 Haswell",
    blas_threads=1, shared_memory=8 << 30, product=100.0,
)  # fmt: skip
INSIDE = Link(1.0, 5000.0)


def ranks(*changes: dict[str, object]) -> list[Rank]:
    return [dataclasses.replace(GOOD, **change) for change in changes]  # type: ignore[arg-type]


def test_a_healthy_job_needs_nothing() -> None:
    comm = ranks({}, {}, {"node": 1, "host": "b"}, {"node": 1, "host": "b"})
    assert advice(comm, INSIDE, {1: Link(30.0, 118.0)}) == []


def test_more_ranks_than_cores_are_named_with_the_binding() -> None:
    (line,) = advice(ranks({"cores": (0,)}, {"cores": (0,)}), INSIDE, {})
    assert line.startswith("a: 2 ranks share 1 cores of the machine's 4")
    assert "bind" in line
    (line,) = advice(ranks(*[{}] * 5), INSIDE, {})
    assert line.startswith("a: 5 ranks share 4 cores: ")


def test_ranks_of_one_machine_that_do_not_share_memory() -> None:
    (line,) = advice(ranks({"node": 0}, {"node": 1}), None, {1: Link(20.0, 900.0)})
    assert line.startswith("a: its ranks do not share memory and count as 2 nodes")


def test_blas_threads_and_builds() -> None:
    (line,) = advice(ranks({}, {"blas_threads": 4}), INSIDE, {})
    assert line.startswith("4 BLAS threads per rank")
    (line,) = advice(ranks({}, {"blas": "openblas 0.3 Zen"}), INSIDE, {})
    assert "different BLAS" in line


def test_a_slow_rank_is_named() -> None:
    comm = ranks({}, {}, {"node": 1, "host": "b"}, {"node": 1, "host": "b", "product": 60.0})
    (line,) = advice(comm, INSIDE, {1: Link(30.0, 118.0)})
    assert line.startswith("rank 3 on b computes at 60 GFLOP/s, the median is 100")


def test_uneven_nodes_are_named() -> None:
    comm = ranks({}, {}, {}, {"node": 1, "host": "b"})
    (line,) = advice(comm, INSIDE, {1: Link(30.0, 118.0)})
    assert line.startswith("uneven nodes: 3 ranks on a, 1 on b")


def test_small_shared_memory() -> None:
    (line,) = advice(ranks({"shared_memory": 64 << 20}, {}), INSIDE, {})
    assert line.startswith("a: 64 MB of shared memory")
    assert advice(ranks({"shared_memory": 64 << 20}), None, {}) == []  # a rank alone needs none


def test_links() -> None:
    comm = ranks({}, {"node": 1, "host": "b"}, {"node": 2, "host": "c"}, {"node": 3, "host": "d"})
    good = Link(30.0, 1000.0)
    slow, far = Link(30.0, 100.0), Link(900.0, 1000.0)
    (line,) = advice(comm, None, {1: good, 2: slow, 3: good})
    assert line.startswith("the way to c has 100 MB/s, the others 1000")
    (line,) = advice(comm, None, {1: good, 2: far, 3: good})
    assert line.startswith("900 microseconds to c")
    (line,) = advice(ranks({}, {}), Link(300.0, 5000.0), {})
    assert line.startswith("300 microseconds between ranks of one node")
