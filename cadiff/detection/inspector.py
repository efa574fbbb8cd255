"""A trained detector applied to any picture: a verdict, a score, a type, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Num, UInt8
from PIL import Image
from scipy import ndimage

from cadiff.data.readers import check_shape
from cadiff.decoding import ORIENTATION, check_depth, shown
from cadiff.detection.classifier import Classifier, classes_of, load_classifier
from cadiff.detection.measuring import resized
from cadiff.detection.networks import network_of
from cadiff.detection.segmenter import Segmenter
from cadiff.detection.trained import Trained, find_trained, read_trained
from cadiff.detection.unet import place
from cadiff.devices import pick_device
from cadiff.errors import CADiffError, UsageError
from cadiff.pictures import Size, fitted, resize_picture
from cadiff.records import Levels
from cadiff.storage import read_tensors, read_values
from cadiff.thresholds import Thresholds

Pixels = UInt8[np.ndarray, "h w 3"]
Given = str | Path | Image.Image | Num[np.ndarray, "h w 3"] | Num[np.ndarray, "h w"]
EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass(frozen=True)
class Region:
    """A connected area (by sides or corners) that is marked, in px of the picture: its bounding box, how many px are marked in it, and
    the largest value of the heat map there."""

    left: int
    top: int
    width: int
    height: int
    area: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """What is said of a picture. ``defective`` is whether ``score`` lies above ``threshold``; both None where the detector was not
    calibrated. ``anomaly_type`` is the classifier's, None for a good picture and where none was trained. ``regions``, the largest first,
    are those of ``mask``, in which nothing is marked unless the picture is defective. ``heat`` is the probability of anomaly."""

    defective: bool | None
    score: float
    threshold: float | None
    anomaly_type: str | None
    regions: list[Region]
    mask: Bool[np.ndarray, "h w"]
    heat: Float[np.ndarray, "h w"]


@dataclass(frozen=True)
class Inspector:
    """A trained detector with its classifier, if it has one (``load_detector``)."""

    trained: Trained
    segmenter: Segmenter
    classifier: Classifier | None

    def predict(self, image: Given) -> Prediction:
        """What is said of a picture: a file's path, a Pillow image, or pixels (``h w 3`` or ``h w``; uint8, of a detector with
        ``trained.levels`` what its camera gives), of any size.

        It is read and brought to the detector's scale as pictures are in training.

        Raises:
            UsageError: if it is too small, too long, or no such picture.
            CADiffError: if the file is absent, does not decode, would lose something (transparency), or has another depth than the
                detector was trained on.
        """
        return self.predict_all([pixels_of(image, self.trained.levels)])[0]

    def predict_all(self, images: Sequence[Pixels]) -> list[Prediction]:
        """The same of several pictures, each as if it were alone."""
        view = self.trained.view
        canvases = [brought_to(image, view.canvas) for image in images]
        scores = self.segmenter.score_images([brought_to(canvas, view.seen) for canvas in canvases])
        return [
            self._said((image.shape[0], image.shape[1]), canvas, map_, float(score))
            for image, canvas, map_, score in zip(images, canvases, scores.maps, scores.images, strict=True)
        ]

    def _said(self, shape: tuple[int, int], canvas: Pixels, map_: Float[np.ndarray, "h w"], score: float) -> Prediction:
        heat, thresholds = resized(map_, shape), self.trained.thresholds
        if thresholds is None:
            return Prediction(None, score, None, None, [], np.zeros(shape, bool), heat)
        threshold = thresholds.image.value
        if score <= threshold:
            return Prediction(False, score, threshold, None, [], np.zeros(shape, bool), heat)
        mask = marked(heat, thresholds)
        return Prediction(True, score, threshold, self._type(canvas), regions_of(mask, heat), mask, heat)

    def _type(self, canvas: Pixels) -> str | None:
        card = self.trained.classifier
        if card is None or self.classifier is None:
            return None
        return card.classes[int(classes_of(self.classifier, [canvas], card.side)[0])]


def load_detector(path: str | Path, seed: int | None = None, device: str = "auto") -> Inspector:
    """The trained detector in a folder (``data/made/detectors/<method>/<product>``: of ``seed``, or the lowest that is there), or that of
    a ``seed-<s>.json`` or ``seed-<s>.safetensors``.

    Raises:
        UsageError: if there is none, or the device is not here.
        CADiffError: if its files are not whole, or not of one training.
    """
    found = find_trained(path, seed)
    trained, on = read_trained(found), pick_device(device)
    tensors, metadata = read_tensors(found.with_suffix(".safetensors"))
    if (metadata.get("made_by"), metadata.get("network")) != (trained.made_by, trained.network):
        raise CADiffError(f"{found.with_suffix('.safetensors')}: not the weights that {found} is about. Train again (dvc repro).")
    model = network_of(trained.network).build(trained.settings, False)
    model.load_state_dict(tensors)
    segmenter = Segmenter(place(model, on).eval(), trained.view, trained.pooling, trained.network)
    return Inspector(trained, segmenter, _classifier(trained, found, on))


def _classifier(trained: Trained, path: Path, device: torch.device) -> Classifier | None:
    if trained.classifier is None:
        return None
    return load_classifier(trained.classifier, path.with_name(f"classifier-{trained.seed}.safetensors"), device)


def brought_to(image: Pixels, size: Size) -> Pixels:
    """A picture at another size of its shorter side."""
    return resize_picture(image, fitted(image.shape[0], image.shape[1], size))


def marked(heat: Float[np.ndarray, "h w"], thresholds: Thresholds) -> Bool[np.ndarray, "h w"]:
    """The pixels of a defective picture that are marked: those above the pixel threshold; where none is, those above the image's; where
    enlarging has levelled the peak below that too, the largest."""
    for threshold in (thresholds.pixel, thresholds.image):
        mask: np.ndarray = heat > threshold.value
        if mask.any():
            return mask
    highest: np.ndarray = heat == heat.max()
    return highest


def regions_of(mask: Bool[np.ndarray, "h w"], heat: Float[np.ndarray, "h w"]) -> list[Region]:
    """The connected areas of a mask, the largest first, those of one size from the top left on."""
    labels, _ = ndimage.label(mask, EIGHT_NEIGHBOURS)
    found = []
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        own = labels[window] == label
        rows, columns = window
        found.append(
            Region(
                columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start, int(own.sum()),
                float(heat[window][own].max()),
            )
        )  # fmt: skip
    return sorted(found, key=lambda region: -region.area)


def pixels_of(image: Given, levels: Levels | None = None) -> Pixels:
    """A picture's pixels (uint8, ``h w 3``), as those that a detector is trained on are read; ``levels`` are the detector's.

    Raises:
        UsageError: if it is too small, too long, or no such picture.
        CADiffError: if the file is absent, does not decode, would lose something, or has another depth than ``levels`` are for.
    """
    if isinstance(image, str | Path):
        name, values = str(image), read_values(image)
    elif isinstance(image, Image.Image):
        name, values = "the image", _of_pillow(image)
    else:
        name, values = "the array", _array(np.asarray(image), levels)
    check_shape(name, values.shape[1], values.shape[0])
    return shown(check_depth(values, levels, name), levels, name)


def _array(values: np.ndarray, levels: Levels | None) -> np.ndarray:
    fits = values.dtype == np.uint8 or (levels is not None and values.dtype.kind in "iuf" and np.isfinite(values).all())
    if fits and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)):
        return values
    kind = "uint8 from 0 to 255" if levels is None else "numbers as the camera gives them"
    raise UsageError(f"the array: expected pixels of shape (h, w, 3) or (h, w), {kind}, found {values.dtype} {values.shape}")


def _of_pillow(image: Image.Image) -> np.ndarray:
    """What reading a file refuses (``cadiff.decoding``) is refused here too, but for 16-bit colour, of which Pillow has dropped half
    before it is seen."""
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        raise CADiffError("the image: stored turned (EXIF orientation). Turn it upright first (PIL.ImageOps.exif_transpose).")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise CADiffError("the image: expected an opaque one, found transparent pixels. Paste it on a background first.")
    return _array(np.asarray(image), Levels(0, 1)) if image.mode[0] in "IF" else np.asarray(image.convert("RGB"))
