"""Operators that torch cannot export, or exports slowly, in operators of ONNX.

`tools/export_onnx.py` hands them to torch. They need onnxscript.
"""

from itertools import accumulate
from typing import Any

from onnxscript import BOOL, FLOAT, INT64, graph, script
from onnxscript import opset18 as op

from models.jdnet.activation import SLOPE


def pairwise_attention(
    features: Any, position: Any, gamma: Any, footprint: int, _implementation: None = None
) -> Any:
    """Eq. 2-4, [1, 2R + V, H, W] -> [1, V, H, W], one image row after the other.

    What a row needs stays in the cache. The features are copied once for every column of the
    footprint: the neighbours of a row of pixels are consecutive rows of these copies.

    The position is linear in the coordinates. Its part of the logits is therefore the same in all
    rows far from the border, and is computed for an image of K rows.
    """
    positions = position.shape[1]
    relations = gamma.shape[0] - positions
    values = features.shape[1] - 2 * relations
    half = values // 2  # a row of all values does not fit in the cache
    phi, *keys_and_values = _split(features, 1, (relations, relations, half, values - half))
    content_gamma, place_gamma = (
        op.Unsqueeze(part, _ints(0)) for part in _split(gamma, 0, (relations, positions))
    )
    sides = op.Constant(value_ints=range(footprint))
    few = op.Slice(position, _ints(0), _ints(footprint), _ints(2))
    windows = op.Add(op.Unsqueeze(sides, _ints(1)), sides)
    keys = op.Gather(_columns(few, footprint), windows)  # [K, K, K, P, W]
    queries = op.Unsqueeze(op.Transpose(few, perm=[2, 0, 1, 3]), _ints(1))  # [K, 1, 1, P, W]
    difference = op.LeakyRelu(op.Sub(queries, keys), alpha=SLOPE)
    place = op.MatMul(place_gamma, difference)  # [K, K, K, 1, W]

    # Of every row, the row of the small image that is as far from the border.
    height = op.Squeeze(op.Shape(features, start=2, end=3))
    rows = op.Range(_int(0), height, _int(1))
    from_end = op.Sub(rows, op.Sub(height, _int(footprint)))
    alike = op.Max(op.Min(rows, _int(footprint // 2)), from_end)

    y = _attend_rows(
        op.Transpose(op.Squeeze(phi, _ints(0)), perm=[1, 0, 2]),
        *(_columns(x, footprint) for x in keys_and_values),
        *(place, content_gamma, alike, sides),
    )
    return op.Unsqueeze(op.Transpose(y, perm=[1, 0, 2]), _ints(0))


def _split(x: Any, axis: int, sizes: tuple[int, ...]) -> list[Any]:
    """Like torch.split."""
    ends = list(accumulate(sizes))
    return [
        op.Slice(x, _ints(end - size), _ints(end), _ints(axis))
        for size, end in zip(sizes, ends, strict=True)
    ]


def _columns(x: Any, footprint: int) -> Any:
    """The neighbours in a row, with a reflected border: [1, C, H, W] -> [H + K - 1, K, C, W]."""
    r = footprint // 2
    padded = op.Pad(x, _ints(0, 0, r, r, 0, 0, r, r), mode="reflect")
    padded = op.Transpose(padded, perm=[2, 0, 1, 3])
    width = op.Shape(x, start=3, end=4)
    shifts = (_ints(i) for i in range(footprint))
    return op.Concat(*(op.Slice(padded, i, op.Add(i, width), _ints(3)) for i in shifts), axis=1)


@script()
def _attend_rows(
    phi: FLOAT,  # [H, R, W]
    psi: FLOAT,  # [H + K - 1, K, R, W]
    beta1: FLOAT,  # [H + K - 1, K, V1, W]
    beta2: FLOAT,  # [H + K - 1, K, V2, W]
    place: FLOAT,  # logits of the position, [K, K, K, 1, W]
    gamma: FLOAT,  # [1, R]
    alike: INT64,  # of every row, the first index in `place`
    sides: INT64,  # 0 to K - 1
) -> FLOAT:  # [H, V1 + V2, W]
    shifts = op.Constant(value_ints=[0, 1])  # the axes of the footprint

    # onnxscript would take a return type for one of the function around it.
    @graph()
    def attend_row(i: INT64, is_on: BOOL):  # type: ignore[no-untyped-def]  # noqa: ANN202
        rows = op.Add(i, sides)
        difference = op.Sub(op.Gather(phi, i), op.Gather(psi, rows))
        difference = op.LeakyRelu(difference, alpha=0.2)  # SLOPE; onnxscript needs a number
        content = op.MatMul(gamma, difference)  # [K, K, 1, W]
        logits = op.Add(content, op.Gather(place, op.Gather(alike, i)))
        alpha = op.Exp(op.Sub(logits, op.ReduceMax(logits, shifts)))
        total = op.ReduceSum(alpha, shifts, keepdims=0)  # [1, W]
        y1 = op.ReduceSum(op.Mul(op.Gather(beta1, rows), alpha), shifts, keepdims=0)
        y2 = op.ReduceSum(op.Mul(op.Gather(beta2, rows), alpha), shifts, keepdims=0)
        y = op.Div(op.Concat(y1, y2, axis=0), total)
        stays_on = op.Identity(is_on)
        return stays_on, y

    height = op.Squeeze(op.Shape(phi, start=0, end=1))
    start = op.Cast(height, to=BOOL.dtype)  # true
    return op.Loop(height, start, body=attend_row)


def fuse_scales(first: Any, others: Any, residual: Any, _for_backward: bool) -> tuple[Any, Any]:
    """Eq. 9; see `models/jdnet/ops/scale_fusion.py`."""
    size = op.Shape(first, start=2, end=4)
    up = [_up(op.Transpose(other, perm=[2, 3, 0, 1]), size) for other in others]
    total = op.Add(first, op.Transpose(op.Sum(*up), perm=[2, 3, 0, 1]))
    return op.Add(op.LeakyRelu(total, alpha=SLOPE), residual), total


def upsample_nearest(x: Any, size: Any, _scales: None = None) -> Any:
    """F.interpolate with PyTorch's rounding: ONNX's Resize takes other pixels at some sizes."""
    return op.Transpose(_up(op.Transpose(x, perm=[2, 3, 0, 1]), size), perm=[2, 3, 0, 1])


def _up(x: Any, size: Any) -> Any:
    """[h, w, B, C] -> [H, W, B, C]. Pixel by pixel: channels first, Gather is much slower."""
    for axis in (1, 0):
        wanted = op.Gather(size, _int(axis))
        length = op.Squeeze(op.Shape(x, start=axis, end=axis + 1))
        step = op.Div(op.Cast(length, to=FLOAT.dtype), op.Cast(wanted, to=FLOAT.dtype))
        target = op.Cast(op.Range(_int(0), wanted, _int(1)), to=FLOAT.dtype)
        source = op.Cast(op.Floor(op.Mul(target, step)), to=INT64.dtype)
        x = op.Gather(x, source, axis=axis)
    return x


def _int(number: int) -> Any:
    return op.Constant(value_int=number)


def _ints(*numbers: int) -> Any:
    return op.Constant(value_ints=numbers)
