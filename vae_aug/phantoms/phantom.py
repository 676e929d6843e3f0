"""Draw head MR and abdomen CT slices with lesions whose boxes are exactly known.

A phantom is drawn from implicit shapes: every structure is a signed distance in units of half the
image's side (negative inside), painted with an edge one pixel wide. Folds, vessels and bowel come
from sums of plane waves in three dimensions, so that neighbouring slices of a patient match.
The coordinates are x to the right and y down in [-1, 1], anterior at the top, z in [0, 1].
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
from typing import Literal, get_args

import numpy as np

from vae_aug.config import check_choice, check_number

Kind = Literal["head_mr", "abdomen_ct"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LABELS = ("lesion", "nodule", "stone")

# Lesion radii below are in pixels of this side, whatever the side of the image.
_REFERENCE_SIZE = 224
_MIN_LESION_PIXELS = 4
# Plane waves in a random field: enough that no stripe stands out.
_WAVES = 16


@dataclasses.dataclass(frozen=True)
class Phantom:
    """One slice.

    Attributes:
        image: `[S, S, 1] uint8` or `uint16`, the dtype's full range.
        mask: `[S, S] uint8`; 0 is no lesion, i + 1 is the lesion of `boxes[i]`.
        boxes: `[N, 4] float32`, `rel_yxyx`, the extent of each lesion's pixels, edge to edge.
        labels: N names out of `LABELS`.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: tuple[str, ...]


def make_phantom(
    kind: Kind,
    seed: int,
    *,
    position: float = 0.5,
    size: int = _REFERENCE_SIZE,
    dtype: type[np.unsignedinteger] = np.uint8,
) -> Phantom:
    """Draw one slice of one patient.

    Args:
        kind: `"head_mr"` (T1- or FLAIR-like, Rician noise; label `"lesion"`) or `"abdomen_ct"`
            (soft-tissue window, correlated noise; labels `"nodule"` in the liver and `"stone"`
            in a kidney).
        seed: The patient, from 0. The anatomy of a patient does not depend on the other
            arguments, and noise is drawn anew for each slice. Lesions do not either, except
            that a coarse grid loses those that it shows as a few pixels or as touching.
        position: Of the slice along the body axis, in [0, 1]: from the basal ganglia to the
            crown, or from the upper liver to the lower kidneys.
        size: Side in pixels, 32 or more.
        dtype: `np.uint8` or `np.uint16`; both hold the same picture.

    Returns:
        The slice, with none, one or several lesions, each about 6 to 14 pixels across at size 224.

    Raises:
        ValueError: On an argument outside these ranges.

    Example:
        >>> phantom = make_phantom("head_mr", seed=3, size=64)
        >>> phantom.image.shape, phantom.image.dtype.name
        ((64, 64, 1), 'uint8')
        >>> len(phantom.boxes) == len(phantom.labels) == len(np.unique(phantom.mask)) - 1
        True
    """
    check_choice("kind", kind, Kind)
    check_number("seed", seed, 0, whole=True)
    check_number("position", position, 0, 1)
    check_number("size", size, 32, whole=True)
    if np.dtype(dtype) not in (np.uint8, np.uint16):
        raise ValueError(f"dtype must be uint8 or uint16; got {np.dtype(dtype).name}.")
    key = (seed, KINDS.index(kind))
    scene = _Scene(size, position, np.random.default_rng(key))
    draw, acquire = (_draw_head, _acquire_mr) if kind == "head_mr" else (_draw_abdomen, _acquire_ct)
    draw(scene)
    noise = np.random.default_rng((*key, 1 + round(position * 2**20)))
    pixels = np.clip(acquire(scene, noise), 0, 1).astype(np.float64)
    image = np.rint(pixels * np.iinfo(dtype).max).astype(dtype)[..., np.newaxis]
    return Phantom(image, scene.mask, compute_mask_boxes(scene.mask), tuple(scene.labels))


def compute_mask_boxes(mask: np.ndarray) -> np.ndarray:
    """Compute the tight box of every object in a mask of object numbers.

    Args:
        mask: `[H, W]` integers, 0 for background, objects numbered from 1 without a gap.

    Returns:
        `[N, 4] float32`, `rel_yxyx`. Boxes run along pixel edges: an object on row 0 alone has
        ymin 0 and ymax 1 / H.

    Raises:
        ValueError: If a number is missing.
    """
    boxes = []
    for number in range(1, int(mask.max(initial=0)) + 1):
        rows, columns = np.nonzero(mask == number)
        if not rows.size:
            raise ValueError(f"objects must be numbered without a gap; the mask has no {number}.")
        boxes.append((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
    pixels = np.array(boxes, np.float64).reshape(-1, 4)
    return (pixels / np.tile(mask.shape, 2)).astype(np.float32)


class _Scene:
    """A slice while it is drawn: the coordinates, the picture so far and its lesions.

    `rng` belongs to the patient: drawing must use it in one order for every slice.
    """

    def __init__(self, size: int, z: float, rng: np.random.Generator):
        self.pixel = 2 / size
        self.z = z
        self.rng = rng
        axis = (np.arange(size) + 0.5) * self.pixel - 1
        self.columns, self.rows = axis, axis
        self.x, self.y = np.meshgrid(axis.astype(np.float32), axis.astype(np.float32))
        self.picture = np.zeros((size, size), np.float32)
        self.mask = np.zeros((size, size), np.uint8)
        self.labels: list[str] = []

    def draw(self, low: float, high: float) -> float:
        """Draw a number of the patient from U(low, high)."""
        return float(self.rng.uniform(low, high))

    def place(self, x: float, y: float, angle: float) -> None:
        """Move the origin to (x, y) and turn the axes by `angle` radians."""
        dx, dy = self.x - x, self.y - y
        self.x = math.cos(angle) * dx + math.sin(angle) * dy
        self.y = math.cos(angle) * dy - math.sin(angle) * dx

    def crop(self, x: float, y: float, radius: float) -> tuple[_Scene, tuple[slice, slice]]:
        """Return a scene that draws on the square around (x, y) alone, and that square.

        Small shapes cost a tenth when drawn on a crop.
        """
        near = np.maximum(np.abs(self.x - x), np.abs(self.y - y)) <= radius + self.pixel
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = copy.copy(self)
        part.rows, part.columns = self.rows[window[0]], self.columns[window[1]]
        part.x, part.y = self.x[window], self.y[window]
        part.picture, part.mask = self.picture[window], self.mask[window]
        return part, window

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Return the share of each pixel inside the shape, `[S, S] float32` in [0, 1]."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def paint(self, distance: np.ndarray, value: np.ndarray | float, opacity: float = 1.0) -> None:
        """Lay `value` over the picture inside the shape."""
        self.picture += opacity * self.cover(distance) * (value - self.picture)

    def ellipse(self, x: float, y: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
        """Return the distance to an ellipse with semi-axes `a` along x and `b` along y."""
        dx, dy = self.x - x, self.y - y
        u = math.cos(angle) / a * dx + math.sin(angle) / a * dy
        v = math.cos(angle) / b * dy - math.sin(angle) / b * dx
        return (np.sqrt(u * u + v * v) - 1) * min(a, b)

    def path(self, *points: tuple[float, float]) -> np.ndarray:
        """Return the distance to the polyline through `points`, 0 on the line."""
        distances = []
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            length = (x1 - x0) ** 2 + (y1 - y0) ** 2
            along = ((self.x - x0) * (x1 - x0) + (self.y - y0) * (y1 - y0)) / length
            along = np.clip(along, 0, 1)
            dx, dy = self.x - x0 - along * (x1 - x0), self.y - y0 - along * (y1 - y0)
            distances.append(np.sqrt(dx * dx + dy * dy))
        return functools.reduce(np.minimum, distances)

    def waves(self, wavelength: float) -> np.ndarray:
        """Return a random smooth field of the patient, mean 0 and variance 1, cut at z."""
        azimuth, phase = self.rng.uniform(0, 2 * np.pi, (2, _WAVES))
        rise = self.rng.uniform(-0.5, 0.5, _WAVES)
        rate = 2 * np.pi / wavelength * self.rng.uniform(0.75, 1.3, _WAVES)
        # cos(a + b) = cos a cos b - sin a sin b, with a along x and b along y, makes the sum over
        # waves a matrix product. BLAS is kept out: its order of sums depends on its threads.
        a = np.outer(rate * np.cos(azimuth), self.columns)
        b = np.outer(rate * np.sin(azimuth), self.rows) + (rate * rise * self.z + phase)[:, None]
        across = np.concatenate([np.cos(a), -np.sin(a)]).astype(np.float32)
        down = np.concatenate([np.cos(b), np.sin(b)]).astype(np.float32)
        return math.sqrt(2 / _WAVES) * np.einsum("ki,kj->ij", down, across)

    def add_lesion(self, lesion: _Lesion, x: float, y: float, value: float) -> None:
        """Paint a lesion centred on (x, y) and note its pixels, unless it misses the slice.

        A lesion that would touch an earlier one is left out, so that boxes stay those of one
        lesion each.
        """
        radius = lesion.compute_radius(self.z)
        if not radius:
            return
        part, _ = self.crop(x, y, 2 * radius + 4 * self.pixel)
        distance = lesion.compute_distance(part.x - x, part.y - y, radius)
        region = part.cover(distance) >= 0.5
        touches = part.mask[distance < 3 * self.pixel].any()
        if region.sum() < _MIN_LESION_PIXELS or touches:
            return
        part.paint(distance, value)
        self.labels.append(lesion.label)
        part.mask[region] = len(self.labels)


@dataclasses.dataclass(frozen=True)
class _Lesion:
    """A lobed blob in three dimensions.

    Attributes:
        label: One of `LABELS`.
        radius: Greatest radius.
        z: Where along the body it lies.
        reach: How far along z it is seen.
        lobes: Amplitude and phase of the outline's second to fifth harmonic.
    """

    label: str
    radius: float
    z: float
    reach: float
    lobes: tuple[tuple[float, float], ...]

    def compute_radius(self, z: float) -> float:
        """Compute the radius in the slice at `z`; 0 where the lesion is not seen."""
        offset = abs(z - self.z) / self.reach
        # The slice's thickness hides the tips, so the least radius seen is 0.8 of the greatest.
        return self.radius * math.sqrt(1 - 0.36 * offset**2) if offset < 1 else 0.0

    def compute_distance(self, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
        """Compute the distance to the outline around the origin of (dx, dy)."""
        angle = np.arctan2(dy, dx)
        outline = np.ones_like(dx)
        for order, (amplitude, phase) in enumerate(self.lobes, start=2):
            outline += amplitude * np.cos(order * angle + phase)
        return np.hypot(dx, dy) - radius * outline


def _draw_lesion(
    scene: _Scene, label: str, diameters: tuple[float, float], lobed: float
) -> _Lesion:
    """Draw a lesion's shape; `diameters` are in pixels at 224."""
    rng = scene.rng
    amplitudes, phases = lobed * rng.uniform(0, 0.12, 4), rng.uniform(0, 2 * np.pi, 4)
    return _Lesion(
        label=label,
        radius=scene.draw(*diameters) / _REFERENCE_SIZE,
        z=scene.draw(0, 1),
        reach=scene.draw(0.15, 0.35),
        lobes=tuple(zip(amplitudes.tolist(), phases.tolist(), strict=True)),
    )


def _draw_outline(
    scene: _Scene, a: float, b: float, power: float, unevenness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a closed, slightly irregular superellipse around the origin.

    Returns:
        `(distance, angle)`, each `[S, S] float32`; the angle is 0 to the right, pi / 2 below.
    """
    angle = np.arctan2(scene.y, scene.x)
    outline = np.abs(np.cos(angle) / a) ** power + np.abs(np.sin(angle) / b) ** power
    outline **= -1 / power
    for order in range(2, 7):
        phase = scene.draw(0, 2 * np.pi)
        outline = outline * (1 + unevenness / order * np.cos(order * angle + phase))
    return np.hypot(scene.x, scene.y) - outline, angle


def _merge(first: np.ndarray, second: np.ndarray, roundness: float) -> np.ndarray:
    """Return the distance to the union of two shapes with the crease between them filled."""
    overlap = np.maximum(roundness - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap**2 / (4 * roundness)


def _blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Blur `[S, S] float32` by a Gaussian of `sigma` pixels, cut at 3 sigma."""
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / sigma) ** 2)
    kernel /= kernel.sum()
    for _ in range(2):
        padded = np.pad(field, ((reach, reach), (0, 0)), mode="edge")
        rows = len(field)
        field = sum(weight * padded[i : i + rows] for i, weight in enumerate(kernel)).T
    return field


# --- Head, MR ------------------------------------------------------------------------------------

# Signal of each tissue relative to the brightest, for a T1- and a FLAIR-weighted sequence.
_MR_SIGNALS = {
    "t1": dict(fat=0.95, skin=0.55, muscle=0.42, bone=0.06, marrow=0.5, csf=0.13, grey=0.44,
               white=0.68, deep=0.53, lesion=0.3),
    "flair": dict(fat=0.62, skin=0.42, muscle=0.3, bone=0.05, marrow=0.27, csf=0.07, grey=0.56,
                  white=0.4, deep=0.48, lesion=0.92),
}  # fmt: skip


def _draw_head(scene: _Scene) -> None:
    """Draw an axial slice of a head; values are MR signal in [0, 1]."""
    signal = _MR_SIGNALS["flair" if scene.draw(0, 1) < 0.65 else "t1"]
    scene.place(scene.draw(-0.04, 0.04), scene.draw(-0.04, 0.04), scene.draw(-0.12, 0.12))
    level = math.sqrt(1 - (0.7 * scene.z) ** 2)
    half_width, half_length = scene.draw(0.64, 0.72) * level, scene.draw(0.80, 0.88) * level
    skin, angle = _draw_outline(scene, half_width, half_length, 2.15, 0.012)
    brain = _draw_scalp_and_skull(scene, signal, skin, angle)
    _draw_cortex(scene, signal, brain, angle)
    _draw_deep_brain(scene, signal, half_width, half_length)
    for _ in range(scene.rng.choice(7, p=(0.12, 0.13, 0.2, 0.2, 0.15, 0.1, 0.1))):
        lesion = _draw_lesion(scene, "lesion", (8.5, 12.5), lobed=1.0)
        # White matter around the ventricles: clear of the midline, within the cortex.
        bearing, share = scene.draw(-0.9, 0.9), scene.draw(0.42, 0.64)
        side = 1 if scene.draw(0, 1) < 0.5 else -1
        x = side * math.cos(bearing) * share * half_width
        y = math.sin(bearing) * share * half_length
        scene.add_lesion(lesion, x, y, signal["lesion"] * scene.draw(0.85, 1.05))


def _draw_scalp_and_skull(
    scene: _Scene, signal: dict[str, float], skin: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Draw what surrounds the brain and return the distance to the brain's surface."""
    temples = np.cos(angle) ** 6 * (1 - scene.z)
    scalp = scene.draw(0.035, 0.055) + 0.035 * temples + 0.008 * scene.waves(0.8)
    front_and_back = np.sin(angle) ** 2
    bone = scene.draw(0.038, 0.05) + scene.draw(0.01, 0.03) * front_and_back
    bone = bone + 0.006 * scene.waves(0.5)
    skull = skin + scalp
    inner = skull + bone
    scene.paint(skin, signal["skin"])
    scene.paint(skin + 0.013, signal["fat"])
    muscle = skin + 0.025 + np.maximum(0.08 - 0.2 * temples, 0)
    scene.paint(muscle, signal["muscle"])
    scene.paint(skull, signal["bone"])
    marrow = np.abs(skull + bone / 2) - np.maximum(bone / 2 - 0.016, 0.002)
    scene.paint(marrow, signal["marrow"], 0.85)
    scene.paint(inner, signal["csf"])
    return inner + scene.draw(0.008, 0.022)


def _draw_cortex(
    scene: _Scene, signal: dict[str, float], brain: np.ndarray, angle: np.ndarray
) -> None:
    """Draw white matter under a folded ribbon of grey, with fluid in the folds."""
    folds = int(scene.rng.integers(17, 23))
    field = np.sin(folds * angle + 1.9 * scene.waves(0.45)) + 0.8 * scene.waves(0.2)
    slope_y, slope_x = np.gradient(field, scene.pixel)
    # First-order distance to the lines where the field is 0; the constant bounds flat spots.
    to_fold = np.abs(field) / np.sqrt(slope_y**2 + slope_x**2 + 25.0)
    depth = -brain
    reach = 0.15 + 0.05 * scene.waves(0.5)
    to_fold = to_fold + 0.9 * np.maximum(depth - reach, 0)

    bend = 0.012 * scene.waves(0.9)
    bridge = max(0.36 - 0.4 * scene.z, -0.1)
    to_midline = np.abs(scene.x + bend) + np.maximum(bridge - np.abs(scene.y - 0.02), 0)
    to_cleft = np.full_like(brain, 9.0)
    for side in (-1, 1):
        outer, inner = scene.draw(0.5, 0.56), scene.draw(0.35, 0.4)
        fore, back = scene.draw(-0.2, -0.14), scene.draw(0.04, 0.12)
        cleft = scene.path((side * outer, fore - 0.02), (side * inner, fore), (side * inner, back))
        to_cleft = np.minimum(to_cleft, cleft + 0.35 * scene.z + 0.012 * scene.waves(0.2))
    ribbon = scene.draw(0.042, 0.05) + 0.006 * scene.waves(0.3)
    to_fluid = np.minimum(np.minimum(to_fold, to_midline), to_cleft)
    wide = scene.draw(0.004, 0.014)
    narrowing = np.clip(1.3 - depth / 0.25, 0.25, 1.3)

    scene.paint(brain, signal["white"] * (1 + 0.03 * scene.waves(0.25)))
    scene.paint(np.maximum(brain, np.minimum(depth, to_fluid) - ribbon), signal["grey"])
    fluid = np.minimum(to_fold - wide * narrowing, to_midline - 0.006)
    fluid = np.minimum(fluid, to_cleft - 0.6 * wide)
    scene.paint(np.maximum(brain, fluid), signal["csf"], 0.85)


def _draw_deep_brain(
    scene: _Scene, signal: dict[str, float], half_width: float, half_length: float
) -> None:
    """Draw the ventricles and the grey nuclei beside them."""
    w, h, z = half_width, half_length, scene.z
    size = scene.draw(0.75, 1.3)
    uneven = 0.006 * scene.waves(0.25)
    for side in (-1, 1):
        lentiform = scene.ellipse(side * 0.37 * w, -0.02 * h, 0.085 * w, 0.17 * h, side * 0.22)
        caudate = scene.ellipse(side * 0.2 * w, -0.19 * h, 0.07 * w, 0.12 * h, side * -0.3)
        thalamus = scene.ellipse(side * 0.15 * w, 0.12 * h, 0.12 * w, 0.15 * h, side * -0.35)
        for nucleus in (lentiform, caudate, thalamus):
            scene.paint(nucleus + uneven + 0.2 * max(z - 0.3, 0), signal["deep"])
        # Higher up the horns recede and the bodies stretch into two parallel bands.
        thick, band = size * scene.draw(0.85, 1.15), min(z / 0.5, 1)
        horn = scene.ellipse(side * 0.105 * w, -0.25 * h, 0.06 * w * thick, 0.13 * h, side * 0.35)
        body = scene.ellipse(
            side * (0.07 + 0.04 * band) * w, 0.0, 0.045 * w * thick, (0.2 + 0.15 * band) * h
        )
        atrium = scene.ellipse(side * 0.23 * w, 0.29 * h, 0.075 * w * thick, 0.15 * h, side * -0.5)
        shrink = 0.12 * max(z - 0.2, 0)
        ventricle = _merge(_merge(horn + shrink, body, 0.06), atrium + shrink, 0.06)
        ventricle = np.maximum(ventricle + uneven + 0.4 * max(z - 0.5, 0), 0.006 - side * scene.x)
        scene.paint(ventricle, signal["csf"])
    third = scene.path((0, 0.03 * h), (0, 0.19 * h)) - size * 0.009
    scene.paint(third + 0.05 * max(z - 0.2, 0), signal["csf"])


def _acquire_mr(scene: _Scene, rng: np.random.Generator) -> np.ndarray:
    """Blur, shade by the coil's sensitivity, and add Rician noise.

    Reference: Gudbjartsson and Patz, The Rician distribution of noisy MRI data, 1995.
    """
    ramp_x, ramp_y, bowl = (scene.draw(-0.14, 0.14) for _ in range(3))
    bias = np.exp(ramp_x * scene.x + ramp_y * scene.y + bowl * (scene.x**2 + scene.y**2))
    sharp = 0.75 * scene.draw(0.8, 1.2) / _REFERENCE_SIZE * 2 / scene.pixel
    signal = 0.92 * _blur(scene.picture, max(sharp, 0.3)) * bias
    sigma = scene.draw(0.012, 0.03)
    real, imaginary = sigma * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return np.hypot(signal + real, imaginary)


# --- Abdomen, CT ---------------------------------------------------------------------------------

# Hounsfield units.
_AIR, _FAT, _FLUID, _MUSCLE, _MARROW, _BONE = -1000.0, -100.0, 8.0, 52.0, 130.0, 700.0
_TABLE = 160.0
_WINDOW_CENTER, _WINDOW_WIDTH = 40.0, 400.0


def _draw_abdomen(scene: _Scene) -> None:
    """Draw an axial slice of an abdomen; values are Hounsfield units."""
    scene.picture[:] = _AIR
    scene.place(scene.draw(-0.03, 0.03), scene.draw(-0.07, -0.03), scene.draw(-0.05, 0.05))
    contrast_agent = scene.draw(0, 1)
    half_width, half_depth = scene.draw(0.82, 0.92), scene.draw(0.6, 0.7)
    _draw_table(scene, half_depth + 0.05)
    skin, angle = _draw_outline(scene, half_width, half_depth, 2.35, 0.015)
    cavity = _draw_body_wall(scene, skin, angle)
    _draw_bowel(scene, cavity)
    _draw_stomach(scene, cavity)
    _draw_spine(scene, contrast_agent)
    tone = _draw_liver_and_spleen(scene, cavity, contrast_agent)
    _draw_kidneys(scene, cavity, contrast_agent)
    _draw_nodules(scene, tone)


def _draw_table(scene: _Scene, top: float) -> None:
    """Draw the two shells of the table, hollow towards the patient."""
    upper = np.abs(np.hypot(scene.x, scene.y + 1.7) - 1.7 - top)
    lower = np.abs(np.hypot(scene.x, scene.y + 1.7) - 1.77 - top)
    scene.paint(np.maximum(np.minimum(upper, lower) - 0.011, np.abs(scene.x) - 0.75), _TABLE)


def _draw_body_wall(scene: _Scene, skin: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Draw skin, fat, the muscles of the wall and ribs; return the distance to the cavity."""
    flanks = np.cos(angle) ** 2
    fat = scene.draw(0.03, 0.1) * (1 + 0.35 * np.sin(angle)) + 0.01 * scene.waves(0.7)
    muscle = scene.draw(0.035, 0.05) + 0.025 * flanks + 0.006 * scene.waves(0.4)
    wall = skin + np.maximum(fat, 0.022)
    cavity = wall + muscle
    scene.paint(skin, 10)
    scene.paint(skin + 0.014, _FAT + 8 * scene.waves(0.12))
    scene.paint(wall, _MUSCLE + 6 * scene.waves(0.08))
    # Fat between the layers of the wall.
    layer = np.maximum(np.abs(wall + 0.5 * muscle) - 0.003, 0.5 - flanks)
    scene.paint(layer, _FAT, 0.7)
    scene.paint(cavity, _FAT + 10 * scene.waves(0.15))
    slant = scene.draw(0, 0.4)
    across = (wall + 0.55 * muscle) / 0.02
    for side in (-1, 1):
        for rib in range(6):
            # Ribs run forwards and down, so going down a slice meets each farther to the front.
            around = 0.35 + 0.42 * rib + slant + 0.6 * scene.z
            if around > 2.5 - 1.4 * scene.z:
                continue
            turn = np.abs(angle - math.remainder(np.pi / 2 - side * around, 2 * np.pi))
            along = np.minimum(turn, 2 * np.pi - turn) / (0.085 + 0.05 * (rib % 2))
            shaft = 0.02 * (np.sqrt(along * along + across * across) - 1)
            scene.paint(shaft, _BONE)
            scene.paint(shaft + 0.012, _MARROW)
    return cavity


def _draw_spine(scene: _Scene, contrast_agent: float) -> None:
    """Draw a vertebra, the muscles along it and the great vessels in front."""
    y, radius = scene.draw(0.17, 0.21), scene.draw(0.115, 0.135)
    scene, _ = scene.crop(0, y + 0.1, 0.5)
    thick = 0.75 + 0.5 * scene.z
    for side in (-1, 1):
        erector = scene.ellipse(side * 0.2, y + 0.23, 0.16, 0.11, side * -0.25)
        psoas = scene.ellipse(side * 0.19, y + 0.01, 0.07 * thick, 0.09 * thick, side * 0.3)
        quadratus = scene.ellipse(side * 0.36, y + 0.12, 0.1 * thick, 0.045, side * -0.5)
        for muscle in (erector, psoas, quadratus):
            scene.paint(muscle, _MUSCLE + 9 * scene.waves(0.06))
    bone = scene.ellipse(0, y, radius, 0.82 * radius)
    back = y + radius
    process = scene.path((0, back + 0.1), (0, back + 0.21)) - 0.014
    arch = scene.path((-0.1, back + 0.02), (0, back + 0.11), (0.1, back + 0.02)) - 0.024
    length = scene.draw(0.2, 0.26)
    wings = scene.path((-length, back + 0.06), (-0.1, back + 0.03)) - 0.017
    wings = np.minimum(wings, scene.path((length, back + 0.06), (0.1, back + 0.03)) - 0.017)
    arch = np.minimum(np.minimum(arch, process), wings)
    scene.paint(arch, 0.8 * _BONE)
    scene.paint(arch + 0.012, _MARROW + 60)
    scene.paint(bone, _BONE)
    scene.paint(bone + 0.014, _MARROW + 45 * scene.waves(0.035))
    canal = scene.ellipse(0, back + 0.03, 0.055, 0.05)
    scene.paint(canal - 0.014, _BONE)
    scene.paint(canal, 25)
    scene.paint(scene.ellipse(0, back + 0.03, 0.026, 0.024), 42)
    blood = 45 + 130 * contrast_agent
    front = y - radius
    scene.paint(scene.ellipse(0.06, front - 0.03, 0.052, 0.05), blood)
    scene.paint(scene.ellipse(-0.09, front - 0.01, 0.062, 0.045, 0.2), 0.9 * blood)


def _draw_bowel(scene: _Scene, cavity: np.ndarray) -> None:
    """Draw vessels in the fat, loops of small bowel, and the colon on both flanks."""
    vessels = np.abs(scene.waves(0.16)) * 0.03 - 0.003
    scene.paint(np.maximum(vessels, cavity + 0.08), 30, 0.6)
    for _ in range(22):
        x, y = scene.draw(-0.5, 0.55), scene.draw(-0.42, 0.06)
        radius, gas = scene.draw(0.05, 0.085), scene.draw(-3, 0.9)
        drift_x, drift_y = scene.draw(-0.25, 0.25), scene.draw(-0.15, 0.15)
        x, y = x + drift_x * scene.z, y + drift_y * scene.z
        part, window = scene.crop(x, y, 2 * radius)
        loop = part.ellipse(x, y, radius * scene.draw(1, 1.6), radius, scene.draw(0, np.pi))
        loop = np.maximum(loop, cavity[window] + 0.02)
        _draw_gut(part, loop, y, radius, gas, scene.draw(15, 45))
    for side in (-1, 1):
        x, y, radius = side * scene.draw(0.54, 0.6), scene.draw(-0.1, 0.1), scene.draw(0.08, 0.11)
        colon = scene.ellipse(x, y, radius, 1.2 * radius) + 0.012 * scene.waves(0.12)
        colon = np.maximum(colon, cavity + 0.015)
        faeces = np.where(scene.waves(0.06) > 0.7, -95, 25 + 60 * scene.waves(0.04))
        _draw_gut(scene, colon, y, radius, scene.draw(-0.4, 0.9), faeces)


def _draw_gut(
    scene: _Scene,
    outline: np.ndarray,
    y: float,
    radius: float,
    gas: float,
    content: np.ndarray | float,
) -> None:
    """Draw a loop of gut; gas fills it from the front to `gas` radii below its centre."""
    scene.paint(outline - 0.006, _FAT)
    scene.paint(outline, 50)
    scene.paint(outline + 0.016, content)
    scene.paint(np.maximum(outline + 0.014, scene.y - y - gas * radius), _AIR)


def _draw_stomach(scene: _Scene, cavity: np.ndarray) -> None:
    """Draw the stomach with its bubble; it leaves the slice towards the lower end."""
    radius = scene.draw(0.2, 0.27)
    shrink = 0.5 * max(scene.z - 0.3, 0)
    stomach = scene.ellipse(0.26, -0.24, 1.3 * radius, 0.8 * radius, scene.draw(-0.5, -0.1))
    stomach = np.maximum(stomach + shrink + 0.012 * scene.waves(0.3), cavity + 0.015)
    content = 20 + 12 * scene.waves(0.1)
    _draw_gut(scene, stomach, -0.24, 0.8 * radius, scene.draw(-0.6, 0.1), content)


def _draw_liver_and_spleen(scene: _Scene, cavity: np.ndarray, contrast_agent: float) -> float:
    """Draw liver, gall bladder and spleen; return the liver's density."""
    shrink = 0.34 * scene.z**1.5
    uneven = 0.02 * scene.waves(0.5)
    right = scene.ellipse(-0.46, -0.06, 0.4, 0.44, 0.2)
    left = scene.ellipse(-0.14, -0.3, 0.42, 0.2, scene.draw(-0.15, 0.15)) + 0.3 * scene.z
    liver = np.maximum(np.minimum(right, left) + uneven + shrink, cavity + 0.012)
    tone = 58 + 55 * contrast_agent
    scene.paint(liver - 0.008, _FAT)
    scene.paint(liver, tone + 4 * scene.waves(0.1))
    trees = np.abs(scene.waves(0.34)) * 0.06 - 0.011 + 0.03 * np.maximum(scene.waves(0.4), 0)
    vessels = np.maximum(trees, liver + 0.07)
    scene.paint(vessels, tone - 18 + 70 * contrast_agent)
    bladder = scene.ellipse(-0.2, -0.12, 0.06, 0.095, scene.draw(-0.5, 0.5))
    scene.paint(bladder + 0.25 * abs(scene.z - 0.45), _FLUID)
    spleen = scene.ellipse(0.6, 0.06, 0.18, 0.3, -0.35) + 0.5 * max(scene.z - 0.35, 0)
    spleen = np.maximum(spleen + uneven, cavity + 0.012)
    scene.paint(spleen - 0.006, _FAT)
    scene.paint(spleen, 50 + 75 * contrast_agent + 3 * scene.waves(0.08))
    return tone


def _draw_nodules(scene: _Scene, tone: float) -> None:
    """Draw dark nodules in a liver of density `tone`, where nothing else is."""
    for _ in range(scene.rng.choice(5, p=(0.15, 0.2, 0.25, 0.2, 0.2))):
        nodule = _draw_lesion(scene, "nodule", (9, 13), lobed=0.6)
        x, y, value = scene.draw(-0.62, -0.3), scene.draw(-0.25, 0.1), tone - scene.draw(45, 65)
        part, _ = scene.crop(x, y, 1.2 * nodule.radius)
        # Fat or bile in the square means that the liver ends there; its vessels are denser.
        if part.picture.min() > tone - 40:
            scene.add_lesion(nodule, x, y, value)


def _draw_kidneys(scene: _Scene, cavity: np.ndarray, contrast_agent: float) -> None:
    """Draw both kidneys, in the slices that they reach, with their stones."""
    for side in (-1, 1):
        x, y = side * scene.draw(0.35, 0.4), scene.draw(0.16, 0.22)
        middle, tilt = scene.draw(0.4, 0.7), side * scene.draw(0.4, 0.8)
        scale = scene.draw(0.9, 1.1) * math.sqrt(max(1 - (scene.z - middle) ** 2 / 0.4, 0.01))
        part, window = scene.crop(x, y, 0.3)
        a, b = 0.12 * scale, 0.17 * scale
        _draw_kidney(part, cavity[window], side, (x, y), (a, b), tilt, contrast_agent)
        for _ in range(scene.rng.choice(3, p=(0.45, 0.35, 0.2))):
            stone = _draw_lesion(scene, "stone", (8, 11), lobed=1.2)
            along, value = scene.draw(-0.5, 0.5), scene.draw(320, 900)
            if scale > 0.6:
                u, v = -side * 0.3 * a, along * b
                dx = math.cos(tilt) * u - math.sin(tilt) * v
                dy = math.sin(tilt) * u + math.cos(tilt) * v
                scene.add_lesion(stone, x + dx, y + dy, value)


def _draw_kidney(
    scene: _Scene,
    cavity: np.ndarray,
    side: int,
    center: tuple[float, float],
    axes: tuple[float, float],
    tilt: float,
    contrast_agent: float,
) -> None:
    """Draw a kidney with cortex, pyramids, the fat of the sinus, and the pelvis."""
    (x, y), (a, b) = center, axes
    kidney = scene.ellipse(x, y, a, b, tilt) + 0.006 * scene.waves(0.2)
    notch = scene.ellipse(x - side * a, y - 0.5 * a, 0.5 * a, 0.4 * a)
    kidney = np.maximum(np.maximum(kidney, -notch), cavity + 0.03)
    bearing = np.arctan2(scene.y - y, scene.x - x)
    pyramids = np.maximum(kidney + 0.03, -0.02 * np.cos(9 * bearing + scene.draw(0, 6)))
    sinus = scene.ellipse(x - side * 0.35 * a, y - 0.15 * a, 0.48 * a, 0.55 * b, tilt)
    pelvis = scene.ellipse(x - side * 0.5 * a, y - 0.25 * a, 0.42 * a, 0.16 * b, tilt)
    cortex = 33 + 160 * contrast_agent
    scene.paint(kidney - 0.4 * a, _FAT)
    scene.paint(kidney, cortex)
    scene.paint(pyramids, cortex - 45 * contrast_agent)
    scene.paint(np.maximum(sinus + 0.008 * scene.waves(0.12), kidney), _FAT + 15)
    scene.paint(pelvis, _FLUID)


def _acquire_ct(scene: _Scene, rng: np.random.Generator) -> np.ndarray:
    """Blur, add noise as filtered back projection leaves it, and window to [0, 1]."""
    sharp = 0.8 / _REFERENCE_SIZE * 2 / scene.pixel
    density = _blur(scene.picture, max(sharp, 0.3))
    # Fewer photons reach the middle of the body, and the ramp filter removes low frequencies.
    quanta = np.exp(-1.2 * (scene.x**2 + 1.5 * scene.y**2))
    white = rng.standard_normal(density.shape, dtype=np.float32)
    grain = _blur(white, 0.7) - _blur(white, 2.0)
    noise = scene.draw(8, 20) * quanta * grain / grain.std()
    low = _WINDOW_CENTER - _WINDOW_WIDTH / 2
    return (density + noise - low) / _WINDOW_WIDTH
