// Of each class, the sums that losses of whole regions are made of, and their gradient. Probabilities are made tile by
// tile, both ways, and none is kept.

#include "logits.h"

namespace {

// Of a tile's pixels, the softmax over classes, made in `made`, [classes, TILE].
void softmax(long classes, const Tile &tile, float *made) {
    float most[TILE], sum[TILE];
    find_largest(classes, tile, most);
    std::fill_n(sum, tile.count, 0.0f);
    for (long c = 0; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < tile.count; i++) {
            made[c * TILE + i] = exponential(tile.logits[c * tile.stride + i] - most[i]);
            sum[i] += made[c * TILE + i];
        }
    for (long i = 0; i < tile.count; i++) sum[i] = 1 / sum[i];
    for (long c = 0; c < classes; c++)
#pragma omp simd
        for (long i = 0; i < tile.count; i++) made[c * TILE + i] *= sum[i];
}

// Over the pixels that are not ignored: each class's probability where it is the truth, its probability, and the pixels
// where it is the truth, into found, [3, classes]. Tiles are added up in double and in their order, whatever thread
// made them. `wrong` is set where a target is neither a class nor ignored.
void sums(long images, long classes, long old_height, long old_width, long height, long width, long threads,
          long ignore, const float *logits, const int64_t *target, double *found, int64_t *wrong) {
    const Logits all{images, classes, old_height, old_width, height, width, threads, logits};
    Floats parts(all.tiles() * 3 * classes);
    all.each([&](const Tile &tile) {
        thread_local Floats probability;
        probability.resize(classes * TILE);
        float *part = &parts[tile.number * 3 * classes], labelled[TILE];
        const int64_t *truth = target + tile.pixel;
        softmax(classes, tile, probability.data());
        for (long i = 0; i < tile.count; i++) {
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
            for (long i = 0; i < tile.count; i++) sum += labelled[i] * probability[c * TILE + i];
            part[classes + c] = sum;
        }
    });
    for (long i = 0; i < all.tiles(); i++)
        for (long n = 0; n < 3 * classes; n++) found[n] += parts[i * 3 * classes + n];
}

// Of each logit, p (d - sum of p d over classes), with d the gradient of the class's probability there: of_said, and
// of_overlap beside it where it is the truth. 0 where ignored.
void gradient(long images, long classes, long old_height, long old_width, long height, long width, long threads,
              long ignore, const float *logits, const int64_t *target, const float *of_overlap, const float *of_said,
              float *found) {
    const Logits all{images, classes, old_height, old_width, height, width, threads, logits};
    const auto work = [=](const Tile &tile) {
        thread_local Floats probability;
        probability.resize(classes * TILE);
        const int64_t *truth = target + tile.pixel;
        float mean[TILE], labelled[TILE];
        softmax(classes, tile, probability.data());
        std::fill_n(mean, tile.count, 0.0f);
        for (long c = 0; c < classes; c++)
#pragma omp simd
            for (long i = 0; i < tile.count; i++) mean[i] += of_said[c] * probability[c * TILE + i];
        for (long i = 0; i < tile.count; i++) {
            labelled[i] = truth[i] != ignore;
            if (truth[i] != ignore) mean[i] += of_overlap[truth[i]] * probability[truth[i] * TILE + i];
        }
        for (long c = 0; c < classes; c++) {
            float *out = tile.gradient + c * tile.stride;
#pragma omp simd
            for (long i = 0; i < tile.count; i++)
                out[i] = labelled[i] * probability[c * TILE + i] * (of_said[c] - mean[i]);
        }
        for (long i = 0; i < tile.count; i++)
            if (truth[i] != ignore)
                tile.gradient[truth[i] * tile.stride + i] += of_overlap[truth[i]] * probability[truth[i] * TILE + i];
    };
    all.each(work, found);
}

} // namespace

extern "C" {
auto region_sums = sums;
auto region_sums_gradient = gradient;
}
