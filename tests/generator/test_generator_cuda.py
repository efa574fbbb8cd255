"""What holds on an NVIDIA GPU: the CPU's results to rounding, and an image that hardly depends on its batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parameters import bare, sampling

from cadiff.backbone import load_backbone
from cadiff.data.images import to_tensor
from cadiff.generator import Generator, adapt_base, load_generator, train_generator
from cadiff.generator.sample import Request, sample
from cadiff.generator.train import new_generator
from cadiff.params import BaseParams, IntensityParams, Params
from cadiff.records import SampleRow
from cadiff.storage import read_image
from cadiff.task import Task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine")

LEVEL = 1 / 127.5  # one grey level, in [-1, 1]


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """By torch's default convolutions of float32 take TF32's shorter numbers on such a GPU."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


def generator_on(device: str, base: Path, dtype: str = "float32") -> Generator:
    """Random weights throughout, the same on both devices; the control's zero layers too, so that it acts."""
    params = bare(products={"nut": {}}, base={"path": str(base), "size": 64, "device": device, "dtype": dtype})
    made = new_generator(params, "nut", ["chip", "rust"], load_backbone(params.base))
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (*made.control.parameters(), made.tokens.vectors):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=stream).to(parameter.device))
    return made


def requests_of(generator: Generator, picture: Path) -> list[Request]:
    known = generator.backbone.encode(to_tensor(read_image(picture)[None]))[0]
    masks = torch.zeros(5, 1, 64, 64, dtype=torch.bool)
    for k in range(5):
        masks[k, 0, 8 * k : 8 * k + 20, 16:40] = True
    prompt = generator.tokens.prompt(generator.backbone, ["rust"], 0)
    return [Request(prompt, ("rust",), mask, (0.5 + 0.3 * k,), k, known, start=known) for k, mask in enumerate(masks)]


SETTINGS = sampling(steps=4, scheduler="dpm", guidance_scale=2.0, start="background", strength=0.5, blend=1.0)


def test_the_gpu_draws_what_the_cpu_draws(tiny_base: Path, drawn_root: Path) -> None:
    picture, drawn = next((drawn_root / "nut" / "train" / "good").iterdir()), {}
    for device in ("cpu", "cuda"):
        generator = generator_on(device, tiny_base)
        drawn[device] = sample(generator, requests_of(generator, picture), SETTINGS, IntensityParams(threshold=0.3)).drawn
    difference = (drawn["cpu"] - drawn["cuda"]).abs().max().item() / LEVEL
    print(f"largest difference between CPU and GPU in float32: {difference:.4f} grey levels")
    assert difference < 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_image_hardly_depends_on_what_it_is_asked_for_with(tiny_base: Path, drawn_root: Path, dtype: str) -> None:
    """On a GPU the batch's size decides which kernels run, and so the last bits; the same batch gives the same bits."""
    picture = next((drawn_root / "nut" / "train" / "good").iterdir())
    generator = generator_on("cuda", tiny_base, dtype)
    requests, intensity = requests_of(generator, picture), IntensityParams(threshold=0.3)
    together, again = (sample(generator, requests, SETTINGS, intensity).drawn for _ in range(2))
    assert torch.equal(together, again)
    alone = torch.cat([sample(generator, [request], SETTINGS, intensity).drawn for request in requests])
    difference = (together - alone).abs().max().item() / LEVEL
    print(f"largest difference between batches of 1 and 5 in {dtype}: {difference:.4f} grey levels")
    assert difference < 0.1
    assert (together[0] - together[4]).abs().max() > 0, "what differs in the requests is to be seen"


def test_bfloat16_computes_in_bfloat16(tiny_base: Path, drawn_root: Path) -> None:
    picture, drawn = next((drawn_root / "nut" / "train" / "good").iterdir()), []
    for dtype in ("float32", "bfloat16"):
        generator = generator_on("cuda", tiny_base, dtype)
        drawn.append(sample(generator, requests_of(generator, picture), SETTINGS, IntensityParams(threshold=0.3)).drawn)
    assert 0 < (drawn[0] - drawn[1]).abs().max() / LEVEL < 32


def test_the_gpu_trains_as_the_cpu_does(small_params: Params, nut_samples: list[SampleRow], tmp_path: Path) -> None:
    """What three steps move, by its direction: Adam's first steps are as long as the rate whatever the gradient."""
    moved: dict[str, torch.Tensor] = {}
    for device in ("cpu", "cuda"):
        base = BaseParams(**{**small_params.base.model_dump(), "device": device, "dtype": "float32"})
        params, out = small_params.model_copy(update={"base": base}), tmp_path / device
        adapt_base(Task(params, "nut", samples=nut_samples), out / "adapted", out / "work-a")
        train_generator(Task(params, "nut", "cadiff", nut_samples), out / "adapted", out / "generator", out / "work-t")
        learnt = load_generator(Task(params, "nut", "cadiff"), out / "adapted", out / "generator")
        start = new_generator(params, "nut", learnt.tokens.types, load_backbone(params.base))
        pairs = zip((learnt.tokens.vectors, *learnt.control.parameters()), (start.tokens.vectors, *start.control.parameters()), strict=True)
        moved[device] = torch.cat([(after - before).detach().float().cpu().flatten() for after, before in pairs])
    assert moved["cpu"].norm() > 0
    likeness = torch.nn.functional.cosine_similarity(moved["cpu"], moved["cuda"], dim=0).item()
    print(f"cosine of what GPU and CPU trained: {likeness:.5f}")
    assert likeness > 0.9
