"""Names, preprocessing, pretrained weights: what `build` promises."""

from contextlib import contextmanager

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from unmask import detectors
from unmask.detectors import Detector, backbone, registry, weights
from unmask.errors import ConfigError, InputError
from unmask.objects import FolderStore
from unmask.schemas import Preprocessing


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(InputError, match=r"'mesa4'.*Did you mean meso4\?.*timm:<model>"):
        detectors.build("mesa4")
    with pytest.raises(InputError, match=r"timm has no model called 'resnet10'.*resnet10t"):
        detectors.build("timm:resnet10")


def test_a_detector_of_ones_own_is_one_class_and_one_decorator():
    class Tiny(Detector):
        def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
            super().__init__(Preprocessing(size_px=input_size_px, mean=(0.5,) * 3, std=(0.25,) * 3))
            self.head = nn.Linear(3, 1)

        def embed(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    registry.register("tiny_of_the_test", input_size_px=40)(Tiny)
    try:
        detector = detectors.build("tiny_of_the_test")
        assert detector.preprocessing.size_px == 40
        assert detector(torch.rand(2, 3, 40, 40)).shape == (2,)
        assert "tiny_of_the_test" in detectors.names()
        with pytest.raises(ValueError, match="taken"):
            registry.register("tiny_of_the_test", input_size_px=40)
    finally:
        del registry._ENTRIES["tiny_of_the_test"]


def test_timm_preprocessing_is_that_of_the_pretrained_weights():
    preprocessing = detectors.build("timm:test_resnet", input_size_px=64).preprocessing
    facts = timm.get_pretrained_cfg("test_resnet")
    assert preprocessing == Preprocessing(size_px=64, mean=facts.mean, std=facts.std)
    assert detectors.build("timm:test_resnet").preprocessing.size_px == facts.input_size[-1]


def test_a_transformer_takes_another_input_size():
    detector = detectors.build("timm:test_vit", input_size_px=96).eval()
    assert detector(torch.rand(1, 3, 96, 96)).shape == (1,)


def test_imagenet_weights_where_there_are_none():
    with pytest.raises(ConfigError, match="no ImageNet weights for meso4"):
        detectors.build("meso4", pretrained="imagenet")


def test_unreachable_hub_is_an_error_that_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise FileNotFoundError("the hub cannot be reached\nmore lines")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"ImageNet weights of test_resnet cannot be had: the hub.*pretrained"):
        backbone.create_backbone("test_resnet", imagenet=True)


def test_meso_refuses_sizes_that_do_not_divide():
    with pytest.raises(ConfigError, match="multiple of 32"):
        detectors.build("meso4", input_size_px=100)


def equal(a: Detector, b: Detector) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_pretrained_from_a_file_of_the_whole_detector(tmp_path, suffix):
    source, path = detectors.build("meso4", input_size_px=64), tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(source.state_dict(), path)
    else:
        nested = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}
        torch.save(nested, path)
    loaded = detectors.build("meso4", pretrained=str(path), input_size_px=64)
    assert equal(source, loaded)
    assert not equal(source, detectors.build("meso4", input_size_px=64))


def test_pretrained_from_a_file_of_the_backbone_leaves_only_the_head_new(tmp_path):
    published = timm.create_model("test_resnet", num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "timm.pth")
    detector = detectors.build("timm:test_resnet", input_size_px=64)
    missing = detectors.load_weights(detector, tmp_path / "timm.pth")
    assert missing == ["head.1.weight", "head.1.bias"]
    own = detector.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in published.state_dict().items() if name in own)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the checkpoint ran code')",))


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(tmp_path):
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        detectors.build("meso4", pretrained=str(tmp_path / "bomb.pth"))


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no weight file"):
        detectors.build("meso4", pretrained=str(tmp_path / "absent.pth"))
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"does not fit meso4: \d+ of \d+ tensors"):
        detectors.build("meso4", pretrained=str(tmp_path / "other.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read"):
        detectors.build("meso4", pretrained=str(tmp_path / "broken.safetensors"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds no named tensors"):
        detectors.build("meso4", pretrained=str(tmp_path / "list.pth"))


def test_imagenet_weights_are_kept_in_a_store_and_taken_from_there(monkeypatch, tmp_path):
    torch.manual_seed(5)
    published = timm.create_model("test_resnet")  # with its classifier, as the hub has it
    asked: list[str] = []

    def download(model: str) -> nn.Module:
        asked.append(model)
        return published

    monkeypatch.setattr(weights, "_download", download)
    store = FolderStore(tmp_path)
    with weights.weights_from(weights.WeightSource(store)):
        first = detectors.build("timm:test_resnet", pretrained="imagenet")
        second = detectors.build("linear_probe:test_resnet", pretrained="imagenet")
        three_more_channels = backbone.create_backbone("test_resnet", imagenet=True, in_chans=6)
    assert asked == ["test_resnet"], "fetched once"
    assert [stored.key for stored in store.objects()] == ["pretrained/test_resnet.r160_in1k.safetensors"]
    own = dict(published.named_parameters())
    for detector in (first, second):
        for name, parameter in detector.backbone.named_parameters():
            assert torch.equal(parameter, own[name]), name
    assert next(three_more_channels.parameters()).shape[1] == 6
    assert weights.imagenet_weights("test_resnet") is None, "no store, no keeping"


def test_a_weight_file_may_lie_elsewhere(tmp_path):
    torch.manual_seed(1)
    detector = detectors.build("meso4")
    safetensors.torch.save_file(detector.state_dict(), tmp_path / "w.safetensors")

    class Elsewhere:
        @contextmanager
        def local(self, uri: str):
            assert uri == "s3://bucket/w.safetensors"
            yield tmp_path / "w.safetensors"

    with weights.weights_from(weights.WeightSource(files=Elsewhere())):
        again = detectors.build("meso4", pretrained="s3://bucket/w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(detector.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match="object store"):
        detectors.build("meso4", pretrained="s3://bucket/w.safetensors")
