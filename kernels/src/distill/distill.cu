// Fused linear distillation around its matrix products: the kernels that process two tiles of logits, z of the student
// and z' of the teacher.
//
// math    KL(p ‖ q) = Σ_v p_v·(z'_v − z_v) + ln Σ_v e^{z_v} − ln Σ_v e^{z'_v}; the sums follow the tiles online.
//         dh = scale·Σ_v (q_v − p_v)·head_v
//         Exponentials are exact to f32 for bf16 as well: the gap weighs them, and q − p cancels where both are near.
// launch  one block of 256 threads per row of the tiles, kept in registers; one block per row of C elements
// options E storage of h, VEC elements of a row of C moved by one access: 16 bytes, or 1
#include "logit_tile.cuh"

// Running statistics of a labelled token.
struct State {
    float max, total;                 // total = Σ e^(z − max)
    float teacher_max, teacher_total; // the same of z'
    float gap;                        // Σ e^(z' − teacher_max)·(z' − z)
};
static_assert(sizeof(State) == 4 * STATE, "the launches allocate states");

// The maximum of a row of a tile and of the tiles before it, in every thread.
__device__ inline float row_max(const Tile &z, float before) {
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) before = fmaxf(before, z[k][j]);
    return block_max(before);
}

// Updates the states with a tile of the logits of both, whose first column is row `start` of the head.
extern "C" __global__ void distill_follow(State *states,        // (n)
                                          const float *z,       // (n, width)
                                          const float *teacher, // (n, width)
                                          int start, int width) {
    i64 i = blockIdx.x;
    Tile student, taught;
    load_tile(student, z + i * width, width, -INFINITE);
    load_tile(taught, teacher + i * width, width, -INFINITE);
    State s = {-INFINITE, 0.0f, -INFINITE, 0.0f, 0.0f};
    if (start > 0) s = states[i];
    float largest = row_max(student, s.max), teacher_largest = row_max(taught, s.teacher_max);
    float sum = 0.0f, teacher_sum = 0.0f, gap = 0.0f;
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float weight = expf(taught[k][j] - teacher_largest);
            sum += expf(student[k][j] - largest);
            teacher_sum += weight;
            // Beyond the end of the row both are −∞.
            if (column(k) + j < width) gap += weight * (taught[k][j] - student[k][j]);
        }
    sum = block_sum(sum);
    teacher_sum = block_sum(teacher_sum);
    gap = block_sum(gap);
    if (threadIdx.x > 0) return;
    float correction = expf(s.teacher_max - teacher_largest);
    s.total = s.total * expf(s.max - largest) + sum;
    s.teacher_total = s.teacher_total * correction + teacher_sum;
    s.gap = s.gap * correction + gap;
    s.max = largest;
    s.teacher_max = teacher_largest;
    states[i] = s;
}

// difference = q − p of a tile, now that the sums over all tiles are known.
extern "C" __global__ void distill_difference(E *difference,        // (n, width)
                                              const float *z,       // (n, width)
                                              const float *teacher, // (n, width)
                                              const State *states,  // (n)
                                              int width) {
    i64 i = blockIdx.x;
    State s = states[i];
    Tile student, taught;
    load_tile(student, z + i * width, width, -INFINITE);
    load_tile(taught, teacher + i * width, width, -INFINITE);
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float p = expf(taught[k][j] - s.teacher_max) / s.teacher_total;
            student[k][j] = expf(student[k][j] - s.max) / s.total - p;
        }
    store_tile(difference + i * width, student, width);
}

// The divergence of every token, and dh = scale·sums if wanted. The logarithms of the sums are subtracted as one, so that
// equal statistics give 0.
extern "C" __global__ void distill_finish(E *dh,               // (T, C), or null
                                          float *divergences,  // (T)
                                          const float *sums,   // (n, C): Σ (q − p)·head, or null
                                          const State *states, // (n)
                                          const int *rows,     // (T)
                                          float scale, int first, int C) {
    i64 i = blockIdx.x, t = rows[first + i];
    State s = states[i];
    if (threadIdx.x == 0) {
        divergences[t] = s.gap / s.teacher_total + (s.max - s.teacher_max) + logf(s.total / s.teacher_total);
    }
    if (!dh) return;
    constexpr int N = VEC < 4 ? VEC : 4; // 16 bytes of the sums
    for (int c = threadIdx.x * N; c < C; c += blockDim.x * N) {
        float x[N];
        load(x, sums + i * C + c);
#pragma unroll
        for (int j = 0; j < N; j++) x[j] *= scale;
        store(dh + t * C + c, x);
    }
}
