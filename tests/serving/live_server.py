"""A real server in this process: uvicorn on the loopback, with real decoding processes and a real small bundle."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import requests
import torch
import uvicorn

from unmask.config import BundleConfig, ExtractConfig, ServeConfig, TrainConfig
from unmask.data.sampleset.clips import Job, render
from unmask.deployment.bundle_stage import run_bundle
from unmask.detectors import Detector, build
from unmask.detectors.storage import save_detector
from unmask.features.catalogue import EXTRACTOR_VERSION
from unmask.schemas import (
    FEATURES,
    DetectorInfo,
    EnsembleInfo,
    Estimate,
    ExtractionInfo,
    FeatureHealth,
    FusionInfo,
    OperatingPoint,
    write_table,
)
from unmask.serving.app import create_app
from unmask.serving.services import Services

BLUR = "quality.blur"
RATE = Estimate(value=0.1, low=0.01, high=0.4, n=10, method="Clopper-Pearson")
UNKNOWN = Estimate(value=None, n=0)


@lru_cache
def detector(seed: int) -> Detector:
    """Build a Meso4 with seeded weights whose normalisation has seen pictures."""
    torch.manual_seed(seed)
    made = build("meso4")
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        made.train()
        made(torch.rand(4, 3, made.preprocessing.size_px, made.preprocessing.size_px))
    return made.eval()


def write_bundle(root: Path, seed: int = 0, threshold: float = 0.5) -> Path:
    """Write a real bundle of two small detectors and a fusion that looks at one feature."""
    names = ("meso4", "meso4:other")
    trained = []
    for index, name in enumerate(names):
        folder = root / f"trained-{index}"
        save_detector(folder, detector(seed + index), _detector_info(name, detector(seed + index)))
        trained.append(folder)
    EnsembleInfo(
        detectors=list(names),
        temperatures=[1.0, 1.0],
        weights=[0.5, 0.5],
        temperature=1.0,
        method="equal",
        decision="set by hand",
        candidates={},
        agreement_threshold=0.5,
    ).save(root / "ensemble" / "ensemble.json")
    _fusion(threshold).save(root / "fusion" / "fusion.json")
    _write_features(root / "features")
    run_bundle(
        trained=trained,
        ensemble=root / "ensemble",
        fusion=root / "fusion",
        features=root / "features",
        extract_config=ExtractConfig(crops_per_video=12, crop_size_px=128),
        out=root / "bundle",
        config=BundleConfig(),
    )
    return root / "bundle"


def _detector_info(name: str, made: Detector) -> DetectorInfo:
    return DetectorInfo(
        name=name,
        architecture="meso4",
        n_parameters=made.n_parameters,
        preprocessing=made.preprocessing,
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


def _write_features(folder: Path) -> None:
    n = 24
    frame = pd.DataFrame(
        {
            "sample_id": [f"{index:016x}" for index in range(n)],
            "label": [index % 2 for index in range(n)],
            "group_id": [f"g{index}" for index in range(n)],
            "split": "train",
            "status": "ok",
            "reason": None,
            "n_frames_expected": 50,
            "n_frames_decoded": 50,
            "face_share": 1.0,
            "n_crops": 12,
            "extractor_version": EXTRACTOR_VERSION,
            "null_reasons": [[] for _ in range(n)],
            BLUR: np.linspace(1, 3, n),
        }
    )
    write_table(folder / "features.parquet", frame, FEATURES)
    health = FeatureHealth(name=BLUR, n=n, null_share=0, mean=None, std=None, low=None, high=None, level="ok")
    ExtractionInfo(
        extractor_version=EXTRACTOR_VERSION,
        dataset_version="d" * 16,
        n_ok=n,
        n_failed=0,
        n_reused=0,
        failed={},
        n_crops=12 * n,
        health=[health],
    ).save(folder / "extraction.json")


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
