"""Train every detector on one data set and print one table: frame and video AUC with intervals, time, memory.

    python benchmarks/detectors.py --run .unmask/runs/<run> [--detector meso4 ...] [--config quick.yaml] [--out folder]

`--run` is a folder of a finished `unmask run` (its `ingest` and `extract` are used), or give --dataset, --faces and
--features. Each detector is trained by `unmask train` in a process of its own. Test rows are only reported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from unmask import detectors
from unmask.metrics import bootstrap_estimate, roc_auc
from unmask.schemas import FRAME_SCORES, DetectorInfo, Estimate, read_table

RESAMPLES = 2000


def figure(frame: pd.DataFrame, seed: int = 0) -> Estimate:
    """AUC of rows with its interval by group."""
    return bootstrap_estimate(
        roc_auc,
        frame["label"].to_numpy(np.int64),
        frame["logit"].to_numpy(np.float64),
        frame["group_id"].to_numpy(),
        rng=np.random.default_rng(seed),
        resamples=RESAMPLES,
    )


def train(name: str, folders: dict[str, Path], out: Path, extra: list[str]) -> tuple[float, float, float]:
    """Train one detector; return wall seconds, CPU seconds and the largest memory in GiB."""
    command = [sys.executable, "-m", "unmask.cli", "train", "--detector", name, "--out", str(out), *extra]
    for option, folder in folders.items():
        command += [f"--{option}", str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--detector", action="append", default=[])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = options.run or Path()
    folders = {
        "dataset": options.dataset or run / "ingest" / "dataset",
        "faces": options.faces or run / "extract" / "faces",
        "features": options.features or run / "extract" / "features",
    }
    extra = ["--config", str(options.config)] if options.config else []
    extra += [part for setting in options.set for part in ("--set", setting)]
    out = options.out or Path(tempfile.mkdtemp())
    rows = []
    for name in options.detector or detectors.names():
        folder = out / name.replace(":", "-")
        wall, cpu, memory = train(name, folders, folder, extra)
        info = DetectorInfo.load(folder / "detector.json")
        test = read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas().query("split == 'test'")
        keys = ["sample_id", "label", "group_id"]
        videos = test.groupby(keys, as_index=False, dropna=False)["logit"].mean()
        rows.append(
            f"| {name} | {info.n_parameters:,} | {info.preprocessing.size_px} | {info.best_epoch}/{len(info.curve)} | "
            f"{figure(videos)} | {figure(test)} | {wall:.0f} | {cpu:.0f} | {memory:.2f} |"
        )
        print(rows[-1], flush=True)
    print("\n| detector | parameters | side px | epoch | video AUC on test | frame AUC on test | s | CPU s | GiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
