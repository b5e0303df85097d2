"""NIQE, BRISQUE and PIQE against other implementations, and what they do to noise and blur."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from pypiqe import piqe

from utils import reference_free
from utils.image import Pixels
from utils.reference_free import quality

# BasicSR 1.4.2 in float64, which agrees with MATLAB's program to 1e-5 on one image, by its authors.
NIQE = {
    "astronaut": 3.067256412001569,
    "coffee": 4.0584576185600465,
    "chelsea": 2.5720890039394755,
    "rocket": 7.036032262436089,
}

# OpenCV 5.1.0, cv2.quality.QualityBRISQUE_computeFeatures of skimage.data.chelsea().
BRISQUE = """
1.412000 0.231103 0.530000 0.050602 0.056330 0.106971 0.532000 0.021698 0.069317
0.091014 0.537000 -0.034911 0.098730 0.063859 0.516000 0.003561 0.078988 0.082626
1.553000 0.300896 0.580000 0.006319 0.128630 0.136452 0.590000 -0.028873 0.143169
0.108668 0.593000 -0.036229 0.141907 0.099665 0.567000 -0.027948 0.144667 0.110451
"""


def photograph(name: str = "chelsea") -> Pixels:
    return np.asarray(getattr(skimage.data, name)())


@pytest.mark.parametrize("name", NIQE)
def test_niqe_equals_another_implementation(name: str) -> None:
    grey = reference_free._grey(photograph(name))
    assert reference_free._niqe(grey) == pytest.approx(NIQE[name], abs=1e-3)


def test_features_of_brisque_equal_another_implementation() -> None:
    features = reference_free._brisque_features(reference_free._grey(photograph()))
    expected = [float(number) for number in BRISQUE.split()]
    assert features.tolist() == pytest.approx(expected, abs=2e-5)


def test_brisque_is_a_sum_over_support_vectors() -> None:
    """Longhand, with the features scaled to [-1, 1] from the ranges of the training."""
    image = reference_free._grey(photograph()[:64, :80])
    p: dict[str, Any] = reference_free._parameters()
    place = [
        2 * (feature - low) / (high - low) - 1
        for feature, low, high in zip(
            reference_free._brisque_features(image),
            p["brisque.low"],
            p["brisque.high"],
            strict=True,
        )
    ]
    total = 155.845  # minus rho in the file of the release
    for weight, vector in zip(p["brisque.coefficients"], p["brisque.vectors"], strict=True):
        squares = sum((a - b) ** 2 for a, b in zip(place, vector.tolist(), strict=True))
        total += weight * math.exp(-0.05 * squares)
    assert reference_free._brisque(image) == pytest.approx(total, abs=1e-6)
    assert len(p["brisque.coefficients"]) == 770


def test_piqe_is_that_of_the_package() -> None:
    image = photograph()[:100, :140]
    assert quality(image).piqe == piqe(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[0]


def test_halving_is_that_of_matlab() -> None:
    """Values of imresize(x, 0.5): bicubic, widened by 2, mirrored border; weights by hand."""
    ramp = np.zeros((2, 16))
    ramp[:, 8] = 1
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    expected = [taps[8 - (2 * i - 3)] if 0 <= 8 - (2 * i - 3) < 8 else 0 for i in range(8)]
    assert reference_free._halve(ramp)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_noise_and_blur_are_worse() -> None:
    image = photograph("coffee")[:288, :288]
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)
    clean = quality(image)
    for worse in (quality(noisy), quality(blurred)):
        assert all(a > b for a, b in zip(worse, clean, strict=True))


def test_images_without_a_score() -> None:
    """NIQE needs two blocks of 96x96 pixels; a black image has no statistics."""
    small = quality(photograph()[:96, :191])
    assert math.isnan(small.niqe)
    assert math.isfinite(small.brisque)
    assert math.isfinite(quality(photograph()[:96, :192]).niqe)
    black = quality(np.zeros((200, 200, 3), np.uint8))
    assert math.isnan(black.niqe)
    assert math.isnan(black.brisque)
    assert black.piqe == 100
