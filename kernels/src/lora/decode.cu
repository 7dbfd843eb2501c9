// Adapted linears that share x, of few rows in one launch: q|k|v, o, gate|up and down of a decoding step.
//
// math    that of lora_s, gemm's sum and lora.cu, with the same bits
// launch  the first blocks, `makers` of them, make a part of S each. The others, one per tile of a y_i, start to copy
//         their weights, wait for all parts, and add them up as they multiply S Bᵀ. A block waits only for such of
//         smaller index, which start before it
// options SHAPE of the tile; rows of x, w, a and b are multiples of 16 bytes
#include "prelude.cuh"
#include "mainloop.cuh"
#include "low_rank.cuh"

typedef Product<NT, SHAPE, bf16, true> Block;
// x Aᵀ in the tile of y, with as many stages as its memory holds of a right operand in f32.
constexpr int LOW_STAGES = Block::STAGES * Block::STAGE / (Block::A::BYTES + 2 * Block::B::BYTES);
typedef Product<NT, SHAPE, float, true, LOW_STAGES> Low;

// Copies x and the A of each group of a block, which belong to several linears, of one adapter.
struct GroupFeeds {
    static constexpr int GROUPS_OF_BLOCK = Low::BN / RANK_GROUP;
    typedef Tile<float, true, RANK_GROUP, Low::BK> Group; // the lines of A of one group
    Low::A::Feed<Low::THREADS, true> x;
    Group::Feed<Low::THREADS, true> a[GROUPS_OF_BLOCK];
    int tiles, copied = 0;

    // Channels from `k` to `end`.
    __device__ GroupFeeds(const Low &block, const bf16 *from, const Factors &f, int adapter, int T, int C, int k,
                          int end)
        : x({from, C, T, end}, block.m, k), tiles((end - k + Low::BK - 1) / Low::BK) {
#pragma unroll
        for (int g = 0; g < GROUPS_OF_BLOCK; g++) {
            GroupOf of(block.n / RANK_GROUP + g, f);
            // Groups beyond the last linear have no lines, nor has a block whose rows have no adapter.
            bool there = of.target < TARGETS && adapter != Chosen::NONE;
            int R = there ? pick(of.target, f.r0, f.r1, f.r2, f.r3) : 0;
            const float *lines = there ? pick(of.target, f.a0, f.a1, f.a2, f.a3) + i64(adapter) * R * C : nullptr;
            a[g] = {{lines, C, R, end}, of.line, k};
        }
    }

    __device__ void copy(u32 stage) {
        if (copied < tiles) {
            x.copy(stage);
#pragma unroll
            for (int g = 0; g < GROUPS_OF_BLOCK; g++) a[g].copy(stage + Low::A::BYTES + g * Group::BYTES);
        }
        copied++;
        copy_commit();
    }
};

// S of some adapter's rows from its parts (slices, T, pitch), 16 columns from `at` on, to shared memory.
__device__ inline void sum_parts(u32 to, const float *parts, int at, int slices, const int *choice, int g, int T,
                                 int pitch) {
    for (int i = threadIdx.x; i < Block::BM * RANK_GROUP / 4; i += Block::THREADS) {
        int row = i / (RANK_GROUP / 4), column = i % (RANK_GROUP / 4) * 4;
        float x[4] = {};
        if (row < T && (!choice || choice[row] == g)) {
            const float *from = parts + i64(row) * pitch + at + column;
#pragma unroll 4
            for (int slice = 0; slice < slices; slice++, from += i64(T) * pitch) {
                float part[4];
                load_shared_by_blocks(part, from);
#pragma unroll
                for (int e = 0; e < 4; e++) x[e] += part[e];
            }
        }
        store_shared(to + Block::SlabLeft::at(row, column / 8) + column % 8 * 2, pair(x[0], x[1]), pair(x[2], x[3]));
    }
}

extern "C" __global__ void __launch_bounds__(Block::THREADS, 1)
    lora_decode(bf16 *y0, bf16 *y1, bf16 *y2, bf16 *y3,                         // (T, n_i)
                float *parts, // (slices, T, pitch), of rows that have an adapter
                u32 *turns,                                                     // (2): 0 before and after
                const bf16 *x,                                                  // (T, C)
                const bf16 *w0, const bf16 *w1, const bf16 *w2, const bf16 *w3, // (n_i, C)
                const float *a0, const float *a1, const float *a2, const float *a3, // (adapters, r_i, C)
                const float *b0, const float *b1, const float *b2, const float *b3, // (adapters, n_i, r_i)
                const int *choice, // (T): each row's adapter; or null, and there is one
                int n0, int n1, int n2, int n3, int r0, int r1, int r2, int r3, float s0, float s1, float s2, float s3,
                int T, int C, int adapters, int slice, int pitch, int makers) {
    extern __shared__ __align__(1024) u8 memory[];
    int slices = (C + slice - 1) / slice;
    Chosen chosen(choice, 0, Block::BM, T, adapters);
    if (blockIdx.x < makers) {
        int columns = round_up(pitch, Low::BN) / Low::BN, part = blockIdx.x % slices, rest = blockIdx.x / slices;
        int adapter = chosen.nth(rest / columns), k = part * slice, end = min(C, k + slice);
        if (adapter != Chosen::NONE) {
            Low block(memory, 0, rest % columns * Low::BN);
            Factors factors = {a0, a1, a2, a3, r0, r1, r2, r3, s0, s1, s2, s3};
            GroupFeeds feeds(block, x, factors, adapter, T, C, k, end);
            Low::Accumulators acc = {};
            block.fill(feeds);
            block.run(acc, feeds);
            each_pair(block, acc, factors, choice, adapter, false, parts + i64(part) * T * pitch, T, pitch,
                      [](float *to, const float (&pair)[2]) { store_shared_by_blocks(to, pair); });
        }
        __syncthreads();
        if (threadIdx.x == 0) end_turn(turns);
    } else {
        GroupPlace place(blockIdx.x - makers, T, n0, n1, n2, n3, Block::BM, Block::BN);
        int N = pick(place.target, n0, n1, n2, n3), R = pick(place.target, r0, r1, r2, r3), s_at = 0;
        for (int i = 0; i < place.target; i++) s_at += round_up(pick(i, r0, r1, r2, r3), RANK_GROUP);
        Block block(memory, 0, place.n);
        Block::Accumulators acc = {};
        Block::Feeds feeds(block, {x, C, T, C}, {pick(place.target, w0, w1, w2, w3), C, N, C}, 0);
        block.fill(feeds);
        const float *b = pick(place.target, b0, b1, b2, b3);
        for (int g = chosen.next(-1); g != Chosen::NONE; g = chosen.next(g)) {
            Matrix<float> factor = {b + i64(g) * N * R, R, N, R};
            for (int r = 0; r < R; r += RANK_GROUP) {
                auto left = [&](u32 to) {
                    if (threadIdx.x == 0) wait_for_turn(turns, makers);
                    __syncthreads();
                    sum_parts(to, parts, s_at + r, slices, choice, g, T, pitch);
                };
                block.slab(acc, left, factor, r);
            }
        }
        block.run(acc, feeds);
        block.store(pick(place.target, y0, y1, y2, y3), acc, T, N);
    }
    // The last block has seen the others' turns end.
    if (is_last(turns + 1, gridDim.x - 1) && threadIdx.x == 0) atomicExch(turns, 0);
}
