"""Can the seam be told? ``python benchmarks/seam.py PRODUCT [--folder data/made] [--method cadiff]``, after a run with ``generate.redraw``.

A detector must not learn drawing itself: normals in which a place was drawn anew and nothing was asked for must look like
untouched ones. Two classifiers try to tell them: crops of both, of the same normals at the same places, are described by

- ``network``: EfficientNet-Lite0's features at strides 2, 4 and 8 of the crop's own pixels, what is fine in them made loud: their
  means and deviations inside of the mask and around it, and what is between the two;
- ``grain``: statistics of what is left above three smoothings (how much, how heavy its tails, how alike neighbours and colours).

A logistic regression learns on one half of the normals and names the other half, then the other way round. Prints the AUROC of each
(0.5: cannot be told), and its standard deviation over resampled normals. The control shows that they could: of the same crops with the
whole window sent through the autoencoder and nothing else (AUROC above 0.9), or the benchmark says nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cadiff  # noqa: F401  (makes torchvision importable before anything asks for it)

# isort: split

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage, stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cadiff.backbone import Backbone
from cadiff.data.images import to_tensor, to_uint8
from cadiff.errors import CADiffError, UsageError, exit_code
from cadiff.generator import load_adapted
from cadiff.generator.windows import box_of, pieces
from cadiff.metrics import imagenet
from cadiff.metrics.ranking import auroc
from cadiff.params import Params, load_params
from cadiff.pictures import read_picture, resize_picture
from cadiff.records import GENERATED_SCHEMA, REDRAWN, SAMPLE_SCHEMA, SCENE_SCHEMA, SampleRow, from_table
from cadiff.seeds import numpy_generator
from cadiff.stages import MADE
from cadiff.storage import decode_image, read_batches, read_table

SMALLEST, LARGEST = 64, 128  # px of a crop's side
BESIDE = 8  # px around a mask: what is compared with what is in it
STRIDES = (0, 2, 4)  # the network's last blocks at strides 2, 4 and 8
SMOOTHINGS = (0.7, 1.5, 3.0)  # px
LOUDER = 8  # times: what is fine, before the network sees it
STRENGTHS = (0.01, 0.1, 1.0)  # of the regression, of which the learned half's own halves choose
TOLD = 0.9  # AUROC of the control from which the classifiers are known to be able
LEAST = 8  # normals
RESAMPLED = 200

Crop = UInt8[np.ndarray, "s s 3"]
Describe = Callable[[Crop, Bool[np.ndarray, "s s"]], Float[np.ndarray, " d"]]


@dataclass(frozen=True)
class Case:
    """Crops of one place of a normal: as it is, with the place drawn anew, and with the window through the autoencoder alone; and the
    mask."""

    untouched: Crop
    redrawn: Crop
    coded: Crop
    mask: Bool[np.ndarray, "s s"]


def cases(params: Params, product: str, made: Path, method: str, base: Backbone) -> Iterator[Case]:
    """Of each redrawn normal whose picture is the normal's own (one that stays in its exemplar's picture has none untouched)."""
    normals = {row.sample_id: row for row in from_table(read_table(made / "samples" / f"{product}.parquet", SAMPLE_SCHEMA), SampleRow)}
    columns = ["scene_id", "named", "masks"]
    rows = read_table(made / "scenes" / method / f"{product}.parquet", SCENE_SCHEMA, columns).to_pylist()
    places = {row["scene_id"]: row["masks"] for row in rows if not row["named"]}
    for batch in read_batches(made / "generated" / method / product / "good.parquet", GENERATED_SCHEMA, 8):
        for row in batch.to_pylist():
            if row["mask_source"] != REDRAWN or row["normal_id"] is None:
                continue
            if row["sample_id"] not in places:
                raise CADiffError(f"{made}: {row['sample_id']}: expected its scene in the scenes' table, found none. Rerun generate.")
            mask = np.any([decode_image(each["bytes"], "L") > 127 for each in places[row["sample_id"]]], axis=0)
            untouched = read_picture(normals[row["normal_id"]], params.dataset.size).image
            redrawn = decode_image(row["image"]["bytes"], "RGB", row["sample_id"])
            place = crop_around(mask)
            yield Case(untouched[place], redrawn[place], coded(untouched, mask, params, base)[place], mask[place])


def crop_around(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """A square around a mask with as much again beside it, within the picture and the sizes that are looked at."""
    top, left, bottom, right = box_of(mask)
    side = min(int(np.clip(2 * max(bottom - top, right - left), SMALLEST, LARGEST)), *mask.shape)
    starts = (int(np.clip((low + high - side) // 2, 0, length - side))
              for low, high, length in ((top, bottom, mask.shape[0]), (left, right, mask.shape[1])))  # fmt: skip
    row, column = starts
    return slice(row, row + side), slice(column, column + side)


def coded(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], params: Params, base: Backbone) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the windows of a mask as the autoencoder gives them back."""
    copy, size = image.copy(), params.base.size
    for piece in pieces(mask, params.window, size):
        seen = to_tensor(piece.window.picture(image, size)[None])
        given = to_uint8(base.decode(base.encode(seen)))[0]
        piece.window.of(copy)[:] = resize_picture(given, (piece.window.height, piece.window.width))
    return copy


# 1. What is looked at


@cache
def encoder() -> torch.nn.Module:
    return imagenet.build().eval()


@torch.inference_mode()
def network_features(crop: Crop, mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " d"]:
    """Means and log deviations of the network's features in the mask, around it, and the differences; at the crop's own resolution, and
    of its fine part alone, made loud: a network that knows objects hears little of grain beside them."""
    network = encoder()
    fine = crop - ndimage.gaussian_filter(crop.astype(np.float32), (1.5, 1.5, 0))
    x = torch.from_numpy(np.ascontiguousarray(fine * (LOUDER / 128), np.float32)).permute(2, 0, 1)[None]
    x, found = network._swish(network._bn0(network._conv_stem(x))), []
    for index, block in enumerate(network._blocks[: STRIDES[-1] + 1]):
        x = block(x)
        if index in STRIDES:
            found.append(pooled(x[0].numpy(), mask))
    return np.concatenate(found)


def pooled(maps: Float[np.ndarray, "c h w"], mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " d"]:
    inside, around = (cells(each, maps.shape[1:]) for each in regions(mask))
    figures = []
    for region in (inside, around):
        values = maps[:, region]
        figures.append(np.concatenate([values.mean(1), np.log(values.std(1) + 0.01)]))
    return np.concatenate([*figures, figures[0] - figures[1]])


def regions(mask: Bool[np.ndarray, "s s"]) -> tuple[Bool[np.ndarray, "s s"], Bool[np.ndarray, "s s"]]:
    """Where was drawn, and what lies around it (all, where the mask is the crop)."""
    around = ndimage.binary_dilation(mask, iterations=BESIDE) & ~mask
    return (mask if mask.any() else ~mask), (around if around.any() else np.ones_like(mask))


def cells(region: Bool[np.ndarray, "s s"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """The feature cells that a region touches."""
    found = np.zeros(shape, bool)
    rows, columns = np.nonzero(region)
    found[rows * shape[0] // region.shape[0], columns * shape[1] // region.shape[1]] = True
    return found


def grain_features(crop: Crop, mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " d"]:
    """Statistics of what is above each smoothing, in the mask and against its surroundings."""
    image, figures = crop.astype(np.float64), []
    for smoothing in SMOOTHINGS:
        fine = image - ndimage.gaussian_filter(image, (smoothing, smoothing, 0))
        inside, around = (grain_of(fine, region) for region in regions(mask))
        figures += [inside, inside - around]
    return np.concatenate(figures)


def grain_of(fine: Float[np.ndarray, "s s 3"], region: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, " d"]:
    """Log deviation of each channel, tails, how alike neighbours are along rows and columns, and red and blue to green."""
    values = fine[region]
    grey = fine.mean(-1)
    beside = []
    for axis in (0, 1):
        both = region & np.roll(region, -1, axis)
        beside.append(correlation(grey[both], np.roll(grey, -1, axis)[both]))
    tails = float(stats.kurtosis(grey[region])) if region.sum() > 3 and grey[region].std() > 0 else 0.0
    colours = [correlation(values[:, channel], values[:, 1]) for channel in (0, 2)]
    return np.array([*np.log(values.std(0) + 0.1), np.arcsinh(tails), *beside, *colours])


def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 0 else 0.0


DESCRIBED: dict[str, Describe] = {"network": network_features, "grain": grain_features}


# 2. Whether it can be told


def told(
    untouched: Sequence[Crop], other: Sequence[Crop], masks: Sequence[Bool[np.ndarray, "s s"]], describe: Describe
) -> tuple[float, float]:
    """Mean AUROC of the two halves, each named by what learned on the other; and its deviation over resampled normals."""
    features = np.stack([[turned(describe, crop, mask) for crop, mask in zip(crops, masks, strict=True)] for crops in (untouched, other)])
    order = numpy_generator(0, "seam").permutation(len(masks))
    halves = np.array_split(order, 2)
    scores = [scored(features[:, learned], features[:, held]) for learned, held in (halves, halves[::-1])]
    rng = numpy_generator(0, "seam", "resampled")
    resampled = []
    for _ in range(RESAMPLED):
        picks = [rng.integers(0, each.shape[1], each.shape[1]) for each in scores]
        resampled.append(np.mean([ranked(each[:, pick]) for each, pick in zip(scores, picks, strict=True)]))
    return float(np.mean([ranked(each) for each in scores])), float(np.std(resampled))


def turned(describe: Describe, crop: Crop, mask: Bool[np.ndarray, "s s"]) -> Float[np.ndarray, "4 d"]:
    """A crop's description in four turns and mirrorings: few normals become more to learn from."""
    views = [(crop, mask), (crop[:, ::-1], mask[:, ::-1]), (crop[::-1], mask[::-1]), (crop[::-1, ::-1], mask[::-1, ::-1])]
    return np.stack([describe(np.ascontiguousarray(image), np.ascontiguousarray(marked)) for image, marked in views])


def scored(learned: Float[np.ndarray, "2 n 4 d"], held: Float[np.ndarray, "2 m 4 d"]) -> Float[np.ndarray, "2 m"]:
    """How much each held-out crop (untouched, other) looks drawn to a regression that saw the others, mean over its views."""
    first, second = np.array_split(np.arange(learned.shape[1]), 2)
    inner = [ranked(judged(fitted_on(learned[:, first], c), learned[:, second])) for c in STRENGTHS]
    return judged(fitted_on(learned, STRENGTHS[int(np.argmax(inner))]), held)


def fitted_on(features: Float[np.ndarray, "2 n 4 d"], strength: float) -> Callable[[np.ndarray], np.ndarray]:
    flat = features.reshape(-1, features.shape[-1])
    labels = np.repeat([0, 1], len(flat) // 2)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(flat, labels)
    return model.decision_function


def judged(decide: Callable[[np.ndarray], np.ndarray], features: Float[np.ndarray, "2 n 4 d"]) -> Float[np.ndarray, "2 n"]:
    return decide(features.reshape(-1, features.shape[-1])).reshape(features.shape[:3]).mean(-1)


def ranked(scores: Float[np.ndarray, "2 n"]) -> float:
    """AUROC of the second row against the first."""
    return auroc(np.repeat([False, True], scores.shape[1]), scores.ravel())


def measure(found: Sequence[Case]) -> Iterator[tuple[str, str, float, float]]:
    """Each classifier's AUROC and deviation, of the control and of what is asked."""
    masks, untouched = [case.mask for case in found], [case.untouched for case in found]
    for name, describe in DESCRIBED.items():
        yield name, "control", *told(untouched, [case.coded for case in found], masks, describe)
        yield name, "redrawn", *told(untouched, [case.redrawn for case in found], masks, describe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product")
    parser.add_argument("--folder", type=Path, default=MADE, help="what the stages made")
    parser.add_argument("--method", default="cadiff")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    options = parser.parse_args()

    def work() -> None:
        params = load_params(options.params).for_product(options.product)
        base = load_adapted(params, options.folder / "adapted" / options.product)
        found = list(cases(params, options.product, options.folder, options.method, base))
        if len(found) < LEAST:
            raise UsageError(
                f"{options.folder}: expected at least {LEAST} normals with a place drawn anew, found {len(found)}; "
                "set generate.redraw: true and masks.placement other than in_place, and run generate"
            )
        sides = [len(case.mask) for case in found]
        print(f"{options.product}: {len(found)} normals, crops of {min(sides)} to {max(sides)} px")
        for name, what, value, spread in measure(found):
            weak = "  (the classifier cannot tell: its other figure says nothing)" if what == "control" and value < TOLD else ""
            print(f"{name} {what}: AUROC {value:.3f} +- {spread:.3f}{weak}", flush=True)

    sys.exit(exit_code(work))


if __name__ == "__main__":
    main()
