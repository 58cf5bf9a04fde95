"""What each step asks of a cluster: CPU, memory, GPU, shared memory, retries and secrets.

On one machine all of this is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

from components import images

OBJECT_STORE_KEYS = {
    "endpoint": "AWS_ENDPOINT_URL_S3",
    "accesskey": "AWS_ACCESS_KEY_ID",
    "secretkey": "AWS_SECRET_ACCESS_KEY",
}
TRACKING_KEYS = {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}


@dataclass(frozen=True)
class Cluster:
    """What differs from cluster to cluster; fixed when the pipeline is compiled.

    Attributes:
        registry: Prefix of the image references.
        gpu_type: Kubernetes resource name of the accelerators of training steps.
        gpus: Accelerators a training step; 0 trains on CPU.
        object_store_secret: Kubernetes secret with the keys endpoint, accesskey and secretkey; may be missing.
        tracking_secret: Kubernetes secret with the keys username and password for MLflow; may be missing.
    """

    registry: str = images.REGISTRY
    gpu_type: str = "nvidia.com/gpu"
    gpus: int = 1
    object_store_secret: str = "unmask-object-store"
    tracking_secret: str = "unmask-tracking"


@dataclass(frozen=True)
class Needs:
    """What one kind of step needs.

    Attributes:
        cpu: Requested and largest number of cores.
        memory: Requested and largest memory.
        retries: Attempts after the first failure; nodes get drained and networks hiccup.
        gpu: Whether the step trains.
        object_store: Whether the step reads or writes an object store itself.
        tracking: Whether the step talks to MLflow.
    """

    cpu: tuple[str, str]
    memory: tuple[str, str]
    retries: int = 2
    gpu: bool = False
    object_store: bool = False
    tracking: bool = False


NEEDS = {
    "ingest": Needs(cpu=("2", "4"), memory=("2Gi", "4Gi"), object_store=True),
    "extract": Needs(cpu=("4", "8"), memory=("8Gi", "16Gi"), object_store=True),
    "train": Needs(cpu=("4", "8"), memory=("16Gi", "32Gi"), gpu=True),
    "ensemble": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    "fuse": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    "evaluate": Needs(cpu=("2", "4"), memory=("4Gi", "8Gi")),
    "bundle": Needs(cpu=("2", "4"), memory=("4Gi", "8Gi")),
    # A second try could register a second version; people decide on that.
    "promote": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi"), retries=0, object_store=True, tracking=True),
}
SHARED_MEMORY = "8Gi"


def place(task: Any, cluster: Cluster) -> Any:
    """Give a task what its kind of step needs.

    Args:
        task: Task of a pipeline; its component's name is the key of `NEEDS`.
        cluster: Where it will run.

    Returns:
        The task.
    """
    needs = NEEDS[task.component_spec.name]
    task.set_cpu_request(needs.cpu[0]).set_cpu_limit(needs.cpu[1])
    task.set_memory_request(needs.memory[0]).set_memory_limit(needs.memory[1])
    task.set_caching_options(enable_caching=True)
    if needs.retries:
        task.set_retry(needs.retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    if cluster.registry != images.REGISTRY:
        name = task.container_spec.image.removeprefix(f"{images.REGISTRY}/")
        task.set_container_image(f"{cluster.registry.rstrip('/')}/{name}")
    if needs.gpu:
        if cluster.gpus:
            task.set_accelerator_type(cluster.gpu_type).set_accelerator_limit(cluster.gpus)
        # The 64 MB that containers get by default is too little for batches of PyTorch's loader processes.
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=SHARED_MEMORY)
    if needs.object_store:
        kubernetes.use_secret_as_env(task, cluster.object_store_secret, OBJECT_STORE_KEYS, optional=True)
    if needs.tracking:
        kubernetes.use_secret_as_env(task, cluster.tracking_secret, TRACKING_KEYS, optional=True)
    return task
