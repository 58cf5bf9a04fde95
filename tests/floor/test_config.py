"""The configuration: defaults, files, overrides, and all errors at once."""

from pathlib import Path

import pytest

from unmask.config import UnmaskConfig, commented_defaults, load_config
from unmask.errors import ConfigError


def test_the_commented_defaults_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "unmask.yaml"
    path.write_text(commented_defaults())
    assert load_config(path) == UnmaskConfig()


def test_every_setting_is_explained() -> None:
    settings = [line for line in commented_defaults().splitlines()[1:] if line.strip()]
    assert [line for line in settings if "#" not in line] == []


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "unmask.yaml"
    path.write_text("seed: 1\ntrain: {epochs: 3, batch_size: 8}\n")
    config = load_config(path, ["train.batch_size=4"], "train: {epochs: 7}")
    assert (config.seed, config.train.epochs, config.train.batch_size) == (1, 7, 4)


def test_all_errors_come_together_and_say_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            overrides=["train.epochs=0", "extract.crop_size=256", "detectors=[meso4, meso4]", "fusion.target_fpr=5"]
        )
    text = str(caught.value)
    for word in ["train.epochs", "got 0", "extract.crop_size: unknown setting", "fusion.target_fpr", "config init"]:
        assert word in text


@pytest.mark.parametrize(
    ("inline", "word"),
    [
        ("detectors: [meso4, meso4]", "named twice: meso4"),
        ("ingest: {fractions: {train: .9}}", "make it 1"),
        ("evaluate: {severities: [0]}", "must lie in 1 to 5"),
        ("[1, 2]", "holds a list"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused(inline: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word.replace("[", r"\[")):
        load_config(inline=inline)


def test_overrides_need_a_name_and_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no '='"):
        load_config(overrides=["train.epochs"])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_a_detector_may_have_its_own_settings() -> None:
    train = load_config(inline="train: {epochs: 4, models: {meso4: {epochs: 9}}}").train
    assert train.resolved_for("meso4").epochs == 9
    assert train.resolved_for("timm:resnet10t").epochs == 4
    assert train.resolved_for("meso4").models == {}
