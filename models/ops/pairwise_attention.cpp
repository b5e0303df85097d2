// Pairwise attention on the CPU, float32: see pairwise_attention.py for the equations.
//
// A row is walked in blocks of B pixels. All that belongs to a block, the logits of its whole
// footprint first of all, stays in registers and in the first-level cache, so memory is read once
// and written once. Loops over the pixels of a block are what the compiler vectorises.
//
// psi, beta and the second copy of position come padded by K / 2 on every side, reflected.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int B = 32;          // pixels in a block: two AVX-512 or four AVX2 registers
constexpr int MAX_K = 15;      // side of the footprint, for the size of the stack arrays
constexpr int BAND = 16;       // rows in a task; must not be less than K - 1, see backward
constexpr float SLOPE = 0.2f;  // LeakyReLU

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

// e^x for x <= 0, in plain arithmetic so that it vectorises; relative error about 1e-7.
inline float exp_of_negative(float x) {
    x = std::max(x, -87.0f);
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = x - n * 0.693145752f - n * 1.42860677e-6f;  // ln 2 in two parts
    float e = 1.9875691500e-4f;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1.0f;
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return e * power;
}

// logits[k][i] += sum over channels of gamma_c * LeakyReLU(query_c - key_c at shift k)
template <int N>
void add_relation(const float *query, const float *key, const float *gamma, int64_t channels,
                  int64_t plane, int64_t padded_plane, int64_t padded_w, int64_t k, int count,
                  float (*logits)[B]) {
    const int n = N ? N : count;
    for (int64_t c = 0; c < channels; ++c) {
        const float *q = query + c * plane;
        for (int64_t dy = 0; dy < k; ++dy) {
            const float *row = key + c * padded_plane + dy * padded_w;
            for (int64_t dx = 0; dx < k; ++dx) {
                float *logit = logits[dy * k + dx];
#pragma omp simd
                for (int i = 0; i < n; ++i) {
                    const float t = q[i] - row[dx + i];
                    logit[i] += gamma[c] * std::max(t, SLOPE * t);
                }
            }
        }
    }
}

// The weights alpha of a block, Eq. 3 and 4: weights[k][i] sums to 1 over k.
template <int N>
void block_weights(const Inputs &in, const Shape &s, int64_t image, int64_t y, int64_t x,
                   int count, float (*weights)[B]) {
    const int n = N ? N : count;
    const int64_t area = s.k * s.k, at = y * s.w + x, padded_at = y * s.padded_w() + x;
    std::memset(weights, 0, area * sizeof *weights);
    add_relation<N>(in.phi + image * s.relations * s.plane() + at,
                    in.psi + image * s.relations * s.padded_plane() + padded_at, in.gamma,
                    s.relations, s.plane(), s.padded_plane(), s.padded_w(), s.k, count, weights);
    add_relation<N>(in.position + at, in.position_padded + padded_at, in.gamma + s.relations,
                    s.positions, s.plane(), s.padded_plane(), s.padded_w(), s.k, count, weights);
    float largest[B], total[B];
    std::copy_n(weights[0], B, largest);
    std::fill_n(total, B, 0.0f);
    for (int64_t k = 1; k < area; ++k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) largest[i] = std::max(largest[i], weights[k][i]);
    }
    for (int64_t k = 0; k < area; ++k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) {
            weights[k][i] = exp_of_negative(weights[k][i] - largest[i]);
            total[i] += weights[k][i];
        }
    }
#pragma omp simd
    for (int i = 0; i < n; ++i) total[i] = 1.0f / total[i];
    for (int64_t k = 0; k < area; ++k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) weights[k][i] *= total[i];
    }
}

// Eq. 2 for one block.
template <int N>
void forward_block(const Inputs &in, const Shape &s, int64_t image, int64_t y, int64_t x,
                   int count, float *out) {
    const int n = N ? N : count;
    float weights[MAX_K * MAX_K][B];
    block_weights<N>(in, s, image, y, x, count, weights);
    for (int64_t c = 0; c < s.values; ++c) {
        const float *beta = in.beta + (image * s.values + c) * s.padded_plane() + y * s.padded_w() + x;
        float sum[B] = {};
        for (int64_t dy = 0; dy < s.k; ++dy) {
            for (int64_t dx = 0; dx < s.k; ++dx) {
                const float *shifted = beta + dy * s.padded_w() + dx;
                const float *weight = weights[dy * s.k + dx];
#pragma omp simd
                for (int i = 0; i < n; ++i) sum[i] += weight[i] * shifted[i];
            }
        }
        std::copy_n(sum, n, out + (image * s.values + c) * s.plane() + y * s.w + x);
    }
}

// Gradients of add_relation, added to what is there.
template <int N>
void relation_backward(const float (*grad_logits)[B], const float *query, const float *key,
                       const float *gamma, int64_t channels, int64_t plane, int64_t padded_plane,
                       int64_t padded_w, int64_t k, int count, float *grad_query, float *grad_key,
                       float *grad_gamma) {
    const int n = N ? N : count;
    for (int64_t c = 0; c < channels; ++c) {
        const float *q = query + c * plane;
        float sum_query[B] = {}, sum_gamma[B] = {};
        for (int64_t dy = 0; dy < k; ++dy) {
            const float *row = key + c * padded_plane + dy * padded_w;
            float *grad_row = grad_key + c * padded_plane + dy * padded_w;
            for (int64_t dx = 0; dx < k; ++dx) {
                const float *grad_logit = grad_logits[dy * k + dx];
#pragma omp simd
                for (int i = 0; i < n; ++i) {
                    const float t = q[i] - row[dx + i];
                    const float slope = t > 0 ? 1.0f : SLOPE;
                    const float grad = grad_logit[i] * gamma[c] * slope;
                    sum_gamma[i] += grad_logit[i] * slope * t;
                    sum_query[i] += grad;
                    grad_row[dx + i] -= grad;
                }
            }
        }
        float total = 0;
        for (int i = 0; i < n; ++i) {
            grad_query[c * plane + i] += sum_query[i];
            total += sum_gamma[i];
        }
        grad_gamma[c] += total;
    }
}

struct Gradients {
    float *phi, *psi, *beta, *position, *position_padded, *gamma;
};

template <int N>
void backward_block(const Inputs &in, const Shape &s, int64_t image, int64_t y, int64_t x,
                    int count, const float *grad_out, const Gradients &grad, float *grad_gamma) {
    const int n = N ? N : count;
    const int64_t area = s.k * s.k, at = y * s.w + x, padded_at = y * s.padded_w() + x;
    float weights[MAX_K * MAX_K][B], grad_logits[MAX_K * MAX_K][B] = {};
    block_weights<N>(in, s, image, y, x, count, weights);
    for (int64_t c = 0; c < s.values; ++c) {
        const int64_t plane = (image * s.values + c) * s.padded_plane() + padded_at;
        const float *g = grad_out + (image * s.values + c) * s.plane() + at;
        for (int64_t dy = 0; dy < s.k; ++dy) {
            for (int64_t dx = 0; dx < s.k; ++dx) {
                const int64_t k = dy * s.k + dx;
                const float *beta = in.beta + plane + dy * s.padded_w() + dx;
                float *grad_beta = grad.beta + plane + dy * s.padded_w() + dx;
#pragma omp simd
                for (int i = 0; i < n; ++i) {
                    grad_logits[k][i] += g[i] * beta[i];
                    grad_beta[i] += g[i] * weights[k][i];
                }
            }
        }
    }
    // Softmax: d logit = alpha * (d alpha - sum over the footprint of alpha * d alpha).
    float mean[B] = {};
    for (int64_t k = 0; k < area; ++k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) mean[i] += weights[k][i] * grad_logits[k][i];
    }
    for (int64_t k = 0; k < area; ++k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) grad_logits[k][i] = weights[k][i] * (grad_logits[k][i] - mean[i]);
    }
    const int64_t r = image * s.relations, p = image * s.positions;
    relation_backward<N>(grad_logits, in.phi + r * s.plane() + at,
                         in.psi + r * s.padded_plane() + padded_at, in.gamma, s.relations,
                         s.plane(), s.padded_plane(), s.padded_w(), s.k, count,
                         grad.phi + r * s.plane() + at,
                         grad.psi + r * s.padded_plane() + padded_at, grad_gamma);
    relation_backward<N>(grad_logits, in.position + at, in.position_padded + padded_at,
                         in.gamma + s.relations, s.positions, s.plane(), s.padded_plane(),
                         s.padded_w(), s.k, count, grad.position + p * s.plane() + at,
                         grad.position_padded + p * s.padded_plane() + padded_at,
                         grad_gamma + s.relations);
}

template <typename Full, typename Rest>
void for_blocks_of_band(const Shape &s, int64_t band, Full full, Rest rest) {
    for (int64_t y = band * BAND; y < std::min(s.h, (band + 1) * BAND); ++y) {
        int64_t x = 0;
        for (; x + B <= s.w; x += B) full(y, x);
        if (x < s.w) rest(y, x, static_cast<int>(s.w - x));
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
                s, band,
                [&](int64_t y, int64_t x) { forward_block<B>(in, s, image, y, x, B, out); },
                [&](int64_t y, int64_t x, int count) {
                    forward_block<0>(in, s, image, y, x, count, out);
                });
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
                    s, band,
                    [&](int64_t y, int64_t x) {
                        backward_block<B>(in, s, image, y, x, B, grad_out, grad, row);
                    },
                    [&](int64_t y, int64_t x, int count) {
                        backward_block<0>(in, s, image, y, x, count, grad_out, grad, row);
                    });
            }
        }
    }
}

// What the caller must know: the largest footprint and the rows in a band.
int64_t pairwise_attention_largest_footprint() { return MAX_K; }
int64_t pairwise_attention_band() { return BAND; }

}  // extern "C"
