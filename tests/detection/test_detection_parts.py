"""The networks, their losses, batches and image scores, one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import uniform_filter

from cadiff.detection import training
from cadiff.detection.batches import Encoded, Recent, ShardPictures, jitter, load_training_data, shard_rows, training_batch
from cadiff.detection.losses import dice_loss, focal_and_dice_loss, focal_loss
from cadiff.detection.measuring import batches, image_scores, pooling_window, resized, true_mask
from cadiff.detection.networks import ENCODER_RATE, network_of
from cadiff.detection.pretrained import EncoderUNet, doubled
from cadiff.detection.tiles import View
from cadiff.detection.training import learning_rate, total_steps, train_detector
from cadiff.detection.unet import UNet, anomaly_map, check_side
from cadiff.devices import pick_device
from cadiff.errors import CADiffError, UsageError
from cadiff.metrics import imagenet
from cadiff.params import DetectorParams, MetricParams
from cadiff.records import CURVE_SCHEMA, GENERATED_SCHEMA, SampleRow, to_table
from cadiff.storage import Spill, decode_image, encode_png, read_table, write_image, write_table
from cadiff.task import Task


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
    torch.manual_seed(0)  # of four channels some may be dead from the start
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


def test_dice_loss_weighs_every_anomaly_alike_however_small() -> None:
    """By hand, image by image; a normal image adds nothing; the same share missed of a small mask and of a large one costs the same."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 6, 8, generator=generator)
    mask = torch.rand(3, 1, 6, 8, generator=generator) < 0.3
    mask[1] = False
    expected = []
    for k in (0, 2):
        p, m = logits[k].softmax(0)[1].numpy(), mask[k, 0].numpy()
        expected.append(1 - (2 * p[m].sum() + 1) / (p.sum() + m.sum() + 1))
    assert dice_loss(logits, mask).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert dice_loss(logits[1:2], mask[1:2]).item() == 0
    assert focal_and_dice_loss(logits, mask).item() == pytest.approx(
        focal_loss(logits, mask).item() + dice_loss(logits, mask).item(), rel=1e-6
    )
    missed = []
    for side in (8, 64):
        marked = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
        marked[..., :side, :side] = True
        half = marked.clone()
        half[..., : side // 2, :] = False
        sure = torch.where(half, 50.0, -50.0)
        missed.append(dice_loss(torch.cat([-sure, sure], dim=1), marked).item())
    assert missed == pytest.approx([1 / 3, 1 / 3], abs=0.01)


def test_the_pretrained_encoder_is_imagenets_and_sees_what_it_was_taught_on() -> None:
    """Its deepest level is that of the shipped network on (x - 127) / 128 of the 8-bit picture; its statistics stay in training."""
    model = network_of("efficientnet-lite0").build(DetectorParams(), True).train()
    pixels = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0)).float()
    shipped, x = imagenet.build().eval(), (pixels - 127) / 128
    x = shipped._swish(shipped._bn0(shipped._conv_stem(x)))
    for block in shipped._blocks:
        x = block(x)
    seen: list[torch.Tensor] = []
    model.encoder._blocks[-1].register_forward_hook(lambda module, given, found: seen.append(found))
    logits = model(pixels / 127.5 - 1)
    assert logits.shape == (2, 2, 64, 96)
    assert torch.allclose(seen[0], x, atol=1e-4)
    logits.sum().backward()
    before = imagenet.build().state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} moved without a step"
    unused = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    frozen = ("encoder._conv_stem.", "encoder._bn0.", *(f"encoder._blocks.{index}." for index in range(imagenet.FROZEN)))
    names = [name for name, _ in model.named_parameters()]
    assert unused == [name for name in names if name.startswith(frozen) or "_depthwise_conv" in name]


@pytest.mark.parametrize("shape", [(2, 5, 6, 4), (1, 3, 1, 7), (2, 1, 8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_doubled_maps_gradient_is_torchs_own(shape: tuple[int, int, int, int], layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    own = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    gradient = torch.randn(own.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(own, x, gradient)[0]
    found = doubled(x)
    assert torch.equal(found, own)
    assert torch.equal(doubled(x.detach()), own), "without a gradient"
    assert torch.allclose(torch.autograd.grad(found, x, gradient)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("protocol", "computed"), [("strict", torch.bfloat16), ("legacy", torch.float32)])
def test_a_detector_is_trained_in_the_bases_precision_and_the_published_one_in_float32(
    toy, tmp_path, protocol: str, computed: torch.dtype, monkeypatch
) -> None:
    """What the network's last layer gives says in what it was computed; weights are float32 either way."""
    own = {"protocol": protocol, "network": "efficientnet-lite0", "epochs": 1, "samples_per_epoch": 2, "batch": 2}
    params = toy.params.model_copy(
        update={
            "base": toy.params.base.model_copy(update={"dtype": "bfloat16"}),
            "detector": toy.params.detector.model_copy(update=own),
        }
    )
    seen: list[torch.dtype] = []
    forward = EncoderUNet.forward
    monkeypatch.setattr(EncoderUNet, "forward", lambda self, image: seen.append((out := forward(self, image)).dtype) or out)
    train_detector(Task(params, "cube", "exemplars", toy.samples), [toy.generated], 0, tmp_path / "out", tmp_path / "work")
    assert seen[0] == computed
    weights = load_file(tmp_path / "out" / "seed-0.safetensors")
    assert {value.dtype for name, value in weights.items() if not name.endswith("num_batches_tracked")} == {torch.float32}


def test_the_pretrained_network_sees_a_single_pixel_at_full_resolution() -> None:
    """The image itself is a skip: where one pixel changes, the logits right there change most."""
    torch.manual_seed(0)
    model = network_of("efficientnet-lite0").build(DetectorParams(), True).eval()
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 20, 33] = 1
    with torch.no_grad():
        moved = (model(changed) - model(image)).abs().sum(dim=(0, 1))
    row, column = divmod(int(moved.argmax()), 64)
    assert abs(row - 20) <= 4
    assert abs(column - 33) <= 4


def test_an_untrained_pretrained_network_takes_an_anomaly_for_rare() -> None:
    """Of any picture: an anomaly's probability is about the prior of the focal loss's paper, in odds within a factor of three."""
    torch.manual_seed(0)
    model = network_of("efficientnet-lite0").build(DetectorParams(), True).eval()
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        logits = model(pictures)
    odds = (logits[:, 0] - logits[:, 1]).mean().exp()
    assert 99 / 3 < odds < 99 * 3


def test_the_encoder_learns_slower_than_the_decoder(toy) -> None:
    """After one step of Adam each parameter has moved by its own rate, whatever its gradient is."""
    params = toy.params.model_copy(
        update={"detector": toy.params.detector.model_copy(update={"network": "efficientnet-lite0", "learning_rate": 1e-3})}
    )
    state = training._start(params.detector, "cube", 0, torch.device("cpu"), torch.float32)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    batch = training_batch(load_training_data("cube", toy.samples, [toy.generated], View.of(params)), 2, torch.Generator().manual_seed(0))
    training._step(state, batch, 1e-3)
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in state.model.named_parameters()}
    assert all((moved[name] > 0) == value.requires_grad for name, value in state.model.named_parameters()), "only what is frozen stays"
    largest = {part: max(value for name, value in moved.items() if name.startswith(part)) for part in ("encoder", "decoder", "head")}
    assert largest == pytest.approx({"encoder": 1e-3 * ENCODER_RATE, "decoder": 1e-3, "head": 1e-3}, rel=0.01)


def test_batches_are_half_normal_and_types_weigh_the_same(toy) -> None:
    data = load_training_data("cube", toy.samples, [toy.generated], View.of(toy.params))
    assert {name: len(pool) for name, pool in data.anomalies.items()} == {"blot": 12, "line": 3}
    assert data.side == 32, "of pictures of three shapes"
    sizes = []
    for step in range(100):
        batch = training_batch(data, 8, torch.Generator().manual_seed(step))
        assert batch.image.shape == (8, 3, 32, 32)
        areas = batch.mask.sum(dim=(1, 2, 3)).tolist()
        assert areas.count(0) == 4, "a tile of an anomaly shows some of it"
        shown = batch.image.mean(dim=1, keepdim=True)
        bright = (shown > shown.flatten(1).median(dim=1).values.view(-1, 1, 1, 1))[batch.mask]  # lines are dark
        sizes.append(int(bright.sum()) / 64)
    assert 0.4 < np.mean(sizes) / 4 < 0.6, "of four anomalies two are blots, which 4 of 5 images are"
    again = training_batch(data, 8, torch.Generator().manual_seed(99))
    assert torch.equal(again.image, batch.image)
    assert (
        sum(int(training_batch(data, 1, torch.Generator().manual_seed(k)).mask.any()) for k in range(40)) > 10
    )


def test_of_real_and_generated_anomalies_three_of_four_shown_are_real() -> None:
    """However many there are of each; of one kind alone each counts the same."""
    png = encode_png(np.zeros((4, 4, 3), np.uint8))

    def pool(real: int, generated: int) -> ShardPictures:
        encoded = [Encoded(str(k), lambda: png, lambda: png, real=k < real) for k in range(real + generated)]
        return ShardPictures(encoded, View(32, 32, 256), Recent())

    def shown(pool: ShardPictures) -> list[int]:
        stream, seen = torch.Generator().manual_seed(0), []
        pool._recent.get = lambda encoded, view: seen.append(int(encoded.name))  # type: ignore[method-assign]
        for _ in range(4000):
            pool.pick(lambda count: int(torch.randint(count, (), generator=stream)))
        return np.bincount(seen, minlength=len(pool)).tolist()

    mixed = shown(pool(2, 30))
    assert sum(mixed[:2]) / 4000 == pytest.approx(0.75, abs=0.03)
    assert 10 < min(mixed[2:]) <= max(mixed[2:]) < 60, "each generated one about 33 times"
    for single in (pool(5, 0), pool(0, 5)):
        assert shown(single) == pytest.approx([800] * 5, rel=0.15)


def test_half_of_the_normals_took_the_generators_path(toy, good_row, tmp_path) -> None:
    write_table(tmp_path / "good.parquet", to_table([good_row(7)], GENERATED_SCHEMA))
    data = load_training_data("cube", toy.samples, [toy.generated, tmp_path], View.of(toy.params))
    for step in range(10):
        batch = training_batch(data, 8, torch.Generator().manual_seed(step))
        flat = batch.image.flatten(1).std(dim=1) < 1e-6
        assert int(flat.sum()) == 2
        assert not batch.mask[flat].any()


def test_jitter_changes_the_light_alone() -> None:
    """Each image's pixels stay in one line; over many images the light goes from half to twice, dark as often as bright."""
    image = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.3 - 0.85
    changed = jitter(image, torch.Generator().manual_seed(0))
    slopes = []
    for before, after in zip(image.flatten(1), changed.flatten(1), strict=True):
        slope, start = np.polyfit(before, after, 1)
        assert np.allclose(slope * before + start, after, atol=1e-5)
        slopes.append(slope)
    assert 0.45 <= min(slopes) < 0.55 < 1.8 < max(slopes) <= 2.2
    assert np.mean(np.log2(slopes)) == pytest.approx(0, abs=0.1)
    assert jitter(torch.ones(8, 3, 4, 4), torch.Generator().manual_seed(0)).max() <= 1, "white is the brightest"


def test_a_normals_tile_shows_where_it_was_drawn_anew_and_is_normal(toy, make_row, tmp_path) -> None:
    image, mask = np.full((32, 500, 3), 90, np.uint8), np.zeros((32, 500), bool)
    image[:, 250], mask[:, 250] = 250, True
    row = make_row("redrawn", [], encode_png(image), encode_png(mask.astype(np.uint8) * 255))
    write_table(tmp_path / "good.parquet", to_table([row], GENERATED_SCHEMA))
    data = load_training_data("cube", toy.samples, [toy.generated, tmp_path], View.of(toy.params))
    for step in range(10):
        batch = training_batch(data, 8, torch.Generator().manual_seed(step))
        redrawn = _columns_of(batch.image)
        assert int(redrawn.sum()) == 2
        assert not batch.mask[redrawn].any()


def _columns_of(image: torch.Tensor) -> torch.Tensor:
    """Which images have one bright column and are flat beside it."""
    columns = image.mean(dim=(1, 2))
    flat = image.std(dim=2).amax(dim=(1, 2)) < 1e-6
    return flat & (columns.amax(dim=1) - columns.amin(dim=1) > 0.5)


def test_what_is_decoded_is_kept_up_to_a_limit_and_no_more(toy) -> None:
    shard = toy.generated / "blot.parquet"
    view = View.of(toy.params)
    spill = Spill()
    encoded = [Encoded(row["sample_id"], *(spill.put(row[part]["bytes"]) for part in ("image", "mask"))) for row in shard_rows(shard)]
    recent = Recent(memory=3 * 32 * 48 * 4)
    pool = ShardPictures(encoded, view, recent)
    first = pool[0]
    assert pool[0] is first, "kept"
    assert [pool.shape(k) for k in range(3)] == [pool[k].mask.shape for k in range(3)]
    for k in range(12):
        assert np.array_equal(pool[k].image, decode_image(encoded[k].image(), "RGB"))
        assert recent._used == sum(p.image.nbytes + p.mask.nbytes for p in recent._found.values()) <= recent.memory
    assert pool[0] is not first, "long gone"
    assert np.array_equal(pool[0].image, first.image)
    twice = ShardPictures(encoded, View(32, 64, 256), Recent())
    assert (twice.shape(1), twice[1].image.shape, twice[1].mask.sum()) == ((64, 96), (64, 96, 3), 4 * 64)


def test_what_cannot_be_trained_on_is_named(toy, make_row, tmp_path) -> None:
    view = View.of(toy.params)
    with pytest.raises(CADiffError, match="none: expected normal images"):
        load_training_data("none", toy.samples, [toy.generated], view)
    with pytest.raises(CADiffError, match="expected shards of anomalies"):
        load_training_data("cube", toy.samples, [tmp_path], view)
    with pytest.raises(CADiffError, match=r"blot-0: expected an image of 64 px on its shorter side \(dataset.size\), found 32 x 32"):
        load_training_data("cube", toy.samples, [toy.generated], View(64, 64, 256))
    for name, image, mask, message in (
        ("odd", encode_png(np.zeros((32, 48, 3), np.uint8)), encode_png(np.zeros((48, 32), np.uint8)),
         "odd: expected a mask of its image's size, 48 x 32, found 32 x 48"),
        ("torn", b"no image", encode_png(np.zeros((32, 32), np.uint8)), "torn: expected an image, but it does not open"),
    ):  # fmt: skip
        write_table(tmp_path / name / "blot.parquet", to_table([make_row(name, ["blot"], image, mask)], GENERATED_SCHEMA))
        with pytest.raises(CADiffError, match=message):
            load_training_data("cube", toy.samples, [tmp_path / name], view)
    with pytest.raises(UsageError, match=r"detector\.size: expected pictures of at least 32 px"):
        load_training_data("cube", toy.samples, [toy.generated], View(32, 16, 256))


def test_a_detector_sees_each_exemplar_as_often_whatever_their_number(toy, tmp_path) -> None:
    """50 times, in batches of 4 anomalies and 4 normals; at least 150 steps. The file of its loss has its last step."""
    lengths = [total_steps(DetectorParams().settled(exemplars)) for exemplars in (3, 12, 24, 128)]
    assert lengths == [150, 150, 300, 1600]
    assert total_steps(DetectorParams(epochs=3, samples_per_epoch=400).settled(128)) == 150, "what is set stays"
    own = {"epochs": 600, "samples_per_epoch": None, "width": 4}
    params = toy.params.model_copy(update={"detector": toy.params.detector.model_copy(update=own)})
    only = next(row for row in toy.samples if row.role == "exemplar")
    rows = [*toy.samples, *(dataclasses.replace(only, sample_id=f"more-{k}") for k in range(2))]
    train_detector(Task(params, "cube", "exemplars", rows), [toy.generated], 0, tmp_path, tmp_path / "work")
    assert read_table(tmp_path / "curve-0.parquet", CURVE_SCHEMA)["step"].to_pylist()[-1] == 600 * 3 * 2 // 8


def test_learning_rate_drops_at_80_and_90_percent() -> None:
    settings = DetectorParams(epochs=10, samples_per_epoch=80, batch=8, learning_rate=1.0)
    assert total_steps(settings) == 100
    rates = [learning_rate(settings, step) for step in (0, 79, 80, 89, 90, 99)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_image_score_is_the_maximum_of_the_pooled_map() -> None:
    assert [pooling_window(21, side) for side in (256, 128, 64, 32)] == [21, 11, 5, 3]
    assert pooling_window(1, 64) == 1
    rng = np.random.default_rng(0)
    maps = [rng.random(shape).astype(np.float32) for shape in ((64, 64), (64, 100), (300, 128))]
    windows = (5, 5, 11)  # of the shorter side
    expected = [uniform_filter(m, window, mode="constant").max() for m, window in zip(maps, windows, strict=True)]
    assert image_scores(maps, 21) == pytest.approx(expected, rel=1e-5)


def test_truth_comes_from_the_file_by_the_rule_and_maps_are_brought_to_it(tmp_path) -> None:
    """A line of 3 px of 128: at 32 px it fills 3 of each 4 rows; a quarter's rule and half's take it, and beside it nothing. One of 1 px
    is taken by a quarter's rule, and by half's only as the most that there is."""
    for thickness, rule, rows in ((3, "half", 1), (3, "quarter", 1), (5, "quarter", 2), (5, "half", 1), (1, "any", 1), (1, "nearest", 0)):
        mask = np.zeros((128, 256), np.uint8)
        mask[64 : 64 + thickness] = 255
        write_image(tmp_path / "mask.png", mask)
        row = SampleRow("x", "toy", "cube", "line", "held_out", "no.png", str(tmp_path / "mask.png"), 256, 128, "x")
        truth = true_mask(row, MetricParams(size=32, mask_rule=rule))
        assert truth.shape == (32, 64)
        assert truth.all(axis=1).sum() == truth.any(axis=1).sum() == rows
    good = dataclasses.replace(row, mask_path=None, role="test_good")
    assert not true_mask(good, MetricParams(size=32)).any()
    map_ = np.random.default_rng(0).random((128, 256)).astype(np.float32)
    assert resized(map_, (128, 256)) is map_
    small = resized(map_, (32, 64))
    assert small.shape == (32, 64)
    assert small.std() < map_.std() / 2, "antialiased: not every fourth pixel"
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(32, axis=0)
    assert np.abs(resized(ramp, (32, 128))[:, 2:-2] - (np.arange(128)[2:-2] / 2 - 0.25) / 63).max() < 1e-5


def test_pictures_are_scored_as_many_at_a_time_as_are_small(toy) -> None:
    sides = [256] * 40 + [4096] * 2
    rows = [dataclasses.replace(toy.samples[0], sample_id=str(k), width=side, height=side) for k, side in enumerate(sides)]
    found = list(batches(rows))
    assert [len(part) for part in found] == [32, 8, 1, 1]
    assert [row for part in found for row in part] == rows
