// Cross-entropy of each pixel, and its gradient: logits are read once each way, and nothing of their size is kept between.

#include "logits.h"

namespace {

// The largest logit, the sum of exp(logit - largest), and the true class's logit less the largest. `wrong` is set where a
// target is neither a class nor ignored.
void sums(long images, long classes, long pixels, long threads, long ignore, const float *logits, const int64_t *target,
          float *largest, float *sum, float *of_true, int64_t *wrong) {
    each(images, pixels, threads, [=](long image, long first, long count) {
        const float *logit = logits + image * classes * pixels + first;
        const int64_t *truth = target + image * pixels + first;
        float *most = largest + image * pixels + first, *all = sum + image * pixels + first;
        find_largest(classes, pixels, count, logit, most);
        std::fill_n(all, count, 0.0f);
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
