"""From a call to images: which masks, which picture, from which trained artefacts. ``cadiff generate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from cadiff.data.readers import check_shape
from cadiff.errors import CADiffError, UsageError
from cadiff.generator import Drawn, draw_scenes, generated_row, load_generator, settings_of
from cadiff.generator.setting import reader
from cadiff.generator.train import training_of
from cadiff.masks import Placed, Placer
from cadiff.masks.folder import drawn_mask
from cadiff.params import OURS, IntensityParams, Params, first_problem
from cadiff.pictures import canvas_of
from cadiff.progress import Progress
from cadiff.records import GENERATED_SCHEMA, GeneratedRow, SampleRow, to_table
from cadiff.scene import Anomaly, Outline, Scene, union
from cadiff.seeds import derive_seed, numpy_generator
from cadiff.stages import Run
from cadiff.storage import read_image, read_json, sha256_file, write_bytes, write_image, write_json, write_table

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
    """Draws the order into ``out``.

    Writes ``out/<name>.png`` and ``out/<name>_mask.png`` (all types together); for several types also each one's
    own, ``out/masks/<type>/<name>.png``; at the end ``out/rows.parquet`` (GENERATED_SCHEMA) and
    ``out/scenes.json``: each sample_id's intensity by type, and its picture. The column ``intensity`` is null
    where an image's types have different ones.

    Raises:
        UsageError: if the product, a type, a mask or the intensity is wrong, or ``out`` holds other images.
        CADiffError: if a trained artefact is absent; it names the stage that makes it.
    """
    run = Run("generate", ordered_params(params.for_product(product), order), product, OURS)
    check_artefacts(run)
    check_order(order, read_json(run.generator / "generator.json")["types"], product)
    weights = read_weights(order)
    if order.on is not None and not order.masks and min(weights.get(kind, run.params.intensity.low) for kind in order.types) <= 0:
        raise UsageError("--on: with a w of 0 or less what is under --mask is healed; expected a --mask for each --type, found none")
    check_out(out, order.count, order.types)
    scenes = plan_scenes(run, order, weights)
    generator, settings = load_generator(run.task, run.adapted, run.generator), settings_of(run.method, run.params)
    rows: list[GeneratedRow] = []
    bar, batch, read = Progress(f"generate {product}", len(scenes)), settings.generate.batch, reader(settings)
    for start in range(0, len(scenes), batch):
        for drawn in draw_scenes(generator, settings, scenes[start : start + batch], read=read):
            rows.append(generated_row(generator, settings, drawn, stem_of(len(rows))))
            write_images(drawn, rows[-1], out)
        bar.advance(min(batch, len(scenes) - start))
    write_json(out / "scenes.json", {scene.scene_id: describe(scene) for scene in scenes})
    write_table(out / "rows.parquet", to_table(rows, GENERATED_SCHEMA))
    return rows


def write_images(drawn: Drawn, row: GeneratedRow, out: Path) -> None:
    for picture in (row.image, row.mask):
        write_bytes(out / picture["path"], picture["bytes"])
    if len(drawn.scene.anomalies) > 1:
        for anomaly in drawn.scene.anomalies:
            write_image(out / "masks" / anomaly.anomaly_type / row.image["path"], np.where(anomaly.mask, 255, 0).astype(np.uint8))


def describe(scene: Scene) -> dict[str, object]:
    intensities = dict(zip(scene.types, scene.intensities, strict=True))
    return {"intensities": intensities, "background": scene.picture.image_path if scene.picture else None}


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
        run.adapted / "adaptation.json": f"adapt@{run.product}",
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
    picture that it is set in."""
    params, placer = run.params, Placer(run.task)
    pictures = [given_picture(order.on, run)] if order.on else [row for row in run.samples if row.role == "normal"]
    check_masks(order, pictures[0])
    real = order.on is not None or params.generate.background == "real"
    scenes = []
    for stem in map(stem_of, range(order.count)):
        scene_id = f"{run.product}/{'+'.join(order.types)}/on-demand-{stem}"
        picture = pictures[int(numpy_generator(params.seed, "background", scene_id).integers(len(pictures)))]
        anomalies = []
        for number, kind in enumerate(order.types):
            rng = numpy_generator(params.seed, "intensity", scene_id, kind)
            w = weights.get(kind, float(rng.uniform(params.intensity.low, params.intensity.high)))
            if order.masks:
                mask = drawn_mask(order.masks[number], canvas_of(picture, params.dataset.size))
                anomalies.append(Anomaly(kind, Outline.of(mask), w, FILES))
            else:
                taken = union([a.outline for a in anomalies]) if anomalies else None
                placed: Placed = placer.place(kind, (params.seed, "masks", scene_id, kind), picture, taken, moved=True)
                anomalies.append(placed.anomaly(kind, w))
        template = int(numpy_generator(params.seed, "template", scene_id).integers(1 << 30))
        seed, kept = derive_seed(params.seed, "noise", scene_id), picture if real else None
        scenes.append(Scene(scene_id, run.product, tuple(anomalies), kept, kept, seed, template, edits=order.on is not None))
    return scenes


def check_masks(order: Order, picture: SampleRow) -> None:
    """A mask for a picture that the call names has that one's size."""
    for path in order.masks if order.on else ():
        if (found := read_image(path, "L").shape) != (picture.height, picture.width):
            expected = f"{picture.width}x{picture.height}"
            raise UsageError(f"{path}: expected {expected} as {order.on}, found {found[1]}x{found[0]}")


def given_picture(path: Path, run: Run) -> SampleRow:
    """The image that the call draws on, in place of the product's normals.

    Raises:
        UsageError: if it is too small or too long for any window.
    """
    levels = run.samples[0].levels
    height, width = read_image(path, levels=levels).shape[:2]
    check_shape(path, width, height)
    dataset = run.params.dataset.name
    low, high = levels or (None, None)
    return SampleRow(str(path), dataset, run.product, None, "normal", str(path), None, width, height, sha256_file(path), low, high)
