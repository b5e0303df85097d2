"""ONNX versions of operators that torch cannot export, or exports slowly.

`tools/export_onnx.py` hands them to torch. They need onnxscript.
"""

from itertools import accumulate
from typing import Any

from onnxscript import FLOAT, INT64, graph, script
from onnxscript import opset18 as op

from models.jdnet.activation import SLOPE


def pairwise_attention(
    features: Any, position: Any, gamma: Any, footprint: int, _implementation: None = None
) -> Any:
    """Eq. 2-4, [1, 2R + V, H, W] -> [1, V, H, W], one image row after the other.

    What a row needs stays in the cache. The queries are shifted along the row, and the weighted
    values are shifted back, so that no key or value is copied for every column of the footprint.
    U = W + K - 1 is the padded width.

    The position is linear in the coordinates. Its part of the logits is therefore the same in all
    rows far from the border, and is computed for an image of K rows.
    """
    positions = position.shape[1]
    relations = gamma.shape[0] - positions
    values = features.shape[1] - 2 * relations
    phi, psi, beta = _split(features, 1, (relations, relations, values))
    content_gamma, place_gamma = (
        op.Unsqueeze(part, _ints(0)) for part in _split(gamma, 0, (relations, positions))
    )
    few = op.Slice(position, _ints(0), _ints(footprint), _ints(2))
    keys = op.Gather(_keys(few, footprint), _windows(_int(footprint), footprint))  # [K, K, P, 1, U]
    queries = op.Unsqueeze(_queries(few, footprint), _ints(1))  # [K, 1, P, K, U]
    difference = op.LeakyRelu(op.Sub(queries, keys), alpha=SLOPE)
    flat = op.Reshape(difference, _ints(footprint, footprint, positions, -1))
    place = op.MatMul(place_gamma, flat)  # [K, K, 1, K * U]

    # Of every row, the row of the small image that is as far from the border.
    height = op.Squeeze(op.Shape(features, start=2, end=3))
    rows = op.Range(_int(0), height, _int(1))
    from_end = op.Sub(rows, op.Sub(height, _int(footprint)))
    alike = op.Max(op.Min(rows, _int(footprint // 2)), from_end)

    # The sum of the weights is that of a value of 1.
    beta = op.Pad(beta, _ints(0, 0, 0, 0, 0, 1, 0, 0), op.Constant(value_float=1.0))
    sums = _attend_rows(
        *(_queries(phi, footprint), _windows(height, footprint), alike),
        *(_keys(psi, footprint), _keys(beta, footprint), place, content_gamma),
        op.Constant(value_floats=[1.0] * footprint),
        *(_ints(0, 0, footprint, -1), _ints(values + 1, -1), _ints(0, footprint, -1)),
        *(_ints(1, footprint, 1), _ints(0, 0, 0, footprint)),
    )  # [H, V + 1, U + 1]
    weighted, total = _split(sums, 1, (values, 1))
    y = op.Slice(op.Div(weighted, total), _ints(0), op.Shape(features, start=3, end=4), _ints(2))
    return op.Unsqueeze(op.Transpose(y, perm=[1, 0, 2]), _ints(0))


def _split(x: Any, axis: int, sizes: tuple[int, ...]) -> list[Any]:
    """Like torch.split."""
    ends = list(accumulate(sizes))
    return [
        op.Slice(x, _ints(end - size), _ints(end), _ints(axis))
        for size, end in zip(sizes, ends, strict=True)
    ]


def _windows(height: Any, footprint: int) -> Any:
    """The rows of every row's footprint, after padding: [H, K]."""
    rows = op.Unsqueeze(op.Range(_int(0), height, _int(1)), _ints(1))
    return op.Add(rows, op.Constant(value_ints=range(footprint)))


def _keys(x: Any, footprint: int) -> Any:
    """Rows of keys or values with a reflected border, [1, C, H, W] -> [H + K - 1, C, 1, U]."""
    r = footprint // 2
    padded = op.Pad(x, _ints(0, 0, r, r, 0, 0, r, r), mode="reflect")
    return op.Transpose(padded, perm=[2, 1, 0, 3])


def _queries(x: Any, footprint: int) -> Any:
    """Rows of queries, [1, C, H, W] -> [H, C, K, U]; shift k has pixel w in column w + k.

    Rows of U + 1 columns, read as rows of U, are shifted by one more column each. The columns that
    this fills with other pixels are cut off at the end.
    """
    padded = op.Pad(op.Transpose(x, perm=[2, 1, 0, 3]), _ints(0, 0, 0, 0, 0, 0, 0, footprint))
    copies = op.Reshape(op.Expand(padded, _ints(1, 1, footprint, 1)), _ints(0, 0, -1))
    shifted = op.Slice(copies, _ints(0), _ints(-footprint), _ints(2))
    return op.Reshape(shifted, _ints(0, 0, footprint, -1))


@script()
def _attend_rows(
    phi: FLOAT,  # [H, R, K, U]
    windows: INT64,  # rows of `psi` and `beta`, [H, K]
    alike: INT64,  # of every row, the first index in `place`, [H]
    psi: FLOAT,  # [H + K - 1, R, 1, U]
    beta: FLOAT,  # [H + K - 1, V, 1, U]
    place: FLOAT,  # logits of the position, [K, K, 1, K * U]
    gamma: FLOAT,  # [1, R]
    ones: FLOAT,  # [K]; a product with them is faster than ReduceSum
    by_shift: INT64,  # shape (0, 0, K, -1)
    by_value: INT64,  # shape (V, -1)
    back: INT64,  # shape (0, K, -1)
    shifts: INT64,  # shape (1, K, 1)
    more: INT64,  # padding (0, 0, 0, K)
) -> FLOAT:  # [H, V, U + 1]
    first = op.Constant(value_ints=[0])
    second = op.Constant(value_ints=[1])
    length = op.Shape(place, start=3)  # K * U

    # onnxscript would take a return type for one of the function around it.
    @graph()
    def attend_row(query: FLOAT[...], rows: INT64[...], like: INT64):  # type: ignore[no-untyped-def]  # noqa: ANN202
        difference = op.Sub(query, op.Gather(psi, rows))  # [K, R, K, U]
        difference = op.LeakyRelu(difference, alpha=0.2)  # SLOPE; onnxscript needs a number
        difference = op.Reshape(difference, op.Constant(value_ints=[0, 0, -1]))
        logits = op.Add(op.MatMul(gamma, difference), op.Gather(place, like))  # [K, 1, K * U]
        highest = op.ReduceMax(logits, first, keepdims=0)
        highest = op.ReduceMax(op.Reshape(op.Pad(highest, more), back), second)  # [1, 1, U + 1]
        highest = op.Reshape(op.Expand(highest, shifts), op.Constant(value_ints=[1, -1]))
        highest = op.Slice(highest, first, length, second)  # shifted like the queries
        alpha = op.Exp(op.Sub(logits, highest))
        y = op.Mul(op.Reshape(alpha, by_shift), op.Gather(beta, rows))  # [K, V, K, U]
        y = op.MatMul(ones, op.Reshape(y, op.Constant(value_ints=[0, -1])))
        y = op.Reshape(op.Pad(op.Reshape(y, by_value), more), back)  # [V, K, U + 1]
        return op.MatMul(ones, y)

    return op.Scan(phi, windows, alike, body=attend_row, num_scan_inputs=3)


def fuse_scales(first: Any, others: Any, residual: Any, _for_backward: bool) -> tuple[Any, Any]:
    """Eq. 9, one image row after the other; see `models/jdnet/ops/scale_fusion.py`.

    The second output is for the backward only: nothing uses it.
    """
    size = op.Shape(first, start=2, end=4)
    pixels, starts, columns, count = [], [], [], _int(0)
    for other in others:
        height, width = (op.Squeeze(op.Shape(other, start=a, end=a + 1)) for a in (2, 3))
        row, column = _sources(other, size)
        pixels.append(op.Reshape(_pixels(other), _ints(-1, first.shape[1])))
        starts.append(op.Unsqueeze(op.Add(count, op.Mul(row, width)), _ints(1, 2)))
        columns.append(op.Unsqueeze(column, _ints(0)))
        count = op.Add(count, op.Mul(height, width))
    out = _fuse_rows(
        *(op.Squeeze(_pixels(x), _ints(0)) for x in (first, residual)),
        op.Concat(*starts, axis=1),
        op.Concat(*columns, axis=0),
        op.Concat(*pixels, axis=0),
        op.Constant(value_floats=[1.0] * len(others)),
    )
    out = op.Transpose(op.Unsqueeze(out, _ints(0)), perm=[0, 3, 1, 2])
    return out, out


@script()
def _fuse_rows(
    first: FLOAT,  # [H, W, C]
    residual: FLOAT,  # [H, W, C]
    starts: INT64,  # of every row, where its rows of the n scales start in `pixels`, [H, n, 1]
    columns: INT64,  # of every column, those of the scales, [n, W]
    pixels: FLOAT,  # of all scales, [h1 * w1 + ... + hn * wn, C]
    ones: FLOAT,  # [n]
) -> FLOAT:  # [H, W, C]
    @graph()
    def fuse_row(x: FLOAT[...], rest: FLOAT[...], start: INT64[...]):  # type: ignore[no-untyped-def]  # noqa: ANN202
        up = op.Gather(pixels, op.Add(start, columns))  # [n, W, C]
        up = op.MatMul(ones, op.Reshape(up, op.Constant(value_ints=[0, -1])))
        total = op.Add(x, op.Reshape(up, op.Shape(x)))
        return op.Add(op.LeakyRelu(total, alpha=0.2), rest)  # SLOPE

    return op.Scan(first, residual, starts, body=fuse_row, num_scan_inputs=3)


def upsample_nearest(x: Any, size: Any, _scales: None = None) -> Any:
    """F.interpolate with PyTorch's rounding: ONNX's Resize takes other pixels at some sizes."""
    rows, columns = _sources(x, size)
    up = op.Gather(op.Gather(_pixels(x), columns, axis=2), rows, axis=1)
    return op.Transpose(up, perm=[0, 3, 1, 2])


def _pixels(x: Any) -> Any:
    """[B, C, H, W] -> [B, H, W, C]. Channels first, Gather is much slower."""
    return op.Transpose(x, perm=[0, 2, 3, 1])


def _sources(x: Any, size: Any) -> list[Any]:
    """Of every row and every column of the up-sampled x, that of x."""
    sources = []
    for axis in (2, 3):
        wanted = op.Gather(size, _int(axis - 2))
        length = op.Squeeze(op.Shape(x, start=axis, end=axis + 1))
        step = op.Div(op.Cast(length, to=FLOAT.dtype), op.Cast(wanted, to=FLOAT.dtype))
        target = op.Cast(op.Range(_int(0), wanted, _int(1)), to=FLOAT.dtype)
        sources.append(op.Cast(op.Floor(op.Mul(target, step)), to=INT64.dtype))
    return sources


def _int(number: int) -> Any:
    return op.Constant(value_int=number)


def _ints(*numbers: int) -> Any:
    return op.Constant(value_ints=numbers)
