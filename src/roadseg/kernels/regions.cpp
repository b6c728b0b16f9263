// Of each class, the sums that losses of whole regions are made of, and their gradient. Probabilities are made tile by
// tile, both ways, and none is kept.

#include "logits.h"

#include <vector>

namespace {

// Of `count` pixels, the softmax over classes, made in `made`, [classes, TILE].
void softmax(long classes, long pixels, long count, const float *logit, float *made) {
    float most[TILE], sum[TILE];
    find_largest(classes, pixels, count, logit, most);
    std::fill_n(sum, count, 0.0f);
    for (long c = 0; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < count; i++) {
            made[c * TILE + i] = exponential(logit[c * pixels + i] - most[i]);
            sum[i] += made[c * TILE + i];
        }
    for (long i = 0; i < count; i++) sum[i] = 1 / sum[i];
    for (long c = 0; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < count; i++) made[c * TILE + i] *= sum[i];
}

// Over the pixels that are not ignored: each class's probability where it is the truth, its probability, and the pixels
// where it is the truth, into found, [3, classes]. Tiles are added up in double and in their order, whatever thread made
// them.
// `wrong` is set where a target is neither a class nor ignored.
void sums(long images, long classes, long pixels, long threads, long ignore, const float *logits, const int64_t *target,
          double *found, int64_t *wrong) {
    const long tiles = (pixels + TILE - 1) / TILE;
    std::vector<float> parts(images * tiles * 3 * classes);
    each(images, pixels, threads, [&](long image, long first, long count) {
        thread_local std::vector<float> probability;
        probability.resize(classes * TILE);
        float *part = &parts[(image * tiles + first / TILE) * 3 * classes], labelled[TILE];
        const int64_t *truth = target + image * pixels + first;
        softmax(classes, pixels, count, logits + image * classes * pixels + first, probability.data());
        for (long i = 0; i < count; i++) {
            labelled[i] = truth[i] != ignore;
            if (truth[i] == ignore) continue;
            if (0 <= truth[i] && truth[i] < classes) {
                part[truth[i]] += probability[truth[i] * TILE + i];
                part[2 * classes + truth[i]] += 1;
            } else {
#pragma omp atomic write
                *wrong = 1;
            }
        }
        for (long c = 0; c < classes; c++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (long i = 0; i < count; i++) sum += labelled[i] * probability[c * TILE + i];
            part[classes + c] = sum;
        }
    });
    for (long i = 0; i < images * tiles; i++)
        for (long n = 0; n < 3 * classes; n++) found[n] += parts[i * 3 * classes + n];
}

// Of each logit, p (d - sum of p d over classes), with d the gradient of the class's probability there: of_said, and
// of_overlap beside it where it is the truth. 0 where ignored.
void gradient(long images, long classes, long pixels, long threads, long ignore, const float *logits,
              const int64_t *target, const float *of_overlap, const float *of_said, float *found) {
    each(images, pixels, threads, [=](long image, long first, long count) {
        thread_local std::vector<float> probability;
        probability.resize(classes * TILE);
        const long logit = image * classes * pixels + first;
        const int64_t *truth = target + image * pixels + first;
        float mean[TILE], labelled[TILE];
        softmax(classes, pixels, count, logits + logit, probability.data());
        std::fill_n(mean, count, 0.0f);
        for (long c = 0; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < count; i++) mean[i] += of_said[c] * probability[c * TILE + i];
        for (long i = 0; i < count; i++) {
            labelled[i] = truth[i] != ignore;
            if (truth[i] != ignore) mean[i] += of_overlap[truth[i]] * probability[truth[i] * TILE + i];
        }
        for (long c = 0; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < count; i++)
                found[logit + c * pixels + i] = labelled[i] * probability[c * TILE + i] * (of_said[c] - mean[i]);
        for (long i = 0; i < count; i++)
            if (truth[i] != ignore)
                found[logit + truth[i] * pixels + i] += of_overlap[truth[i]] * probability[truth[i] * TILE + i];
    });
}

} // namespace

extern "C" {
auto region_sums = sums;
auto region_sums_gradient = gradient;
}
