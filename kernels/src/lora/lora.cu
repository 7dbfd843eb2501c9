// Adapted linears that share x, forward: one pass over their weights, in one launch, for bf16 activations.
//
// math    y_i = x W_iᵀ + S_i B_iᵀ, with S = s x̃ Aᵀ from narrow.cu. S Bᵀ is a slab of R more steps of K in the
//         accumulators of x Wᵀ, so y is written once
// batch   with `choice`, A and B are stacks of adapters, and S is zero where a row selects another one: a block adds
//         the slabs of all adapters that its rows select
// launch  one block per tile of a y_i
// options SHAPE of the tile; W storage of w; ALIGNED 1 when rows of x, w and b are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "group.cuh"

typedef Product<NT, SHAPE, W, ALIGNED> Block;

extern "C" __global__ void __launch_bounds__(Block::THREADS)
    lora(bf16 *y0, bf16 *y1, bf16 *y2, bf16 *y3,             // (T, n_i)
         const bf16 *x,                                      // (T, C)
         const W *w0, const W *w1, const W *w2, const W *w3, // (n_i, C)
         const bf16 *s, // (T, s_pitch): linear i's columns from at_i on, R of each adapter rounded up to 16
         const float *b0, const float *b1, const float *b2, const float *b3, // (adapters, n_i, r_i)
         const int *choice, // (T): each row's adapter; or null, and there is one
         int n0, int n1, int n2, int n3, int r0, int r1, int r2, int r3, int at0, int at1, int at2, int at3, int T,
         int C, int adapters, int s_pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    GroupPlace place(blockIdx.x, T, n0, n1, n2, n3, Block::BM, Block::BN);
    int N = pick(place.target, n0, n1, n2, n3), R = pick(place.target, r0, r1, r2, r3);
    Block block(memory, place.m, place.n);
    Matrix<bf16> left = {x, C, T, C};
    Matrix<W> right = {pick(place.target, w0, w1, w2, w3), C, N, C};
    Block::Accumulators acc = {};
    Block::Feeds feeds(block, left, right, 0);
    block.fill(feeds);
    const float *b = pick(place.target, b0, b1, b2, b3);
    int padded = (R + RANK_GROUP - 1) / RANK_GROUP * RANK_GROUP, s_at = pick(place.target, at0, at1, at2, at3);
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
    block.store(pick(place.target, y0, y1, y2, y3), acc, T, N);
}
