// RMSNorm: forward, forward fused with the residual add, and backward.
//
// math    r = 1/√(mean(x²) + eps) of each row, y = x·r·w. With g = dy·w:
//         dx = r·(g − x·r²·mean(g·x)) (+ dsum), dw = Σ_t dy·x·r
// launch  one block per row: each thread keeps PACKS packs of it in registers, so x is read once. The block is just
//         large enough for the row, at most 1024 threads
//         dw: one block per slab of SLAB rows and 128·VEC columns; then one thread per column adds the slabs, ascending
// options E storage of x and y, W storage of w, VEC elements moved by one access: 16 bytes, or 1 for rows that are
//         not a multiple of that
#include "prelude.cuh"

constexpr int PACKS = VEC > 1 ? VECTOR_PACKS : ELEMENT_PACKS;

typedef float Row[PACKS][VEC]; // a thread's part: packs threadIdx.x, threadIdx.x + blockDim.x, …

__device__ inline int column(int pack) { return (pack * blockDim.x + threadIdx.x) * VEC; }

// x = this thread's part of a row of C elements, zero beyond its end.
template <typename T> __device__ inline void load_row(Row &x, const T *row, int C) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column(p) < C) {
            load(x[p], row + column(p));
        } else {
#pragma unroll
            for (int i = 0; i < VEC; i++) x[p][i] = 0.0f;
        }
    }
}

// Writes y = x·r·w, and r, of the row that `x` holds.
__device__ inline void normalize(E *y, float *r, const Row &x, const W *w, float eps, int C) {
    float squares = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VEC; i++) squares += x[p][i] * x[p][i];
    float scale = 1.0f / sqrtf(block_sum(squares) / C + eps);
    if (threadIdx.x == 0) *r = scale;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column(p) >= C) continue;
        float v[VEC];
        load(v, w + column(p));
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] *= x[p][i] * scale;
        store(y + column(p), v);
    }
}

extern "C" __global__ void rmsnorm(E *y,       // (T, C)
                                   float *r,   // (T)
                                   const E *x, // (T, C)
                                   const W *w, // (C)
                                   float eps, int C) {
    i64 t = blockIdx.x;
    Row row;
    load_row(row, x + t * C, C);
    normalize(y + t * C, r + t, row, w, eps, C);
}

extern "C" __global__ void add_rmsnorm(E *sum,     // (T, C)
                                       E *y,       // (T, C)
                                       float *r,   // (T)
                                       const E *a, // (T, C)
                                       const E *b, // (T, C)
                                       const W *w, // (C)
                                       float eps, int C) {
    i64 t = blockIdx.x;
    Row row;
    load_row(row, a + t * C, C);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column(p) >= C) continue;
        float v[VEC];
        load(v, b + t * C + column(p));
        // y is made from the sum as it is stored.
#pragma unroll
        for (int i = 0; i < VEC; i++) row[p][i] = get(put<E>(row[p][i] + v[i]));
        store(sum + t * C + column(p), row[p]);
    }
    normalize(y + t * C, r + t, row, w, eps, C);
}

extern "C" __global__ void rmsnorm_dx(E *dx,          // (T, C)
                                      const E *dy,    // (T, C)
                                      const E *dsum,  // (T, C), or null
                                      const E *x,     // (T, C)
                                      const W *w,     // (C)
                                      const float *r, // (T)
                                      int C) {
    i64 t = blockIdx.x;
    Row row, g;
    load_row(row, x + t * C, C);
    load_row(g, dy + t * C, C);
    float products = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column(p) >= C) continue;
        float v[VEC];
        load(v, w + column(p));
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            g[p][i] *= v[i];
            products += g[p][i] * row[p][i];
        }
    }
    float scale = r[t];
    float slope = scale * scale * (block_sum(products) / C);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column(p) >= C) continue;
        float v[VEC] = {};
        if (dsum) load(v, dsum + t * C + column(p));
#pragma unroll
        for (int i = 0; i < VEC; i++) v[i] += scale * (g[p][i] - row[p][i] * slope);
        store(dx + t * C + column(p), v);
    }
}

// Index of column c in a row of parts. A thread holds VEC columns and stores four at a time; when it holds eight, all
// first fours come before all second ones, so that the stores of a warp are coalesced.
__device__ inline int part(int c, int C) { return VEC == 8 ? c / 4 % 2 * (C / 2) + c / 8 * 4 + c % 4 : c; }

// parts_s = Σ dy·x·r over the rows of slab s.
extern "C" __global__ void rmsnorm_dw_parts(float *parts,   // (⌈T / SLAB⌉, C)
                                            const E *dy,    // (T, C)
                                            const E *x,     // (T, C)
                                            const float *r, // (T)
                                            int T, int C) {
    int c = (blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    if (c >= C) return;
    int start = blockIdx.y * SLAB, end = min(start + SLAB, T);
    float sum[VEC] = {};
#pragma unroll 4
    for (int t = start; t < end; t++) {
        float a[VEC], b[VEC];
        load(a, dy + i64(t) * C + c);
        load(b, x + i64(t) * C + c);
#pragma unroll
        for (int i = 0; i < VEC; i++) sum[i] += a[i] * b[i] * r[t];
    }
    constexpr int N = VEC < 4 ? VEC : 4;
#pragma unroll
    for (int i = 0; i < VEC; i += N) {
        float v[N];
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = sum[i + j];
        store(parts + i64(blockIdx.y) * C + part(c + i, C), v);
    }
}

extern "C" __global__ void rmsnorm_dw(W *dw,              // (C)
                                      const float *parts, // (slabs, C)
                                      int slabs, int C) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float sum = 0.0f;
    for (int s = 0; s < slabs; s++) sum += parts[i64(s) * C + part(c, C)];
    dw[c] = put<W>(sum);
}
