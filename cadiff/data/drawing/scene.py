"""A scene of fields over the unit square, and the one light that turns it into a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Field = np.ndarray  # (n, n) float32, or (n, n, 3) where colour is meant

COARSE = 128  # side of a scene that the strengths of grain are told for; in a larger one grain is finer, not louder
PIXEL_BLUR = 0.25  # what a pixel's own area does, where none are averaged
FINE_SLOPE = 0.7  # by which noise falls faster where only a larger scene resolves it


def oversampling(size: int) -> int:
    """How many times a picture's side a scene is drawn at, to be averaged down: where edges are narrower than a pixel, 2."""
    return 2 if size < COARSE else 1


@dataclass
class Scene:
    """What is seen: ``albedo`` (n n 3) in [0, 1], ``height`` in units of the half side, ``gloss`` in [0, 1],
    ``silhouette`` True where the object is, ``defect`` True where a defect was drawn."""

    albedo: Field
    height: Field
    gloss: Field
    silhouette: Field
    defect: Field

    @property
    def side(self) -> int:
        side: int = self.height.shape[0]
        return side


def grid(side: int) -> tuple[Field, Field]:
    """Coordinates ``x, y`` of the pixel centres in [-1, 1], each (side side)."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def rotate(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """The coordinates as seen in a frame turned by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return c * x + s * y, -s * x + c * y


def noise(rng: np.random.Generator, side: int, slope: float = 1.5, stretch: float = 1.0, angle: float = 0.0) -> Field:
    """Fractal noise of zero mean and unit variance with amplitude ~ 1/f^slope.

    ``stretch`` > 1 makes it longer along ``angle`` (radians): brushed metal, wood grain.
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    along, across = rotate(fx, fy, angle)
    frequency = np.hypot(along * stretch, across)
    frequency[0, 0] = 1.0
    amplitude = np.maximum(frequency, 1.0 / side) ** -slope
    if side > COARSE:  # else what is fine would take the variance from what is coarse, and surfaces become pixel noise
        amplitude *= np.maximum(frequency / (COARSE / 4 / side), 1) ** -FINE_SLOPE
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * amplitude
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, (side, side))
    scaled: Field = (field / (field.std() + 1e-9)).astype(np.float32)
    return scaled


def bumps(grain: Field, height: float) -> Field:
    """Grain as height, this much of it in a coarse scene: a bump as wide as a pixel is the steeper, the more pixels there are, and in a
    larger scene none are averaged."""
    return height * min(1.0, (COARSE / len(grain)) ** 2) * grain


def finer(side: int, width: float) -> float:
    """A finer that is ``width`` in a coarse scene, and narrower in a larger one, down to a third."""
    return width * max(min(1.0, COARSE / side), 1 / 3)


def resolved(side: int, width: float) -> float:
    """0 where a line of this width (half sides) is too thin for a scene to show, 1 where it is clear."""
    return float(np.clip(width * side / 2 - 1.3, 0, 1))


def soft(distance: Field, width: float) -> Field:
    """1 where a signed distance is well below zero, 0 well above, linear over ``width``."""
    return np.clip(0.5 - distance / max(width, 1e-6), 0, 1).astype(np.float32)


def blend(below: Field, above: Field | np.ndarray, alpha: Field) -> Field:
    """``above`` over ``below`` by ``alpha``."""
    if below.ndim == 3 and alpha.ndim == 2:
        alpha = alpha[..., None]
    blended: Field = below + (above - below) * alpha
    return blended


@dataclass(frozen=True)
class Light:
    """One distant light: azimuth and elevation in radians, ambient share, colour cast, exposure."""

    azimuth: float
    elevation: float
    ambient: float
    cast: tuple[float, float, float]
    exposure: float
    noise: float
    blur: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, vary: float = 1.0) -> Light:
        """A light; ``vary`` scales how much one picture's light differs from the next's."""
        cast = 1 + vary * rng.normal(0, 0.02, 3)
        return cls(
            azimuth=-2.2 + vary * rng.normal(0, 0.35),
            elevation=0.9 + vary * rng.uniform(-0.15, 0.15),
            ambient=0.45 + vary * rng.uniform(-0.06, 0.06),
            cast=(float(cast[0]), float(cast[1]), float(cast[2])),
            exposure=1 + vary * rng.normal(0, 0.06),
            noise=float(rng.uniform(0.003, 0.010)),
            blur=float(rng.uniform(0.3, 0.6)),
        )


def shade(scene: Scene, light: Light, k: int) -> np.ndarray:
    """The scene as a picture: Lambert's law, a Blinn highlight, a soft shadow, a lens; float (n n 3). ``k``: what it will be
    averaged by."""
    gradient_y, gradient_x = np.gradient(scene.height, 2.0 / scene.side)
    normal_z = 1.0 / np.sqrt(gradient_x**2 + gradient_y**2 + 1)
    lx, ly = np.cos(light.elevation) * np.cos(light.azimuth), np.cos(light.elevation) * np.sin(light.azimuth)
    lz = np.sin(light.elevation)
    diffuse = np.clip((-gradient_x * lx - gradient_y * ly + lz) * normal_z, 0, None)
    half = np.array([lx, ly, lz + 1.0]) / np.sqrt(lx**2 + ly**2 + (lz + 1.0) ** 2)
    facing = np.clip((-gradient_x * half[0] - gradient_y * half[1] + half[2]) * normal_z, 0, 1)
    highlight = scene.gloss * facing**24
    shadow = shadow_of(scene, light)
    lit = scene.albedo * (light.ambient + (1 - light.ambient) * diffuse * shadow / lz)[..., None]
    picture = (lit + 0.55 * (highlight * shadow)[..., None]) * light.exposure * np.asarray(light.cast)
    blur = light.blur + (PIXEL_BLUR if k == 1 else 0)
    blurred: np.ndarray = ndimage.gaussian_filter(picture, (blur, blur, 0))
    return blurred


def sensed(picture: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """The picture (s s 3) with a sensor's noise: more of it where it is bright, and not quite alone in its pixel, as colours are
    found from neighbours."""
    grain = ndimage.gaussian_filter(rng.standard_normal(picture.shape), (0.4, 0.4, 0))
    deviation = light.noise * np.sqrt(0.35 + 1.3 * np.clip(picture, 0, 1))
    noisy: np.ndarray = np.clip(picture + grain / grain.std() * deviation, 0, 1)
    return noisy


def shadow_of(scene: Scene, light: Light) -> Field:
    """1 in the light, below 1 on the ground beside the object."""
    if scene.silhouette.all():
        return np.ones_like(scene.height)
    reach = 0.05 * scene.side
    moved = ndimage.shift(
        scene.silhouette.astype(np.float32),
        (-np.sin(light.azimuth) * reach, -np.cos(light.azimuth) * reach), order=1, mode="nearest",
    )  # fmt: skip
    cast = ndimage.gaussian_filter(moved, 0.025 * scene.side)
    light_left: Field = 1 - 0.5 * cast * ~scene.silhouette
    return light_left


def develop(scene: Scene, light: Light, rng: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture (uint8, s s 3) and its exact mask (bool, s s), s = the scene's side / k.

    A pixel is anomalous where at least a quarter of it was changed, so that thin defects stay connected.
    """
    side = scene.side // k
    small = sensed(shade(scene, light, k).reshape(side, k, side, k, 3).mean((1, 3)), light, rng)
    mask = scene.defect.reshape(side, k, side, k).mean((1, 3)) >= 0.25
    return np.round(small * 255).astype(np.uint8), mask
