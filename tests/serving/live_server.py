"""A real server in this process: uvicorn on the loopback, with real decoding processes and a real small bundle."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import requests
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from unmask.config import ExtractConfig, ServeConfig, TrainConfig
from unmask.data.sampleset.clips import Job, render
from unmask.deployment.bundle import (
    ENSEMBLE,
    EXTRACT,
    FUSION,
    MANIFEST,
    REFERENCE,
    FeatureRange,
    FeatureReference,
)
from unmask.deployment.example import save_example
from unmask.features.catalogue import EXTRACTOR_VERSION
from unmask.schemas import (
    DetectorInfo,
    EnsembleInfo,
    Estimate,
    FusionInfo,
    Manifest,
    OperatingPoint,
    Preprocessing,
    sha256_file,
)
from unmask.serving.app import create_app
from unmask.serving.services import Services

SETTINGS = ServeConfig(
    workers=2,
    decoder_threads=2,
    queue=6,
    max_upload_mib=4,
    max_duration_s=20,
    max_job_duration_s=40,
    max_image_pixels=4_000_000,
    max_video_pixels=1_000_000,
    poll_s=0.2,
    keep_uploads=True,
    heatmap_cells=4,
    max_batch_files=3,
)

SIDE = 64
BLUR = "quality.blur"
RATE = Estimate(value=0.1, low=0.01, high=0.4, n=10, method="Clopper-Pearson")
UNKNOWN = Estimate(value=None, n=0)


def write_onnx(path: Path, seed: int, gain: float = 60.0) -> None:
    """Write a small convolutional network with seeded weights: a real ONNX file, made without torch."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 5, 5)).astype(np.float32),
        "v": (gain * rng.normal(0, 0.3, (8, 1))).astype(np.float32),
        "b": np.zeros(1, np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], kernel_shape=[5, 5], strides=[4, 4]),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("GlobalAveragePool", ["t"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["s"]),
        helper.make_node("Squeeze", ["s", "axes"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_bundle(folder: Path, seed: int = 0, threshold: float = 0.5) -> Path:
    """Write a whole bundle of two small detectors and a fusion that looks at one feature."""
    names = {"small": "small.onnx", "small:other": "small-other.onnx"}
    preprocessing = Preprocessing(size_px=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    folder.mkdir(parents=True)
    for index, (name, file) in enumerate(names.items()):
        write_onnx(folder / file, seed + index)
        _detector_info(name, preprocessing).save(folder / file.replace(".onnx", ".json"))
    EnsembleInfo(
        detectors=list(names),
        temperatures=[1.0, 1.0],
        weights=[0.5, 0.5],
        temperature=1.0,
        method="equal",
        decision="set by hand",
        candidates={},
        agreement_threshold=0.5,
    ).save(folder / ENSEMBLE)
    _fusion(threshold).save(folder / FUSION)
    usual = FeatureRange(n_real=12, n_fake=12, real=(1.0, 2.0, 3.0), fake=(1.0, 2.0, 3.0), low=0.5, high=3.5)
    FeatureReference(splits=("train",), features={BLUR: usual}).save(folder / REFERENCE)
    extract = ExtractConfig(crops_per_video=12, crop_size_px=128)
    (folder / EXTRACT).write_text(extract.model_dump_json(), encoding="utf-8")
    save_example(folder, names, dict.fromkeys(names, preprocessing))
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the manifest with the hashes of all other files."""
    names = {"small": "small.onnx", "small:other": "small-other.onnx"}
    preprocessing = Preprocessing(size_px=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    Manifest(
        unmask_version="0.0.0",
        detectors=list(names),
        onnx=names,
        preprocessing=dict.fromkeys(names, preprocessing),
        parity=dict.fromkeys(names, 0.0),
        files={path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST},
        dataset_version="d" * 16,
        extractor_version=EXTRACTOR_VERSION,
    ).save(folder / MANIFEST)


def _detector_info(name: str, preprocessing: Preprocessing) -> DetectorInfo:
    return DetectorInfo(
        name=name,
        architecture="small",
        n_parameters=609,
        preprocessing=preprocessing,
        aggregation="mean_logit",
        config=TrainConfig(eval_frames_per_video=4).model_dump(mode="json"),
        curve=[],
        best_epoch=1,
        val_auc=UNKNOWN,
        dataset_version="d" * 16,
        extractor_version=EXTRACTOR_VERSION,
        weights_sha256="",
        versions={},
        device="cpu",
        train_seconds=1.0,
    )


def _fusion(threshold: float) -> FusionInfo:
    point = OperatingPoint(name="max_f1", threshold=threshold, fpr=RATE, tpr=RATE, resolvable=True)
    return FusionInfo(
        inputs=["ensemble", BLUR],
        impute=[0.0, 2.0],
        center=[0.0, 2.0],
        scale=[1.0, 0.5],
        coefficients=[1.0, -0.5],
        intercept=0.0,
        calibration_slope=1.0,
        calibration_offset=0.0,
        operating_points={"max_f1": point},
        default_operating_point="max_f1",
        importance={},
        used=True,
        decision="set by hand",
    )


def write_media(folder: Path) -> tuple[Path, Path]:
    """Render a talking face: a clip of 1.2 s, and one of its frames as a picture."""
    job = Job(seed=3, group=0, member=0, size_px=256, fps=25, duration_s=1.2)
    render(job, folder)
    clip = folder / job.real_path
    reader = cv2.VideoCapture(str(clip))
    _, frame = reader.read()
    reader.release()
    cv2.imwrite(str(folder / "face.jpg"), frame)
    return clip, folder / "face.jpg"


@dataclass
class Live:
    """A running server.

    Attributes:
        url: Where it answers.
        work: Its folder.
        app: The application.
    """

    url: str
    work: Path
    app: Any

    @property
    def services(self) -> Services:
        """What runs in it."""
        services = self.app.state.services
        assert isinstance(services, Services)
        return services

    def post(self, path: str, media: Path | bytes, field: str = "file", **data: str) -> requests.Response:
        """Send a file."""
        content = media if isinstance(media, bytes) else media.read_bytes()
        return requests.post(self.url + path, files={field: ("upload.bin", content)}, data=data, timeout=120)

    def leftovers(self) -> list[Path]:
        """Uploads that were not deleted."""
        return [path for path in (self.work / "scratch").glob("*/*") if path.is_file()]

    def decoders(self) -> list[int]:
        """Processes that decode."""
        return self.services.pool.pids


class Running:
    """Runs a server in a thread.

    Args:
        source: Of the champion.
        work: Its folder.
        config: Limits.
        options: Of `create_app`.
    """

    def __init__(self, source: Any, work: Path, config: ServeConfig, **options: Any) -> None:
        app = create_app(source, config, work, **options)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=port, access_log=False, log_level="warning", lifespan="on")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.live = Live(f"http://127.0.0.1:{port}", work, app)

    def __enter__(self) -> Live:
        self._thread.start()
        deadline = time.monotonic() + 120
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.05)
        return self.live

    def __exit__(self, *exception: object) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "the server did not stop"
