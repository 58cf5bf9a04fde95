"""What a run needs from the world around it, checked within seconds: sources, store, tracking server, GPU."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from unmask.adapters.object_store import S3, open_store
from unmask.config import PromoteConfig, StorageConfig
from unmask.data.addresses import BucketAddress, FolderAddress, parse_source
from unmask.errors import InputError, UnmaskError

# A check must fail soon; a run would wait for a server that comes back.
QUICK = {"attempts": 2, "timeout_s": 5.0}
PROBE = "unmask-prerequisites-probe"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        place: Where it lies.
        passed: Whether it is all right.
        said: What was found, or what is wrong.
        fix: What to do; empty if it is all right.
        seconds: How long it took.
    """

    name: str
    place: str
    passed: bool
    said: str
    fix: str
    seconds: float


def check_prerequisites(
    sources: Sequence[str], store: str, tracking_uri: str, storage: StorageConfig, promote: PromoteConfig
) -> list[Check]:
    """Check everything side by side.

    Args:
        sources: Folders or ``s3://`` places as [NAME=]PLACE.
        store: Folder or ``s3://`` place that keeps finished work; empty if there is none.
        tracking_uri: MLflow server or ``sqlite:///`` URI; empty if there is none.
        storage: Of object stores.
        promote: Names the registered model.

    Returns:
        One entry a check, in the order of the arguments.
    """
    quick = storage.model_copy(update=QUICK)
    jobs: list[tuple[str, str, Callable[[], str]]] = []
    for source in sources:
        jobs.append(("source", source, lambda source=source: _readable(source, quick)))  # type: ignore[misc]
    if store:
        jobs.append(("store", store, lambda: _writable(store, quick)))
    if tracking_uri:
        jobs.append(("tracking server", tracking_uri, lambda: _tracking(tracking_uri, promote)))
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        return list(pool.map(lambda job: _timed(*job), jobs))


def check_gpu(needed: bool) -> Check:
    """Check that PyTorch can use a GPU here.

    Args:
        needed: Whether it is a failure if not.

    Returns:
        The outcome.
    """
    return _timed("GPU", "this node", lambda: _gpu(needed))


def render_markdown(checks: Sequence[Check]) -> str:
    """Write the outcome as a page that the KFP UI shows.

    Args:
        checks: The outcomes.

    Returns:
        Markdown.
    """
    failed = sum(not check.passed for check in checks)
    title = f"{failed} of {len(checks)} checks failed" if failed else f"All {len(checks)} checks passed"
    rows = [
        f"| {check.name} | {check.place} | {'passed' if check.passed else 'FAILED'} | {check.said} {check.fix} | "
        f"{check.seconds:.1f} s |".replace("\n", " ")
        for check in checks
    ]
    return "\n".join([f"# {title}", "", "| what | where | | | took |", "|" + "---|" * 5, *rows]) + "\n"


def require(checks: Sequence[Check]) -> None:
    """Stop if a check failed.

    Args:
        checks: The outcomes.

    Raises:
        InputError: Lists every failure with its place, and the remedies.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        problems = "\n".join(f"  {check.name} {check.place}: {check.said}" for check in failed)
        fixes = " ".join(dict.fromkeys(check.fix for check in failed if check.fix))
        raise InputError(f"{len(failed)} of {len(checks)} prerequisites are not met:\n{problems}\n", fixes)


def _timed(name: str, place: str, job: Callable[[], str]) -> Check:
    begin = time.monotonic()
    passed, fix = True, ""
    try:
        said = job()
    except UnmaskError as error:
        passed, said, fix = False, error.problem, error.fix
    return Check(name, place, passed, said, fix, time.monotonic() - begin)


def _readable(source: str, config: StorageConfig) -> str:
    address = parse_source(source)
    if isinstance(address, FolderAddress):
        return "is there"
    if not isinstance(address, BucketAddress):
        return "is fetched by ingest; not asked here"
    first = next(iter(open_store(address.uri, config).objects()), None)
    if first is None:
        raise InputError("it holds no objects.", "Upload media below it, or check the prefix.")
    return f"is there; {first.key} is its first object"


def _writable(place: str, config: StorageConfig) -> str:
    store = open_store(place, config)
    key = f"{PROBE}-{uuid.uuid4().hex[:8]}"
    content = key.encode()
    store.write(key, content)
    try:
        if store.read(key) != content:
            raise InputError("it gives other bytes back than it was given.", "Look at the store's health.")
    finally:
        store.delete(key)
    if not place.startswith(S3):
        free = shutil.disk_usage(place).free / 2**30
        return f"takes and gives files; {free:.0f} GiB are free"
    return "takes and gives objects"


def _tracking(uri: str, promote: PromoteConfig) -> str:
    from unmask.adapters.tracking import connected

    with connected(uri) as server:
        names = [model.name for model in server.client.search_registered_models()]
    there = "is registered" if promote.registered_model in names else "is not registered yet"
    return f"answers; {promote.registered_model} {there}"


def _gpu(needed: bool) -> str:
    try:
        import torch
    except ImportError as error:
        raise InputError("PyTorch is not in this image.", "Use the training image for this step.") from error
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        torch.ones(8, device="cuda").sum().item()
        return ", ".join(f"{device.name} with {device.total_memory / 2**30:.0f} GiB" for device in devices)
    if needed:
        raise InputError(
            "PyTorch sees no GPU.",
            "Check the node's driver, the device plugin and the accelerator in the cluster file; or set need_gpu to "
            "false to train on CPU.",
        )
    return "there is none; training will use the CPU"
