// Adapted linear, forward: one pass over W for bf16 activations.
//
// math    y = x Wᵀ + S Bᵀ, with S = s x̃ Aᵀ from narrow.cu. S Bᵀ is a slab of R more steps of K in the accumulators of
//         x Wᵀ, so y is written once
// batch   with `choice`, A and B are stacks of adapters, and S is zero where a row selects another one: a block adds
//         the slabs of all adapters that its rows select
// launch  one block per tile of y
// options SHAPE of the tile; W storage of w; ALIGNED 1 when rows of x, w and b are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "mainloop.cuh"

typedef Product<NT, SHAPE, W, ALIGNED> Block;

extern "C" __global__ void __launch_bounds__(Block::THREADS)
    lora(bf16 *y,           // (T, N)
         const bf16 *x,     // (T, C)
         const W *w,        // (N, C)
         const bf16 *s,     // (T, s_pitch): this linear's columns from s_at on, R of each adapter rounded up to 16
         const float *b,    // (adapters, N, R)
         const int *choice, // (T): each row's adapter; or null, and there is one
         int T, int N, int C, int R, int adapters, int s_pitch, int s_at) {
    extern __shared__ __align__(1024) u8 memory[];
    Place place(blockIdx.x, T, N, Block::BM, Block::BN);
    Block block(memory, place.m, place.n);
    Matrix<bf16> left = {x, C, T, C};
    Matrix<W> right = {w, C, N, C};
    Block::Accumulators acc = {};
    Block::Feeds feeds(block, left, right, 0);
    block.fill(feeds);
    int padded = (R + RANK_GROUP - 1) / RANK_GROUP * RANK_GROUP;
    for (int g = 0; g < adapters; g++) {
        if (choice) {
            bool chosen = false;
            for (int row = place.m + threadIdx.x; row < min(T, place.m + Block::BM); row += Block::THREADS)
                chosen |= choice[row] == g;
            if (!__syncthreads_or(chosen)) continue;
        }
        int at = s_at + g * padded;
        Matrix<bf16> slab_left = {s, s_pitch, T, at + padded};
        Matrix<float> slab_right = {b + i64(g) * N * R, R, N, R};
        for (int r = 0; r < R; r += RANK_GROUP) block.slab(acc, slab_left, slab_right, at + r, r);
    }
    block.run(acc, feeds);
    block.store(y, acc, T, N);
}
