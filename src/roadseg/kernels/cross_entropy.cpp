// Cross-entropy of each pixel, and its gradient: logits are read once each way, and nothing of their size is kept
// between.

#include "logits.h"

namespace {

// The largest logit, the sum of exp(logit - largest), and the true class's logit less the largest; 1 and 0 for the two
// where ignored. `wrong` is set where a target is neither a class nor ignored.
void sums(long images, long classes, long old_height, long old_width, long height, long width, long threads,
          long ignore, const float *logits, const int64_t *target, float *largest, float *sum, float *of_true,
          int64_t *wrong) {
    const Logits all{images, classes, old_height, old_width, height, width, threads, logits};
    all.each([=](const Tile &tile) {
        const int64_t *truth = target + tile.pixel;
        float *most = largest + tile.pixel, *total = sum + tile.pixel;
        find_largest(classes, tile, most);
        std::fill_n(total, tile.count, 0.0f);
        for (long c = 0; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < tile.count; i++) total[i] += exponential(tile.logits[c * tile.stride + i] - most[i]);
        bool strange = false;
        for (long i = 0; i < tile.count; i++) {
            const bool is_class = 0 <= truth[i] && truth[i] < classes, labelled = truth[i] != ignore;
            const float one = tile.logits[(is_class ? truth[i] : 0) * tile.stride + i] - most[i];
            of_true[tile.pixel + i] = labelled ? one : 0;
            total[i] = labelled ? total[i] : 1;
            strange |= labelled && !is_class;
        }
        if (strange)
#pragma omp atomic write
            *wrong = 1;
    });
}

// Of each logit, given * (exp(logit - largest - log_sum) - 1 for the true class), and 0 where ignored. given: of the
// cross-entropy; log_sum: the logarithm of `sum`.
void gradient(long images, long classes, long old_height, long old_width, long height, long width, long threads,
              long ignore, const float *logits, const int64_t *target, const float *largest, const float *log_sum,
              const float *given, float *found) {
    const Logits all{images, classes, old_height, old_width, height, width, threads, logits};
    const auto work = [=](const Tile &tile) {
        const float *most = largest + tile.pixel, *log = log_sum + tile.pixel;
        int32_t truth[TILE];
        float of_pixel[TILE];
        for (long i = 0; i < tile.count; i++) {
            truth[i] = int32_t(target[tile.pixel + i]);
            of_pixel[i] = target[tile.pixel + i] == ignore ? 0 : given[tile.pixel + i];
        }
        for (long c = 0; c < classes; c++) {
            const float *in = tile.logits + c * tile.stride;
            float *out = tile.gradient + c * tile.stride;
#pragma omp simd
            for (long i = 0; i < tile.count; i++) {
                const float probability = exponential(in[i] - most[i] - log[i]);
                out[i] = of_pixel[i] * (probability - (truth[i] == c ? 1.0f : 0.0f));
            }
        }
    };
    all.each(work, found);
}

} // namespace

extern "C" {
auto cross_entropy_sums = sums;
auto cross_entropy_gradient = gradient;
}
