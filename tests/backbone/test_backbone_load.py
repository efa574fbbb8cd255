"""What a base may be, and that loading one never unpickles and never runs its code."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from cadiff.backbone import Backbone, load_backbone
from cadiff.backbone.load import AT_ONCE
from cadiff.errors import CADiffError, UsageError
from cadiff.params import BaseParams
from cadiff.storage import read_json, write_json

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_that_are_pickled_only_are_refused_unread(base: Path, part: str) -> None:
    mark = base / "unpickled"
    (base / part / f"{WEIGHTS[part]}.safetensors").unlink()
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    (base / part / name).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(UsageError, match=r"base\.path: .* cannot be loaded \(.*safetensors") as error:
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))
    assert not mark.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_that_are_cut_off_are_named(base: Path, part: str) -> None:
    path = base / part / f"{WEIGHTS[part]}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"base\.path: .* cannot be loaded"):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    ("part", "lost"), [("unet", "mid_block."), ("vae", "decoder.conv_out.weight"), ("text_encoder", "final_layer_norm.")]
)
def test_weights_that_lack_tensors_are_refused(base: Path, part: str, lost: str) -> None:
    """The libraries would warn and draw random ones, other ones at each start."""
    path = base / part / f"{WEIGHTS[part]}.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if lost not in name}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(UsageError, match=rf"base\.path: .*{part}/: its weights lack \d+ of the model's tensors, .*{lost}.* first"):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    ("part", "changes"),
    [("unet", {"block_out_channels": [32, 32, 96]}), ("text_encoder", {"intermediate_size": 24}), ("vae", {"_class_name": None})],
)
def test_a_config_that_is_not_its_weights_is_named(base: Path, part: str, changes: dict[str, object]) -> None:
    write_json(base / part / "config.json", {**read_json(base / part / "config.json"), **changes})
    with pytest.raises(CADiffError, match=part):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"in_channels": 9}, "the U-Net takes 9 channels, expected the autoencoder's 4"),
        ({"cross_attention_dim": 48}, "text encoder's 32 numbers a token, found 48"),
    ],
)
def test_parts_of_different_models_are_refused(base: Path, changes: dict[str, int], named: str) -> None:
    """An inpainting model's U-Net, say, takes a mask and an image beside the latents."""
    config = {key: value for key, value in UNet2DConditionModel.load_config(base / "unet").items() if not key.startswith("_")}
    UNet2DConditionModel.from_config({**config, **changes}).save_pretrained(base / "unet", safe_serialization=True)
    with pytest.raises(UsageError, match=named):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))


def test_a_base_without_its_vocabulary_is_refused(base: Path) -> None:
    """transformers would make a vocabulary of two tokens, to which all prompts are alike."""
    shutil.rmtree(base / "tokenizer")
    with pytest.raises(UsageError, match=r"base\.path: .*tokenizer"):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))


def test_a_size_that_the_levels_do_not_divide_is_refused_before_anything_is_trained(base: Path) -> None:
    with pytest.raises(UsageError, match=r"base\.size: expected a multiple of \d+ for this base, found 100"):
        load_backbone(BaseParams(path=str(base), size=100, device="cpu", dtype="float32"))


def test_code_beside_the_weights_is_never_run(base: Path) -> None:
    for part in ("unet", "text_encoder", "tokenizer"):
        (base / part / "evil.py").write_text(f"import os\nos.mkdir({str(base / 'ran')!r})\n")
    for name in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        write_json(base / name, {**read_json(base / name), "auto_map": {"AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", None]}})
    load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))
    assert not (base / "ran").exists()


def test_a_variant_is_the_files_of_that_name(base: Path) -> None:
    for part, stem in WEIGHTS.items():
        (base / part / f"{stem}.safetensors").rename(base / part / f"{stem}.fp16.safetensors")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))
    loaded = load_backbone(BaseParams(path=str(base), device="cpu", variant="fp16", dtype="bfloat16"))
    assert loaded.autocast().fast_dtype == torch.bfloat16
    assert next(loaded.unet.parameters()).dtype == torch.float32
    stored = load_file(base / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.equal(p, stored[name]) for name, p in loaded.unet.named_parameters())


def test_narrow_weights_give_the_same_bits_forward_and_backward(tiny_base: Path) -> None:
    backbone, found = load_backbone(BaseParams(path=str(tiny_base), device="cpu", dtype="bfloat16")), []
    size = sum(p.numel() * p.element_size() for p in backbone.unet.parameters())
    for narrowed in (backbone, backbone.narrow()):
        torch.manual_seed(0)
        latents, text = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(2, 7, 32, requires_grad=True)
        with narrowed.autocast():
            output = narrowed.unet(latents, torch.tensor([3, 900]), text).sample
        output.float().square().mean().backward()
        found.append((output, latents.grad, text.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert sum(p.numel() * p.element_size() for p in backbone.unet.parameters()) < 0.52 * size


@pytest.mark.slow
def test_a_hub_name_is_pinned_to_a_revision_and_digested_by_its_content(tiny_base: Path, tmp_path: Path) -> None:
    """The hub's own folder layout, without a network; a process of its own, since the hub reads its variables once. Two commits differ in
    one weight; what another program left beside them (pickled weights, another variant) changes nothing."""
    repository, commits = tmp_path / "hub" / "models--someone--tiny", ["0" * 40, "1" * 40]
    for commit in commits:
        shutil.copytree(tiny_base, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[0])
    weights = repository / "snapshots" / commits[1] / "unet" / f"{WEIGHTS['unet']}.safetensors"
    tensors = load_file(weights)
    save_file({name: value + 1 if name == "conv_in.bias" else value for name, value in tensors.items()}, weights)
    code = (
        "import pathlib, sys\nfrom cadiff.backbone import load_backbone\nfrom cadiff.params import BaseParams\n"
        "from cadiff.errors import exit_code\n"
        "def told(path, revision):\n"
        "    found = load_backbone(BaseParams(path=path, revision=revision, device='cpu', dtype='float32'))\n"
        "    print(found.digest, float(found.unet.conv_in.bias[0]))\n"
        "def all():\n"
        "    told('someone/tiny', None); told('someone/tiny', '0' * 40); told('someone/tiny', '1' * 40)\n"
        "    unet = pathlib.Path(sys.argv[1]) / 'snapshots' / ('0' * 40) / 'unet'\n"
        "    (unet / 'diffusion_pytorch_model.bin').write_bytes(b'x')\n"
        "    (unet / 'diffusion_pytorch_model.fp16.safetensors').write_bytes(b'x')\n"
        "    told('someone/tiny', None); told('someone/other', None)\n"
        "sys.exit(exit_code(all))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(repository)], env=environment, capture_output=True, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 4, done.stderr
    newest, first, second, beside = lines
    assert newest == first == beside
    assert second[0] != first[0]
    assert float(second[1]) == pytest.approx(float(first[1]) + 1)
    assert done.returncode == 2, "of the other name nothing is there"
    assert done.stderr.splitlines()[-1].startswith("error: base.path: 'someone/other' cannot be loaded (")
    assert "Traceback" not in done.stderr


def test_a_folder_has_no_revision(base: Path) -> None:
    with pytest.raises(UsageError, match=r"base\.revision: expected null with base\.path: .*, which is a folder and has none, found 'v1'"):
        load_backbone(BaseParams(path=str(base), revision="v1", device="cpu", dtype="float32"))


def seen_by(backbone: Backbone, pictures: int, size: int) -> dict[str, list[int]]:
    """How many pictures each half of the autoencoder was given at a time."""
    counts: dict[str, list[int]] = {"encoder": [], "decoder": []}
    handles = [
        getattr(backbone.vae, half).register_forward_pre_hook(lambda _, given, half=half: counts[half].append(len(given[0])))
        for half in counts
    ]
    latents = backbone.encode(torch.zeros(pictures, 3, size, size))
    assert latents.shape == (pictures, 4, size // 8, size // 8)
    with contextlib.suppress(NotImplementedError):  # the meta device has no values that the last line could bring to the CPU
        assert backbone.decode(latents).shape == (pictures, 3, size, size)
    for handle in handles:
        handle.remove()
    return counts


def test_an_accelerator_takes_a_large_picture_at_a_time_and_a_cpu_all_together(base: Path) -> None:
    """Sixteen of 512 px in float32 would take most of a small card. Shapes tell how many: the meta device stands for a card."""
    backbone = load_backbone(BaseParams(path=str(base), device="cpu", dtype="float32"))
    assert seen_by(backbone, 5, 64) == {"encoder": [5], "decoder": [5]}, "on a CPU the shape decides the last bits"
    for part in (backbone.unet, backbone.vae, backbone.text_encoder):
        part.to("meta")
    backbone.device = torch.device("meta")
    assert seen_by(backbone, 3, 512) == {"encoder": [1, 1, 1], "decoder": [1, 1, 1]}
    assert seen_by(backbone, 3, 1024) == {"encoder": [1, 1, 1], "decoder": [1, 1, 1]}
    assert seen_by(backbone, AT_ONCE // 64**2 + 1, 64) == {"encoder": [64, 1], "decoder": [64, 1]}, "small ones fill it together"
