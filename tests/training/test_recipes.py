"""Recipes of training: phases, accumulation, memory, averages, precision, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from unmask import detectors
from unmask.config import AugmentationConfig, TrainConfig
from unmask.detectors.base import Detector
from unmask.errors import ConfigError, InputError
from unmask.objects import FolderStore
from unmask.schemas import DetectorInfo, Preprocessing
from unmask.training.checkpoint import Checkpoints, Progress
from unmask.training.loader import CropLoader, index_crops
from unmask.training.parallel import processes_wanted
from unmask.training.phases import Phase, freeze, layers_by_stage, plan_phases, train_mode
from unmask.training.train_stage import run_train
from unmask.training.trainer import Trainer

CPU = torch.device("cpu")


class Plain(Detector):
    """No normalisation and no dropout: what it learns does not depend on how a batch is cut."""

    def __init__(self, memory: int = 10**9) -> None:
        super().__init__(Preprocessing(size_px=32, mean=(0.5,) * 3, std=(0.25,) * 3))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(32, 1)
        self.architecture = "plain"
        self.memory = memory

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > self.memory:
            raise torch.OutOfMemoryError("no memory for so many crops")
        return self.layers(x)


def settings(**changes) -> TrainConfig:
    plain = {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "train_frames_per_video": 6,
        "augment": False,
        "threads": 1,
    }
    return TrainConfig(**{**plain, **changes})


def trainer(made, detector: Detector, config: TrainConfig, folder: Path | None = None) -> Trainer:
    index = index_crops(made.faces)
    loaders = [
        CropLoader(index.select((index.frame["split"] == split).to_numpy()), detector.preprocessing)
        for split in ("train", "val")
    ]
    return Trainer(detector, *loaders, config, 1, CPU, Checkpoints(FolderStore(folder) if folder else None))


def plain_after(made, config: TrainConfig, memory: int = 10**9) -> tuple[dict[str, torch.Tensor], Trainer]:
    torch.manual_seed(0)
    made_trainer = trainer(made, Plain(memory), config)
    made_trainer.fit()
    return made_trainer.detector.state_dict(), made_trainer


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < tolerance


# --- phases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "epochs", "lengths"),
    [
        ("full", 7, [7]),
        ("frozen", 7, [7]),
        ("quick", 10, [5, 5]),
        ("staged", 30, [15, 5, 5, 5]),
        ("staged", 4, [1] * 4),
    ],
)
def test_phases_share_the_epochs(strategy, epochs, lengths):
    assert [phase.epochs for phase in plan_phases(TrainConfig(strategy=strategy, epochs=epochs))] == lengths


def test_too_few_epochs_for_the_phases_are_refused():
    with pytest.raises(ConfigError, match=r"4 phases, but train.epochs is 3"):
        plan_phases(TrainConfig(strategy="staged", epochs=3))


@pytest.mark.parametrize("name", ["timm:test_resnet", "dual_stream"])
def test_every_layer_is_in_one_stage_and_those_next_to_the_head_come_first(name):
    detector = detectors.build(name, input_size_px=64)
    stages = layers_by_stage(detector, "staged")
    assert sorted(id(p) for stage in stages for p in stage) == sorted(id(p) for p in detector.parameters())
    position = {id(p): i for i, p in enumerate(detector.parameters())}
    where = [[position[id(p)] for p in stage] for stage in stages]
    assert min(where[1]) > max(where[2]) > max(where[3])
    assert id(next(detector.head.parameters())) in {id(p) for p in stages[0]}


def test_a_detector_without_a_backbone_cannot_be_unfrozen():
    with pytest.raises(ConfigError, match="meso4 has no pretrained part"):
        layers_by_stage(detectors.build("meso4"), "staged")
    assert layers_by_stage(detectors.build("linear_probe:test_resnet", input_size_px=64), "frozen")[0]


def test_frozen_layers_and_their_statistics_stay_as_they_are():
    detector = detectors.build("timm:test_resnet", input_size_px=64)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    stages = layers_by_stage(detector, "staged")
    freeze(detector, stages, Phase("head", 1, (1, 0, 0, 0)))
    train_mode(detector)
    optimizer = torch.optim.SGD([p for stage in stages for p in stage], lr=0.1)
    nn.functional.softplus(detector(torch.randn(4, 3, 64, 64))).sum().backward()
    optimizer.step()
    changed = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_staged_training_unfreezes_third_by_third_with_its_own_learning_rates(made, quick, tmp_path, caplog):
    config = quick.model_copy(update={"strategy": "staged", "epochs": 8, "warmup_share": 0.0, "augment": False})
    with caplog.at_level("INFO", logger="unmask"):
        run_train("timm:test_resnet", made.dataset, made.faces, made.features, tmp_path / "out", config, 1)
    info = DetectorInfo.load(tmp_path / "out" / "detector.json")
    assert [m for m in caplog.messages if "now learns" in m] == [
        f"timm:test_resnet: now learns {name}" for name in ("and the top third", "and the middle third", "all layers")
    ]
    rates = [point.learning_rate for point in info.curve]
    assert len(rates) == 8
    assert max(rates[4:]) <= 0.1 * config.learning_rate
    assert info.config["strategy"] == "staged"


def test_staged_training_resumes_where_it_was_killed(made, quick, tmp_path):
    config = quick.model_copy(
        update={"strategy": "staged", "epochs": 4, "ema_decay": 0.9, "augmentation": AugmentationConfig(mixup=0.5)}
    )

    def fresh(folder: Path | None) -> Trainer:
        torch.manual_seed(0)
        return trainer(made, detectors.build("timm:test_resnet", input_size_px=64), config, folder)

    whole = fresh(None)
    expected = whole.fit()
    for _ in range(expected.curve[-1].epoch + 1):  # one epoch a life
        alive = fresh(tmp_path)
        if (tmp_path / "last.safetensors").exists():
            torch.manual_seed(99)  # the checkpoint brings its own
        state = alive.checkpoints.restore(alive.stepper)
        if state.finished:
            break
        alive.stepper.begin(alive.phases[state.phase])
        alive._run_epoch(state)
        alive._finish_epoch(state)
        alive._checkpoint(state)
    last = fresh(tmp_path)
    found = last.fit()
    assert [p.model_dump(exclude={"seconds"}) for p in found.curve] == [
        p.model_dump(exclude={"seconds"}) for p in expected.curve
    ]
    assert_close(last.detector.state_dict(), whole.detector.state_dict(), 1e-12)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_four_batches_of_eight_equal_one_of_thirty_two(made):
    whole, _ = plain_after(made, settings())
    parts, _ = plain_after(made, settings(batch_size=8, accumulate=4))
    assert_close(whole, parts)


def test_when_memory_runs_out_the_batch_is_halved_and_nothing_else_changes(made, caplog):
    whole, _ = plain_after(made, settings())
    halved, survivor = plain_after(made, settings(), memory=10)
    assert survivor.stepper.chunk == 8
    assert "from now on 8 crops pass at a time" in caplog.text
    assert_close(whole, halved)


def test_too_little_memory_for_anything_is_an_error_with_a_fix(made):
    with pytest.raises(InputError, match=r"more memory than cpu has.*Lower train\.batch_size"):
        plain_after(made, settings(), memory=1)


def test_moving_average_is_what_is_validated_and_kept(made):
    torch.manual_seed(0)
    averaging = trainer(made, Plain(), settings(epochs=1, ema_decay=0.8, batch_size=12))
    seen: list[torch.Tensor] = []
    real = averaging.stepper.step

    def watched(*arguments):
        loss = real(*arguments)
        seen.append(averaging.detector.head.weight.detach().clone())
        return loss

    averaging.stepper.step = watched
    averaging.fit()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.8 * expected + 0.2 * weight
    assert len(seen) == 4
    torch.testing.assert_close(averaging.detector.head.weight.detach(), expected)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_like_full(made, precision):
    config = settings(epochs=3, precision=precision)
    half, _ = plain_after(made, config)
    full, _ = plain_after(made, settings(epochs=3))
    moved = full["head.weight"] - Plain().head.weight.detach()
    assert float((half["head.weight"] - full["head.weight"]).norm()) < 0.1 * float(moved.norm())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal"},
        {"class_balance": "sampler"},
        {"scheduler": "one_cycle"},
        {"checkpoint_metric": "pr_auc"},
        {"max_samples_per_class": 2},
        {"augment": True, "augmentation": AugmentationConfig(cutmix=1.0, dct_noise=1, gridmask=1, self_blend=0.5)},
    ],
    ids=str,
)
def test_each_recipe_trains(made, changes):
    weights, _ = plain_after(made, settings(**changes))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_limit_of_samples_touches_train_alone(made, quick, tmp_path):
    config = quick.model_copy(update={"epochs": 1, "max_samples_per_class": 2})
    run_train("meso4", made.dataset, made.faces, made.features, tmp_path / "out", config, 1)
    from unmask.schemas import FRAME_SCORES, read_table

    counts = read_table(tmp_path / "out" / "scores.parquet", FRAME_SCORES).to_pandas()
    assert counts.groupby("split")["sample_id"].nunique().to_dict() == {"train": 4, "val": 4, "calib": 4, "test": 4}


# --- several processes -----------------------------------------------------------------------------------------------

TOGETHER = """
import json, sys
from pathlib import Path
import torch
sys.path[:0] = [{tests!r}, {media!r}]
from test_recipes import Plain, settings, CPU
from unmask.training.checkpoint import Checkpoints
from unmask.training.loader import CropLoader, index_crops
from unmask.training.parallel import joined
from unmask.training.trainer import Trainer
import safetensors.torch
with joined() as group:
    torch.manual_seed(0)
    detector = Plain()
    index = index_crops(Path({faces!r}))
    loaders = [CropLoader(index.select((index.frame["split"] == s).to_numpy()), detector.preprocessing)
               for s in ("train", "val")]
    config = settings(batch_size=32 // group.size)
    trainer = Trainer(detector, *loaders, config, 1, CPU, Checkpoints(None), group=group)
    fitted = trainer.fit()
    weights = {{name: t.contiguous() for name, t in detector.state_dict().items()}}
    safetensors.torch.save_file(weights, Path({out!r}) / f"{{group.rank}}-of-{{group.size}}.safetensors")
    if group.leads:
        curve = [p.model_dump(exclude={{"seconds"}}) for p in fitted.curve]
        (Path({out!r}) / "curve.json").write_text(json.dumps(curve))
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(made, tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "together.py"
    script.write_text(
        TOGETHER.format(tests=str(here), media=str(here.parent / "media"), faces=str(made.faces), out=str(tmp_path))
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        launcher, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    alone, single = plain_after(made, settings())
    ranks = [safetensors.torch.load_file(tmp_path / f"{rank}-of-2.safetensors") for rank in (0, 1)]
    assert_close(ranks[0], ranks[1], 1e-12)
    assert_close(ranks[0], alone)
    curve = json.loads((tmp_path / "curve.json").read_text())
    again = trainer(made, Plain(), settings())
    assert len(curve) == 2
    assert np.isfinite([point["val_loss"] for point in curve]).all()
    assert single.steps_per_epoch == again.steps_per_epoch


def test_processes_are_started_once(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes_wanted(settings(processes=3)) == 3
    assert processes_wanted(settings(device="cpu")) == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes_wanted(settings(processes=3)) == 1


def test_progress_counts_epochs_without_gain():
    assert Progress().stale == 0
    assert Progress(gains=[True, False, False]).stale == 2
    assert Progress(gains=[False, True]).stale == 0
    assert Progress(gains=[False, False]).stale == 2


def test_a_detector_may_have_augmentations_and_balance_of_its_own():
    config = TrainConfig(
        models={"meso4": {"augmentation": {"self_blend": 0.5}, "class_balance": "sampler", "warmup_share": 0.0}}
    )
    own = config.resolved_for("meso4")
    assert isinstance(own.augmentation, AugmentationConfig)
    assert (own.augmentation.self_blend, own.class_balance, own.warmup_share) == (0.5, "sampler", 0.0)
    assert config.resolved_for("xception").augmentation.self_blend == 0.0
