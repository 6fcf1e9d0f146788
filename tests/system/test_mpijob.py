"""launch/mpijob.yaml by itself, and together with the Dockerfile; there is no cluster here."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from distnn.config.command_line import parse_train
from launch import ROOT

# Fields of the MPI operator's v2beta1, and of the parts of a pod that are used here.
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "launcherCreationPolicy", "mpiImplementation", "mpiReplicaSpecs", "runLauncherAsWorker",
        "runPolicy", "slotsPerWorker", "sshAuthMountPath",
    },
    "runPolicy": {
        "activeDeadlineSeconds", "backoffLimit", "cleanPodPolicy", "managedBy", "schedulingPolicy",
        "suspend", "ttlSecondsAfterFinished",
    },
    "replica": {"replicas", "restartPolicy", "template"},
    "template": {"metadata", "spec"},
    "pod": {"containers", "securityContext", "terminationGracePeriodSeconds", "volumes"},
    "container": {
        "args", "command", "image", "name", "readinessProbe", "resources", "volumeMounts",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "launch" / "mpijob.yaml").read_text())


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def pods(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    replicas = job["spec"]["mpiReplicaSpecs"]
    return {name: replica["template"]["spec"] for name, replica in replicas.items()}


def parts(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", job
    yield "spec", job["spec"]
    yield "runPolicy", job["spec"]["runPolicy"]
    for replica in job["spec"]["mpiReplicaSpecs"].values():
        yield "replica", replica
        yield "template", replica["template"]
    for pod in pods(job).values():
        yield "pod", pod
        for container in pod["containers"]:
            yield "container", container


def test_fields_and_values_are_the_operators(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    for part, fields in parts(job):
        assert set(fields) <= FIELDS[part], part
    assert job["spec"]["mpiImplementation"] in ("OpenMPI", "Intel", "MPICH")
    assert job["spec"]["runPolicy"]["cleanPodPolicy"] in ("All", "None", "Running")
    # Else the launcher's tries are spent while the workers' image is on its way.
    assert job["spec"]["launcherCreationPolicy"] == "WaitForWorkersReady"
    replicas = job["spec"]["mpiReplicaSpecs"]
    assert set(replicas) == {"Launcher", "Worker"}
    assert replicas["Launcher"]["replicas"] == 1
    for replica in replicas.values():  # the operator refuses its own ExitCode
        assert replica.get("restartPolicy", "Never") in ("Never", "OnFailure")


def test_volumes_are_there(job: dict[str, Any]) -> None:
    for pod in pods(job).values():
        (container,) = pod["containers"]
        mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
        assert mounted == [volume["name"] for volume in pod.get("volumes", [])]


def test_the_command_trains_on_all_slots(job: dict[str, Any]) -> None:
    container = pods(job)["Launcher"]["containers"][0]
    assert container["command"] == ["/bin/sh", "-c"]
    words = shlex.split(container["args"][0])
    workers = job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
    ranks = str(workers * job["spec"]["slotsPerWorker"])
    assert words[:7] == ["exec", "mpirun", "-n", ranks, "python", "-m", "distnn.train"]
    settings = parse_train(words[7:])
    assert settings.resume
    assert settings.run_dir


def test_the_image_has_what_the_pods_use(job: dict[str, Any], dockerfile: str) -> None:
    keys = job["spec"]["sshAuthMountPath"]
    assert f"HostKey {keys}/id_rsa" in dockerfile
    for pod in pods(job).values():
        assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile
    worker = pods(job)["Worker"]["containers"][0]
    assert worker["command"][-1] in dockerfile
    assert f"'Port {worker['readinessProbe']['tcpSocket']['port']}'" in dockerfile
