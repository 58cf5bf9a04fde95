"""Keras-layout weights give the outputs that Keras would give: compared with channels-last arithmetic in numpy."""

import re

import numpy as np
import pytest
import scipy.signal
import torch

from unmask import detectors
from unmask.detectors.keras_weights import import_keras_weights, load_keras_layers
from unmask.errors import InputError

# name, kernel side, dilation, channels in, channels out; in the order in which Keras numbers them
MESO4 = [(3, 1, 3, 8), (5, 1, 8, 8), (5, 1, 8, 16), (5, 1, 16, 16)]
MESOINCEPTION4 = [
    *[(1, 1, 3, 1), (1, 1, 3, 4), (3, 1, 4, 4), (1, 1, 3, 4), (3, 2, 4, 4), (1, 1, 3, 2), (3, 3, 2, 2)],
    *[(1, 1, 11, 2), (1, 1, 11, 4), (3, 1, 4, 4), (1, 1, 11, 4), (3, 2, 4, 4), (1, 1, 11, 2), (3, 3, 2, 2)],
    *[(5, 1, 12, 16), (5, 1, 16, 16)],
]
NORMS = {"meso4": (8, 8, 16, 16), "mesoinception4": (11, 12, 16, 16)}
CONVS = {"meso4": MESO4, "mesoinception4": MESOINCEPTION4}


def draw_layers(name: str, first: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    layers = {}
    for number, (side, _, n_in, n_out) in enumerate(CONVS[name], first):
        scale = 1 / np.sqrt(side * side * n_in)
        layers[f"conv2d_{number}"] = {
            "kernel": rng.normal(0, scale, (side, side, n_in, n_out)).astype(np.float32),
            "bias": rng.normal(0, 0.1, n_out).astype(np.float32),
        }
    for number, width in enumerate(NORMS[name], first):
        layers[f"batch_normalization_{number}"] = {
            "gamma": rng.uniform(0.5, 1.5, width).astype(np.float32),
            "beta": rng.normal(0, 0.1, width).astype(np.float32),
            "moving_mean": rng.normal(0, 0.1, width).astype(np.float32),
            "moving_variance": rng.uniform(0.5, 2, width).astype(np.float32),
        }
    for number, (n_in, n_out) in enumerate(((1024, 16), (16, 1)), first):
        layers[f"dense_{number}"] = {
            "kernel": rng.normal(0, 1 / np.sqrt(n_in), (n_in, n_out)).astype(np.float32),
            "bias": rng.normal(0, 0.1, n_out).astype(np.float32),
        }
    return layers


class ChannelsLast:
    """The reference network in numpy, one picture ``(H, W, C)`` at a time."""

    def __init__(self, layers: dict[str, dict[str, np.ndarray]], name: str) -> None:
        def in_order(kind: str) -> list[dict[str, np.ndarray]]:
            numbers = {int(re.search(r"\d+$", key)[0]): key for key in layers if key.startswith(kind)}
            return [layers[numbers[number]] for number in sorted(numbers)]

        self.convs = iter(zip(in_order("conv2d"), CONVS[name], strict=True))
        self.norms = iter(in_order("batch_normalization"))
        self.dense = in_order("dense")

    def conv(self, x: np.ndarray) -> np.ndarray:
        layer, (side, dilation, n_in, n_out) = next(self.convs)
        spread = np.zeros(((side - 1) * dilation + 1,) * 2 + (n_in, n_out))
        spread[::dilation, ::dilation] = layer["kernel"]
        out = np.stack(
            [
                sum(scipy.signal.correlate(x[..., i], spread[..., i, o], "same", "fft") for i in range(n_in))
                for o in range(n_out)
            ],
            axis=-1,
        )
        return np.maximum(out + layer["bias"], 0)

    def norm_and_pool(self, x: np.ndarray, pool: int) -> np.ndarray:
        layer = next(self.norms)
        x = (x - layer["moving_mean"]) / np.sqrt(layer["moving_variance"] + 1e-3) * layer["gamma"] + layer["beta"]
        height, width, channels = x.shape
        return x.reshape(height // pool, pool, width // pool, pool, channels).max(axis=(1, 3))

    def inception(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([self.conv(x), *(self.conv(self.conv(x)) for _ in range(3))], axis=-1)

    def probability(self, x: np.ndarray, name: str) -> float:
        for block, pool in enumerate((2, 2, 2, 4)):
            inception = name == "mesoinception4" and block < 2
            x = self.norm_and_pool(self.inception(x) if inception else self.conv(x), pool)
        first, last = self.dense
        hidden = x.reshape(-1) @ first["kernel"] + first["bias"]
        hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
        return float(1 / (1 + np.exp(-(hidden @ last["kernel"] + last["bias"]).item())))


@pytest.mark.parametrize("name", ["meso4", "mesoinception4"])
def test_outputs_are_those_of_the_reference(name):
    layers = draw_layers(name, first=5)
    detector = detectors.build(name).eval()
    load_keras_layers(detector, layers)
    image = np.random.default_rng(1).uniform(0, 1, (256, 256, 3)).astype(np.float32)
    published = ChannelsLast(layers, name).probability(image, name)
    with torch.no_grad():
        logit = detector(torch.from_numpy(image.transpose(2, 0, 1))[None])
    assert torch.sigmoid(logit).item() == pytest.approx(1 - published, abs=1e-5), "the reference gives P(real)"


def test_output_that_means_fake_is_not_turned_round():
    layers = draw_layers("meso4", first=1)
    real, fake = detectors.build("meso4"), detectors.build("meso4")
    load_keras_layers(real, layers)
    load_keras_layers(fake, layers, output_means="fake")
    torch.testing.assert_close(real.head[1].weight, -fake.head[1].weight)
    torch.testing.assert_close(real.dense.dense.weight, fake.dense.dense.weight)


def test_other_networks_and_shapes_are_refused():
    with pytest.raises(InputError, match="has 16 conv2d layers; meso4 has 4"):
        load_keras_layers(detectors.build("meso4"), draw_layers("mesoinception4", first=1))
    layers = draw_layers("meso4", first=1)
    layers["dense_1"]["kernel"] = layers["dense_1"]["kernel"][:512]
    with pytest.raises(InputError, match=r"Layer dense_1 .*\(16, 512\)"):
        load_keras_layers(detectors.build("meso4"), layers)


def test_file_as_keras_writes_it(tmp_path):
    h5py = pytest.importorskip("h5py", reason="reading Keras files needs h5py")
    layers = draw_layers("meso4", first=0)
    with h5py.File(tmp_path / "Meso4.h5", "w") as file:
        for layer, weights in layers.items():
            group = layer.removesuffix("_0")
            for weight, array in weights.items():
                file[f"{group}/{group}/{weight}:0"] = array
    imported = import_keras_weights(tmp_path / "Meso4.h5", "meso4", tmp_path / "meso4.safetensors")
    loaded = detectors.build("meso4", pretrained=str(tmp_path / "meso4.safetensors")).eval()
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        assert torch.equal(imported(image), loaded(image))
    kernel = torch.from_numpy(layers["conv2d_0"]["kernel"].transpose(3, 2, 0, 1).copy())
    assert torch.equal(loaded.blocks[0][0].weight, kernel)
    (tmp_path / "broken.h5").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        import_keras_weights(tmp_path / "broken.h5", "meso4", tmp_path / "out.safetensors")
