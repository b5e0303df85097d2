"""Triton kernels of the pairwise attention (Eq. 2-4). Only `cuda.py` imports this: it needs Triton.

A program handles `block` consecutive positions of one flattened image, one per thread. Its tiles
are [channels, positions], so all values of a position stay in the registers of one thread, and sums
over channels need no communication between threads.

Tensors are contiguous, with the shapes of `Inputs`; the arithmetic is always in float32.
`channels` and `depth` are R + P and V rounded up to powers of two, as Triton requires of tiles.
"""

import triton
import triton.language as tl


@triton.jit
def _planes(
    x: tl.tensor, image: tl.tensor, count: tl.constexpr, plane: tl.tensor, rows: tl.constexpr
) -> tl.tensor:
    """Pointers to the channel planes of an image, [rows, 1]; only the first `count` are valid."""
    return x + (image * count + tl.arange(0, rows)[:, None]) * plane


@triton.jit
def _joined_planes(
    content: tl.tensor,
    place: tl.tensor,
    image: tl.tensor,
    image_of_place: tl.tensor,
    relations: tl.constexpr,
    positions: tl.constexpr,
    plane: tl.tensor,
    channels: tl.constexpr,
) -> tl.tensor:
    """Pointers to the planes of the relation channels, then of the position, [channels, 1]."""
    c = tl.arange(0, channels)[:, None].to(tl.int64)
    return tl.where(
        c < relations,
        content + (image * relations + c) * plane,
        place + (image_of_place * positions + c - relations) * plane,
    )


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
    phi: tl.tensor,
    psi: tl.tensor,
    beta: tl.tensor,
    position: tl.tensor,
    position_padded: tl.tensor,
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
    plane, padded_width = height * width, width + footprint - 1
    padded_plane = padded_width * (height + footprint - 1)
    pixel = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    first = pixel // width * padded_width + pixel % width  # top left of its footprint
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (pixel < plane)
    is_value = (v < values) & (pixel < plane)

    weight = _load(gamma + c, c < relations + positions)
    queries = _joined_planes(phi, position, image, 0, relations, positions, plane, channels)
    query = _load(queries + pixel, is_channel)
    keys = first + _joined_planes(
        psi, position_padded, image, 0, relations, positions, padded_plane, channels
    )
    betas = _planes(beta, image, values, padded_plane, depth) + first

    # result / total is Eq. 2; both are rescaled whenever a larger logit appears.
    largest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    result = tl.zeros([depth, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            shift = dy * padded_width + dx
            logit = _logits(query, _load(keys + shift, is_channel), weight, slope)
            larger = tl.maximum(largest, logit)
            shrink, alpha = tl.exp(largest - larger), tl.exp(logit - larger)
            total = total * shrink + alpha
            result = result * shrink[None, :] + alpha[None, :] * _load(betas + shift, is_value)
            largest = larger
    outs = _planes(out, image, values, plane, depth)
    tl.store(outs + pixel, result / total[None, :], mask=is_value)


@triton.jit(do_not_specialize=["height", "width"])
def backward_of_pixels(
    grad_out: tl.tensor,
    phi: tl.tensor,
    psi: tl.tensor,
    beta: tl.tensor,
    position: tl.tensor,
    position_padded: tl.tensor,
    gamma: tl.tensor,
    statistics: tl.tensor,
    grad_phi: tl.tensor,
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
    plane, padded_width = height * width, width + footprint - 1
    padded_plane = padded_width * (height + footprint - 1)
    pixel = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    first = pixel // width * padded_width + pixel % width  # top left of its footprint
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (pixel < plane)
    is_value = (v < values) & (pixel < plane)

    weight = _load(gamma + c, c < relations + positions)
    queries = _joined_planes(phi, position, image, 0, relations, positions, plane, channels)
    query = _load(queries + pixel, is_channel)
    keys = first + _joined_planes(
        psi, position_padded, image, 0, relations, positions, padded_plane, channels
    )
    betas = _planes(beta, image, values, padded_plane, depth) + first
    grad = _load(_planes(grad_out, image, values, plane, depth) + pixel, is_value)

    largest = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    mean = tl.zeros([block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            shift = dy * padded_width + dx
            logit = _logits(query, _load(keys + shift, is_channel), weight, slope)
            larger = tl.maximum(largest, logit)
            shrink, alpha = tl.exp(largest - larger), tl.exp(logit - larger)
            total = total * shrink + alpha
            grad_alpha = tl.sum(grad * _load(betas + shift, is_value), axis=0)
            mean = mean * shrink + alpha * grad_alpha
            largest = larger
    scale = 1.0 / total
    mean *= scale

    # Softmax: d_logit = alpha * (d_alpha - sum over the footprint of alpha * d_alpha).
    by_query = tl.zeros([channels, block], tl.float32)
    by_gamma = tl.zeros([channels, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            shift = dy * padded_width + dx
            key = _load(keys + shift, is_channel)
            grad_alpha = tl.sum(grad * _load(betas + shift, is_value), axis=0)
            alpha = tl.exp(_logits(query, key, weight, slope) - largest) * scale
            slopes = _slopes(query - key, slope)
            grad_sum = (alpha * (grad_alpha - mean))[None, :] * slopes
            by_query += grad_sum
            by_gamma += grad_sum * (query - key)

    grad_queries = _joined_planes(
        grad_phi, grad_position, image, image, relations, positions, plane, channels
    )
    tl.store(grad_queries + pixel, by_query * weight, mask=is_channel)
    row = image * tl.num_programs(0) + tl.program_id(0)
    grad_gammas = grad_gamma + row * (relations + positions) + c
    tl.store(grad_gammas, tl.sum(by_gamma, axis=1)[:, None], mask=c < relations + positions)
    largests = statistics + image * 3 * plane + pixel
    tl.store(largests, largest[None, :], mask=pixel < plane)
    tl.store(largests + plane, scale[None, :], mask=pixel < plane)
    tl.store(largests + 2 * plane, mean[None, :], mask=pixel < plane)


@triton.jit(do_not_specialize=["height", "width"])
def backward_of_neighbours(
    grad_out: tl.tensor,
    phi: tl.tensor,
    psi: tl.tensor,
    beta: tl.tensor,
    position: tl.tensor,
    position_padded: tl.tensor,
    gamma: tl.tensor,
    statistics: tl.tensor,
    grad_psi: tl.tensor,
    grad_beta: tl.tensor,
    grad_position_padded: tl.tensor,
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

    Gathering is deterministic: no two programs write to the same address.
    """
    image = tl.program_id(1).to(tl.int64)
    plane, padded_width = height * width, width + footprint - 1
    padded_plane = padded_width * (height + footprint - 1)
    neighbour = (tl.program_id(0) * block + tl.arange(0, block))[None, :]
    row, column = neighbour // padded_width, neighbour % padded_width
    c, v = tl.arange(0, channels)[:, None], tl.arange(0, depth)[:, None]
    is_channel = (c < relations + positions) & (neighbour < padded_plane)
    is_value = (v < values) & (neighbour < padded_plane)

    weight = _load(gamma + c, c < relations + positions)
    keys = _joined_planes(
        psi, position_padded, image, 0, relations, positions, padded_plane, channels
    )
    key = _load(keys + neighbour, is_channel)
    value = _load(_planes(beta, image, values, padded_plane, depth) + neighbour, is_value)
    queries = _joined_planes(phi, position, image, 0, relations, positions, plane, channels)
    grads = _planes(grad_out, image, values, plane, depth)
    largests = statistics + image * 3 * plane

    by_key = tl.zeros([channels, block], tl.float32)
    by_value = tl.zeros([depth, block], tl.float32)
    for dy in range(footprint):
        for dx in range(footprint):
            y, x = row - dy, column - dx
            pixel = y * width + x
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            query = _load(queries + pixel, (c < relations + positions) & inside)
            grad = _load(grads + pixel, (v < values) & inside)
            # Outside the image, alpha = exp(logit - inf) = 0.
            largest = tl.load(largests + pixel, mask=inside, other=float("inf"))
            scale = _load(largests + plane + pixel, inside)
            mean = _load(largests + 2 * plane + pixel, inside)
            alpha = tl.exp(_logits(query, key, weight, slope)[None, :] - largest) * scale
            grad_alpha = tl.sum(grad * value, axis=0)[None, :]
            by_value += alpha * grad
            by_key -= alpha * (grad_alpha - mean) * _slopes(query - key, slope)

    grad_keys = _joined_planes(
        grad_psi, grad_position_padded, image, image, relations, positions, padded_plane, channels
    )
    tl.store(grad_keys + neighbour, by_key * weight, mask=is_channel)
    grad_values = _planes(grad_beta, image, values, padded_plane, depth)
    tl.store(grad_values + neighbour, by_value, mask=is_value)
