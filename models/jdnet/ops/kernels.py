"""Triton kernels of the pairwise attention (Eq. 2-4). Imported only before a launch.

The arithmetic is always in float32. A program handles `block` consecutive positions of one
flattened image, one per thread. Its tiles are [channels, positions], so all values of a position
stay in the registers of one thread, and sums over channels need no communication between threads.
Tensors are contiguous, with the shapes of `Inputs`. `channels` and `depth` are R + P and V rounded
up to powers of two, as Triton requires of tiles.
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
