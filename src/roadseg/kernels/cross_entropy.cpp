// Cross-entropy of each pixel, and its gradient: logits are read once each way, and nothing of their size is kept between.
//
// logits: [images, classes, pixels], class by class; target: a class, or `ignore`.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr long TILE = 512; // pixels, whose logits stay in the cache while the classes are gone over

// Of a number that is not positive, to 2e-7 of it: 2^n times Taylor's series around 0.
inline float exponential(float x) {
    const float number = x > -87 ? x : -87; // below, 2^n would be no normal number; nor has NaN an n
    const float n = (number * 1.44269504f + 12582912.0f) - 12582912.0f; // x / ln 2, rounded: 1.5 * 2^23 has no fraction
    const float r = (x < -87 ? -87 : x) - n * 0.693359375f + n * 2.12194440e-4f; // x - n ln 2, in two parts; NaN stays
    float sum = 1.0f / 720, power;
    for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = sum * r + term;
    const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

// work(image, first, count) for each tile.
template <typename Work> void each(long images, long pixels, long threads, Work work) {
    const long tiles = (pixels + TILE - 1) / TILE;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < images * tiles; i++) {
        const long first = i % tiles * TILE;
        work(i / tiles, first, std::min(TILE, pixels - first));
    }
}

// The largest logit, the sum of exp(logit - largest), and the true class's logit less the largest. `wrong` is set where a
// target is neither a class nor ignored.
void sums(long images, long classes, long pixels, long threads, long ignore, const float *logits, const int64_t *target,
          float *largest, float *sum, float *of_true, int64_t *wrong) {
    each(images, pixels, threads, [=](long image, long first, long count) {
        const float *logit = logits + image * classes * pixels + first;
        const int64_t *truth = target + image * pixels + first;
        float *most = largest + image * pixels + first, *all = sum + image * pixels + first;
        std::copy_n(logit, count, most);
        std::fill_n(all, count, 0.0f);
        for (long c = 1; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < count; i++) most[i] = std::max(most[i], logit[c * pixels + i]);
        for (long c = 0; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < count; i++) all[i] += exponential(logit[c * pixels + i] - most[i]);
        for (long i = 0; i < count; i++) {
            const bool is_class = 0 <= truth[i] && truth[i] < classes;
            of_true[image * pixels + first + i] = is_class ? logit[truth[i] * pixels + i] - most[i] : 0;
            if (!is_class && truth[i] != ignore)
#pragma omp atomic write
                *wrong = 1;
        }
    });
}

// Of each logit, given * (exp(logit - largest - log_sum) - 1 for the true class), and 0 where ignored. given: of the
// cross-entropy; log_sum: the logarithm of `sum`.
void gradient(long images, long classes, long pixels, long threads, long ignore, const float *logits,
              const int64_t *target, const float *largest, const float *log_sum, const float *given, float *found) {
    each(images, pixels, threads, [=](long image, long first, long count) {
        const long logit = image * classes * pixels + first, pixel = image * pixels + first;
        int32_t truth[TILE];
        float of_pixel[TILE];
        for (long i = 0; i < count; i++) {
            truth[i] = int32_t(target[pixel + i]);
            of_pixel[i] = target[pixel + i] == ignore ? 0 : given[pixel + i];
        }
        for (long c = 0; c < classes; c++) {
            const float *in = logits + logit + c * pixels;
            float *out = found + logit + c * pixels;
#pragma omp simd
            for (long i = 0; i < count; i++) {
                const float probability = exponential(in[i] - largest[pixel + i] - log_sum[pixel + i]);
                out[i] = of_pixel[i] * (probability - (truth[i] == c ? 1.0f : 0.0f));
            }
        }
    });
}

} // namespace

extern "C" {
auto cross_entropy_sums = sums;
auto cross_entropy_gradient = gradient;
}
