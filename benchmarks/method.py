"""Proof that each part does its work: ``python benchmarks/method.py [PART ...] [--seeds 0 1 2] [--products P ...]``.

- ``control``: where the drawn change is, with SAIM, with Eq. 10 as printed, and without. All of the window is generated, so
  that nothing but the control keeps the anomaly in its mask.
- ``intensity``: contrast inside the mask over w, and what moves outside, with and without masked and delayed focus. All of the
  window is generated here too: with a background that is kept nothing outside can move.
- ``tokens``: separation of concepts, attention of held-out anomalies against their masks, with and without each regulariser.
- ``healing``: how much of a defect is gone, against the same part drawn without it (the demo's products).

What is drawn and looked at are windows, as the base sees them (``base.size``): a scene's first, a picture's around its defect.

Every figure is one of ``cadiff.metrics.control``. Trained and drawn per seed and product at the scale of the parameters
(default: ``presets/ablations.yaml``; trainings are shared with ``benchmarks/ablations.py``). Writes tidy rows (METRIC_SCHEMA,
``variant`` is ``<part>: <setting>``) and prints means over products and seeds +- standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import inspect
import itertools
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pandas as pd
import torch
from cells import METHOD, Cell, cell_for, draw_if_demo
from jaxtyping import Bool, UInt8

from cadiff.backbone import CrossAttentionTap
from cadiff.backbone.attention import token_map
from cadiff.data.demo import SIDE
from cadiff.data.drawing.defects import DEFECTS, harmless
from cadiff.data.drawing.products import DEMO
from cadiff.data.drawing.scene import Light, develop, oversampling
from cadiff.data.images import to_tensor, to_uint8
from cadiff.errors import UsageError, exit_code
from cadiff.generator.sample import Request, sample
from cadiff.generator.windows import Piece, pieces
from cadiff.intensity import focus_side, mask_cells
from cadiff.metrics.control import attention_figures, change, control_figures, intensity_figures, separation
from cadiff.params import Params, load_params
from cadiff.pictures import read_picture, resize_mask
from cadiff.records import METRIC_SCHEMA, MetricRow, SampleRow, to_table
from cadiff.seeds import derive_seed, torch_generator
from cadiff.storage import write_table

Overrides = dict[str, dict[str, object]]
Figures = dict[str, float]
NO_START = {"start": "noise"}  # nothing is there to start from
SETTINGS: dict[str, dict[str, Overrides]] = {
    "control": {
        "SAIM": {}, "SAIM as printed": {"control": {"interaction": "literal"}}, "plain ControlNet": {"control": {"interaction": "none"}},
    },
    "intensity": {
        "full": {}, "without masked focus": {"intensity": {"masked_focus": False}},
        "without delayed focus": {"intensity": {"delayed_focus": False}},
        "without both": {"intensity": {"masked_focus": False, "delayed_focus": False}},
    },
    "tokens": {
        "both regularisers": {}, "without L_loc": {"prompt": {"localizing": False}},
        "without L_contrastive": {"prompt": {"contrastive": False}},
        "without both": {"prompt": {"localizing": False, "contrastive": False}},
    },
    "healing": {"healing, w = -1": {}, "w = -1 without healing": {}, "w = 1": {}},
}  # fmt: skip
WEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5)
NOISE_LEVELS = (200, 400, 600)
TEMPLATES = 5  # of the prompts with an anomaly


def drawn(cell: Cell, requests: Sequence[Request], silent: bool = False) -> UInt8[np.ndarray, "n h w 3"]:
    """The requests' images; ``silent``: their counterparts without the anomaly (cadiff.metrics.control)."""
    intensity = cell.params.intensity
    if silent:  # no mask in the control, the token silenced everywhere from the first step
        requests = [dataclasses.replace(r, intensities=(0.0,) * len(r.types), edits=True) for r in requests]
        intensity = intensity.model_copy(update={"masked_focus": False})
    settings = cell.params.generate.model_copy(update=NO_START) if requests[0].start is None else cell.params.generate
    return to_uint8(sample(cell.generator, requests, settings, intensity).drawn)


def at_weight(requests: Sequence[Request], w: float) -> list[Request]:
    return [dataclasses.replace(r, intensities=(w,) * len(r.types)) for r in requests]


def requests_of(cell: Cell, count: int) -> tuple[list[Request], Bool[np.ndarray, "n s s"]]:
    """The first ``count`` of each type's own scenes, their windows without a picture behind them, and the masks."""
    made, requests, masks = cell.generator, [], []
    for kind in made.tokens.types:
        for scene in [scene for scene in cell.scenes if scene.named and scene.types == (kind,)][:count]:
            mask = seen(first_piece(cell, scene.mask), cell)
            prompt = made.prompt([kind], scene.template)
            requests.append(Request(prompt, (kind,), torch.from_numpy(mask)[None], scene.intensities, scene.seed))
            masks.append(mask)
    return requests, np.stack(masks)


def first_piece(cell: Cell, mask: Bool[np.ndarray, "h w"]) -> Piece:
    return pieces(mask, cell.params.window, cell.params.base.size)[0]


def seen(piece: Piece, cell: Cell) -> Bool[np.ndarray, "s s"]:
    """A piece's mask as the base sees it."""
    return resize_mask(piece.part, (cell.params.base.size, cell.params.base.size))


def margin(cell: Cell) -> int:
    """A latent cell in pixels."""
    return cell.generator.backbone.reduction


def control(cell: Cell, setting: str, count: int) -> Figures:
    """Against two counterparts: drawn without mask and word, and, ``of_w_``, with the same mask at w = 0: what differs
    from the first is all that asking for an anomaly did, what differs from the second is what its word did."""
    requests, masks = requests_of(cell, count)
    images = drawn(cell, at_weight(requests, 1.0))
    asked = control_figures(change(images, drawn(cell, requests, silent=True)), masks, margin(cell))
    worded = control_figures(change(images, drawn(cell, at_weight(requests, 0.0))), masks, margin(cell))
    return asked | {f"of_w_{name}": value for name, value in worded.items() if name != "chance"}


def intensity(cell: Cell, setting: str, count: int) -> Figures:
    requests, masks = requests_of(cell, count)
    counterpart = drawn(cell, requests, silent=True)
    images = {w: drawn(cell, at_weight(requests, w)) for w in WEIGHTS}
    by_weight = {w: change(image, counterpart) for w, image in images.items()}
    moved = {w: change(image, images[1.0]) for w, image in images.items()}
    return intensity_figures(by_weight, moved, masks, margin(cell))


def tokens(cell: Cell, setting: str, count: int) -> Figures:
    learned = cell.generator.tokens.vectors.detach().cpu().numpy()
    vectors, concepts = contextual_vectors(cell)
    found = {f"contextual_{name}": value for name, value in separation(vectors, concepts).items()}
    found["embedding_across"] = separation(learned, np.arange(len(learned)))["across"]
    return found | {f"attention_{name}": value for name, value in held_out_attention(cell, count).items()}


@torch.no_grad()
def contextual_vectors(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """The text encoder's output at each learned token, over all types and templates, and the token's number."""
    known, backbone = cell.generator.tokens, cell.generator.backbone
    prompts = [known.prompt(backbone, [kind], template) for kind in known.types for template in range(TEMPLATES)]
    text = known.encode(backbone, prompts).float().cpu().numpy()
    pairs = [(row, concept, at) for row, prompt in enumerate(prompts) for concept, at in prompt.positions.items()]
    vectors = np.stack([text[row, at] for row, _, at in pairs])
    return vectors, np.array([known.concepts.index(concept) for _, concept, _ in pairs])


@torch.no_grad()
def held_out_attention(cell: Cell, count: int) -> Figures:
    """The anomaly token's maps (heads and layers of the focus level averaged), of the first ``count`` held-out images of
    each type at ``NOISE_LEVELS``, the control being given the mask as in generation."""
    made, backbone = cell.generator, cell.generator.backbone
    rows = [row for kind in made.tokens.types for row in _held_out(cell, kind)[:count]]
    images, masks = windows_of(cell, rows)
    prompts = [made.tokens.prompt(backbone, [str(row.anomaly_type)], 0) for row in rows]
    at = torch.tensor([prompt.positions[str(row.anomaly_type)] for prompt, row in zip(prompts, rows, strict=True)], device=backbone.device)
    latents, text = backbone.encode(to_tensor(images)), made.tokens.encode(backbone, prompts)
    control_mask = torch.from_numpy(masks)[:, None].to(backbone.device)
    side = focus_side(latents.shape[-1])
    inside = mask_cells(control_mask, side)[:, 0].cpu().numpy()
    found: list[Figures] = []
    for t in NOISE_LEVELS:
        streams = [torch_generator(0, "attention", t, row.sample_id) for row in rows]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=stream) for stream in streams]).to(latents)
        level = torch.full((len(rows),), t, device=backbone.device)
        with CrossAttentionTap(backbone.unet) as tap, backbone.autocast():
            made.control.denoise(backbone.unet, backbone.schedule.add_noise(latents, noise, level), level, text, control_mask.float())
            layers = [token_map(maps, at).float() for maps in tap.maps if maps.shape[2] == side**2]
        found.append(attention_figures(torch.stack(layers).mean(0).cpu().numpy(), inside))
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


def windows_of(cell: Cell, rows: Sequence[SampleRow]) -> tuple[UInt8[np.ndarray, "n s s 3"], Bool[np.ndarray, "n s s"]]:
    """Pictures around their defects, and the masks, as the base sees them."""
    found = []
    for row in rows:
        picture = read_picture(row, cell.params.dataset.size)
        piece = first_piece(cell, picture.mask)
        found.append((piece.window.picture(picture.image, cell.params.base.size), seen(piece, cell)))
    images, masks = (np.stack(each) for each in zip(*found, strict=True))
    return images, masks


def _held_out(cell: Cell, kind: str) -> list:
    return [row for row in cell.samples if row.role == "held_out" and row.anomaly_type == kind]


def twins(product: str, kind: str, seed: int, size: int) -> tuple[np.ndarray, np.ndarray, Bool[np.ndarray, "h w"]]:
    """The same part under the same light with and without a defect, and where they differ by more than grain."""
    rng = np.random.default_rng(derive_seed(seed, "twins", product, kind))
    k = oversampling(size)
    scene = DEMO[product].build(rng, size * k)
    harmless(scene, rng)
    light, grain = Light.drawn(rng, DEMO[product].vary), int(rng.integers(1 << 30))
    good, _ = develop(copy.deepcopy(scene), light, np.random.default_rng(grain), k)
    (DEMO[product].kinds.get(kind) or DEFECTS[kind])(scene, rng)
    bad, mask = develop(scene, light, np.random.default_rng(grain), k)
    return bad, good, mask


def healing(cell: Cell, setting: str, count: int) -> Figures:
    """``before`` and ``after``: mean difference from the good twin inside the mask, in shares of the range; ``left``: what is
    left of it. Below 1 the part is nearer to its good twin than it was. ``codec`` is what the autoencoder alone leaves, ``redrawn``
    what the same leaves of the good twin itself: a mask's inside is drawn from noise, and no two surfaces are alike in each pixel."""
    if cell.product not in DEMO:
        return {}
    made = cell.generator
    size, canvas = cell.params.base.size, SIDE if cell.params.dataset.size == "native" else cell.params.dataset.size
    cases = []
    for kind, number in itertools.product(made.tokens.types, range(count)):
        bad_one, good_one, mask = twins(cell.product, kind, number, canvas)
        if mask.any():
            piece = first_piece(cell, mask)
            cases.append((kind, piece.window.picture(bad_one, size), piece.window.picture(good_one, size), seen(piece, cell)))
    bad, good, masks = (np.stack([case[i] for case in cases]) for i in (1, 2, 3))
    latents, heals = made.backbone.encode(to_tensor(bad)), setting.startswith("healing")
    w = 1.0 if setting == "w = 1" else -1.0
    requests = [
        Request(made.tokens.prompt(made.backbone, [kind], 0), (kind,), torch.from_numpy(mask)[None], (w,), k, latents[k], heals)
        for k, (kind, _, _, mask) in enumerate(cases)
    ]
    known = made.backbone.encode(to_tensor(good))
    again = [dataclasses.replace(request, background=latent) for request, latent in zip(requests, known, strict=True)]
    rounded = to_uint8(made.backbone.decode(known))

    def off(images: np.ndarray) -> float:
        return float(((change(images, good) * masks).sum((1, 2)) / masks.sum((1, 2))).mean())

    before, after = off(bad), off(drawn(cell, requests))
    return {"before": before, "after": after, "left": after / before, "codec": off(rounded), "redrawn": off(drawn(cell, again))}


PARTS: dict[str, Callable[[Cell, str, int], Figures]] = {
    "control": control, "intensity": intensity, "tokens": tokens, "healing": healing,
}  # fmt: skip


def with_settings(params: Params, part: str) -> Params:
    """The parameters with the part's settings as their variants."""
    return params.with_variants(SETTINGS[part])


def measure(params: Params, part: str, products: list[str], seeds: list[int], count: int, work: Path) -> Iterator[list[MetricRow]]:
    """A part's rows, those of one setting after those of another."""
    draw_if_demo(params, products)
    for seed, product, setting in itertools.product(seeds, products, SETTINGS[part]):
        yield measured_rows(cell_for(with_settings(params, part), product, seed, work, setting), part, setting, count, PARTS[part])


def measured_rows(cell: Cell, part: str, setting: str, count: int, measured: Callable[[Cell, str, int], Figures]) -> list[MetricRow]:
    """A part's figures of one setting; what an earlier run left of them is taken as it is (``Cell.figures``)."""
    code = [Path(__file__), Path(inspect.getfile(Cell)), Path(inspect.getfile(measured))]
    found = cell.figures([part, setting, count], code, lambda: measured(cell, setting, count))
    digested = cell.params.digest_of("base", "window", "adapt", "prompt", "control", "train", "intensity", "generate")
    print(f"seed {cell.params.seed} {cell.product} {part}: {setting}", flush=True)
    return [
        MetricRow(cell.params.dataset.name, cell.product, METHOD, f"{part}: {setting}", name, value, cell.params.seed, count,
                  cell.params.detector.protocol, None, digested) for name, value in found.items()
    ]  # fmt: skip


def table(frame: pd.DataFrame, part: str) -> list[str]:
    """A Markdown table: settings by figures, mean over products and seeds +- standard deviation over seeds."""
    own = frame[frame["variant"].str.startswith(f"{part}: ")]
    if own.empty:
        return []
    names = list(dict.fromkeys(own["metric"]))
    lines = [f"| {part} | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for variant in dict.fromkeys(own["variant"]):
        cells = []
        for name in names:
            by_seed = own[(own["variant"] == variant) & (own["metric"] == name)].groupby("seed")["value"].mean()
            cells.append(f"{by_seed.mean():.3f} +- {by_seed.std(ddof=1):.3f}")
        lines.append(f"| {variant.partition(': ')[2]} | " + " | ".join(cells) + " |")
    return lines


def run_parts(
    description: str | None, known_parts: Collection[str], measured: Callable[..., Iterator[list[MetricRow]]], out: str,
    arguments: Sequence[str] | None, may_be_small: bool = False,
) -> None:  # fmt: skip
    """The command line of a script of parts: measures those that are asked for, one after the other. It writes METRIC_SCHEMA to ``out``
    (``{dataset}`` in it is the data set's name) after each setting, and prints each part's table when that is done: one that is stopped
    leaves what it has. Called again, it goes on."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(known_parts)}; default: all")
    parser.add_argument("--params", type=Path, default=Path("presets/ablations.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--products", nargs="+", default=[])
    parser.add_argument("--count", type=int, default=8, help="images of each anomaly type")
    parser.add_argument("--out", type=Path, help=f"default: {out.format(dataset='DATASET')}")
    parser.add_argument("--work", type=Path, default=Path(".cadiff/cells"))
    if may_be_small:
        parser.add_argument("--small", action="store_true", help="less of everything: for one CPU core")
    options = parser.parse_args(arguments)

    def work() -> None:
        params = load_params(options.params)
        for what, given, known in (("PART", options.parts, known_parts), ("--products", options.products, params.products)):
            if unknown := [name for name in given if name not in known]:
                raise UsageError(f"{what} {unknown[0]}: unknown; there are {', '.join(known)}")
        products, parts = options.products or list(params.products), options.parts or list(known_parts)
        target = options.out or Path(out.format(dataset=params.dataset.name))
        rows: list[MetricRow] = []
        more = {"small": options.small} if may_be_small else {}
        for part in parts:
            for own in measured(params, part, products, options.seeds, options.count, options.work, **more):
                rows += own
                write_table(target, to_table(rows, METRIC_SCHEMA))
            frame = pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=METRIC_SCHEMA.names)
            print("\n".join(["", *table(frame, part), ""]), flush=True)

    sys.exit(exit_code(work))


def main(arguments: Sequence[str] | None = None) -> None:
    run_parts(__doc__, PARTS, measure, "reports/method.parquet", arguments)


if __name__ == "__main__":
    main()
