// S = s x̃ Aᵀ of linears that share x: what s.cu and decode.cu make blocks of, and lora.cu reads.
//
// layout  S holds the columns of all linears side by side, each R rounded up to 16 and padded with zeros, so a group of
//         16 columns belongs to one linear. Where rows choose adapters, a row has S of its own adapter
#pragma once
#include "targets.cuh"

// The linears' factors A, and the scales of S.
struct Factors {
    const float *a0, *a1, *a2, *a3; // (adapters, R, C)
    int r0, r1, r2, r3;
    float s0, s1, s2, s3;
};

// The linear of a group of columns, TARGETS beyond the last one, and the group's first line of its A.
struct GroupOf {
    int target = 0, line;

    __device__ GroupOf(int group, const Factors &f) {
        auto groups = [&] { return round_up(pick(target, f.r0, f.r1, f.r2, f.r3), RANK_GROUP) / RANK_GROUP; };
        while (target < TARGETS && group >= groups()) {
            group -= groups();
            target++;
        }
        line = group * RANK_GROUP;
    }
};

// The adapters of a block's rows, each thread knows one. Every thread of the block must call its functions.
struct Chosen {
    static constexpr int NONE = 0x7fffffff;
    bool rows_choose;
    int mine; // the adapter of this thread's row, negative for none

    // `choice` is null where there is one adapter for all rows.
    __device__ Chosen(const int *choice, int m, int rows, int T, int adapters) : rows_choose(choice), mine(-1) {
        if (choice && threadIdx.x < rows && m + threadIdx.x < T) mine = choice[m + threadIdx.x];
        if (mine >= adapters) __trap();
    }

    // The least adapter of the rows above `after`, or NONE.
    __device__ int next(int after) const {
        if (!rows_choose) return after < 0 ? 0 : NONE;
        __shared__ int parts[32];
        int least;
        asm volatile("redux.sync.min.s32 %0, %1, 0xffffffff;" : "=r"(least) : "r"(mine > after ? mine : NONE));
        __syncthreads(); // the parts of an earlier call have been read
        if (lane() == 0) parts[warp()] = least;
        __syncthreads();
        for (int w = 0; w < blockDim.x / 32; w++) least = min(least, parts[w]);
        return least;
    }

    // The n-th adapter of the rows, or NONE.
    __device__ int nth(int n) const {
        int adapter = next(-1);
        for (; n > 0 && adapter != NONE; n--) adapter = next(adapter);
        return adapter;
    }
};

// The line of an adapter's A of a column of S; null where there is none.
__device__ inline const float *line_of_a(const Factors &f, int column, int adapter, int C) {
    GroupOf of(column / RANK_GROUP, f);
    int R = pick(of.target, f.r0, f.r1, f.r2, f.r3), line = of.line + column % RANK_GROUP;
    // Groups beyond the last linear have no lines, nor has a block whose rows have no adapter.
    if (of.target == TARGETS || adapter == Chosen::NONE || line >= R) return nullptr;
    return pick(of.target, f.a0, f.a1, f.a2, f.a3) + (i64(adapter) * R + line) * C;
}

// Calls put(pointer into `to` (T, pitch), pair) for the block's pairs of neighbours in the rows that have chosen `adapter`,
// and with zeros for rows without one if `none`.
template <typename Rows, typename Put>
__device__ inline void each_pair(const Rows &block, typename Rows::Accumulators &acc, const Factors &f,
                                 const int *choice, int adapter, bool none, float *to, int T, int pitch, Put put) {
    int first = block.m + Rows::warp_m() + lane() / 4, column = block.n + Rows::warp_n() + lane() % 4 * 2;
    to += i64(first) * pitch + column;
    int chosen[2 * Rows::MT];
#pragma unroll
    for (int i = 0; i < 2 * Rows::MT; i++) chosen[i] = choice && first + 8 * i < T ? choice[first + 8 * i] : adapter;
#pragma unroll
    for (int j = 0; j < Rows::NTILES; j++) {
        if (column + 8 * j >= pitch) break;
        int target = GroupOf((block.n + Rows::warp_n() + 8 * j) / RANK_GROUP, f).target;
        float scale = pick(target, f.s0, f.s1, f.s2, f.s3);
#pragma unroll
        for (int i = 0; i < 2 * Rows::MT; i++) {
            if (first + 8 * i >= T) break;
            if (chosen[i] != adapter && !(none && chosen[i] < 0)) continue;
            const float *x = acc[i / 2][j] + 2 * (i % 2);
            float pair[2] = {};
            if (chosen[i] == adapter) pair[0] = scale * x[0], pair[1] = scale * x[1];
            put(to + i * 8 * pitch + 8 * j, pair);
        }
    }
}
