"""Scores of images without ground truth: NIQE, BRISQUE and PIQE. Lower is better.

    NIQE     distance of the statistics of the image from those of undistorted photographs
             (Mittal, Soundararajan and Bovik, IEEE Signal Processing Letters 2013).
    BRISQUE  regression from the same kind of statistics to the opinions of people
             (Mittal, Moorthy and Bovik, IEEE Transactions on Image Processing 2012).
    PIQE     share and strength of the distorted blocks (Venkatanath et al., NCC 2015).

NIQE and BRISQUE use the parameters of their authors' releases, in reference_free.safetensors. PIQE
has none; the package pypiqe computes it. docs/metrics.md says how far the scores agree with the
original programs, and what they cannot say.
"""

from collections.abc import Iterator
from functools import cache
from math import gamma
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pypiqe import piqe
from safetensors.numpy import load_file

from utils.pixels import Pixels

Array = NDArray[np.float64]

BLOCK = 96  # side of the blocks of NIQE in pixels
GAMMA = 0.05  # of BRISQUE's kernel
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # from a pixel to its neighbours


class Quality(NamedTuple):
    """The scores of one image; NaN where a score does not exist, as for too small an image."""

    niqe: float
    brisque: float
    piqe: float


def quality(pixels: Pixels) -> Quality:
    """Score an image, uint8 [H, W, 3], RGB, without ground truth."""
    image = _grey(pixels)
    with np.errstate(invalid="ignore", divide="ignore"):  # of an image or a block without contrast
        distortion = float(piqe(pixels[..., ::-1])[0])  # as OpenCV orders the channels
        return Quality(_niqe(image), _brisque(image), distortion)


@cache
def _parameters() -> dict[str, NDArray[np.floating]]:
    return load_file(Path(__file__).with_suffix(".safetensors"))


def _grey(pixels: Pixels) -> Array:
    """MATLAB's rgb2gray: luma in whole numbers from 0 to 255, [H, W]."""
    return np.floor(pixels[..., :3] @ np.array([0.298936, 0.587043, 0.114021]) + 0.5)


def _niqe(image: Array) -> float:
    """The distance of two Gaussian models of block statistics, Eq. 10 of the paper."""
    rows, columns = (length // BLOCK for length in image.shape)
    if rows * columns < 2:
        return np.nan
    image = image[: rows * BLOCK, : columns * BLOCK]
    scales = []
    for side, scaled in ((BLOCK, image), (BLOCK // 2, _halve(image))):
        plane = _normalize(scaled)
        blocks = plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        scales.append(np.array([_niqe_features(block) for block in blocks]))
    features = np.concatenate(scales, axis=1)  # [blocks, 36]
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) < 2:
        return np.nan
    natural = _parameters()
    away = np.nanmean(features, axis=0) - natural["niqe.mean"]
    covariance = (np.cov(whole, rowvar=False) + natural["niqe.covariance"]) / 2
    return float(np.sqrt(away @ np.linalg.pinv(covariance) @ away))


def _niqe_features(plane: Array) -> list[float]:
    """The 18 features of a block at one scale: shapes, means and widths of distributions."""
    shape, left, right = _fit(plane)
    features = [shape, (left + right) / 2 * _width(shape)]
    for product in _products(plane, wrap=True):
        shape, left, right = _fit(product)
        width = _width(shape)
        features += [shape, _mean(shape, left, right), left * width, right * width]
    return features


def _brisque(image: Array) -> float:
    """Support vector regression on 36 statistics of the whole image."""
    p = _parameters()
    low, high = p["brisque.low"], p["brisque.high"]
    place = 2 * (_brisque_features(image) - low) / (high - low) - 1
    kernel = np.exp(-GAMMA * np.square(p["brisque.vectors"] - place).sum(axis=1))
    return float(p["brisque.coefficients"] @ kernel + p["brisque.offset"])


def _brisque_features(image: Array) -> Array:
    """Shapes, means and variances of distributions, at two scales."""
    height, width = image.shape
    features: list[float] = []
    half = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_CUBIC)
    for scaled in (image, np.asarray(half, np.float64)):
        plane = _normalize(scaled)
        shape, left, right = _fit(plane)
        features += [shape, (left**2 + right**2) / 2]
        for product in _products(plane, wrap=False):
            shape, left, right = _fit(product)
            features += [shape, _mean(shape, left, right), left**2, right**2]
    return np.array(features)


def _normalize(image: Array) -> Array:
    """Contrast relative to a neighbourhood of 7x7 pixels, Eq. 1 of both papers."""
    mean, power = (
        cv2.GaussianBlur(x, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
        for x in (image, image**2)
    )
    return np.asarray((image - mean) / (np.sqrt(np.abs(power - mean**2)) + 1))


def _products(plane: Array, wrap: bool) -> Iterator[Array]:
    """Each pixel times its neighbour in four directions.

    Outside the plane is its far side if `wrap`, as in the release of NIQE, and 0 otherwise, as in
    that of BRISQUE.
    """
    for shift in SHIFTS:
        framed = plane if wrap else np.pad(plane, 1)
        product = framed * np.roll(framed, shift, (0, 1))
        yield product if wrap else product[1:-1, 1:-1]


def _fit(values: Array) -> tuple[float, float, float]:
    """Fit an asymmetric generalized Gaussian by its moments (Lasmar et al., ICIP 2009).

    Returns:
        Its shape, and the root mean squares of the negative and of the positive values; NaN if
        there are none.
    """
    square = values**2
    left, right = (
        np.sqrt(np.where(side, square, 0).sum() / side.sum()) for side in (values < 0, values > 0)
    )
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / square.mean()
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _shapes()
    return float(shapes[np.argmin(np.abs(ratios - ratio))]), float(left), float(right)


@cache
def _shapes() -> tuple[Array, Array]:
    """Shapes from 0.2 to 10, and E|x|^2 / E(x^2) of a generalized Gaussian with each."""
    shapes = np.arange(200, 10_001) / 1000
    ratios = [gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) for a in shapes.tolist()]
    return shapes, np.array(ratios)


def _width(shape: float) -> float:
    """The scale parameter of a generalized Gaussian with standard deviation 1."""
    return (gamma(1 / shape) / gamma(3 / shape)) ** 0.5


def _mean(shape: float, left: float, right: float) -> float:
    return (right - left) * _width(shape) * gamma(2 / shape) / gamma(1 / shape)


def _halve(image: Array) -> Array:
    """MATLAB's imresize(image, 0.5): bicubic, widened by 2 against aliasing, mirrored border."""
    x = np.array([0.25, 0.75, 1.25, 1.75])  # half the distances of the pixels
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    half = np.where(x <= 1, near, far)
    taps = np.concatenate([half[::-1], half]) / (2 * half.sum())
    border = cv2.BORDER_REFLECT  # repeats the outermost pixel
    smooth = cv2.sepFilter2D(image, cv2.CV_64F, taps, taps, anchor=(3, 3), borderType=border)
    return np.asarray(smooth[::2, ::2])
