"""Defects: each changes a scene and marks exactly what it changed. Named by the words that captions use.

Within one kind the shape, size, contrast and place vary, and some are faint.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import ndimage

from cadiff.data.drawing.scene import Field, Scene, blend, bumps, finer, grid, noise, rotate, soft

Defect = Callable[[Scene, np.random.Generator], None]


def spot_on(scene: Scene, rng: np.random.Generator, margin: float = 0.12) -> tuple[float, float]:
    """A place (x, y) on the object, ``margin`` away from its edge where it is wide enough."""
    depth = ndimage.distance_transform_edt(np.pad(scene.silhouette, 1))[1:-1, 1:-1] / scene.side * 2
    inside = np.argwhere(depth > min(margin, 0.6 * depth.max()))
    row, column = inside[rng.integers(len(inside))]
    return (column + 0.5) / scene.side * 2 - 1, (row + 0.5) / scene.side * 2 - 1


def blob(scene: Scene, rng: np.random.Generator, radius: float, ragged: float, at: tuple[float, float] | None = None) -> Field:
    """The signed distance of an irregular patch of about this radius."""
    x, y = grid(scene.side)
    cx, cy = at or spot_on(scene, rng)
    u, v = rotate(x - cx, y - cy, rng.uniform(0, np.pi))
    stretch = rng.uniform(0.7, 1.3)
    return np.hypot(u * stretch, v / stretch) - radius * (1 + ragged * 0.35 * noise(rng, scene.side, 2.0))


def walk(scene: Scene, rng: np.random.Generator, length: float, bend: float, at: tuple[float, float] | None = None,
         heading: float | None = None) -> np.ndarray:  # fmt: skip
    """A path (points, 2) that starts on the object and bends at random; ``bend`` in radians a step."""
    steps = max(int(length / 0.03), 3)
    turns = rng.normal(0, bend, steps)
    heading = rng.uniform(0, 2 * np.pi) if heading is None else heading
    angles = heading + np.cumsum(turns)
    moves = 0.03 * np.stack([np.cos(angles), np.sin(angles)], 1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)])
    moved: np.ndarray = path - path.mean(0) + np.asarray(at or spot_on(scene, rng))
    return moved


def near(scene: Scene, path: np.ndarray) -> Field:
    """The distance of every pixel to a path, in half sides."""
    dense = np.concatenate([np.linspace(a, b, 6, endpoint=False) for a, b in pairwise(path)])
    cells = np.round((dense + 1) / 2 * scene.side - 0.5).astype(int)
    cells = cells[((cells >= 0) & (cells < scene.side)).all(1)]
    if len(cells) == 0:
        return np.full((scene.side, scene.side), 9.0, np.float32)
    free = np.ones((scene.side, scene.side), bool)
    free[cells[:, 1], cells[:, 0]] = False
    distance: Field = (ndimage.distance_transform_edt(free) / scene.side * 2).astype(np.float32)
    return distance


def mark(scene: Scene, alpha: Field, keep_to_object: bool = True) -> Field:
    """Marks where ``alpha`` is visible as defective and returns the alpha that was used."""
    if keep_to_object:
        alpha = alpha * scene.silhouette
    scene.defect |= alpha > 0.3
    return alpha


def extent(scene: Scene, rng: np.random.Generator, low: float, high: float) -> float:
    """A defect's size (half sides): between ``low`` and ``high`` in a coarse scene; a larger one shows smaller ones too, down to a third
    of ``low``."""
    return float(np.exp(rng.uniform(np.log(finer(scene.side, low)), np.log(high))))


def strength(rng: np.random.Generator) -> float:
    """How strong this one is: mostly clear, one in four faint."""
    return float(rng.uniform(0.35, 0.6) if rng.random() < 0.25 else rng.uniform(0.7, 1.0))


def hole(scene: Scene, rng: np.random.Generator) -> None:
    distance = blob(scene, rng, extent(scene, rng, 0.09, 0.20), 0.8)
    inside, rim = mark(scene, soft(distance, finer(scene.side, 0.04))), soft(np.abs(distance) - 0.03, finer(scene.side, 0.03))
    scene.albedo = blend(scene.albedo, np.array(rng.uniform(0.02, 0.12)), inside * (0.75 + 0.25 * strength(rng)))
    scene.albedo = blend(scene.albedo, scene.albedo * 1.3, rim * scene.silhouette * (1 - inside))
    scene.height = scene.height - 0.10 * inside
    scene.gloss = scene.gloss * (1 - inside)


def stain(scene: Scene, rng: np.random.Generator) -> None:
    distance = blob(scene, rng, extent(scene, rng, 0.13, 0.32), 1.0)
    alpha = mark(scene, soft(distance, 0.06)) * (0.35 + 0.5 * strength(rng))
    ring = soft(np.abs(distance + 0.02) - 0.02, finer(scene.side, 0.03)) * 0.3
    tint = np.array([[0.35, 0.22, 0.10], [0.15, 0.13, 0.10], [0.20, 0.24, 0.12], [0.10, 0.14, 0.30]])[rng.integers(4)]
    wet = scene.albedo * 0.25 + tint * rng.uniform(0.6, 1.1)
    scene.albedo = blend(scene.albedo, wet, np.clip(alpha + ring * alpha, 0, 1))
    scene.gloss = scene.gloss * (1 - 0.5 * alpha)


def thread(scene: Scene, rng: np.random.Generator) -> None:
    path = walk(scene, rng, rng.uniform(0.5, 1.3), rng.uniform(0.12, 0.35))
    distance = near(scene, path)
    width = extent(scene, rng, 0.030, 0.045)
    alpha = mark(scene, soft(distance - width, finer(scene.side, 0.03)))
    bright = scene.albedo.mean() < 0.5 or rng.random() < 0.4
    colour = np.clip(scene.albedo.mean((0, 1)) * (1.9 if bright else 0.35) + (0.15 if bright else 0), 0, 1)
    scene.albedo = blend(scene.albedo, colour, alpha * (0.45 + 0.5 * strength(rng)))
    scene.height = scene.height + 0.06 * alpha * np.sqrt(np.clip(1 - (distance / (width + 0.015)) ** 2, 0, 1))


def scratch(scene: Scene, rng: np.random.Generator) -> None:
    for _ in range(int(rng.choice([1, 1, 2]))):
        path = walk(scene, rng, rng.uniform(0.35, 0.95), rng.uniform(0.0, 0.05))
        taper = extent(scene, rng, 0.024, 0.042)
        alpha = mark(scene, soft(near(scene, path) - taper, finer(scene.side, 0.03)))
        force = 0.4 + 0.6 * strength(rng)
        tone = rng.choice([0.30, 1.75])
        scene.albedo = blend(scene.albedo, np.clip(scene.albedo * tone + (0.12 if tone > 1 else 0), 0, 1), alpha * force)
        scene.height = scene.height - 0.03 * alpha * force


def crack(scene: Scene, rng: np.random.Generator) -> None:
    trunk = walk(scene, rng, rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.5))
    distance = near(scene, trunk)
    for _ in range(int(rng.integers(0, 3))):
        start = trunk[rng.integers(len(trunk))]
        branch = walk(scene, rng, rng.uniform(0.15, 0.35), 0.4, at=(float(start[0]), float(start[1])))
        distance = np.minimum(distance, near(scene, branch - branch[0] + start))
    width = extent(scene, rng, 0.022, 0.036)
    alpha = mark(scene, soft(distance - width, finer(scene.side, 0.025)))
    scene.albedo = blend(scene.albedo, scene.albedo * rng.uniform(0.08, 0.3), alpha * (0.5 + 0.5 * strength(rng)))
    scene.height = scene.height - 0.05 * alpha
    scene.gloss = scene.gloss * (1 - alpha)


def dent(scene: Scene, rng: np.random.Generator) -> None:
    radius = extent(scene, rng, 0.13, 0.24)
    distance = blob(scene, rng, radius, 0.35)
    mark(scene, soft(distance, finer(scene.side, 0.03)))
    bowl = np.clip(-distance / radius, 0, 1)
    force = strength(rng)
    depth = radius * rng.uniform(0.7, 1.1) * force
    scene.height = scene.height - (depth * bowl * (2 - bowl) * scene.silhouette).astype(np.float32)
    scene.albedo = scene.albedo * (1 - 0.18 * force * soft(distance, 0.05) * scene.silhouette)[..., None]


def rust(scene: Scene, rng: np.random.Generator) -> None:
    distance = blob(scene, rng, extent(scene, rng, 0.13, 0.30), 1.3)
    mottle = noise(rng, scene.side, 0.9)
    alpha = mark(scene, soft(distance, 0.05)) * np.clip(0.75 + 0.25 * mottle, 0, 1) * (0.45 + 0.5 * strength(rng))
    colour = np.array([0.46, 0.22, 0.08]) * (1 + 0.25 * noise(rng, scene.side, 0.8)[..., None])
    scene.albedo = blend(scene.albedo, np.clip(colour, 0, 1), alpha)
    scene.height = scene.height + bumps(alpha * mottle, 0.010)
    scene.gloss = scene.gloss * (1 - 0.9 * alpha)


def chip(scene: Scene, rng: np.random.Generator) -> None:
    """A piece broken from the object's edge (from anywhere, where the surface has no edge): a pale, rough face."""
    edge = scene.silhouette & ~ndimage.binary_erosion(scene.silhouette, border_value=1)
    at = None
    if edge.any():
        row, column = np.argwhere(edge)[rng.integers(edge.sum())]
        at = ((column + 0.5) / scene.side * 2 - 1, (row + 0.5) / scene.side * 2 - 1)
    distance = blob(scene, rng, extent(scene, rng, 0.12, 0.22), 0.8, at)
    alpha = mark(scene, soft(distance, finer(scene.side, 0.03)))
    grain = noise(rng, scene.side, 0.8)
    face = np.clip(scene.albedo.mean((0, 1)) * rng.uniform(0.5, 0.8) + rng.choice([0.0, 0.25]), 0, 1)
    scene.albedo = blend(scene.albedo, np.clip(face * (1 + 0.15 * grain[..., None]), 0, 1), alpha * (0.5 + 0.5 * strength(rng)))
    scene.height = scene.height - 0.16 * alpha * np.clip(-distance / 0.1, 0, 1) + bumps(grain * alpha, 0.012)
    scene.gloss = scene.gloss * (1 - alpha)


def print_(scene: Scene, rng: np.random.Generator) -> None:
    """A stray stamp: a few strokes of ink."""
    x, y = spot_on(scene, rng, 0.2)
    angle, ink = rng.uniform(0, 2 * np.pi), np.array([[0.06, 0.06, 0.08], [0.75, 0.08, 0.08], [0.9, 0.9, 0.9], [0.1, 0.15, 0.6]])
    colour = ink[rng.integers(len(ink))]
    distance = np.full((scene.side, scene.side), 9.0, np.float32)
    for stroke in range(int(rng.integers(2, 5))):
        offset = np.array([np.cos(angle), np.sin(angle)]) * (stroke - 1.2) * 0.11
        path = walk(scene, rng, rng.uniform(0.12, 0.3), rng.uniform(0.0, 0.35), (x + offset[0], y + offset[1]), angle + 1.2)
        distance = np.minimum(distance, near(scene, path))
    alpha = mark(scene, soft(distance - extent(scene, rng, 0.026, 0.036), finer(scene.side, 0.025)))
    scene.albedo = blend(scene.albedo, colour, alpha * (0.45 + 0.5 * strength(rng)))


def burn(scene: Scene, rng: np.random.Generator) -> None:
    distance = blob(scene, rng, rng.uniform(0.15, 0.30), 0.7)
    alpha = mark(scene, soft(distance, 0.18)) * (0.45 + 0.5 * strength(rng))
    core = soft(distance + 0.12, 0.1)
    scorched = scene.albedo * np.array([0.42, 0.28, 0.18])
    scene.albedo = blend(blend(scene.albedo, scorched, alpha), np.array(0.05), core * alpha * 0.8)
    scene.gloss = scene.gloss * (1 - 0.8 * alpha)


def bubble(scene: Scene, rng: np.random.Generator) -> None:
    first = spot_on(scene, rng)
    for _ in range(int(rng.integers(1, 4))):
        radius = extent(scene, rng, 0.06, 0.14)
        at = (first[0] + rng.normal(0, 0.12), first[1] + rng.normal(0, 0.12))
        distance = blob(scene, rng, radius, 0.15, at)
        mark(scene, soft(distance, finer(scene.side, 0.02)))
        dome = np.clip(-distance / radius, 0, 1)
        scene.height = scene.height + (radius * strength(rng) * np.sqrt(dome * (2 - dome)) * scene.silhouette).astype(np.float32)
        scene.gloss = np.clip(scene.gloss + 0.5 * ((dome > 0) & scene.silhouette), 0, 1)


def particles(scene: Scene, rng: np.random.Generator) -> None:
    """Dirt: a loose group of small bodies of one foreign colour."""
    first, colour = spot_on(scene, rng), rng.uniform(0.03, 0.9, 3) * rng.uniform(0.3, 1.0)
    for _ in range(int(rng.integers(3, 9))):
        at = (first[0] + rng.normal(0, 0.14), first[1] + rng.normal(0, 0.14))
        distance = blob(scene, rng, rng.uniform(0.035, 0.075), 0.5, at)
        alpha = mark(scene, soft(distance, finer(scene.side, 0.03)))
        scene.albedo = blend(scene.albedo, colour, alpha * (0.5 + 0.5 * strength(rng)))
        scene.height = scene.height + 0.04 * alpha


DEFECTS: dict[str, Defect] = {
    "hole": hole, "stain": stain, "thread": thread, "scratch": scratch, "crack": crack, "dent": dent, "rust": rust,
    "chip": chip, "print": print_, "burn": burn, "bubble": bubble, "dirt": particles,
}  # fmt: skip


def harmless(scene: Scene, rng: np.random.Generator) -> None:
    """Marks that every good part may carry: specks of dust, a pale streak, a cloud. They are not defects."""
    kept = scene.defect.copy()
    for _ in range(int(rng.poisson(0.7))):
        distance = blob(scene, rng, rng.uniform(0.012, 0.022), 0.2)
        scene.albedo = blend(scene.albedo, np.array(rng.choice([0.2, 0.85])), 0.5 * soft(distance, finer(scene.side, 0.02)))
    if rng.random() < 0.25:
        streak = near(scene, walk(scene, rng, rng.uniform(0.3, 0.8), 0.02))
        scene.albedo = blend(scene.albedo, scene.albedo * rng.choice([0.8, 1.25]), 0.45 * soft(streak - 0.008, finer(scene.side, 0.02)))
    if rng.random() < 0.4:
        scene.albedo = scene.albedo * (1 + 0.05 * noise(rng, scene.side, 2.2))[..., None]
    scene.albedo = np.clip(scene.albedo, 0, 1).astype(np.float32)
    scene.defect = kept
