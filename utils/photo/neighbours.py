"""Tell rain from scene by neighbouring frames: in the next frame the rain is elsewhere.

The frames around a frame are aligned with it by optical flow between the derained frames, which
show little rain to follow. The median of the aligned rainy frames is the scene as the neighbours
show it. Where the frame is brighter, this is rain if it stands out of the noise; less suffices
where the network finds rain, too. Where it is not, the frame stands, rain for the network or not.

Where the neighbours do not fit, as on things that move, the derained frame stands: where the flow
to a neighbour and back does not return, or jumps; where the frame is darker than the neighbours,
because rain only brightens; and where both differ in an area that is wider than streaks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.pixels import Pixels

FRAMES = 7  # that are looked at together

# The flow, in pixels of frames that are reduced by this factor
REDUCED = 2
SMALLEST = 32  # full pixels; no flow is known in frames with a shorter side
RETURN = 1.5  # by which the flow to a neighbour and back may miss
JUMP, AREA = 2.0, 7  # how much it may vary within a square of this side

# The scene, in full pixels and grey levels of 255
BOX = 15  # side of the area whose noise is measured
SHIFT = 0.1  # share of the scene's local contrast that is noise, too, of the alignment
CLEAR = 3.0  # times the noise: the difference of which half is taken for rain
NETWORK = 2.5  # weight of the rain that the network finds beside the difference
STREAK = 7  # a difference that fills a square of this side is no streak
ENOUGH = 1 / 3  # share of the neighbours that must fit
QUIET = 4.0  # times the usual noise: neighbours that differ by more fit less, by twice that not
USUAL = 3.0, 8.0  # bounds of what noise is usual
SAME = 4, 1e-4  # a repeated frame differs by more grey levels in a smaller share of the pixels
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Floats = NDArray[np.float32]


class Frame(NamedTuple):
    """A frame of a video, and whatever belongs to it, such as its time."""

    rainy: Pixels
    derained: Pixels
    tag: Any = None


class Neighbours:
    """Improves the derained frames of one shot by their neighbours, in one pass.

        neighbours = Neighbours()
        for rainy in shot:
            for frame in neighbours.add(Frame(rainy, derain(rainy))):
                show(frame.derained)
        for frame in neighbours.finish():
            show(frame.derained)

    Args:
        count: frames that are looked at together, and held. Near the ends of a shot, more of them
            lie on one side. With 1, frames come out as they went in.
        scale: by which frames were reduced for the network: streaks are as many times as wide.
    """

    def __init__(self, count: int = FRAMES, scale: float = 1.0) -> None:
        self.count, self.scale = count, scale
        self._window: list[_Moment] = []
        self._done = 0  # moments of the window whose frames came out
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._flow.setFinestScale(0)  # the frames are reduced already
        self._flow.setPatchStride(4)
        self._flow.setGradientDescentIterations(12)

    def add(self, frame: Frame) -> list[Frame]:
        """Take the next frame, and return those that wait for no other frame, in order.

        A frame that repeats the last one, with its rain in the same place, gets its result.

        Args:
            frame: pixels are uint8 or uint16 [H, W, 3 or 4], of one size and type in a shot.
        """
        if self._window and _repeats(frame.rainy, self._window[-1].rainy):
            last = self._window[-1]
            last.waiting.append(frame)
            pause = self._done == len(self._window) or len(last.waiting) > self.count
            return self.finish() if pause else []  # a pause shall not fill the memory
        if len(self._window) == self.count:
            gone = self._window.pop(0)
            self._done -= 1
            for moment in self._window:
                moment.flows.pop(id(gone), None)
        self._window.append(_Moment(frame, REDUCED * self.scale))
        return self._finish(self.count // 2 + 1) if len(self._window) == self.count else []

    def finish(self) -> list[Frame]:
        """Return the frames that are left. More may follow."""
        return self._finish(len(self._window))

    def _finish(self, end: int) -> list[Frame]:
        frames = []
        for moment in self._window[self._done : end]:
            moment.derained = self._merged(moment)
        self._done = max(self._done, end)
        for moment in self._window[: self._done]:
            frames += [frame._replace(derained=moment.derained) for frame in moment.waiting]
            moment.waiting = []
        return frames

    def _merged(self, moment: "_Moment") -> Pixels:
        place, reach = self._window.index(moment), self.count // 2 + 1
        near = self._window[max(0, place - reach) : place + reach + 1]
        others = [other for other in near if other is not moment]
        if not others or min(moment.grey.shape) * REDUCED < SMALLEST:
            return moment.derained
        if np.array_equal(moment.rainy, moment.derained):  # there is no rain
            return moment.derained
        aligned = [self._align(other, moment) for other in others]
        return merge(moment.rainy, moment.derained, aligned, self.scale)

    def _align(self, other: "_Moment", moment: "_Moment") -> "Aligned":
        """Show another frame from where a frame is."""
        there, back = self._flow_of(moment, other), self._flow_of(other, moment)
        (h, w), (height, width) = there.shape[:2], moment.rainy.shape[:2]
        lost = (1e3, 1e3)  # the flow outside the frame
        start = _remap(back, there, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, lost) + there
        area = np.ones((AREA, AREA), np.uint8)
        jump = cv2.dilate(there, area) - cv2.erode(there, area)
        fits = (_length(start) < RETURN) & (_length(jump) < JUMP)
        factor = np.array([width / w, height / h], np.float32)
        full = factor * np.asarray(cv2.resize(there, (width, height)))
        pixels = _remap(other.rainy[..., :3], full, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
        size = width, height
        fits = cv2.resize(fits.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
        return Aligned(pixels, fits)

    def _flow_of(self, source: "_Moment", target: "_Moment") -> Floats:
        """[h, w, 2]: how far in x and y each reduced pixel of a moment moves until another."""
        if id(target) not in source.flows:
            source.flows[id(target)] = self._flow.calc(source.grey, target.grey, None)
        return source.flows[id(target)]


class Aligned(NamedTuple):
    """A neighbour as seen from where a frame is."""

    pixels: Pixels
    """[H, W, 3], with rain."""
    fits: NDArray[np.bool_]
    """[H, W]: where it shows what the frame shows."""


def merge(
    rainy: Pixels, derained: Pixels, neighbours: Sequence[Aligned], scale: float = 1.0
) -> Pixels:
    """Improve a derained frame by its aligned neighbours.

    Args:
        rainy: [H, W, 3 or 4], uint8 or uint16.
        derained: by the network from this frame alone; of the same shape and type.
        neighbours: at least one.
        scale: see `Neighbours`.

    Returns:
        An image like `derained`, with its alpha.
    """
    shown = _scene(derained[..., :3], neighbours)
    here, alone, scene = (_levels(image) for image in (rainy, derained, shown))
    brighter = here - scene
    noise = _noise(_grey(brighter), scale)
    # Where the scene is rich in contrast, the alignment adds noise that reaches farther.
    square = np.ones((3, 3))
    contrast = cv2.dilate(_grey(scene), square) - cv2.erode(_grey(scene), square)
    share = _share(_grey(brighter), _grey(here - alone), np.hypot(noise, SHIFT * contrast))
    together = here - share[..., None] * np.maximum(brighter, 0)

    wide = _wide(np.abs(_grey(alone - scene)), scale)
    usual = float(np.median(noise).clip(*USUAL))
    quiet = 2 - np.maximum(noise, wide) / (QUIET * usual)
    fits = np.mean([neighbour.fits for neighbour in neighbours], 0, np.float32)
    trust = np.clip(np.minimum(fits / ENOUGH, quiet), 0, 1)[..., None]
    merged = derained.copy()
    merged[..., :3] = np.rint((alone + trust * (together - alone)).clip(0, 255) / _unit(rainy))
    return merged


def _levels(image: Pixels) -> Floats:
    """Grey levels of 255, [H, W, 3]."""
    levels: Floats = image[..., :3].astype(np.float32) * _unit(image)
    return levels


def _grey(levels: Floats) -> Floats:
    grey: Any = levels @ LUMA
    return grey


def _unit(image: Pixels) -> Any:
    return np.float32(255 / np.iinfo(image.dtype).max)


def _share(difference: Floats, found: Floats, noise: Floats) -> Floats:
    """Share of a difference that is rain, [H, W].

    Args:
        difference: by how much the frame is brighter than the neighbours.
        found: by how much it is brighter than the derained frame.
        noise: of the difference.
    """
    brightness = np.maximum(difference, 0)
    evidence = np.square(brightness + NETWORK * np.clip(found, 0, brightness))
    return evidence / (evidence + np.square(CLEAR * noise))


def _noise(difference: Floats, scale: float) -> Floats:
    """Local noise: rain only brightens, so what is darker than the neighbours is none."""
    box = _odd(BOX * scale), _odd(BOX * scale)
    darker = np.square(np.minimum(difference, 0))
    half: Any = cv2.blur(darker, box, borderType=cv2.BORDER_REFLECT)  # of the variance
    return np.sqrt(1 + 2 * half)


def _wide(difference: Floats, scale: float) -> Floats:
    """Opening: the least difference in a square, where squares that differ reach."""
    side = _odd(STREAK * scale)
    least = cv2.erode(difference, np.ones((side, side)))
    opened: Any = cv2.dilate(least, np.ones((2 * side - 1, 2 * side - 1)))
    return opened


def _scene(derained: Pixels, neighbours: Sequence[Aligned]) -> Pixels:
    """The median of a derained frame and its neighbours where they fit."""
    votes = [derained]
    high = np.ones(derained.shape[:2], bool)
    for pixels, fits in neighbours:
        vote = pixels.copy()
        vote[~fits & high] = np.iinfo(pixels.dtype).max  # a pair of a high and a low vote changes
        vote[~fits & ~high] = 0  # no median
        high ^= ~fits
        votes.append(vote)
    middle = len(votes) // 2
    for end in range(len(votes) - 1, middle - 1, -1):  # the brightest of the first votes moves up
        for i in range(end):
            low, up = np.minimum(votes[i], votes[i + 1]), np.maximum(votes[i], votes[i + 1])
            votes[i], votes[i + 1] = low, up
    return votes[middle]


class _Moment:
    """A frame that differs from the last one, and all that repeat it."""

    def __init__(self, frame: Frame, reduction: float) -> None:
        self.rainy, self.derained = frame.rainy, frame.derained
        self.waiting = [frame]
        self.flows: dict[int, Floats] = {}  # to other moments, by their id
        grey = cv2.cvtColor(_eight_bits(frame.derained), cv2.COLOR_RGB2GRAY)
        h, w = (max(1, round(length / reduction)) for length in grey.shape)
        self.grey = cv2.resize(grey, (w, h), interpolation=cv2.INTER_AREA)


def _repeats(frame: Pixels, last: Pixels) -> bool:
    difference = cv2.absdiff(_eight_bits(frame), _eight_bits(last)).max(axis=2)
    return np.count_nonzero(difference > SAME[0]) < SAME[1] * difference.size


def _eight_bits(pixels: Pixels) -> Pixels:
    colours = pixels[..., :3]
    return np.ascontiguousarray(colours if colours.dtype == np.uint8 else colours >> 8, np.uint8)


def _remap(image: Any, flow: Floats, how: int, border: int, value: Any = 0) -> Any:
    """Fetch each pixel from where the flow leads."""
    y, x = np.indices(flow.shape[:2], np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], how, None, border, value)


def _length(vectors: Floats) -> Floats:
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _odd(length: float) -> int:
    return 2 * round((length - 1) / 2) + 1
