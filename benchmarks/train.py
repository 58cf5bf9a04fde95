"""Images a second of the trainer, with reading, decoding and augmentation, against a bare loop on tensors in memory.

    python benchmarks/train.py [--detector timm:resnet10t] [--size 128] [--crops 512] [--device auto]

Both train the same detector with the same batches, optimiser and precision. The bare loop neither loads nor logs nor
checks anything: it is what the device can do.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from unmask import detectors
from unmask.config import TrainConfig
from unmask.detectors import Detector
from unmask.training.checkpoint import Checkpoints, Progress
from unmask.training.device import autocast_type, available_cores, describe_device, resolve_device
from unmask.training.loader import CropIndex, CropLoader, index_crops
from unmask.training.objective import Objective, make_optimizer
from unmask.training.phases import layers_by_stage
from unmask.training.system import gpu_figures
from unmask.training.trainer import Trainer


def loader_benchmark() -> ModuleType:
    """Import the benchmark beside this one, which draws the crops."""
    spec = importlib.util.spec_from_file_location("loader_benchmark", Path(__file__).with_name("loader.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time some work, with everything that it left on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def bare_loop(detector: Detector, config: TrainConfig, device: torch.device, steps: int) -> Callable[[], None]:
    """Make the loop to compare with: one batch in memory, again and again."""
    side = detector.preprocessing.size_px
    inputs = torch.randn(config.batch_size, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(config.batch_size, device=device) % 2).float()
    detector = detector.to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(layers_by_stage(detector, "full"), config)
    objective = Objective(config)
    half = autocast_type(config.precision, device)

    def loop() -> None:
        for _ in range(steps):
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                logits = detector(inputs)
            loss = objective(logits, labels).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return loop


def watch_gpu(stop: threading.Event, shares: list[float], device: torch.device) -> None:
    """Note the GPU's utilisation twice a second until told to stop."""
    while not stop.wait(0.5):
        figures = gpu_figures()
        if (share := figures.get(f"system/gpu_{device.index or 0}_utilization_percentage")) is not None:
            shares.append(share)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="timm:resnet10t")
    parser.add_argument("--size", type=int, default=128, help="side of the input in pixels")
    parser.add_argument("--crops", type=int, default=512, help="crops an epoch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    threads = available_cores()
    torch.set_num_threads(threads)
    config = TrainConfig(epochs=options.epochs, batch_size=options.batch, train_frames_per_video=1000)
    with tempfile.TemporaryDirectory() as folder:
        faces, _, _ = loader_benchmark().make_sets(Path(folder), options.crops, 256)
        index = index_crops(faces)
        detector = detectors.build(options.detector, input_size_px=options.size)
        train = CropLoader(index, detector.preprocessing, workers=threads)
        few = index.select(np.arange(len(index.frame)) < 8)
        val = CropLoader(
            CropIndex(few.files, few.frame.assign(split="val"), few.groups, few.group_bytes), detector.preprocessing
        )
        trainer = Trainer(detector, train, val, config, 0, device, Checkpoints(None))
        bare = bare_loop(
            detectors.build(options.detector, input_size_px=options.size), config, device, trainer.steps_per_epoch
        )
        ours: list[float] = []
        theirs: list[float] = []
        shares: list[float] = []
        trainer.stepper.begin(trainer.phases[0])
        bare()  # warm-up: kernels are chosen, memory is taken
        trainer._run_epoch(Progress())
        for epoch in range(options.epochs):  # in turns, so that other work on the machine hits both
            theirs.append(seconds(bare, device))
            stop = threading.Event()
            watcher = threading.Thread(target=watch_gpu, args=(stop, shares, device))
            if device.type == "cuda":
                watcher.start()
            ours.append(seconds(lambda epoch=epoch: trainer._run_epoch(Progress(epoch=epoch + 1)), device))
            stop.set()
    rate, limit = options.crops / min(ours), options.crops / min(theirs)
    print(f"{options.detector} at {options.size} px, batch {options.batch}, on {describe_device(device)}")
    print(f"trainer    {rate:10,.1f} images/s")
    print(f"bare loop  {limit:10,.1f} images/s")
    print(f"ratio      {rate / limit:10.3f}")
    if shares:
        print(f"GPU busy   {np.mean(shares):9.0f} %")


if __name__ == "__main__":
    main()
