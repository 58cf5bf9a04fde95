"""What each step asks of a cluster: CPU, memory, GPU, shared memory, retries and secrets.

On one machine all of this is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from kfp import kubernetes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components import images
from unmask.errors import ConfigError

OBJECT_STORE_KEYS = {
    "endpoint": "AWS_ENDPOINT_URL_S3",
    "accesskey": "AWS_ACCESS_KEY_ID",
    "secretkey": "AWS_SECRET_ACCESS_KEY",
}
TRACKING_KEYS = {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}
SOURCE_KEYS = {
    "kaggle-token": "KAGGLE_API_TOKEN",
    "kaggle-username": "KAGGLE_USERNAME",
    "kaggle-key": "KAGGLE_KEY",
    "faceforensics-url": "UNMASK_FACEFORENSICS_URL",
}
NOTIFICATION_KEYS = {
    "smtp-host": "UNMASK_SMTP_HOST",
    "smtp-port": "UNMASK_SMTP_PORT",
    "smtp-security": "UNMASK_SMTP_SECURITY",
    "smtp-username": "UNMASK_SMTP_USERNAME",
    "smtp-password": "UNMASK_SMTP_PASSWORD",
    "mail-from": "UNMASK_MAIL_FROM",
    "mail-to": "UNMASK_MAIL_TO",
    "webhook-url": "UNMASK_WEBHOOK_URL",
}
USER = 1000  # of images/*.Dockerfile
CA_FOLDER = "/etc/unmask-ca"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(_Section):
    """Where a cluster pulls the images from; what is left out comes from ``components/images.json``.

    Attributes:
        registry: Prefix of the references.
        tag: Of all roles.
        digests: Role to ``sha256:…``.
    """

    registry: str = images.IMAGES.registry
    tag: str = images.IMAGES.tag
    digests: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.resolved()
        return self

    def resolved(self) -> images.Images:
        """Apply these to the committed references; digests belong to one registry and tag."""
        same = (self.registry, self.tag) == (images.IMAGES.registry, images.IMAGES.tag)
        known = dict(images.IMAGES.digests) if same else {}
        return images.Images(self.registry, self.tag, {**known, **self.digests})


class Toleration(_Section):
    """Lets a pod run on nodes that keep others away.

    Attributes:
        key: Of the taint; empty with operator Exists tolerates all.
        operator: Equal compares the value, Exists does not.
        value: Of the taint.
        effect: Of the taint; null is any.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] | None = None


class Placement(_Section):
    """Where training steps run, and on what.

    Attributes:
        accelerator: Kubernetes resource name, for example nvidia.com/gpu, amd.com/gpu or nvidia.com/mig-3g.20gb.
        count: Accelerators a step; 0 trains on CPU.
        node_selector: Labels that the node must have.
        tolerations: Taints that are accepted, for example of GPU or spot nodes.
        shared_memory: Size of /dev/shm; PyTorch's loader processes hand batches over through it.
        cpu: Requested and largest number of cores; null takes those of the step.
        memory: Requested and largest memory; null takes those of the step.
        retries: Attempts after the first failure; a step whose spot node was taken goes on from its checkpoint.
    """

    accelerator: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    count: int = Field(default=1, ge=0, le=16)
    node_selector: Mapping[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    shared_memory: str = Field(default="8Gi", pattern=r"^\d+(Mi|Gi)$")
    cpu: tuple[str, str] | None = None
    memory: tuple[str, str] | None = None
    retries: int | None = Field(default=None, ge=0, le=10)


class ModelGroup(Placement):
    """Detectors that are trained on another kind of node than the rest.

    Attributes:
        detectors: Their names; they are trained besides those of the parameter ``detectors``.
    """

    detectors: tuple[str, ...] = Field(min_length=1)


class StepSize(_Section):
    """CPU, memory and retries of one kind of step; what is null stays as it is.

    Attributes:
        cpu: Requested and largest number of cores.
        memory: Requested and largest memory.
        retries: Attempts after the first failure.
    """

    cpu: tuple[str, str] | None = None
    memory: tuple[str, str] | None = None
    retries: int | None = Field(default=None, ge=0, le=10)


class Secrets(_Section):
    """Names of the Kubernetes secrets; steps start without them if they are missing.

    Attributes:
        object_store: With the keys endpoint, accesskey and secretkey.
        tracking: With the keys username and password for MLflow.
        sources: With the keys of ``SOURCE_KEYS``, for data that is given to known people only.
        notifications: With the keys of ``NOTIFICATION_KEYS``.
    """

    object_store: str = "unmask-object-store"
    tracking: str = "unmask-tracking"
    sources: str = "unmask-sources"
    notifications: str = "unmask-notifications"


class Cluster(_Section):
    """What differs from cluster to cluster; fixed when the pipeline is compiled.

    Attributes:
        images: Where the images lie.
        training: Where the detectors of the parameter ``detectors`` are trained.
        models: Detectors with a placement of their own, at most two groups.
        shards: Pods among which the files are divided in ingest and extract; 1 needs no merging.
        steps: Name of a step to its size.
        secrets: Names of the Kubernetes secrets.
        certificates: Name of a ConfigMap whose key ``ca.crt`` holds certificates to trust; empty if none are needed.
            Steps find it as ``/etc/unmask-ca/ca.crt``, for ``storage.ca_file``; MLflow's client uses it by itself.
    """

    images: Images = Images()
    training: Placement = Placement()
    models: tuple[ModelGroup, ...] = Field(default=(), max_length=2)
    shards: int = Field(default=1, ge=1, le=1000)
    steps: Mapping[str, StepSize] = Field(default_factory=dict)
    secrets: Secrets = Secrets()
    certificates: str = ""

    @model_validator(mode="after")
    def _known(self) -> Self:
        unknown = sorted(set(self.steps) - set(NEEDS))
        if unknown:
            raise ValueError(f"unknown steps: {', '.join(unknown)}; there are {', '.join(NEEDS)}")
        names = [name for group in self.models for name in group.detectors]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"detectors in two groups: {', '.join(twice)}")
        return self


def read_cluster(file: Path) -> Cluster:
    """Read the description of a cluster.

    Args:
        file: YAML file; ``pipelines/cluster.yaml`` shows every setting.

    Returns:
        The description.

    Raises:
        ConfigError: Lists everything that is wrong.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read as YAML ({error}).", "See pipelines/cluster.yaml.") from error
    try:
        return Cluster.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'cluster'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{file} has errors:\n" + "\n".join(lines), "See pipelines/cluster.yaml.") from error


class Needs(_Section):
    """What one kind of step needs.

    Attributes:
        cpu: Requested and largest number of cores.
        memory: Requested and largest memory.
        retries: Attempts after the first failure; nodes get drained and networks hiccup.
        gpu: Whether the step trains.
        object_store: Whether the step reads or writes an object store itself.
        tracking: Whether the step talks to MLflow.
        sources: Whether the step fetches data sets.
        notifications: Whether the step sends messages.
        cached: Whether an earlier result may be used; not where the world outside decides on the result.
    """

    cpu: tuple[str, str]
    memory: tuple[str, str]
    retries: int = 2
    gpu: bool = False
    object_store: bool = False
    tracking: bool = False
    sources: bool = False
    notifications: bool = False
    cached: bool = True


NEEDS: dict[str, Needs] = {
    # A check that is tried again for minutes is no quick check.
    "check-prerequisites": Needs(
        cpu=("500m", "1"), memory=("1Gi", "2Gi"), retries=0, object_store=True, tracking=True, cached=False
    ),
    # Waits for a node of the training kind, and asks for what a training step asks for.
    "check-gpu": Needs(cpu=("500m", "1"), memory=("2Gi", "4Gi"), retries=0, gpu=True, cached=False),
    "ingest": Needs(cpu=("2", "4"), memory=("2Gi", "4Gi"), object_store=True, sources=True),
    "extract": Needs(cpu=("4", "8"), memory=("8Gi", "16Gi"), object_store=True),
    # The same work in shards; the step that joins them lists the sources again, and may move files to the media store.
    "inspect-shard": Needs(cpu=("2", "4"), memory=("2Gi", "4Gi"), object_store=True, sources=True),
    "ingest-inspected": Needs(cpu=("2", "4"), memory=("2Gi", "4Gi"), object_store=True, sources=True),
    "extract-shard": Needs(cpu=("4", "8"), memory=("8Gi", "16Gi"), object_store=True),
    "merge-extract": Needs(cpu=("1", "2"), memory=("4Gi", "8Gi")),
    "decide-retraining": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi"), tracking=True, cached=False),
    # Checkpoints lie in the store, so that a step goes on after its node was taken away.
    "train": Needs(cpu=("4", "8"), memory=("16Gi", "32Gi"), retries=3, gpu=True, object_store=True, tracking=True),
    "tune": Needs(cpu=("4", "8"), memory=("16Gi", "32Gi"), retries=3, gpu=True, object_store=True),
    "ensemble": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    "fuse": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    "evaluate": Needs(cpu=("2", "4"), memory=("4Gi", "8Gi")),
    "bundle": Needs(cpu=("2", "4"), memory=("4Gi", "8Gi")),
    # A second try could register a second version; people decide on that.
    "promote": Needs(cpu=("1", "2"), memory=("2Gi", "4Gi"), retries=0, object_store=True, tracking=True),
    "notify": Needs(cpu=("100m", "500m"), memory=("512Mi", "1Gi"), tracking=True, notifications=True, cached=False),
}


def place(task: Any, cluster: Cluster, placement: Placement | None = None, cached: bool = True) -> Any:
    """Give a task what its kind of step needs.

    Args:
        task: Task of a pipeline; its component's name is the key of `NEEDS`.
        cluster: Where it will run.
        placement: Of a training step; left out, that of the cluster.
        cached: False forbids results of earlier runs even where the kind of step allows them.

    Returns:
        The task.
    """
    name = task.component_spec.name
    needs = NEEDS[name]
    chosen = (placement or cluster.training) if needs.gpu else None
    trained = chosen if name == "train" else None
    size = cluster.steps.get(name, StepSize())
    cpu = (trained and trained.cpu) or size.cpu or needs.cpu
    memory = (trained and trained.memory) or size.memory or needs.memory
    task.set_cpu_request(cpu[0]).set_cpu_limit(cpu[1])
    task.set_memory_request(memory[0]).set_memory_limit(memory[1])
    task.set_caching_options(enable_caching=cached and needs.cached)
    wishes = (trained.retries if trained else None, size.retries, needs.retries)
    if retries := next(number for number in wishes if number is not None):
        task.set_retry(retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    _use_image(task, cluster)
    # The user of our images; the rest of the standard "restricted" is set by Kubeflow Pipelines 2.17 itself.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if chosen is not None:
        _use_nodes(task, chosen)
    _use_secrets(task, needs, cluster.secrets)
    if cluster.certificates and (needs.object_store or needs.tracking):
        kubernetes.use_config_map_as_volume(task, cluster.certificates, CA_FOLDER)
        task.set_env_variable("MLFLOW_TRACKING_SERVER_CERT_PATH", f"{CA_FOLDER}/ca.crt")
    return task


def _use_image(task: Any, cluster: Cluster) -> None:
    role = {images.IMAGES.reference(role): role for role in images.ROLES}[task.container_spec.image]
    reference = cluster.images.resolved().reference(role)
    if reference != task.container_spec.image:
        task.set_container_image(reference)


def _use_nodes(task: Any, placement: Placement) -> None:
    if placement.count:
        task.set_accelerator_type(placement.accelerator).set_accelerator_limit(placement.count)
    for label, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in placement.tolerations:
        given = {key: value for key, value in toleration.model_dump().items() if value}
        kubernetes.add_toleration(task, **given)
    # The 64 MB that containers get by default is too little for batches of PyTorch's loader processes.
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=placement.shared_memory)


def _use_secrets(task: Any, needs: Needs, secrets: Secrets) -> None:
    if needs.object_store:
        kubernetes.use_secret_as_env(task, secrets.object_store, OBJECT_STORE_KEYS, optional=True)
    if needs.tracking:
        kubernetes.use_secret_as_env(task, secrets.tracking, TRACKING_KEYS, optional=True)
    if needs.sources:
        kubernetes.use_secret_as_env(task, secrets.sources, SOURCE_KEYS, optional=True)
    if needs.notifications:
        kubernetes.use_secret_as_env(task, secrets.notifications, NOTIFICATION_KEYS, optional=True)
