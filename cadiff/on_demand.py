"""From a call to scenes: which masks, which background, from which trained artefacts. ``cadiff generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cadiff.errors import CADiffError, UsageError
from cadiff.generator.on_demand import Scene, draw_on_demand
from cadiff.generator.planting import cuttings
from cadiff.generator.train import training_of
from cadiff.masks import mask_of, placed_mask
from cadiff.masks.exemplars import ProductFinder
from cadiff.masks.folder import read_mask
from cadiff.params import IntensityParams, Params, first_problem
from cadiff.records import GeneratedRow, SampleRow
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.stages import Run
from cadiff.storage import read_image, read_json, sha256_file

FILES = "files"  # mask_source of masks that the call names


@dataclass(frozen=True)
class Order:
    """What to draw: ``count`` images with all of ``types`` in each.

    ``masks`` are files, one per type in the order of the types (none: drawn as for the shards); ``on`` is the
    image to draw on (none: a real normal, where generate.background is real). ``weights`` are ``TYPE=W``, the w of one
    type; the others' are drawn from ``intensity``. None elsewhere: as the parameters say.
    """

    types: tuple[str, ...]
    count: int = 1
    intensity: tuple[float, float] | None = None
    masks: tuple[Path, ...] = ()
    on: Path | None = None
    seed: int | None = None
    steps: int | None = None
    weights: tuple[str, ...] = ()


def generate_on_demand(params: Params, product: str, order: Order, out: Path) -> list[GeneratedRow]:
    """Draws the order into ``out``, as ``cadiff.generator.on_demand.draw_on_demand`` writes it.

    Raises:
        UsageError: if the product, a type, a mask or the intensity is wrong, or ``out`` holds other images.
        CADiffError: if a trained artefact is absent; it names the stage that makes it.
    """
    run = Run("generate", ordered_params(params.for_product(product), order), product, "cadiff")
    check_artefacts(run)
    check_order(order, read_json(run.generator / "generator.json")["types"], product)
    weights = read_weights(order)
    if order.on is not None and not order.masks and min(weights.get(kind, run.params.intensity.low) for kind in order.types) <= 0:
        raise UsageError("--on: with a w of 0 or less what is under --mask is healed; expected a --mask for each --type, found none")
    check_out(out, order.count, order.types)
    scenes = plan_scenes(run, order, weights)
    return draw_on_demand(run.params, product, run.adapted, run.generator, scenes, out)


def ordered_params(params: Params, order: Order) -> Params:
    """The parameters with the order's own seed, steps and range of intensity."""
    changes: dict[str, object] = {}
    if order.seed is not None:
        changes["seed"] = order.seed
    if order.steps is not None:
        changes["generate"] = params.generate.model_copy(update={"steps": order.steps})
    if order.intensity is not None:
        low, high = order.intensity
        try:
            changes["intensity"] = IntensityParams(**{**params.intensity.model_dump(), "low": low, "high": high})
        except ValidationError as error:
            raise UsageError(f"--intensity: {first_problem(error)}") from None
    return params.model_copy(update=changes)


def check_artefacts(run: Run) -> None:
    made_by = {
        run.samples_path: f"samples@{run.product}",
        run.adapted / "adaptation.json": f"adapt@{run.product}-{run.method}",
        run.generator / "generator.json": f"train@{run.product}-{run.method}",
    }
    for path, stage in reversed(made_by.items()):  # the last one that is missing brings those before it
        if not path.is_file():
            raise CADiffError(f"{path}: expected this artefact, but it is not there. Run `dvc repro {stage}`.")
    path, stage = run.generator / "generator.json", f"train@{run.product}-{run.method}"
    recorded = read_json(path).get("params", {})
    for section, values in training_of(run.params).items():  # else its rows would name a training that never was
        for key, value in values.items():
            found = recorded.get(section, {}).get(key)
            if found != value:
                raise CADiffError(f"{path}: trained with {section}.{key}: {found}, the parameters say {value}. Run `dvc repro {stage}`.")


def check_order(order: Order, known: list[str], product: str) -> None:
    for kind in order.types:
        if kind not in known:
            raise UsageError(f"--type {kind}: {product} has no such anomaly type; types are {', '.join(known)}")
        if order.types.count(kind) > 1:
            raise UsageError(f"--type {kind}: expected once, found {order.types.count(kind)} times; each type has one mask")
    if order.masks and len(order.masks) != len(order.types):
        raise UsageError(f"--mask: expected one file for each --type ({len(order.types)}) or none, found {len(order.masks)}")


def read_weights(order: Order) -> dict[str, float]:
    """Each type's own w, where the call names one."""
    found: dict[str, float] = {}
    for text in order.weights:
        kind, _, value = text.rpartition("=")
        if kind not in order.types or kind in found:
            raise UsageError(f"--w {text}: expected TYPE=W, each TYPE one of this call's and once; they are {', '.join(order.types)}")
        try:
            found[kind] = float(value)
            IntensityParams(low=found[kind], high=found[kind])  # holds the range of w
        except ValueError:
            raise UsageError(f"--w {text}: expected a number within -2 to 2 after the =, found {value!r}") from None
    return found


def check_out(out: Path, count: int, types: Sequence[str]) -> None:
    """An earlier call's images beside this one's would look like this one's."""
    ours = {f"{stem}{end}.png" for stem in map(stem_of, range(count)) for end in ("", "_mask")}
    ours |= {f"masks/{kind}/{stem_of(index)}.png" for kind in types for index in range(count)}
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: expected a folder, found a file")
    there = [path.relative_to(out).as_posix() for path in (*out.glob("*.png"), *out.glob("masks/*/*.png"))]
    others = sorted(name for name in there if name not in ours)
    if others:
        raise UsageError(f"{out}: holds {len(others)} other images ({others[0]}, ...). Name another folder or remove them.")


def stem_of(index: int) -> str:
    return f"{index:04}"


def plan_scenes(run: Run, order: Order, weights: dict[str, float]) -> list[Scene]:
    """Scene k depends on the seed, the product, the types and k alone. All masks of a scene are placed on the
    picture that is its background."""
    params = run.params
    pictures = [given_picture(order.on, run)] if order.on else [row for row in run.samples if row.role == "normal"]
    exemplars = [row for row in run.samples if row.role == "exemplar"]
    given = [read_mask(path, params.base.size) for path in order.masks]
    for path in order.masks if order.on else ():
        if (found := read_image(path, "L").shape) != (pictures[0].height, pictures[0].width):
            expected = f"{pictures[0].width}x{pictures[0].height}"
            raise UsageError(f"{path}: expected {expected} as {order.on}, found {found[1]}x{found[0]}")
    find, by_id = ProductFinder(params.base.size), {row.sample_id: row for row in exemplars}
    keeps = order.on is not None or params.generate.background == "real"
    scenes = []
    for stem in map(stem_of, range(order.count)):
        sample_id = f"{run.product}/{'+'.join(order.types)}/on-demand-{stem}"
        picture = pictures[int(numpy_generator(params.seed, "background", sample_id).integers(len(pictures)))]
        masks, source, placed = dict(zip(order.types, given, strict=False)), FILES, []
        if not given:
            own = params.model_copy(update={"seed": derive_seed(params.seed, "masks", sample_id)})
            placed = [placed_mask(own, run.product, [picture], exemplars, kind, find) for kind in order.types]
            masks = {row.anomaly_type: mask_of(row) for row in placed}
            source = " + ".join(dict.fromkeys(row.mask_source for row in placed))
        background = Path(picture.image_path) if keeps else None
        chosen = cuttings(params, read_image(picture.image_path, "RGB", params.base.size), placed, by_id)
        scenes.append(Scene(stem, sample_id, masks, source, background, order.on is not None, weights, chosen))
    return scenes


def given_picture(path: Path, run: Run) -> SampleRow:
    """The image that the call draws on, in place of the product's normals."""
    height, width = read_image(path).shape[:2]
    dataset = run.params.dataset.name
    return SampleRow(str(path), dataset, run.product, None, "normal", str(path), None, width, height, sha256_file(path))
