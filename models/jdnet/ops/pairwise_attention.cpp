// Pairwise attention on the CPU, float32: see pairwise_attention.py for the equations.
//
// A row is walked in blocks of LANES pixels. All that belongs to a block, the logits of its whole
// footprint first of all, stays in registers and in the first-level cache, so memory is read once
// and written once.
//
// psi, beta and the second copy of position come padded by K / 2 on every side, reflected.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "lanes.h"

namespace {

constexpr int MAX_K = 15;  // side of the footprint, for the size of the stack arrays
constexpr int BAND = 16;   // rows in a task; must not be less than K - 1, see backward

struct Shape {
    int64_t images, relations, positions, values, h, w, k;
    int64_t padded_h() const { return h + k - 1; }
    int64_t padded_w() const { return w + k - 1; }
    int64_t plane() const { return h * w; }
    int64_t padded_plane() const { return padded_h() * padded_w(); }
    int64_t bands() const { return (h + BAND - 1) / BAND; }
};

struct Inputs {
    const float *phi, *psi, *beta, *position, *position_padded, *gamma;
};

// LANES pixels of a row, or all where a row is shorter. The last block of a row begins early enough
// to be whole; its first `done` pixels are those of the block before.
struct Block {
    int64_t image, y, x, count, done;
};

// Access to the pixels of a block; without WHOLE, to its first `count` alone.
template <bool WHOLE>
inline Floats read(const float *from, const Block &block) {
    return WHOLE ? load(from) : copy_from<Floats>(from, block.count);
}
template <bool WHOLE>
inline void write(Floats value, float *to, const Block &block) {
    std::memcpy(to, &value, WHOLE ? sizeof value : block.count * sizeof(float));
}

// e^x for x <= 0, relative error about 1e-7.
inline Floats exp_of_negative(Floats x) {
    x = x < -87.0f ? all(-87.0f) : x;  // this way round NaN stays
    const auto whole = __builtin_convertvector(x * 1.44269504f - 0.5f, Lanes<int32_t>);  // nearest
    const auto n = __builtin_convertvector(whole, Floats);
    const Floats r = x - n * 0.693145752f - n * 1.42860677e-6f;  // ln 2 in two parts
    Floats e = 1.9875691500e-4f * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1.0f;
    return e * reinterpret_cast<Floats>((whole + 127) << 23);
}

// Sum over channels of gamma_c * LeakyReLU(query_c - key_c), the keys at one shift.
template <bool WHOLE>
inline Floats relation(const float *query, const float *key, const float *gamma, int64_t channels,
                       int64_t plane, int64_t padded_plane, const Block &block) {
    Floats sum{};
    for (int64_t c = 0; c < channels; ++c) {
        const Floats difference = read<WHOLE>(query + c * plane, block) -
                                  read<WHOLE>(key + c * padded_plane, block);
        sum += gamma[c] * leaky_relu(difference);
    }
    return sum;
}

// The weights alpha of a block, Eq. 3 and 4, but for their common divisor, which is returned.
template <bool WHOLE>
Floats block_weights(const Inputs &in, const Shape &s, const Block &block, Floats *weights) {
    const int64_t area = s.k * s.k, at = block.y * s.w + block.x;
    const float *phi = in.phi + block.image * s.relations * s.plane() + at;
    const float *psi = in.psi + block.image * s.relations * s.padded_plane();
    Floats largest = all(-std::numeric_limits<float>::infinity());
    for (int64_t k = 0; k < area; ++k) {
        const int64_t shifted = (block.y + k / s.k) * s.padded_w() + block.x + k % s.k;
        weights[k] = relation<WHOLE>(phi, psi + shifted, in.gamma, s.relations, s.plane(),
                                     s.padded_plane(), block) +
                     relation<WHOLE>(in.position + at, in.position_padded + shifted,
                                     in.gamma + s.relations, s.positions, s.plane(),
                                     s.padded_plane(), block);
        largest = weights[k] > largest ? weights[k] : largest;
    }
    Floats total{};
    for (int64_t k = 0; k < area; ++k) {
        weights[k] = exp_of_negative(weights[k] - largest);
        total += weights[k];
    }
    return total;
}

// Eq. 2 for COUNT channels of one block: a weight is read once for all of them.
template <bool WHOLE, int COUNT>
void aggregate(const Floats *weights, Floats total, const float *beta, const Shape &s,
               const Block &block, float *out) {
    Floats sum[COUNT] = {};
    for (int64_t dy = 0; dy < s.k; ++dy) {
        for (int64_t dx = 0; dx < s.k; ++dx) {
            const float *shifted = beta + dy * s.padded_w() + dx;
            for (int c = 0; c < COUNT; ++c) {
                const Floats values = read<WHOLE>(shifted + c * s.padded_plane(), block);
                sum[c] += weights[dy * s.k + dx] * values;
            }
        }
    }
    for (int c = 0; c < COUNT; ++c) write<WHOLE>(sum[c] / total, out + c * s.plane(), block);
}

template <bool WHOLE>
void forward_block(const Inputs &in, const Shape &s, const Block &block, float *out) {
    Floats weights[MAX_K * MAX_K];
    const Floats total = block_weights<WHOLE>(in, s, block, weights);
    const int64_t first = block.image * s.values;
    const float *beta = in.beta + first * s.padded_plane() + block.y * s.padded_w() + block.x;
    out += first * s.plane() + block.y * s.w + block.x;
    int64_t c = 0;
    for (; c + 4 <= s.values; c += 4) {
        aggregate<WHOLE, 4>(weights, total, beta + c * s.padded_plane(), s, block,
                            out + c * s.plane());
    }
    for (; c < s.values; ++c) {
        aggregate<WHOLE, 1>(weights, total, beta + c * s.padded_plane(), s, block,
                            out + c * s.plane());
    }
}

// Column by column, because the shifts of a row overlap: to load what was just stored, at another
// offset, would stall.
template <typename Step>
inline void for_shifts(const Shape &s, Step step) {
    for (int64_t dx = 0; dx < s.k; ++dx) {
        for (int64_t dy = 0; dy < s.k; ++dy) step(dy * s.k + dx, dy * s.padded_w() + dx);
    }
}

// Gradients of `aggregate`, added to what is there.
template <bool WHOLE, int COUNT>
void aggregate_backward(const Floats *weights, const float *grad_out, const float *beta,
                        const Shape &s, const Block &block, Floats *grad_weights,
                        float *grad_beta) {
    Floats g[COUNT];
    for (int c = 0; c < COUNT; ++c) {
        g[c] = read<WHOLE>(grad_out + c * s.plane(), block);
        for (int64_t i = 0; i < block.done; ++i) g[c][i] = 0;
    }
    for_shifts(s, [&](int64_t k, int64_t shift) {
        const Floats weight = weights[k];
        Floats sum = grad_weights[k];
        for (int c = 0; c < COUNT; ++c) {
            const int64_t at = c * s.padded_plane() + shift;
            sum += g[c] * read<WHOLE>(beta + at, block);
            write<WHOLE>(read<WHOLE>(grad_beta + at, block) + g[c] * weight, grad_beta + at, block);
        }
        grad_weights[k] = sum;
    });
}

// Gradients of `relation` at all shifts, added to what is there.
template <bool WHOLE>
void relation_backward(const Floats *grad_logits, const float *query, const float *key,
                       const float *gamma, int64_t channels, const Shape &s, const Block &block,
                       float *grad_query, float *grad_key, float *grad_gamma) {
    for (int64_t c = 0; c < channels; ++c) {
        const Floats q = read<WHOLE>(query + c * s.plane(), block);
        Floats sum_query{}, sum_gamma{};
        for_shifts(s, [&](int64_t k, int64_t shift) {
            const int64_t at = c * s.padded_plane() + shift;
            const Floats t = q - read<WHOLE>(key + at, block);
            const Floats through = t > 0 ? grad_logits[k] : SLOPE * grad_logits[k];
            sum_gamma += through * t;
            sum_query += gamma[c] * through;
            write<WHOLE>(read<WHOLE>(grad_key + at, block) - gamma[c] * through, grad_key + at,
                         block);
        });
        float *to = grad_query + c * s.plane();
        write<WHOLE>(read<WHOLE>(to, block) + sum_query, to, block);
        float total = 0;
        for (int i = 0; i < LANES; ++i) total += sum_gamma[i];
        grad_gamma[c] += total;
    }
}

struct Gradients {
    float *phi, *psi, *beta, *position, *position_padded, *gamma;
};

template <bool WHOLE>
void backward_block(const Inputs &in, const Shape &s, const Block &block, const float *grad_out,
                    const Gradients &grad, float *grad_gamma) {
    const int64_t area = s.k * s.k, at = block.y * s.w + block.x;
    const int64_t padded_at = block.y * s.padded_w() + block.x;
    Floats weights[MAX_K * MAX_K], grad_logits[MAX_K * MAX_K];
    const Floats total = block_weights<WHOLE>(in, s, block, weights);
    for (int64_t k = 0; k < area; ++k) {
        weights[k] /= total;
        grad_logits[k] = Floats{};
    }
    const int64_t channel = block.image * s.values;
    const float *beta = in.beta + channel * s.padded_plane() + padded_at;
    float *grad_beta = grad.beta + channel * s.padded_plane() + padded_at;
    grad_out += channel * s.plane() + at;
    int64_t c = 0;
    for (; c + 4 <= s.values; c += 4) {
        aggregate_backward<WHOLE, 4>(weights, grad_out + c * s.plane(),
                                     beta + c * s.padded_plane(), s, block, grad_logits,
                                     grad_beta + c * s.padded_plane());
    }
    for (; c < s.values; ++c) {
        aggregate_backward<WHOLE, 1>(weights, grad_out + c * s.plane(),
                                     beta + c * s.padded_plane(), s, block, grad_logits,
                                     grad_beta + c * s.padded_plane());
    }
    // Softmax: d logit = alpha * (d alpha - sum over the footprint of alpha * d alpha).
    Floats mean{};
    for (int64_t k = 0; k < area; ++k) mean += weights[k] * grad_logits[k];
    for (int64_t k = 0; k < area; ++k) grad_logits[k] = weights[k] * (grad_logits[k] - mean);

    const int64_t r = block.image * s.relations, p = block.image * s.positions;
    relation_backward<WHOLE>(grad_logits, in.phi + r * s.plane() + at,
                             in.psi + r * s.padded_plane() + padded_at, in.gamma, s.relations, s,
                             block, grad.phi + r * s.plane() + at,
                             grad.psi + r * s.padded_plane() + padded_at, grad_gamma);
    relation_backward<WHOLE>(grad_logits, in.position + at, in.position_padded + padded_at,
                             in.gamma + s.relations, s.positions, s, block,
                             grad.position + p * s.plane() + at,
                             grad.position_padded + p * s.padded_plane() + padded_at,
                             grad_gamma + s.relations);
}

template <typename Whole, typename Short>
void for_blocks_of_band(const Shape &s, int64_t image, int64_t band, Whole whole, Short narrow) {
    for (int64_t y = band * BAND; y < std::min(s.h, (band + 1) * BAND); ++y) {
        if (s.w < LANES) {
            narrow(Block{image, y, 0, s.w, 0});
            continue;
        }
        for (int64_t x = 0; x < s.w; x += LANES) {
            const int64_t start = std::min(x, s.w - LANES);
            whole(Block{image, y, start, LANES, x - start});
        }
    }
}

}  // namespace

extern "C" {

// out: [images, values, h, w]
void pairwise_attention_forward(const float *phi, const float *psi, const float *beta,
                                const float *position, const float *position_padded,
                                const float *gamma, float *out, int64_t images, int64_t relations,
                                int64_t positions, int64_t values, int64_t h, int64_t w,
                                int64_t k) {
    const Shape s{images, relations, positions, values, h, w, k};
    const Inputs in{phi, psi, beta, position, position_padded, gamma};
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t image = 0; image < images; ++image) {
        for (int64_t band = 0; band < s.bands(); ++band) {
            for_blocks_of_band(
                s, image, band, [&](const Block &block) { forward_block<true>(in, s, block, out); },
                [&](const Block &block) { forward_block<false>(in, s, block, out); });
        }
    }
}

// Gradients come zeroed, of the shapes of the inputs, but grad_position and grad_position_padded
// one for each image, and grad_gamma one row for each image and band: the caller adds them up, in
// an order of its own and not in that of the threads.
//
// A band writes to the K / 2 rows of padding above and below it. So first all even bands run, then
// all odd ones, and no two threads ever write to one row.
void pairwise_attention_backward(const float *grad_out, const float *phi, const float *psi,
                                 const float *beta, const float *position,
                                 const float *position_padded, const float *gamma, float *grad_phi,
                                 float *grad_psi, float *grad_beta, float *grad_position,
                                 float *grad_position_padded, float *grad_gamma, int64_t images,
                                 int64_t relations, int64_t positions, int64_t values, int64_t h,
                                 int64_t w, int64_t k) {
    const Shape s{images, relations, positions, values, h, w, k};
    const Inputs in{phi, psi, beta, position, position_padded, gamma};
    const Gradients grad{grad_phi,      grad_psi,            grad_beta,
                         grad_position, grad_position_padded, grad_gamma};
    for (int64_t parity = 0; parity < 2; ++parity) {
#pragma omp parallel for collapse(2) schedule(static)
        for (int64_t image = 0; image < images; ++image) {
            for (int64_t half = 0; half < (s.bands() + 1) / 2; ++half) {
                const int64_t band = 2 * half + parity;
                if (band >= s.bands()) continue;
                float *row = grad_gamma + (image * s.bands() + band) * (relations + positions);
                for_blocks_of_band(
                    s, image, band,
                    [&](const Block &block) {
                        backward_block<true>(in, s, block, grad_out, grad, row);
                    },
                    [&](const Block &block) {
                        backward_block<false>(in, s, block, grad_out, grad, row);
                    });
            }
        }
    }
}

// What the caller must know: the largest footprint and the rows in a band.
int64_t pairwise_attention_largest_footprint() { return MAX_K; }
int64_t pairwise_attention_band() { return BAND; }

}  // extern "C"
