"""Encoders of segmentation-models-pytorch: which are taken, from which weights, and what is said where there are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from parameters import bare
from safetensors.torch import save_file

from cadiff.detection.networks import network_of
from cadiff.detection.smp import Named, SmpUNet, fetching
from cadiff.detection.training import _start
from cadiff.errors import CADiffError, UsageError
from cadiff.params import DetectorParams, load_params

smp = pytest.importorskip("segmentation_models_pytorch", reason="the extra smp is not installed")

SMALL, SMALL_TIMM = "resnet18", "tu-mobilenetv3_small_050"
MEAN, DEVIATION = [0.5, 0.25, 0.125], [0.25, 0.5, 1.0]


def built(network: str, start: bool = True) -> SmpUNet:
    model = network_of(network).build(DetectorParams(network=network), start)
    assert isinstance(model, SmpUNet)
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repo: str, revision: str, **files: bytes) -> None:
    """Files as a download leaves them."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "snapshots" / revision).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    for name, data in files.items():
        (folder / "snapshots" / revision / name.replace("__", ".")).write_bytes(data)


def weights_of(model: torch.nn.Module, path: Path) -> bytes:
    save_file(model.state_dict(), path)
    return path.read_bytes()


def test_the_published_evaluation_draws_an_encoder_from_scratch_and_no_other() -> None:
    """Weights from N(0, 0.02), which no layer of these has by its own initialisation."""

    def deviations(network: str) -> list[float]:
        settings = DetectorParams(network=network, protocol="legacy", size=256, tile=256).settled(1)
        model = _start(settings, "cube", 0, torch.device("cpu"), torch.float32).model
        large = [m.weight for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.weight.numel() > 5000]
        return [weight.std().item() for weight in large]

    assert deviations("smp:resnet18:scratch") == pytest.approx([0.02] * len(deviations("smp:resnet18:scratch")), rel=0.06)
    assert max(deviations("efficientnet-lite0")) > 0.03, "knows ImageNet"


def test_a_networks_name_says_which_encoder_and_weights() -> None:
    assert Named.of("smp:resnet34") == ("resnet34", "imagenet")
    assert Named.of("smp:resnet34:ssl") == ("resnet34", "ssl")
    assert Named.of("smp:tu-resnet18.a1_in1k:scratch").scratch
    for wrong in ("smp", "smp:", "smp:a:b:c", "resnet34", "smp:a b"):
        with pytest.raises(ValueError, match=r"expected unet, efficientnet-lite0, smp:ENCODER or smp:ENCODER:scratch"):
            DetectorParams(network=wrong)


def test_a_misspelt_network_in_a_file_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("products: {nut: {}}\ndetector: {network: efficientnet}\n")
    with pytest.raises(UsageError, match=r"params\.yaml: detector\.network: expected unet, .*found 'efficientnet'"):
        load_params(tmp_path / "params.yaml")
    assert bare(products={"nut": {}}, detector={"network": "smp:resnet18"}).detector.network == "smp:resnet18"


@pytest.mark.parametrize("encoder", [SMALL_TIMM, "mit_b0"], ids=["timm", "nothing-at-stride-2"])
def test_an_encoder_from_scratch_keeps_the_side_and_all_of_it_learns(encoder: str) -> None:
    torch.manual_seed(0)
    network = f"smp:{encoder}:scratch"
    model = built(network).train()
    logits = model(torch.rand(2, 3, 64, 96) * 2 - 1)
    assert logits.shape == (2, 2, 64, 96)
    logits.square().sum().backward()
    ((parameters, share),) = network_of(network).groups(model)
    assert share == 1
    assert len(parameters) == len(list(model.parameters()))
    assert all(module.training for module in model.encoder.modules()), "its batch statistics are to be learnt too"
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in model.encoder.parameters())


def test_weights_that_are_not_here_are_named_with_how_to_fetch_them_and_what_does_without(cache: Path) -> None:
    for encoder, repo in ((SMALL, "smp-hub/resnet18.imagenet"), (SMALL_TIMM, "timm/mobilenetv3_small_050.lamb_in1k")):
        with pytest.raises(UsageError) as caught:
            built(f"smp:{encoder}")
        said = str(caught.value)
        assert f"smp:{encoder}: its weights are not here (model.safetensors of {repo} in the cache of huggingface_hub)" in said
        command = fetching(Named.of(f"smp:{encoder}"))
        assert f"`{command}`" in said
        program = command.removeprefix('python -c "').removesuffix('"')
        scratch = program.replace("weights='imagenet'", "weights=None").replace("weights=True", "weights=None")
        assert scratch != program
        exec(compile(scratch, "fetch", "exec"), {})  # all of it but the download
        assert f"smp:{encoder}:scratch" in said
        built(f"smp:{encoder}:scratch")
    assert not cache.exists(), "nothing was downloaded"


def test_weights_that_were_fetched_are_taken_with_their_normalisation(cache: Path, tmp_path: Path) -> None:
    """The encoder sees (x - mean) / deviation of pictures from 0 to 1; its statistics stay, and it moves at a tenth of the rate."""
    torch.manual_seed(1)
    fetched, source = smp.encoders.get_encoder(SMALL, weights=None).eval(), smp.encoders.encoders[SMALL]["pretrained_settings"]["imagenet"]
    config = json.dumps({"mean": MEAN, "std": DEVIATION, "input_space": "RGB", "input_range": [0, 1]}).encode()
    put(cache, source["repo_id"], source["revision"], model__safetensors=weights_of(fetched, tmp_path / "w"), config__json=config)
    model = built(f"smp:{SMALL}").train()
    picture = torch.rand(2, 3, 64, 64)
    wanted = (picture - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
    with torch.no_grad():
        expected, found = fetched(wanted)[1:], model.levels(model.prepared(picture * 2 - 1))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(expected, found, strict=True))
    assert [share for _, share in network_of(f"smp:{SMALL}").groups(model)] == [1.0, 0.1]
    other = built(f"smp:{SMALL}", start=False)
    other.load_state_dict(model.state_dict())  # a trained one needs no cache: its normalisation travels with it
    assert torch.equal(other.mean.flatten(), torch.tensor(MEAN))


def test_timms_weights_are_taken_from_the_cache_too(cache: Path, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    name = SMALL_TIMM.removeprefix("tu-")
    whole, config = timm.create_model(name), timm.models.get_pretrained_cfg(name)
    put(cache, config.hf_hub_id, "0" * 40, model__safetensors=weights_of(whole, tmp_path / "w"))
    model = built(f"smp:{SMALL_TIMM}")
    found = model.encoder.state_dict()
    assert torch.equal(found["model.conv_stem.weight"], whole.state_dict()["conv_stem.weight"])
    assert model.mean.flatten().tolist() == pytest.approx(list(config.mean))


def test_weights_of_something_else_are_refused(cache: Path, tmp_path: Path) -> None:
    source = smp.encoders.encoders[SMALL]["pretrained_settings"]["imagenet"]
    config = json.dumps({"mean": MEAN, "std": DEVIATION}).encode()
    put(cache, source["repo_id"], source["revision"], model__safetensors=weights_of(torch.nn.Linear(2, 2), tmp_path / "w"),
        config__json=config)  # fmt: skip
    with pytest.raises(CADiffError, match=r"model\.safetensors: expected weights of ResNetEncoder, found something else"):
        built(f"smp:{SMALL}")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("smp:resnet17", r"resnet17: no such encoder; segmentation-models-pytorch has .*resnet18, .* and, for timm's model NAME, tu-NAME"),
        ("smp:tu-resnet17:scratch", r"this encoder cannot be built \(Unknown model \(resnet17\)\)"),
        ("smp:resnet18:noisy", r"smp:resnet18: expected weights imagenet, ssl, swsl or scratch, found noisy"),
        ("smp:tu-resnet18:ssl", r"expected weights as timm names them \(tu-MODEL\.TAG\) or scratch, found ssl"),
        ("smp:tu-vit_tiny_patch16_224:scratch", r"this encoder cannot be built \(Unsupported model downsampling pattern"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(network: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        built(network)


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UsageError, match=r'extra smp, of which segmentation_models_pytorch is not installed; pip install -e "\.\[smp\]"'):
        built("smp:resnet18:scratch")
