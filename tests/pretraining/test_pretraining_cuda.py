"""What holds on an NVIDIA GPU: recorded passes give the gradients of the passes themselves."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cadiff.backbone import EMBEDDED, load_backbone
from cadiff.params import BaseParams
from cadiff.pretraining.diffusion import Parts
from cadiff.pretraining.graphs import Figures, RecordedPasses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine")


class Shown(NamedTuple):
    latents: Tensor
    ids: Tensor
    mask: Tensor | None


def test_recorded_passes_are_the_passes() -> None:
    """Of the embedded base, with and without its control, for inputs that the recording did not see and weights changed since."""
    parts = Parts.of(load_backbone(BaseParams(path=str(EMBEDDED), size=64, device="cuda", dtype="float32")))
    parameters = [p for module in parts.modules.values() for p in module.parameters()]
    t = torch.full((2,), 500, device="cuda")

    def passes(shown: Shown) -> Figures:
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast("cuda", torch.bfloat16):
            text = parts.text(shown.ids)[0]
            if shown.mask is None:
                out = parts.unet(shown.latents, t, text).sample
            else:
                out = parts.control.denoise(parts.unet, shown.latents, t, text, shown.mask)
        loss = out.float().square().mean()
        loss.backward()
        return {"loss": loss.detach()}

    def drawn(seed: int, masked: bool) -> Shown:
        torch.manual_seed(seed)
        mask = F.interpolate((torch.rand(2, 1, 8, 8) < 0.2).float(), 64).cuda() if masked else None
        return Shown(torch.randn(2, 24, 16, 16).cuda(), torch.randint(0, 50, (2, 32)).cuda(), mask)

    def compare(seed: int, masked: bool) -> None:
        said = drawn(seed, masked)
        found = recorded(said)["loss"].item()
        gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
        assert found == pytest.approx(passes(said)["loss"].item(), rel=1e-2)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None), "what has no part in these passes has no gradient"
        flat = [nn.utils.parameters_to_vector([g for g in of if g is not None]) for of in (gradients, [p.grad for p in parameters])]
        assert F.cosine_similarity(*flat, dim=0) > 0.99

    recorded = RecordedPasses(passes, parameters)
    for seed, masked in enumerate((False, True, False, True)):
        compare(seed, masked)
    with torch.no_grad():
        parts.unet.conv_in.weight.mul_(1.5)
    compare(9, True)
