"""Real networks' code on random weights in the published files' layout: same figures as the packages that own them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from lpips import LPIPS
from parameters import bare
from torchvision.models import alexnet, inception_v3, vgg16

from cadiff.errors import CADiffError, UsageError
from cadiff.metrics import networks as networks_module
from cadiff.metrics.diversity import ic_lpips
from cadiff.metrics.networks import find_weights, inception_posteriors, load_networks, lpips_embeddings
from cadiff.storage import sha256_file

CPU = torch.device("cpu")


def _images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def _save_features(build, path: Path) -> None:
    model = build(weights=None).state_dict()
    torch.save({name: value for name, value in model.items() if name.startswith("features.")}, path)


def _packages_own(net: str, path: Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """The lpips package's distance of two images, with the weights in a file."""
    reference = LPIPS(net=net, pnet_rand=True, verbose=False)
    features = torch.load(path, weights_only=True)
    for name, value in reference.net.named_parameters():
        value.data.copy_(features["features." + name.split(".", 1)[1]])

    @torch.no_grad()
    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(reference(*(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1 for image in (one, other))))

    return distance


@pytest.mark.parametrize(("net", "build"), [("alex", alexnet), pytest.param("vgg", vgg16, marks=pytest.mark.slow)])
def test_distances_of_embeddings_are_lpips(net: str, build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _save_features(build, tmp_path / "net.pth")
    images = _images(3, 64)
    embedded, distance = lpips_embeddings(net, tmp_path / "net.pth", CPU)(images), _packages_own(net, tmp_path / "net.pth")
    expected = [distance(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    found = [float((embedded[i] - embedded[j]).square().sum()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("net", "build"), [("alex", alexnet), pytest.param("vgg", vgg16, marks=pytest.mark.slow)])
def test_ic_lpips_is_the_packages_pair_by_pair_and_embeds_an_image_twice_at_most(net: str, build, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _save_features(build, tmp_path / "net.pth")
    rng, exemplars = np.random.default_rng(1), _images(2, 64)
    generated = np.stack([exemplars[k % 2] // (2 + k) + rng.integers(0, 90, (64, 64, 3), dtype=np.uint8) for k in range(7)])
    embed, distance = lpips_embeddings(net, tmp_path / "net.pth", CPU), _packages_own(net, tmp_path / "net.pth")
    nearest = [int(np.argmin([distance(image, exemplar) for exemplar in exemplars])) for image in generated]
    clusters = [[image for image, index in zip(generated, nearest, strict=True) if index == k] for k in range(2)]
    means = [np.mean([distance(a, b) for a, b in combinations(members, 2)]) for members in clusters if len(members) > 1]

    class Counted:
        """Embeddings made when asked for."""

        def __init__(self, images: np.ndarray) -> None:
            self.images, self.asked = images, 0

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
            self.asked += len(indices)
            return embed(self.images[indices.numpy()])

    made, real = Counted(generated), Counted(exemplars)
    assert ic_lpips(made, real, block=2) == pytest.approx(np.mean(means), abs=1e-5)
    assert made.asked <= 2 * len(generated)
    assert real.asked == len(exemplars)


def test_inception_is_torchvisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = inception_v3(weights=None, init_weights=False).eval()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    images = _images(2, 299)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).softmax(dim=1)
    assert torch.allclose(inception_posteriors(tmp_path / "net.pth", CPU)(images), expected, atol=1e-6)


def test_names_tell_what_measured(tmp_path: Path) -> None:
    networks = load_networks(bare(products={"a": {}}))
    assert (networks.inception_name, [name for name, _ in networks.lpips.values()]) == ("efficientnet-lite0", ["efficientnet-lite0"])
    path = tmp_path / "mine.pth"
    _save_features(alexnet, path)
    digest = sha256_file(path)
    metrics = {"lpips": f"{path}@{digest}", "lpips_net": "alex"}
    named = load_networks(bare(products={"a": {}}, metrics=metrics))
    assert [name for name, _ in named.lpips.values()] == [f"lpips-alex@{digest[:8]}"], "the plain name is for the published weights"
    assert named.inception_name == "efficientnet-lite0"


def test_each_network_is_loaded_once_by_the_published_evaluation_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, loaded = tmp_path / "mine.pth", []
    _save_features(alexnet, path)

    def counted(net: str, file: Path, device: torch.device) -> networks_module.Embed:
        loaded.append(net)
        return lpips_embeddings(net, file, device)

    monkeypatch.setattr(networks_module, "lpips_embeddings", counted)
    metrics = {"lpips": f"{path}@{sha256_file(path)}", "lpips_net": "alex"}
    params = bare(products={"a": {}}, metrics=metrics)
    for own in (params, params.model_copy(update={"detector": params.detector.model_copy(update={"protocol": "legacy"})})):
        loaded.clear()
        assert list(load_networks(own).lpips) == ["alex"]
        assert loaded == ["alex"]
    legacy = bare(products={"a": {}}, metrics={"mask_rule": "cut"})
    legacy = legacy.model_copy(update={"detector": legacy.detector.model_copy(update={"protocol": "legacy"})})
    assert sorted(load_networks(legacy).lpips) == ["alex", "vgg"], "the stand-in in place of each"


def test_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"metrics.lpips: expected .*checkpoints/vgg16-397923af.pth, which is not there"):
        find_weights("vgg16", "hub", "metrics.lpips")
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "vgg16-397923af.pth"
    path.write_bytes(b"not these")
    with pytest.raises(UsageError, match=r"expected the published vgg16-397923af.pth \(SHA-256 397923af...\), found [0-9a-f]{64}"):
        find_weights("vgg16", "hub", "metrics.lpips")
    found = find_weights("vgg16", f"hub@{sha256_file(path)}", "metrics.lpips")
    assert found is not None
    with pytest.raises(CADiffError, match="expected weights of alexnet, found something else"):
        lpips_embeddings("alex", found.path, CPU)
    assert find_weights("vgg16", None, "metrics.lpips") is None


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_ic_lpips_in_blocks_is_that_of_all_at_once(block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    generated, exemplars = torch.rand(40, 5, generator=generator), torch.rand(4, 5, generator=generator)
    nearest = [min(range(4), key=lambda e: float((g - exemplars[e]).square().sum())) for g in generated]
    values = []
    for index in range(4):
        members = [g for g, n in zip(generated, nearest, strict=True) if n == index][:6]
        pairs = [float((a - b).square().sum()) for i, a in enumerate(members) for b in members[i + 1 :]]
        if pairs:
            values.append(math.fsum(pairs) / len(pairs))
    for exemplar_block in (1, 3, 100):
        found = ic_lpips(generated, exemplars, cap=6, block=block, exemplar_block=exemplar_block)
        assert found == pytest.approx(np.mean(values), rel=1e-6)


def test_ic_lpips_of_long_embeddings_is_exact() -> None:
    """At 512 px an embedding has tens of millions of values, of which a sum in float32 loses a part."""
    made = torch.rand(3, 4_000_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    pairs = [float((made[i].double() - made[j].double()).square().sum()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert ic_lpips(made, made[:1]) == pytest.approx(math.fsum(pairs) / 3, rel=1e-9)
