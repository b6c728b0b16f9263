// Bilinear interpolation of planes, pixel centres aligned (`align_corners=False`): first along rows, then between them.

#include <algorithm>
#include <vector>

namespace {

// Where a new position lies between two old ones: at `first` and `second`, `share` of the way to the second.
struct Position {
    long first, second;
    float share;
};

std::vector<Position> positions(long old, long now) {
    std::vector<Position> all(now);
    for (long i = 0; i < now; i++) {
        const float at = std::max(0.0f, (i + 0.5f) * (float(old) / now) - 0.5f);
        const long first = std::min(long(at), old - 1);
        all[i] = {first, std::min(first + 1, old - 1), at - first};
    }
    return all;
}

void blend(long count, const float *first, const float *second, float share, float *to) {
#pragma omp simd
    for (long i = 0; i < count; i++) to[i] = first[i] + share * (second[i] - first[i]);
}

void add(long count, const float *from, float factor, float *to) {
#pragma omp simd
    for (long i = 0; i < count; i++) to[i] += factor * from[i];
}

// x: [planes, old_height, old_width] -> y: [planes, height, width]
void enlarged(long planes, long old_height, long old_width, long height, long width, long threads, const float *x,
              float *y) {
    const auto rows = positions(old_height, height), columns = positions(old_width, width);
#pragma omp parallel for num_threads(threads)
    for (long plane = 0; plane < planes; plane++) {
        std::vector<float> wide(old_height * width);
        for (long r = 0; r < old_height; r++) {
            const float *from = x + (plane * old_height + r) * old_width;
            for (long c = 0; c < width; c++) {
                const auto [first, second, share] = columns[c];
                wide[r * width + c] = from[first] + share * (from[second] - from[first]);
            }
        }
        for (long r = 0; r < height; r++)
            blend(width, &wide[rows[r].first * width], &wide[rows[r].second * width], rows[r].share,
                  y + (plane * height + r) * width);
    }
}

// y' -> x'
void gradient(long planes, long old_height, long old_width, long height, long width, long threads, const float *of_y,
              float *of_x) {
    const auto rows = positions(old_height, height), columns = positions(old_width, width);
#pragma omp parallel for num_threads(threads)
    for (long plane = 0; plane < planes; plane++) {
        std::vector<float> wide(old_height * width);
        for (long r = 0; r < height; r++) {
            const float *from = of_y + (plane * height + r) * width;
            add(width, from, 1 - rows[r].share, &wide[rows[r].first * width]);
            add(width, from, rows[r].share, &wide[rows[r].second * width]);
        }
        for (long r = 0; r < old_height; r++) {
            float *to = of_x + (plane * old_height + r) * old_width;
            std::fill_n(to, old_width, 0.0f);
            for (long c = 0; c < width; c++) {
                const auto [first, second, share] = columns[c];
                to[first] += (1 - share) * wide[r * width + c];
                to[second] += share * wide[r * width + c];
            }
        }
    }
}

} // namespace

extern "C" {
auto bilinear = enlarged;
auto bilinear_gradient = gradient;
}
