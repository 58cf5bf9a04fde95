"""How long a detector takes to score one crop, and how many it scores a second: eager torch, ONNX, 8 bit, a student.

    python benchmarks/serve_models.py --detector xception --detector resnet50 --student timm:mobilenetv3_small_050

Time is CPU time on one thread, so that a busy machine does not count; preprocessing is left out. Weights are drawn at
random: time and size do not depend on them. What 8 bit costs in AUC is measured by `unmask bundle` on real crops and
stands in its optimisation.html.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from unmask import detectors
from unmask.deployment.bundle import INPUT
from unmask.deployment.onnx_export import export_onnx, probe_images
from unmask.deployment.rescoring import session
from unmask.deployment.shrinking import quantise_dynamic, quantise_static
from unmask.media.preprocessing import to_input

Score = Callable[[np.ndarray], object]  # type: ignore[type-arg]
BATCH = 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", action="append", default=[], help="may be given several times")
    parser.add_argument("--student", default="timm:mobilenetv3_small_050", help="small network that a teacher trains")
    parser.add_argument("--calls", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'detector':<28} {'form':<8} {'MB':>7} {'ms/crop':>8} {'x eager':>8} {'crops/s':>8}")
    for name in [*(options.detector or ["meso4", "timm:resnet10t"]), options.student]:
        measure(name, options.calls)


def measure(name: str, calls: int) -> None:
    """Print the rows of one detector."""
    detector = detectors.build(name).eval()
    inputs = to_input(probe_images(np.random.default_rng(0), BATCH), detector.preprocessing)
    exported = export_onnx(detector, detector.preprocessing)
    forms: dict[str, tuple[int, Score]] = {
        "eager": (sum(p.numel() * p.element_size() for p in detector.parameters()), eager(detector)),
        "onnx": (len(exported), onnx(exported)),
    }
    for form, make in (("static", lambda c: quantise_static(c, inputs)), ("dynamic", quantise_dynamic)):
        try:
            made = make(exported)
            forms[form] = (len(made), onnx(made))
        except Exception as error:  # a network that the quantiser cannot take is a row, too
            print(f"{name:<28} {form:<8} not possible: {str(error).splitlines()[0][:80]}")
    base = 0.0
    for form, (size, score) in forms.items():
        single = 1000 * cpu_seconds(score, inputs[:1], calls)
        batch = cpu_seconds(score, inputs, max(3, calls // 4))
        base = base or single
        print(f"{name:<28} {form:<8} {size / 1e6:>7.1f} {single:>8.1f} {base / single:>8.2f} {BATCH / batch:>8.1f}")


def eager(detector: torch.nn.Module) -> Score:
    """Score as training does."""

    def score(batch: np.ndarray) -> object:  # type: ignore[type-arg]
        with torch.inference_mode():
            return detector(torch.from_numpy(batch))

    return score


def onnx(content: bytes) -> Score:
    """Score as the server does."""
    loaded = session(content)
    return lambda batch: loaded.run(None, {INPUT: batch})


def cpu_seconds(score: Score, batch: np.ndarray, calls: int) -> float:  # type: ignore[type-arg]
    """Median CPU time of a call."""
    taken = []
    for call in range(calls + 3):
        start = time.process_time()
        score(batch)
        if call >= 3:
            taken.append(time.process_time() - start)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
