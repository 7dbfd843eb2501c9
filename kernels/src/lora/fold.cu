// Sums of the parts of dS, dB and dA, in their order.
//
// launch  one thread per 4 columns of a result
#include "prelude.cuh"
#include "targets.cuh"

// y[0..count] = scale · Σ parts, `slices` of them `stride` apart, in their order; count ≤ 4. The parts are packs of four if
// `aligned`, and y if `packed`.
template <typename Out>
__device__ inline void fold(Out *y, const float *parts, i64 stride, int slices, float scale, int count, bool aligned,
                            bool packed) {
    float x[4] = {};
    for (int slice = 0; slice < slices; slice++, parts += stride) {
        float part[4] = {};
        if (aligned) {
            load(part, parts);
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (e < count) part[e] = parts[e];
        }
#pragma unroll
        for (int e = 0; e < 4; e++) x[e] += part[e];
    }
#pragma unroll
    for (int e = 0; e < 4; e++) x[e] *= scale;
    if (packed) {
        store(y, x);
    } else {
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (e < count) y[e] = put<Out>(x[e]);
    }
}

// dS of all linears, then dB of each.
extern "C" __global__ void lora_fold_ds_db(bf16 *ds, // (T, pitch)
                                           float *db0, float *db1, float *db2, float *db3, // (N, R)
                                           const float *of_ds, const float *of_db,         // the parts of lora_ds_db
                                           int n0, int n1, int n2, int n3, int r0, int r1, int r2, int r3, float s0,
                                           float s1, float s2, float s3, int T, int run, int pitch) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x, of_rows = i64(T) * (pitch / 4);
    bool is_ds = i < of_rows;
    int column = is_ds ? i % (pitch / 4) * 4 : 0, row = is_ds ? i / (pitch / 4) : 0, first = column;
    i -= of_rows;
    for (int target = 0; target < TARGETS; target++) {
        int N = pick(target, n0, n1, n2, n3), R = pick(target, r0, r1, r2, r3), padded = round_up(R, RANK_GROUP);
        i64 packs = i64(N) * ((R + 3) / 4);
        if (is_ds && column < padded) {
            fold(ds + i64(row) * pitch + first, of_ds + i64(row) * padded + column, i64(T) * padded,
                 round_up(N, STRIP_COLUMNS) / STRIP_COLUMNS, pick(target, s0, s1, s2, s3), 4, true, true);
            return;
        }
        if (!is_ds && i < packs) {
            int n = i / ((R + 3) / 4), r = i % ((R + 3) / 4) * 4;
            fold(pick(target, db0, db1, db2, db3) + i64(n) * R + r, of_db + i64(n) * padded + r, i64(N) * padded,
                 round_up(T, run) / run, 1.0f, min(R - r, 4), true, R % 4 == 0);
            return;
        }
        column -= padded;
        i -= packs;
        of_ds += ds_parts(T, N, padded);
        of_db += db_parts(T, N, padded, run);
    }
}

// dA of each linear.
extern "C" __global__ void lora_fold_da(float *da0, float *da1, float *da2, float *da3, // (R, C)
                                        const float *parts,                             // (runs of rows, pitch, C)
                                        int r0, int r1, int r2, int r3, float scale, int runs, int pitch, int C) {
    i64 i = blockIdx.x * i64(blockDim.x) + threadIdx.x;
    int packs = (C + 3) / 4;
    for (int target = 0; target < TARGETS; target++) {
        int R = pick(target, r0, r1, r2, r3);
        if (i < i64(R) * packs) {
            int r = i / packs, c = i % packs * 4;
            fold(pick(target, da0, da1, da2, da3) + i64(r) * C + c, parts + i64(r) * C + c, i64(pitch) * C, runs, scale,
                 min(C - c, 4), C % 4 == 0, C % 4 == 0);
            return;
        }
        i -= i64(R) * packs;
        parts += i64(round_up(R, RANK_GROUP)) * C;
    }
}
