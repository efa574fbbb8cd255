"""The U-Net, its loss, its batches and its image score, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from cadiff.detection.batches import jitter, load_training_data, training_batch
from cadiff.detection.losses import focal_loss
from cadiff.detection.measuring import image_score, pooling_window
from cadiff.detection.training import learning_rate, total_steps
from cadiff.detection.unet import UNet, anomaly_map, check_side
from cadiff.devices import pick_device
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DetectorParams
from cadiff.records import GENERATED_SCHEMA, to_table
from cadiff.storage import write_table


@pytest.mark.parametrize("side", [32, 64, 96])
def test_unet_keeps_the_side(side: int) -> None:
    with torch.no_grad():
        maps = anomaly_map(UNet(4).eval()(torch.zeros(2, 3, side, side)))
    assert maps.shape == (2, side, side)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_unet_of_width_64_has_the_published_size() -> None:
    # DRAEM's DiscriminativeSubNetwork(in_channels=6, base_channels=64), counted layer by layer from its
    # paper's code: convolutions 3x3 with bias and batch normalisation; 3 input channels less are 3 * 9 * 64
    # weights.
    def block(a: int, b: int) -> int:
        return 9 * a * b + b + 2 * b

    w = 64
    encoder = [(3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w), (8 * w, 8 * w)]
    up = [(8 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w)]
    decoder = [(16 * w, 8 * w), (12 * w, 4 * w), (6 * w, 2 * w), (3 * w, w), (2 * w, w)]
    expected = sum(block(a, b) for a, b in up) + 9 * w * 2 + 2
    expected += sum(block(a, b) + block(b, b) for a, b in encoder + decoder)
    assert sum(p.numel() for p in UNet(64).parameters()) == expected


def test_unet_sees_the_whole_image_and_every_skip() -> None:
    model = UNet(4).eval()
    model(torch.rand(1, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_a_standardising_unet_does_not_see_the_exposure() -> None:
    """a x + b has the same logits as x for a > 0; a flat image has finite ones; a plain U-Net sees the difference."""
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    for standardise in (True, False):
        torch.manual_seed(0)  # a plain network of width 4 may be drawn with outputs that hardly move
        model = UNet(4, standardise).eval()
        same = torch.allclose(model(image), model(0.4 * image - 0.3), atol=1e-4)
        assert same == standardise
    assert torch.isfinite(UNet(4, True).eval()(torch.full((1, 3, 64, 64), 0.7))).all()


def test_side_and_device_errors_say_what_to_do() -> None:
    check_side(256)
    with pytest.raises(UsageError, match="use 32 or 64"):
        check_side(48)
    with pytest.raises(UsageError, match="use 32 or 32"):
        check_side(16)
    with pytest.raises(UsageError, match=r"base\.device"):
        pick_device("abacus")
    assert pick_device("cpu").type == "cpu"


def test_focal_loss_is_equation_4() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 5, 7, generator=generator)
    mask = torch.rand(2, 1, 5, 7, generator=generator) < 0.3
    p = logits.softmax(1).gather(1, mask.long())
    assert focal_loss(logits, mask).item() == pytest.approx(
        (-((1 - p) ** 2) * p.log()).mean().item(), rel=1e-6
    )
    cross_entropy = torch.nn.functional.cross_entropy(logits, mask[:, 0].long())
    assert focal_loss(logits, mask, gamma=0).item() == pytest.approx(cross_entropy.item(), rel=1e-6)
    assert torch.isfinite(focal_loss(logits * 1e4, mask))


def test_batches_are_half_normal_and_types_weigh_the_same(toy) -> None:
    data = load_training_data("cube", toy.samples, [toy.generated], 32)
    assert {name: len(images) for name, (images, _) in data.anomalies.items()} == {"blot": 12, "line": 3}
    sizes = []
    for step in range(100):
        batch = training_batch(data, 8, torch.Generator().manual_seed(step))
        areas = batch.mask.sum(dim=(1, 2, 3)).tolist()
        assert areas.count(0) == 4
        sizes += [area for area in areas if area]
    assert 0.4 < sizes.count(64) / len(sizes) < 0.6  # blots are 64 pixels, and 4 of 5 images
    again = training_batch(data, 8, torch.Generator().manual_seed(99))
    assert torch.equal(again.image, batch.image)
    assert (
        sum(int(training_batch(data, 1, torch.Generator().manual_seed(k)).mask.any()) for k in range(40)) > 10
    )


def test_half_of_the_normals_took_the_generators_path(toy, good_row, tmp_path) -> None:
    write_table(tmp_path / "good.parquet", to_table([good_row(7)], GENERATED_SCHEMA))
    data = load_training_data("cube", toy.samples, [toy.generated, tmp_path], 32)
    for step in range(10):
        batch = training_batch(data, 8, torch.Generator().manual_seed(step))
        flat = batch.image.flatten(1).std(dim=1) < 1e-6
        assert int(flat.sum()) == 2
        assert not batch.mask[flat].any()


def test_jitter_is_small_and_keeps_its_own_image(toy) -> None:
    image = torch.rand(6, 3, 8, 8) - 0.5
    changed = jitter(image, torch.Generator().manual_seed(0))
    assert (changed - image).abs().max() <= 0.1 + 0.1
    assert not torch.equal(changed, image)
    for before, after in zip(image.flatten(1), changed.flatten(1), strict=True):
        assert np.corrcoef(before, after)[0, 1] == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_trained_on_is_named(toy, good_row, tmp_path) -> None:
    with pytest.raises(CADiffError, match="none: expected normal images"):
        load_training_data("none", toy.samples, [toy.generated], 32)
    with pytest.raises(CADiffError, match="expected shards of anomalies"):
        load_training_data("cube", toy.samples, [tmp_path], 32)
    with pytest.raises(CADiffError, match=r"blot-0: expected image and mask of 64 x 64 \(base.size\)"):
        load_training_data("cube", toy.samples, [toy.generated], 64)


def test_learning_rate_drops_at_80_and_90_percent() -> None:
    settings = DetectorParams(epochs=10, samples_per_epoch=80, batch=8, learning_rate=1.0)
    assert total_steps(settings) == 100
    rates = [learning_rate(settings, step) for step in (0, 79, 80, 89, 90, 99)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_image_score_is_the_maximum_of_the_pooled_map() -> None:
    assert [pooling_window(21, side) for side in (256, 128, 64, 32)] == [21, 11, 5, 3]
    assert pooling_window(1, 64) == 1
    maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    expected = [uniform_filter(m, 5, mode="constant").max() for m in maps]
    assert image_score(maps, 5) == pytest.approx(expected, rel=1e-5)
