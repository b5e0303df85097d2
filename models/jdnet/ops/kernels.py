"""Triton kernels of the operators. Imported only before a launch, because it needs Triton.

The arithmetic is always in float32.

Pairwise attention (Eq. 2-4): a program handles `block` consecutive positions of one flattened
image, one per thread. Its tiles are [channels, positions], so all values of a position stay in the
registers of one thread, and sums over channels need no communication between threads. Tensors are
contiguous, with the shapes of `Inputs`. `channels` and `depth` are R + P and V rounded up to powers
of two, as Triton requires of tiles.

Scale fusion (Eq. 9): tensors are channels-last, [B, H, W, C] in memory, and tiles are [pixels, C];
`depth` is C rounded up to a power of two. A scale is described by its height, its width, and their
ratios to the full height and width. All four are floats, because Triton would compile the kernels
again for other integers in a tuple.
"""

import triton
import triton.language as tl


@triton.jit
def _planes(x: tl.tensor, plane: tl.tensor, rows: tl.constexpr) -> tl.tensor:
    """Pointers to consecutive channel planes, [rows, 1]."""
    return x + tl.arange(0, rows)[:, None].to(tl.int64) * plane


@triton.jit
def _joined_planes(
    content: tl.tensor,
    place: tl.tensor,
    relations: tl.constexpr,
    plane: tl.tensor,
    channels: tl.constexpr,
) -> tl.tensor:
    """Pointers to the planes of the relation channels, then of the position, [channels, 1]."""
    c = tl.arange(0, channels)[:, None].to(tl.int64)
    return tl.where(c < relations, content + c * plane, place + (c - relations) * plane)


@triton.jit
def _reflect(i: tl.tensor, length: tl.tensor) -> tl.tensor:
    """The index that the reflected border holds at i."""
    i = tl.abs(i)
    return tl.where(i < length, i, 2 * (length - 1) - i)


@triton.jit
def _times(i: tl.tensor, j: tl.tensor, length: tl.tensor, radius: tl.constexpr) -> tl.tensor:
    """How often the footprint of i contains j: once, and once in each border that mirrors j."""
    mirrored_before = (j > 0) & (i + j <= radius)
    mirrored_after = (j < length - 1) & (2 * (length - 1) - i - j <= radius)
    return 1 + mirrored_before.to(tl.int32) + mirrored_after.to(tl.int32)


@triton.jit
def _load(pointers: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _slopes(difference: tl.tensor, slope: tl.constexpr) -> tl.tensor:
    """The factor that LeakyReLU applies, also its derivative."""
    return tl.where(difference > 0, 1.0, slope)


@triton.jit
def _logits(query: tl.tensor, key: tl.tensor, gamma: tl.tensor, slope: tl.constexpr) -> tl.tensor:
    """The logits of one neighbour, Eq. 3 and 4: [channels, block] -> [block]."""
    difference = query - key  # Eq. 4
    return tl.sum(gamma * difference * _slopes(difference, slope), axis=0)


@triton.jit(do_not_specialize=["height", "width"])
def forward(
    features: tl.tensor,
    position: tl.tensor,
    gamma: tl.tensor,
    out: tl.tensor,
    height: int,
    width: int,
    relations: tl.constexpr,
    positions: tl.constexpr,
    values: tl.constexpr,
    channels: tl.constexpr,
    depth: tl.constexpr,
    footprint: tl.constexpr,
    slope: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Eq. 2 for a block of pixels, with an online softmax."""
    image = tl.program_id(1).to(tl.int64)
    plane, radius = height * width, footprint // 2
    pixel = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    row, column = pixel // width, pixel % width
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (pixel < plane)
    is_value = (v < values) & (pixel < plane)

    weight = _load(gamma + c, c < relations + positions)
    phi = features + image * (2 * relations + values) * plane
    psi = phi + relations * plane
    beta = psi + relations * plane
    queries = _joined_planes(phi, position, relations, plane, channels)
    keys = _joined_planes(psi, position, relations, plane, channels)
    betas = _planes(beta, plane, depth)
    query = _load(queries + pixel, is_channel)

    # result / total is Eq. 2; both are rescaled whenever a larger logit appears.
    largest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    result = tl.zeros([depth, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            y, x = _reflect(row + dy - radius, height), _reflect(column + dx - radius, width)
            at = y * width + x
            logit = _logits(query, _load(keys + at, is_channel), weight, slope)
            larger = tl.maximum(largest, logit)
            shrink, alpha = tl.exp(largest - larger), tl.exp(logit - larger)
            total = total * shrink + alpha
            result = result * shrink[None, :] + alpha[None, :] * _load(betas + at, is_value)
            largest = larger
    outs = _planes(out + image * values * plane, plane, depth)
    tl.store(outs + pixel, result / total[None, :], mask=is_value)


@triton.jit(do_not_specialize=["height", "width"])
def backward_of_pixels(
    grad_out: tl.tensor,
    features: tl.tensor,
    position: tl.tensor,
    gamma: tl.tensor,
    statistics: tl.tensor,
    grad_features: tl.tensor,
    grad_position: tl.tensor,
    grad_gamma: tl.tensor,
    height: int,
    width: int,
    relations: tl.constexpr,
    positions: tl.constexpr,
    values: tl.constexpr,
    channels: tl.constexpr,
    depth: tl.constexpr,
    footprint: tl.constexpr,
    slope: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gradients of the queries and of gamma (one row per block), and the softmax statistics.

    `statistics`, [B, 3, H, W]: the largest logit, the reciprocal of the sum of the exponentials,
    and the alpha-weighted mean of d_alpha, which is the sum over the footprint of alpha * d_alpha.
    """
    image = tl.program_id(1).to(tl.int64)
    plane, radius = height * width, footprint // 2
    pixel = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    row, column = pixel // width, pixel % width
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (pixel < plane)
    is_value = (v < values) & (pixel < plane)

    weight = _load(gamma + c, c < relations + positions)
    phi = features + image * (2 * relations + values) * plane
    psi = phi + relations * plane
    beta = psi + relations * plane
    queries = _joined_planes(phi, position, relations, plane, channels)
    keys = _joined_planes(psi, position, relations, plane, channels)
    betas = _planes(beta, plane, depth)
    query = _load(queries + pixel, is_channel)
    grad = _load(_planes(grad_out + image * values * plane, plane, depth) + pixel, is_value)

    largest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    mean = tl.zeros([block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            y, x = _reflect(row + dy - radius, height), _reflect(column + dx - radius, width)
            at = y * width + x
            logit = _logits(query, _load(keys + at, is_channel), weight, slope)
            larger = tl.maximum(largest, logit)
            shrink, alpha = tl.exp(largest - larger), tl.exp(logit - larger)
            total = total * shrink + alpha
            grad_alpha = tl.sum(grad * _load(betas + at, is_value), axis=0)
            mean = mean * shrink + alpha * grad_alpha
            largest = larger
    scale = 1.0 / total
    mean *= scale

    # Softmax: d_logit = alpha * (d_alpha - sum over the footprint of alpha * d_alpha).
    by_query = tl.zeros([channels, block], tl.float32)
    by_gamma = tl.zeros([channels, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            y, x = _reflect(row + dy - radius, height), _reflect(column + dx - radius, width)
            at = y * width + x
            key = _load(keys + at, is_channel)
            grad_alpha = tl.sum(grad * _load(betas + at, is_value), axis=0)
            alpha = tl.exp(_logits(query, key, weight, slope) - largest) * scale
            slopes = _slopes(query - key, slope)
            grad_sum = (alpha * (grad_alpha - mean))[None, :] * slopes
            by_query += grad_sum
            by_gamma += grad_sum * (query - key)

    grad_phi = grad_features + image * (2 * relations + values) * plane
    grad_place = grad_position + image * positions * plane
    grad_queries = _joined_planes(grad_phi, grad_place, relations, plane, channels)
    tl.store(grad_queries + pixel, by_query * weight, mask=is_channel)
    program = image * tl.num_programs(0) + tl.program_id(0)
    grad_gammas = grad_gamma + program * (relations + positions) + c
    tl.store(grad_gammas, tl.sum(by_gamma, axis=1)[:, None], mask=c < relations + positions)
    largests = statistics + image * 3 * plane + pixel
    tl.store(largests, largest[None, :], mask=pixel < plane)
    tl.store(largests + plane, scale[None, :], mask=pixel < plane)
    tl.store(largests + 2 * plane, mean[None, :], mask=pixel < plane)


@triton.jit(do_not_specialize=["height", "width"])
def backward_of_neighbours(
    grad_out: tl.tensor,
    features: tl.tensor,
    position: tl.tensor,
    gamma: tl.tensor,
    statistics: tl.tensor,
    grad_features: tl.tensor,
    grad_position: tl.tensor,
    height: int,
    width: int,
    relations: tl.constexpr,
    positions: tl.constexpr,
    values: tl.constexpr,
    channels: tl.constexpr,
    depth: tl.constexpr,
    footprint: tl.constexpr,
    slope: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Gradients of keys and values, gathered from the pixels whose footprints contain them.

    Gathering is deterministic: no two programs write to the same address. At the border, a
    footprint can contain the same pixel several times.
    """
    image = tl.program_id(1).to(tl.int64)
    plane, radius = height * width, footprint // 2
    pixel = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    row, column = pixel // width, pixel % width
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (pixel < plane)
    is_value = (v < values) & (pixel < plane)

    weight = _load(gamma + c, c < relations + positions)
    phi = features + image * (2 * relations + values) * plane
    psi = phi + relations * plane
    beta = psi + relations * plane
    queries = _joined_planes(phi, position, relations, plane, channels)
    keys = _joined_planes(psi, position, relations, plane, channels)
    betas = _planes(beta, plane, depth)
    key = _load(keys + pixel, is_channel)
    value = _load(betas + pixel, is_value)
    grads = _planes(grad_out + image * values * plane, plane, depth)
    largests = statistics + image * 3 * plane

    by_key = tl.zeros([channels, block], tl.float32)
    by_value = tl.zeros([depth, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            y, x = row + dy - radius, column + dx - radius
            at = y * width + x
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            query = _load(queries + at, (c < relations + positions) & inside)
            grad = _load(grads + at, (v < values) & inside)
            # Outside the image, alpha = exp(logit - inf) = 0.
            largest = tl.load(largests + at, mask=inside, other=float("inf"))
            scale = _load(largests + plane + at, inside)
            mean = _load(largests + 2 * plane + at, inside)
            alpha = tl.exp(_logits(query, key, weight, slope)[None, :] - largest) * scale
            alpha *= _times(y, row, height, radius) * _times(x, column, width, radius)
            grad_alpha = tl.sum(grad * value, axis=0)[None, :]
            by_value += alpha * grad
            by_key -= alpha * (grad_alpha - mean) * _slopes(query - key, slope)

    grad_psi = grad_features + (image * (2 * relations + values) + relations) * plane
    grad_place = grad_position + image * positions * plane
    grad_keys = _joined_planes(grad_psi, grad_place, relations, plane, channels)
    tl.store(grad_keys + pixel, by_key * weight, mask=is_channel)
    grad_values = _planes(grad_psi + relations * plane, plane, depth)
    tl.store(grad_values + pixel, by_value, mask=is_value)


@triton.jit
def _nearest(i: tl.tensor, ratio: tl.tensor, length: tl.tensor) -> tl.tensor:
    """The source index of torch's nearest interpolation, for a source of this length."""
    return tl.minimum((i.to(tl.float32) * ratio).to(tl.int32), length - 1)


@triton.jit(do_not_specialize=["height", "width"])
def fuse_scales(
    first: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    positive: tl.tensor,
    others: tl.tuple,
    scales: tl.tuple,
    height: int,
    width: int,
    channels: tl.constexpr,
    depth: tl.constexpr,
    for_backward: tl.constexpr,
    slope: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """LeakyReLU(first + sum of the up-sampled others) + residual, and where the sum is positive."""
    line = tl.program_id(0)  # of all images
    image, y = (line // height).to(tl.int64), line % height
    x, c = (tl.program_id(1) * block + tl.arange(0, block))[:, None], tl.arange(0, depth)[None, :]
    mask = (x < width) & (c < channels)
    at = (line.to(tl.int64) * width + x) * channels + c
    total = _load(first + at, mask)
    for k in tl.static_range(len(others)):
        rows, columns = tl.cast(scales[k][0], tl.int32), tl.cast(scales[k][1], tl.int32)
        source = image * rows + _nearest(y, scales[k][2], rows)
        source = source * columns + _nearest(x, scales[k][3], columns)
        total += _load(others[k] + source * channels + c, mask)
    result = total * _slopes(total, slope) + _load(residual + at, mask)
    tl.store(out + at, result, mask=mask)
    if for_backward:
        tl.store(positive + at, (total > 0).to(tl.uint8), mask=mask)


@triton.jit
def fuse_scales_backward(
    grad: tl.tensor,
    positive: tl.tensor,
    grad_first: tl.tensor,
    size: int,
    slope: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The gradient of `first`, `size` values."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    slopes = _slopes(_load(positive + at, at < size), slope)
    tl.store(grad_first + at, _load(grad + at, at < size) * slopes, mask=at < size)


@triton.jit(do_not_specialize=["rows", "columns", "height", "width", "taps_y", "taps_x"])
def fuse_scales_backward_of_scale(
    grad_first: tl.tensor,
    grad_other: tl.tensor,
    rows: int,
    columns: int,
    row_ratio: tl.tensor,
    column_ratio: tl.tensor,
    height: int,
    width: int,
    taps_y: int,
    taps_x: int,
    channels: tl.constexpr,
    depth: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The gradient of one pixel of a scale: the sum over the pixels that it is up-sampled to.

    These are among `taps_y` rows and `taps_x` columns. A program gathers one sum in a fixed order,
    so the result is deterministic.
    """
    line, column = tl.program_id(0), tl.program_id(1)
    image, row = (line // rows).to(tl.int64), line % rows
    # Exact arithmetic gives the first pixel; the rounding of the ratio may move it by one.
    top = (row * height + rows - 1) // rows - 1
    left = (column * width + columns - 1) // columns - 1
    c = tl.arange(0, depth)[None, :]
    total = tl.zeros([block, depth], tl.float32)
    for start in range(0, taps_y * taps_x, block):
        tap = (start + tl.arange(0, block))[:, None]
        y, x = top + tap // taps_x, left + tap % taps_x
        mask = (tap < taps_y * taps_x) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        mask &= (_nearest(y, row_ratio, rows) == row) & (
            _nearest(x, column_ratio, columns) == column
        )
        at = ((image * height + y) * width + x) * channels + c
        total += _load(grad_first + at, mask & (c < channels))
    to = grad_other + (line.to(tl.int64) * columns + column) * channels
    tl.store(to + c, tl.sum(total, axis=0)[None, :], mask=c < channels)
