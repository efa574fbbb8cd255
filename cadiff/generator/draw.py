"""The one function that draws scenes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from cadiff.data.images import to_tensor, to_uint8
from cadiff.generator.model import Generator, Paster
from cadiff.generator.reweighting import Reading
from cadiff.generator.sample import Request, sample
from cadiff.generator.seen import fulfilled
from cadiff.generator.setting import Read, has_exemplars, paste_exemplars, picture_of, reader, set_in
from cadiff.generator.windows import REFINED, Piece, Window, box_of, check_canvas, overlapping, pieces
from cadiff.params import Params
from cadiff.pictures import resize_mask, resize_picture
from cadiff.records import ATTEMPTS
from cadiff.scene import Scene
from cadiff.seeds import derive_seed, numpy_generator

REFINING = 0.3  # share of the steps that this takes, from the noised enlargement
QUIET_STRENGTH = 0.4  # share of the steps that a scene takes in which nothing is asked for, at most
AFTER = 1000  # the number of the first refining window, for its grain's stream: more than any scene has windows


@dataclass(frozen=True)
class Drawn:
    """A scene's picture at its canvas. ``prompt`` is the first window's, ``since`` the step at which each type's re-weighting began there
    (-1: never). ``attempts`` is the drawing that had what was asked for (``cadiff.generator.seen``); ``ATTEMPTS`` + 1 where none had: the
    best of them is kept, of equal ones the last.
    ``windows`` counts what the base drew; of what is pasted there is none, and no prompt."""

    scene: Scene
    image: UInt8[np.ndarray, "h w 3"]
    prompt: str | None
    since: list[int]
    attempts: int
    windows: int


@dataclass
class _Work:
    """A scene while it is drawn, piece by piece."""

    scene: Scene
    original: UInt8[np.ndarray, "h w 3"] | None
    image: UInt8[np.ndarray, "h w 3"]
    pieces: list[Piece]
    since: list[int] = field(default_factory=list)
    prompt: str = ""
    attempts: int = 1
    windows: int = 0
    best: _Kept | None = None


@dataclass(frozen=True)
class _Kept:
    """The best drawing of a scene so far, and how far it has what was asked for."""

    fulfilled: float
    scene: Scene
    image: UInt8[np.ndarray, "h w 3"]
    prompt: str
    since: list[int]


def draw_scenes(
    generator: Generator | Paster, params: Params, scenes: Sequence[Scene], record: Callable[[Reading], None] | None = None,
    read: Read | None = None, again: bool = True,
) -> list[Drawn]:  # fmt: skip
    """Draws scenes, whatever they are for; what one draws at random depends on itself alone.

    Args:
        params: the product's own, as ``Params.for_product`` gives them.
        record: is told of every denoising step of the scenes' first windows, which are then drawn together.
        read: samples at the canvas, where the caller has some in memory already.
        again: a scene that lacks what was asked for (``fulfilled``) is drawn anew with other noise; not where scenes are to share theirs.

    Raises:
        UsageError: if a picture is smaller than what the base draws.
        CADiffError: if a picture is absent or does not decode.
    """
    read, quiet = read or reader(params), _quietly(params)
    if isinstance(generator, Paster):
        return [_pasted(scene, params, read) for scene in scenes]
    works = [_begun(scene, params, read) for scene in scenes]
    todo = works
    while todo:
        for step in range(max(len(work.pieces) for work in todo)):
            acting = [work for work in todo if step < len(work.pieces)]
            for settings, own in ((params, [w for w in acting if w.scene.named]), (quiet, [w for w in acting if not w.scene.named])):
                if own:
                    _draw_pieces(generator, settings, own, step, read, record if step == 0 else None)
        _refine(generator, params, todo, read)
        lacking = [work for work in todo if again and _lacks(work, params, read)]
        todo = [work for work in lacking if work.attempts < ATTEMPTS]
        for work in lacking:
            work.attempts += 1
        for work in todo:
            _begin_again(work)
    return [_drawn(work) for work in works]


def _quietly(params: Params) -> Params:
    """The parameters of scenes in which nothing is asked for: each starts from what is there, so that it stays a normal. From noise a base
    that knows the product little draws something else there, and the label would lie."""
    if params.generate.background != "real":
        return params
    strength = min(params.generate.taken, QUIET_STRENGTH)
    return params.model_copy(update={"generate": params.generate.model_copy(update={"strength": strength, "start": "background"})})


def _pasted(scene: Scene, params: Params, read: Read) -> Drawn:
    """With its exemplars in it, each fading out over ``generate.blend`` px as what is drawn does (null: at the mask's edge)."""
    picture, blend = picture_of(scene, params, read), params.generate.blend or 0.0
    assert picture is not None
    image, margin = picture.copy(), math.ceil(blend)
    top, left, bottom, right = box_of(scene.mask)
    top, left = max(top - margin, 0), max(left - margin, 0)
    window = Window(top, left, min(bottom + margin, image.shape[0]) - top, min(right + margin, image.shape[1]) - left)
    window.of(image)[:] = paste_exemplars(picture, window, scene, params, read, blend)
    return Drawn(scene, image, None, [], 1, 0)


def _begun(scene: Scene, params: Params, read: Read) -> _Work:
    original = picture_of(scene, params, read)
    mask = scene.mask
    if original is None:
        original_or_empty = np.zeros((*mask.shape, 3), np.uint8)
        return _Work(scene, None, original_or_empty, pieces(mask, params.window.model_copy(update={"cut": "whole"}), params.base.size))
    if params.window.cut == "around":
        check_canvas(scene.picture.image_path if scene.picture else scene.scene_id, original.shape[:2], params.base.size)
    return _Work(scene, original, original.copy(), pieces(mask, params.window, params.base.size))


def _begin_again(work: _Work) -> None:
    """The same scene with other noise, in a picture of its own: the best so far is kept."""
    work.scene = replace(work.scene, seed=derive_seed(work.scene.seed, "again"))
    work.image = np.zeros_like(work.image) if work.original is None else work.original.copy()


def _lacks(work: _Work, params: Params, read: Read) -> bool:
    """Whether a drawing lacks something that was asked for; the best so far is kept."""
    from_noise = not _starts_from_a_picture(params, work.scene)
    share = fulfilled(work.scene, work.original, work.image, params, read, from_noise)
    if work.best is None or share >= work.best.fulfilled:
        work.best = _Kept(share, work.scene, work.image, work.prompt, work.since)
    return share < 1


def _drawn(work: _Work) -> Drawn:
    if work.best is None:
        return Drawn(work.scene, work.image, work.prompt, work.since, work.attempts, work.windows)
    best = work.best
    return Drawn(best.scene, best.image, best.prompt, best.since, work.attempts, work.windows)


def _draw_pieces(
    generator: Generator, params: Params, works: Sequence[_Work], step: int, read: Read, record: Callable[[Reading], None] | None
) -> None:
    """One window of each scene, as one batch."""
    requests, starts = zip(*(_request(generator, params, work, step, read) for work in works), strict=True)
    drawn, known, since = sample(generator, requests, params.generate, params.intensity, record)
    for k, work in enumerate(works):
        piece = work.pieces[step]
        _set_window(work, piece, (drawn[k], known[k]), starts[k], params, step)
        work.windows += 1
        if step == 0:
            work.prompt, work.since = requests[k].prompt.text, since[k, : len(requests[k].types)].tolist()


def _set_window(
    work: _Work, piece: Piece, sampled: tuple[torch.Tensor, torch.Tensor], start: UInt8[np.ndarray, "h w 3"] | None, params: Params,
    step: int,
) -> None:  # fmt: skip
    """Sets one more window into the scene's picture; without ``generate.blend`` all of the window is what was drawn."""
    window = piece.window
    shape = (window.height, window.width)
    if work.original is None or params.generate.blend is None:
        inside = resize_picture(to_uint8(sampled[0][None])[0], shape)
    else:
        rng = numpy_generator(work.scene.seed, "grain", step)
        drawn, known = (((values.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy() for values in sampled)
        inside = set_in(window.of(work.image), drawn, known, piece.part, params.generate.blend, rng, start)
    window.of(work.image)[:] = inside


def _request(
    generator: Generator, params: Params, work: _Work, step: int, read: Read
) -> tuple[Request, UInt8[np.ndarray, "h w 3"] | None]:
    """What the base is to draw in a window: the types whose masks lie in it. And what the drawing starts from, where that is another
    picture than what is there."""
    scene, size, piece = work.scene, params.base.size, work.pieces[step]
    parts = [piece.window.shown(a.outline) & piece.part for a in scene.anomalies]
    both = list(zip(scene.anomalies, parts, strict=True))
    chosen = [(a, part) for a, part in both if part.any()] or both
    types, weights = tuple(a.anomaly_type for a, _ in chosen), tuple(a.intensity for a, _ in chosen)
    prompt = generator.prompt(list(dict.fromkeys(types)) if scene.named else [], scene.template)
    masks = torch.from_numpy(np.stack([resize_mask(part, (size, size)) for _, part in chosen]))
    seed = scene.seed if step == 0 else derive_seed(scene.seed, "window", step)
    if work.original is None:
        return Request(prompt, types, masks, weights, seed), None
    if scene.named and params.generate.start == "exemplar" and _starts_from_a_picture(params, scene):
        # what is kept beside the mask is as it was set in too: an exemplar's blurred edge, say
        pasted = paste_exemplars(work.image, piece.window, scene, params, read, params.generate.blend or 0.0)
        start = _latents(generator, resize_picture(pasted, (size, size)))
        return Request(prompt, types, masks, weights, seed, start, scene.edits, start), pasted
    there = _latents(generator, piece.window.picture(work.image, size))
    begun = there if _starts_from_a_picture(params, scene) else None
    return Request(prompt, types, masks, weights, seed, there, scene.edits, begun, scene.named), None


def _latents(generator: Generator, picture: UInt8[np.ndarray, "s s 3"]) -> Float[torch.Tensor, "c hl wl"]:
    return generator.backbone.encode(to_tensor(picture[None]))[0]


def _starts_from_a_picture(params: Params, scene: Scene) -> bool:
    """Whether a scene's drawing starts from a noised picture; else from noise, as where an exemplar is to be started from and there is
    none."""
    settings = params.generate
    return not _heals(scene) and settings.start != "noise" and (settings.start == "background" or has_exemplars(scene))


def _heals(scene: Scene) -> bool:
    """Whether something is taken out of a picture that a user named: what is to go must not be there at the start."""
    return scene.edits and min(scene.intensities) <= 0


def _refine(generator: Generator, params: Params, works: Sequence[_Work], read: Read) -> None:
    """Goes over what a coarse window drew in overlapping windows at the base's own scale, each from its noised enlargement.

    As tiled enlargers do: the coarse pass says what is where, these say what it is made of.
    """
    if params.window.cut == "whole" or params.generate.blend is None:
        return
    # of one that started from a picture that one's detail is given back
    works = [work for work in works if work.scene.named and not _starts_from_a_picture(params, work.scene)]
    if not works:
        return
    size, settings = params.base.size, params.generate.model_copy(update={"strength": REFINING, "start": "background"})
    fine = params.model_copy(update={"generate": settings})
    coarse = [[piece for piece in work.pieces if piece.window.scale(size) > REFINED] for work in works]
    queues = [[one for piece in own for one in _finer(piece, work.image, size)] for own, work in zip(coarse, works, strict=True)]
    for step in range(max(map(len, queues))):
        acting = [k for k, queue in enumerate(queues) if step < len(queue)]
        views = [replace(works[k], pieces=[queues[k][step]]) for k in acting]
        requests = []
        for view in views:
            first, seed = _request(generator, fine, view, 0, read)[0], derive_seed(view.scene.seed, "refine", step)
            requests.append(replace(first, start=first.background, seed=seed))  # also of what heals, which has gone by now
        drawn, known, _ = sample(generator, requests, settings, params.intensity)
        for k, view, own, without in zip(acting, views, drawn, known, strict=True):
            _set_window(view, view.pieces[0], (own, without), None, params, AFTER + step)
            works[k].windows += 1


def _finer(piece: Piece, image: UInt8[np.ndarray, "h w 3"], size: int) -> list[Piece]:
    """The windows of ``size`` px that cover what a piece draws."""
    whole = np.zeros(image.shape[:2], bool)
    piece.window.of(whole)[:] = piece.part
    windows = overlapping(box_of(whole), size, (image.shape[0], image.shape[1]))
    return [Piece(window, window.of(whole)) for window in windows if window.of(whole).any()]
