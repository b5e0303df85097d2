// Pairwise attention on the CPU, float32: see pairwise_attention.py for the equations.
//
// Each row is processed in blocks of LANES pixels. The data of a block, mainly the logits of its
// whole footprint, stays in registers and the L1 cache, so memory is read once and written once.
//
// A task is a band of rows. It first copies what its footprints contain, with the border reflected,
// to a buffer that fits in the L2 cache; the backward adds the gradients of this buffer back.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.h"

namespace {

constexpr int MAX_K = 15;  // largest side of the footprint; sets the size of the stack arrays
constexpr int BAND = 16;   // rows per task; at least MAX_K - 1, see the backward

struct Shape {
    int64_t images, relations, positions, values, h, w, k;
    int64_t channels() const { return 2 * relations + values; }
    int64_t plane() const { return h * w; }
    int64_t bands() const { return (h + BAND - 1) / BAND; }
    // A padded band has K / 2 more pixels on every side.
    int64_t padded_w() const { return w + k - 1; }
    int64_t padded_plane() const { return (BAND + k - 1) * padded_w(); }
    int64_t padded_band() const { return (relations + values + positions) * padded_plane(); }
};

// One band. The queries phi and position are planes of the image; the keys psi and place, which is
// the position again, and the values beta are padded.
struct Inputs {
    const float *phi, *position, *psi, *beta, *place, *gamma;
};
struct Gradients {
    float *phi, *position, *psi, *beta, *place, *gamma;
};

// LANES pixels of a row, or the whole row if it is shorter. The last block of a row is moved left
// so that it is full; its first `done` pixels overlap the previous block.
struct Block {
    int64_t at, padded_at;  // of its first pixel in a plane, and of its first neighbour
    int64_t count, done;
};

inline int64_t reflect(int64_t i, int64_t length) {
    i = std::abs(i);
    return i < length ? i : 2 * (length - 1) - i;
}

// Copy the rows of a band, padded.
void pad(const float *planes, int64_t channels, int64_t band, const Shape &s, float *to) {
    const int64_t r = s.k / 2, top = band * BAND, rows = std::min<int64_t>(BAND, s.h - top);
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t y = -r; y < rows + r; ++y) {
            const float *row = planes + c * s.plane() + reflect(top + y, s.h) * s.w;
            float *out = to + c * s.padded_plane() + (y + r) * s.padded_w() + r;
            std::memcpy(out, row, s.w * sizeof(float));
            for (int64_t i = 1; i <= r; ++i) {
                out[-i] = row[i];
                out[s.w - 1 + i] = row[s.w - 1 - i];
            }
        }
    }
}

// The gradient of `pad`: add the gradients of a padded band to those of the image.
void unpad(const float *padded, int64_t channels, int64_t band, const Shape &s, float *planes) {
    const int64_t r = s.k / 2, top = band * BAND, rows = std::min<int64_t>(BAND, s.h - top);
    for (int64_t c = 0; c < channels; ++c) {
        for (int64_t y = -r; y < rows + r; ++y) {
            const float *from = padded + c * s.padded_plane() + (y + r) * s.padded_w() + r;
            float *row = planes + c * s.plane() + reflect(top + y, s.h) * s.w;
            for (int64_t x = 0; x < s.w; ++x) row[x] += from[x];
            for (int64_t i = 1; i <= r; ++i) {
                row[i] += from[-i];
                row[s.w - 1 - i] += from[s.w - 1 + i];
            }
        }
    }
}

// Read or write the pixels of a block: all LANES if WHOLE, else the first `count`.
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
    x = all(-87.0f) > x ? all(-87.0f) : x;  // a maximum; in this order it keeps NaN
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

// Add the logits of Eq. 3 and 4 of COUNT channels: gamma_c * LeakyReLU(query_c - key_c).
template <bool WHOLE, int COUNT>
void add_relation(const float *query, const float *key, const float *gamma, const Shape &s,
                  const Block &block, Floats *logits) {
    Floats q[COUNT];
    for (int c = 0; c < COUNT; ++c) q[c] = read<WHOLE>(query + c * s.plane(), block);
    for (int64_t dy = 0; dy < s.k; ++dy) {
        for (int64_t dx = 0; dx < s.k; ++dx) {
            const float *shifted = key + dy * s.padded_w() + dx;
            Floats sum = logits[dy * s.k + dx];
            for (int c = 0; c < COUNT; ++c) {
                const Floats k = read<WHOLE>(shifted + c * s.padded_plane(), block);
                sum += gamma[c] * leaky_relu(q[c] - k);
            }
            logits[dy * s.k + dx] = sum;
        }
    }
}

// The same for all channels of a relation.
template <bool WHOLE>
void add_relation(const float *query, const float *key, const float *gamma, int64_t channels,
                  const Shape &s, const Block &block, Floats *logits) {
    int64_t c = 0;
    for (; c + 2 <= channels; c += 2) {
        add_relation<WHOLE, 2>(query + c * s.plane(), key + c * s.padded_plane(), gamma + c, s,
                               block, logits);
    }
    for (; c < channels; ++c) {
        add_relation<WHOLE, 1>(query + c * s.plane(), key + c * s.padded_plane(), gamma + c, s,
                               block, logits);
    }
}

// The unnormalized weights of Eq. 3 for a block; returns their sum.
template <bool WHOLE>
Floats block_weights(const Inputs &in, const Shape &s, const Block &block, Floats *weights) {
    const int64_t area = s.k * s.k;
    std::fill(weights, weights + area, Floats{});
    add_relation<WHOLE>(in.phi + block.at, in.psi + block.padded_at, in.gamma, s.relations, s,
                        block, weights);
    add_relation<WHOLE>(in.position + block.at, in.place + block.padded_at,
                        in.gamma + s.relations, s.positions, s, block, weights);
    Floats largest = weights[0];
    for (int64_t k = 1; k < area; ++k) largest = weights[k] > largest ? weights[k] : largest;
    Floats total{};
    for (int64_t k = 0; k < area; ++k) {
        weights[k] = exp_of_negative(weights[k] - largest);
        total += weights[k];
    }
    return total;
}

// Eq. 2 for COUNT channels of a block; each weight is read once for all of them. The scale makes
// the sum of the weights one.
template <bool WHOLE, int COUNT>
void aggregate(const Floats *weights, Floats scale, const float *beta, const Shape &s,
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
    for (int c = 0; c < COUNT; ++c) write<WHOLE>(sum[c] * scale, out + c * s.plane(), block);
}

template <bool WHOLE>
void forward_block(const Inputs &in, const Shape &s, const Block &block, float *out) {
    Floats weights[MAX_K * MAX_K];
    const Floats scale = 1.0f / block_weights<WHOLE>(in, s, block, weights);
    const float *beta = in.beta + block.padded_at;
    out += block.at;
    int64_t c = 0;
    for (; c + 4 <= s.values; c += 4) {
        aggregate<WHOLE, 4>(weights, scale, beta + c * s.padded_plane(), s, block,
                            out + c * s.plane());
    }
    for (; c < s.values; ++c) {
        aggregate<WHOLE, 1>(weights, scale, beta + c * s.padded_plane(), s, block,
                            out + c * s.plane());
    }
}

// Column by column: shifts along a row overlap, and loading at another offset what was just stored
// stalls the pipeline.
template <typename Step>
inline void for_shifts(const Shape &s, Step step) {
    for (int64_t dx = 0; dx < s.k; ++dx) {
        for (int64_t dy = 0; dy < s.k; ++dy) step(dy * s.k + dx, dy * s.padded_w() + dx);
    }
}

// Gradients of `aggregate`, accumulated into the outputs.
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

// Gradients of `relation` at all shifts, accumulated into the outputs.
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

template <bool WHOLE>
void backward_block(const Inputs &in, const Shape &s, const Block &block, const float *grad_out,
                    const Gradients &grad) {
    const int64_t area = s.k * s.k;
    Floats weights[MAX_K * MAX_K], grad_logits[MAX_K * MAX_K];
    const Floats scale = 1.0f / block_weights<WHOLE>(in, s, block, weights);
    for (int64_t k = 0; k < area; ++k) {
        weights[k] *= scale;
        grad_logits[k] = Floats{};
    }
    const float *beta = in.beta + block.padded_at;
    float *grad_beta = grad.beta + block.padded_at;
    grad_out += block.at;
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
    // Softmax: d_logit = alpha * (d_alpha - sum over the footprint of alpha * d_alpha).
    Floats mean{};
    for (int64_t k = 0; k < area; ++k) mean += weights[k] * grad_logits[k];
    for (int64_t k = 0; k < area; ++k) grad_logits[k] = weights[k] * (grad_logits[k] - mean);

    relation_backward<WHOLE>(grad_logits, in.phi + block.at, in.psi + block.padded_at, in.gamma,
                             s.relations, s, block, grad.phi + block.at,
                             grad.psi + block.padded_at, grad.gamma);
    relation_backward<WHOLE>(grad_logits, in.position + block.at, in.place + block.padded_at,
                             in.gamma + s.relations, s.positions, s, block,
                             grad.position + block.at, grad.place + block.padded_at,
                             grad.gamma + s.relations);
}

template <typename Whole, typename Short>
void for_blocks_of_band(const Shape &s, int64_t band, Whole whole, Short narrow) {
    const int64_t top = band * BAND;
    for (int64_t y = top; y < std::min(s.h, top + BAND); ++y) {
        const int64_t at = y * s.w, padded_at = (y - top) * s.padded_w();
        if (s.w < LANES) {
            narrow(Block{at, padded_at, s.w, 0});
            continue;
        }
        for (int64_t x = 0; x < s.w; x += LANES) {
            const int64_t start = std::min(x, s.w - LANES);
            whole(Block{at + start, padded_at + start, LANES, x - start});
        }
    }
}

// Pad what a band needs into `buffer`, of s.padded_band() floats.
Inputs pad_band(const float *features, const float *position, const float *gamma, int64_t image,
                int64_t band, const Shape &s, float *buffer) {
    const float *phi = features + image * s.channels() * s.plane();
    float *beta = buffer + s.relations * s.padded_plane();
    float *place = beta + s.values * s.padded_plane();
    pad(phi + s.relations * s.plane(), s.relations + s.values, band, s, buffer);  // psi and beta
    pad(position, s.positions, band, s, place);
    return {phi, position, buffer, beta, place, gamma};
}

}  // namespace

extern "C" {

// features: [images, 2 * relations + values, h, w], phi, psi and beta. out: [images, values, h, w]
void pairwise_attention_forward(const float *features, const float *position, const float *gamma,
                                float *out, int64_t images, int64_t relations, int64_t positions,
                                int64_t values, int64_t h, int64_t w, int64_t k) {
    const Shape s{images, relations, positions, values, h, w, k};
#pragma omp parallel
    {
        std::vector<float> padded(s.padded_band());
#pragma omp for collapse(2) schedule(static)
        for (int64_t image = 0; image < images; ++image) {
            for (int64_t band = 0; band < s.bands(); ++band) {
                const Inputs in =
                    pad_band(features, position, gamma, image, band, s, padded.data());
                float *to = out + image * values * s.plane();
                for_blocks_of_band(
                    s, band, [&](const Block &block) { forward_block<true>(in, s, block, to); },
                    [&](const Block &block) { forward_block<false>(in, s, block, to); });
            }
        }
    }
}

// Gradients must be zero-initialized and have the shapes of the inputs, except that grad_position
// has one copy per image, and grad_gamma one row per image and band. The caller sums these copies,
// in an order that does not depend on the threads.
//
// A band also writes to K / 2 rows above and below it, reflected at the border. All even bands
// therefore run before all odd ones, so that no two threads write to the same row.
void pairwise_attention_backward(const float *grad_out, const float *features,
                                 const float *position, const float *gamma, float *grad_features,
                                 float *grad_position, float *grad_gamma, int64_t images,
                                 int64_t relations, int64_t positions, int64_t values, int64_t h,
                                 int64_t w, int64_t k) {
    const Shape s{images, relations, positions, values, h, w, k};
#pragma omp parallel
    {
        std::vector<float> padded(s.padded_band()), grad_padded(s.padded_band());
        for (int64_t parity = 0; parity < 2; ++parity) {
#pragma omp for collapse(2) schedule(static)
            for (int64_t image = 0; image < images; ++image) {
                for (int64_t half = 0; half < (s.bands() + 1) / 2; ++half) {
                    const int64_t band = 2 * half + parity;
                    if (band >= s.bands()) continue;
                    const Inputs in =
                        pad_band(features, position, gamma, image, band, s, padded.data());
                    std::fill(grad_padded.begin(), grad_padded.end(), 0.0f);
                    float *grad_psi = grad_padded.data();
                    float *grad_beta = grad_psi + relations * s.padded_plane();
                    float *grad_place = grad_beta + values * s.padded_plane();
                    float *grad_phi = grad_features + image * s.channels() * s.plane();
                    float *grad_query = grad_position + image * positions * s.plane();
                    float *row = grad_gamma + (image * s.bands() + band) * (relations + positions);
                    const Gradients grad{grad_phi,  grad_query, grad_psi,
                                         grad_beta, grad_place, row};
                    const float *from = grad_out + image * values * s.plane();
                    for_blocks_of_band(
                        s, band,
                        [&](const Block &block) { backward_block<true>(in, s, block, from, grad); },
                        [&](const Block &block) {
                            backward_block<false>(in, s, block, from, grad);
                        });
                    unpad(grad_psi, relations + values, band, s, grad_phi + relations * s.plane());
                    unpad(grad_place, positions, band, s, grad_query);
                }
            }
        }
    }
}

// For the caller: the largest footprint and the number of rows in a band.
int64_t pairwise_attention_largest_footprint() { return MAX_K; }
int64_t pairwise_attention_band() { return BAND; }

}  // extern "C"
