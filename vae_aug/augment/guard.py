"""The guard: measure how well each box's content is preserved, and undo changes that harm it.

A box is judged with a margin around it, the *window*: what makes a lesion visible is its contrast
with its surroundings. Windows are whole pixels. A box that is not finite, has no area or does not
touch the image (padding with -1 or 0, a degenerate annotation) has no window: its fidelity and its
contrast are NaN, and the guard ignores it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_aug.augment.smoothing import make_kernel, smooth
from vae_aug.grey import change_luminance, compute_grey

_MARGIN, _MIN_MARGIN_PX = 0.1, 2.0
"""Margin around a box: a share of its side, and at least so many pixels."""

_FEATHER, _MIN_FEATHER_PX = 0.25, 4.0
"""Width of the edge over which a pasted window fades out: a share of its side, and pixels."""

_K1, _K2 = 0.01, 0.03
"""Constants of SSIM, Wang et al. 2004, IEEE Trans. Image Processing 13(4)."""

_MIN_SPAN = 1e-3
"""Grey range of an image below which noise of storage, not anatomy, would be judged."""

_SMOOTHING_SIGMA_PX = 1.5

_SMOOTHING_KERNEL = make_kernel(_SMOOTHING_SIGMA_PX)
_SMOOTHING_RADIUS_PX = len(_SMOOTHING_KERNEL) // 2

_NOISE_ERRORS = 2.0
"""Standard errors by which a variance must exceed that of noise to count as content."""


RING, MIN_RING_PX = 0.5, 4
"""Width of a box's surroundings: a share of its side, and at least so many pixels."""

MIN_NOISE = 1e-6
"""Standard deviation of grey in [0, 1] up to which there is no noise to relate a contrast to."""

_SUBPIXEL = 1e-3
"""Keeps the side of a box stored as float32 from touching the next pixel."""


class Windows(NamedTuple):
    """Pixel windows around boxes, or other areas of whole pixels.

    Attributes:
        top: `[N] float32`, first row.
        left: `[N] float32`, first column.
        bottom: `[N] float32`, row behind the last.
        right: `[N] float32`, column behind the last.
        valid: `[N] bool`, whether the box has a window.
    """

    top: tf.Tensor
    left: tf.Tensor
    bottom: tf.Tensor
    right: tf.Tensor
    valid: tf.Tensor


def make_windows(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Windows:
    """Widen boxes by the margin, to whole pixels inside the image.

    Args:
        boxes: `[N, 4] float32`, `rel_yxyx`; anything may stand in the rows.
        height: Scalar int32, of the image in pixels.
        width: Scalar int32.

    Returns:
        The windows; those of invalid boxes are empty.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    start, end = boxes[..., :2] * size, boxes[..., 2:] * size
    inside = (start < size) & (end > 0.0) & (end > start)
    valid = tf.reduce_all(inside & tf.math.is_finite(start) & tf.math.is_finite(end), axis=-1)
    margin = tf.maximum(_MARGIN * (end - start), _MIN_MARGIN_PX)
    start = tf.clip_by_value(tf.floor(start - margin), 0.0, size)
    end = tf.clip_by_value(tf.math.ceil(end + margin), 0.0, size)
    start, end = (tf.where(valid[..., None], side, 0.0) for side in (start, end))
    return Windows(start[..., 0], start[..., 1], end[..., 0], end[..., 1], valid)


def measure_fidelity(
    reference: tf.Tensor, image: tf.Tensor, boxes: tf.Tensor, *, denoised: bool = False
) -> tf.Tensor:
    """Measure how well each box's content is preserved.

    SSIM over one window per box, with the range of the reference image as the data range, so that
    12-bit data in a 16-bit image is judged as strictly as any other:
    `(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2))`.

    A denoised image is judged by what its noisy reference shows above the noise, since noise that
    is gone is no loss. Both are smoothed, and the variance that noise leaves after it, with an
    allowance for chance in small boxes, is taken off the reference's: `vs = max(sx^2 - vn, 0)`.
    With `w = min(sy^2, vs)`, fidelity is structure times contrast,

        min((sxy + C2 / 2) / (sqrt(vs) sy + C2 / 2), 1) * (2 sqrt(vs w) + C2) / (vs + w + C2)

    so a lesion that is erased, or becomes another shape, fails, and one that gains the contrast and
    the level that noise had taken from it does not. Where nothing stands out of the noise nothing
    can be lost, and fidelity is 1. The noise is estimated in the window, by Immerkaer's operator.

    Args:
        reference: `[H, W, 1] float32`, grey.
        image: `[H, W, 1] float32`, the changed image.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        denoised: Whether `image` is `reference` without its noise.

    Returns:
        `[N] float32` in [-1, 1]; NaN for a box without a window.

    Reference:
        Wang et al., Image Quality Assessment (2004), for SSIM; Immerkaer, Fast Noise Variance
        Estimation, Computer Vision and Image Understanding 64 (1996) 300-302.
    """
    windows = make_windows(boxes, *tf.unstack(tf.shape(reference)[:2]))
    judge = _Judge(reference, windows, denoised=denoised)
    return judge.measure(judge.region.crop(image))


def measure_contrast_ratio(reference: tf.Tensor, image: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Measure each box's contrast-to-noise ratio after a change, as a share of that before.

    The contrast-to-noise ratio is `(mean inside - mean around) / standard deviation around`. Inside
    are the pixels that the box touches; around is a ring of half the box's sides, at least 4
    pixels, without the pixels of other boxes. 1 is kept, 0 is lost, below 0 is inverted.

    Args:
        reference: `[H, W, 1] float32`, grey in [0, 1].
        image: `[H, W, 1] float32`, the changed image.
        boxes: `[N, 4] float32`, `rel_yxyx`.

    Returns:
        `[N] float32`; NaN where either image has no such ratio, because nothing is inside or
        around the box or there is no noise around it, or where the reference has no contrast.

    Reference:
        `vae_aug.evaluate.diversity.measure_contrast`, the same in NumPy.
    """
    before, after = (contrast.to_noise for contrast in measure_contrasts(boxes, reference, image))
    ratio = tf.where(tf.not_equal(before, 0.0), after / before, float("nan"))
    return tf.cast(ratio, tf.float32)


class Contrast(NamedTuple):
    """How boxes stand out from their surroundings.

    Attributes:
        difference: `[N] float64`, mean grey inside minus mean grey around; NaN where there is
            nothing inside or around.
        to_noise: `[N] float64`, the same over the standard deviation around; NaN where that is
            `MIN_NOISE` or less, too.
    """

    difference: tf.Tensor
    to_noise: tf.Tensor


def measure_contrasts(boxes: tf.Tensor, *images: tf.Tensor) -> list[Contrast]:
    """Measure each box's contrast, see `measure_contrast_ratio`.

    Args:
        boxes: `[N, 4] float32`, `rel_yxyx`.
        *images: `[H, W, 1] float32`, grey in [0, 1].

    Returns:
        The contrasts in each image.
    """
    height, width = tf.unstack(tf.shape(images[0])[:2])
    box = _find_pixels(boxes, height, width)
    down, across = (
        tf.maximum(tf.round(RING * side), float(MIN_RING_PX))
        for side in (box.bottom - box.top, box.right - box.left)
    )
    ring = Windows(
        box.top - down, box.left - across, box.bottom + down, box.right + across, box.valid
    )
    part = _Region.around(ring, 0.0, height, width)
    inside, around = part.indicate(box), part.indicate(ring)
    free = tf.cast(tf.einsum("nh,nw->hw", *inside) < 0.5, tf.float64)

    def add(plane: tf.Tensor, areas: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        rows, columns = areas
        return tf.reduce_sum(tf.matmul(rows, plane) * columns, -1)

    area, free_area = add(tf.ones_like(free), inside), add(free, around)

    def measure(grey: tf.Tensor) -> Contrast:
        plane = tf.cast(part.crop(grey)[..., 0], tf.float64)
        mean = add(free * plane, around) / free_area
        noise = tf.sqrt(tf.maximum(add(free * plane**2, around) / free_area - mean**2, 0.0))
        difference = add(plane, inside) / area - mean
        return Contrast(difference, tf.where(noise > MIN_NOISE, difference / noise, float("nan")))

    return [measure(image) for image in images]


def change_guarded(
    image: tf.Tensor,
    change: tf.Tensor,
    boxes: tf.Tensor,
    low: tf.Tensor,
    high: tf.Tensor,
    *,
    guard: str,
    min_fidelity: float,
    denoised: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Change an image as far as no box is harmed.

    The guard repeats until no further box fails, since the fading edge around one box can harm
    another that had passed; each round adds a box, and a box that was added is the original's.
    Boxes are judged in the part of the image where windows are, and again only if a fading edge
    comes near one.

    Args:
        image: `[H, W, C]` of any dtype that `change_luminance` takes.
        change: `[H, W, 1] float32`, the change of grey that the network wants.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        low: From `find_range`, the value of black.
        high: Likewise of white.
        guard: As of `guard_change`.
        min_fidelity: Fidelity below which a box has failed.
        denoised: As of `measure_fidelity`.

    Returns:
        The image; `[N] float32`, the fidelity of every box in it, 1 where the original was
        put back; and `[N] bool`, the boxes that the guard acted for.
    """
    windows = make_windows(boxes, *tf.unstack(tf.shape(image)[:2]))
    judge = _Judge(compute_grey(image, low, high), windows, denoised=denoised)
    part, wanted = judge.region.crop(image), judge.region.crop(change)

    def measure(change: tf.Tensor) -> tf.Tensor:
        return judge.measure(compute_grey(change_luminance(part, change, low, high), low, high))

    def find_new(fidelity: tf.Tensor, failed: tf.Tensor) -> tf.Tensor:
        return (fidelity < min_fidelity) & ~failed

    def act(fidelity: tf.Tensor, failed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        failed |= find_new(fidelity, failed)
        original = failed
        if guard == "keep":
            original = tf.reduce_any(failed) & windows.valid
        fidelity = tf.cond(
            tf.reduce_any(_is_near(windows, failed) & ~original),
            lambda: measure(_take_back(wanted, windows, failed, guard, judge.region)),
            lambda: fidelity,
        )
        return tf.where(original, 1.0, fidelity), failed

    fidelity = measure(wanted)
    failed = tf.zeros_like(fidelity, tf.bool)
    if guard != "off":
        fidelity, failed = tf.while_loop(
            lambda fidelity, failed: tf.reduce_any(find_new(fidelity, failed)),
            act,
            (fidelity, failed),
            shape_invariants=(fidelity.shape, failed.shape),
        )
        change = tf.cond(
            tf.reduce_any(failed),
            lambda: guard_change(change, boxes, failed, guard),
            lambda: change,
        )
    return change_luminance(image, change, low, high), fidelity, failed


def guard_change(change: tf.Tensor, boxes: tf.Tensor, failed: tf.Tensor, guard: str) -> tf.Tensor:
    """Take a change back where it harmed a box.

    Args:
        change: `[H, W, 1] float32`, what would be added to the image.
        boxes: `[N, 4] float32`, `rel_yxyx`.
        failed: `[N] bool`, boxes whose content is not preserved.
        guard: `"paste"`: nothing changes in the window of a failed box, and the change comes back
            gradually around it. `"keep"`: nothing changes if a box has failed. `"off"`.

    Returns:
        `[H, W, 1] float32`; exactly 0 where the original is kept.
    """
    height, width = tf.unstack(tf.shape(change)[:2])
    windows = make_windows(boxes, height, width)
    return _take_back(change, windows, failed, guard, _Region.of_image(height, width))


class _Region(NamedTuple):
    """A part of an image in pixels, scalar int32; `bottom` and `right` are behind the last."""

    top: tf.Tensor
    left: tf.Tensor
    bottom: tf.Tensor
    right: tf.Tensor

    @classmethod
    def of_image(cls, height: tf.Tensor, width: tf.Tensor) -> _Region:
        """Return all of an image."""
        return cls(tf.constant(0), tf.constant(0), height, width)

    @classmethod
    def around(cls, areas: Windows, margin: float, height: tf.Tensor, width: tf.Tensor) -> _Region:
        """Return the part of an image that holds all valid areas with a margin, at least a pixel.

        Args:
            areas: In the image or beyond it.
            margin: In pixels.
            height: Scalar int32, of the image in pixels.
            width: Scalar int32.
        """

        def find(start: tf.Tensor, end: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, ...]:
            most = tf.cast(length, tf.float32)
            first = tf.reduce_min(tf.where(areas.valid, start - margin, most))
            last = tf.reduce_max(tf.where(areas.valid, end + margin, 0.0))
            begin = tf.cast(tf.clip_by_value(first, 0.0, most - 1.0), tf.int32)
            stop = tf.cast(tf.clip_by_value(last, 0.0, most), tf.int32)
            return begin, tf.maximum(stop, begin + 1)

        top, bottom = find(areas.top, areas.bottom, height)
        left, right = find(areas.left, areas.right, width)
        return cls(top, left, bottom, right)

    @property
    def rows(self) -> tf.Tensor:
        """`[h] float32`, the numbers of its rows."""
        return tf.range(tf.cast(self.top, tf.float32), tf.cast(self.bottom, tf.float32))

    @property
    def columns(self) -> tf.Tensor:
        """`[w] float32`, the numbers of its columns."""
        return tf.range(tf.cast(self.left, tf.float32), tf.cast(self.right, tf.float32))

    def indicate(self, areas: Windows) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `[N, h]` and `[N, w] float64`, 1 for its rows and columns in each area, else 0."""
        rows = _indicate(areas.top, areas.bottom, self.rows)
        return rows, _indicate(areas.left, areas.right, self.columns)

    def crop(self, image: tf.Tensor) -> tf.Tensor:
        """Cut the part out of `[H, W, C]`."""
        return image[self.top : self.bottom, self.left : self.right]


class _Judge:
    """Judges boxes by one reference, of which everything is computed once.

    Attributes:
        region: Where the windows are, with the reach of the smoothing around them.
    """

    def __init__(self, reference: tf.Tensor, windows: Windows, *, denoised: bool) -> None:
        span = tf.reduce_max(reference) - tf.reduce_min(reference)
        span = tf.cast(tf.maximum(span, _MIN_SPAN), tf.float64)
        self._c1, self._c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
        self._denoised, self._valid = denoised, windows.valid
        size = tf.unstack(tf.shape(reference)[:2])
        self.region = _Region.around(windows, _SMOOTHING_RADIUS_PX, *size)
        self._rows, self._columns = self.region.indicate(windows)
        count = tf.reduce_sum(self._rows, -1) * tf.reduce_sum(self._columns, -1)
        self._count = tf.maximum(count, 1.0)
        part = self.region.crop(reference)
        self._x = self._prepare(part)
        self._mean_x, square_x = self._average(self._x, self._x**2)
        self._var_x = tf.maximum(square_x - self._mean_x**2, 0.0)
        if denoised:
            (sigma,) = self._average(tf.cast(_respond_to_noise(part)[..., 0], tf.float64))
            share = float(np.sum(_SMOOTHING_KERNEL**2)) ** 2
            chance = _NOISE_ERRORS * tf.sqrt(2.0 / tf.maximum(self._count * share, 1.0))
            self._content = tf.maximum(self._var_x - sigma**2 * share * (1.0 + chance), 0.0)

    def measure(self, image: tf.Tensor) -> tf.Tensor:
        """Measure fidelity, see `measure_fidelity`, of the region of an image."""
        y, c1, c2 = self._prepare(image), self._c1, self._c2
        mean_y, square_y, product = self._average(y, y**2, self._x * y)
        var_y = tf.maximum(square_y - mean_y**2, 0.0)
        covariance = product - self._mean_x * mean_y
        if self._denoised:
            kept = tf.minimum(var_y, self._content)
            similarity = (covariance + c2 / 2) / (tf.sqrt(self._content * var_y) + c2 / 2)
            similarity = tf.minimum(similarity, 1.0)
            similarity *= (2 * tf.sqrt(self._content * kept) + c2) / (self._content + kept + c2)
        else:
            similarity = (2 * self._mean_x * mean_y + c1) * (2 * covariance + c2)
            similarity /= (self._mean_x**2 + mean_y**2 + c1) * (self._var_x + var_y + c2)
        return tf.where(self._valid, tf.cast(similarity, tf.float32), float("nan"))

    def _prepare(self, image: tf.Tensor) -> tf.Tensor:
        """Turn `[h, w, 1] float32` into what is compared, `[h, w] float64`."""
        image = smooth(image, _SMOOTHING_SIGMA_PX) if self._denoised else image
        return tf.cast(image[..., 0], tf.float64)

    def _average(self, *planes: tf.Tensor) -> list[tf.Tensor]:
        """Compute the means of planes `[h, w]` in every window, each `[N]`."""
        # As a product with indicator rows and columns: no gather per box, and for the few boxes
        # of an image cheaper than an integral image.
        count, width = len(planes), tf.shape(self._columns)[-1]
        sums = tf.matmul(self._rows, tf.concat(planes, axis=-1))
        sums = tf.reshape(sums, [tf.shape(self._rows)[0], count, width])
        means = tf.reduce_sum(sums * self._columns[:, None], -1) / self._count[:, None]
        return tf.unstack(means, count, axis=-1)


def _is_near(windows: Windows, failed: tf.Tensor) -> tf.Tensor:
    """Tell which boxes the fading edge of a failed one may touch, smoothing included: `[N]`."""

    def meet(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        reach = _compute_feather(start, end) + _SMOOTHING_RADIUS_PX
        after = end[:, None] > (start - reach)[None]
        return after & (start[:, None] < (end + reach)[None])

    pairs = meet(windows.top, windows.bottom) & meet(windows.left, windows.right)
    return tf.reduce_any(pairs & (failed & windows.valid)[None], axis=-1) & windows.valid


def _take_back(
    change: tf.Tensor, windows: Windows, failed: tf.Tensor, guard: str, region: _Region
) -> tf.Tensor:
    """Do `guard_change` in a region of the image, `[h, w, 1]`."""
    if guard == "off":
        return change
    if guard == "keep":
        return tf.where(tf.reduce_any(failed), 0.0, change)
    rows = _fade(windows.top, windows.bottom, region.rows)
    columns = _fade(windows.left, windows.right, region.columns)
    rows = tf.where((failed & windows.valid)[..., None], rows, 0.0)
    # Overlapping windows add up; inside any of them the sum is at least exactly 1.
    kept = tf.minimum(tf.einsum("nh,nw->hw", rows, columns), 1.0)
    return tf.where(kept[..., None] >= 1.0, 0.0, change * (1.0 - kept[..., None]))


def _find_pixels(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Windows:
    """Find the pixels that boxes touch; none for a box that is not finite or has no area."""
    size = tf.cast(tf.stack([height, width]), tf.float64)
    boxes = tf.cast(boxes, tf.float64)
    start, end = boxes[..., :2], boxes[..., 2:]
    valid = (end > start) & tf.math.is_finite(start) & tf.math.is_finite(end)
    valid = tf.reduce_all(valid, axis=-1, keepdims=True)
    start = tf.clip_by_value(tf.floor(start * size + _SUBPIXEL), 0.0, size)
    end = tf.clip_by_value(tf.math.ceil(end * size - _SUBPIXEL), 0.0, size)
    start, end = (tf.where(valid, side, 0.0) for side in (start, tf.maximum(start, end)))
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    return Windows(start[..., 0], start[..., 1], end[..., 0], end[..., 1], valid[..., 0])


def _indicate(start: tf.Tensor, end: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Return `[N, L] float64`, 1 for pixels `[L]` from `start` up to before `end`, else 0."""
    return tf.cast((pixels >= start[..., None]) & (pixels < end[..., None]), tf.float64)


def _fade(start: tf.Tensor, end: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Return `[N, L] float32`, 1 from `start` to `end` and smoothly down to 0 outside."""
    start, end = start[..., None], end[..., None]
    feather = _compute_feather(start, end)
    distance = tf.maximum(tf.maximum(start - pixels, pixels - (end - 1.0)), 0.0)
    linear = tf.maximum(1.0 - distance / feather, 0.0)
    return linear * linear * (3.0 - 2.0 * linear)


def _compute_feather(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Return the distance in pixels from a window's last pixels to where nothing is taken back."""
    return tf.maximum(_FEATHER * (end - start), _MIN_FEATHER_PX) + 1.0


def _respond_to_noise(image: tf.Tensor) -> tf.Tensor:
    """Filter `[H, W, 1]` so that the mean over a region is its noise's standard deviation.

    The second difference down and across is 0 on any plane and straight edge, and for white
    Gaussian noise of deviation s its mean size is 6 s sqrt(2 / pi).
    """
    bent = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    for _ in range(2):
        bent = bent[1:] - bent[:-1]
        bent = bent[:, 1:] - bent[:, :-1]
    return tf.abs(bent) * (math.sqrt(math.pi / 2.0) / 6.0)
