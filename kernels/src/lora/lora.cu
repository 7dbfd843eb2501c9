// Adapted linears that share x, forward: one pass over their weights, in one launch, for bf16 activations.
//
// math    y_i = x W_iᵀ + S_i B_iᵀ, with S = s x̃ Aᵀ from s.cu. S Bᵀ is a slab of R more steps of K in the
//         accumulators of x Wᵀ, so y is written once
// batch   with `choice`, A and B are stacks of adapters, and a row has S of its own: a block adds a slab for each adapter
//         that its rows have chosen, in which the other rows are zero
// launch  one block per tile of a y_i
// options SHAPE of the tile; W storage of w; ALIGNED 1 when rows of x, w and b are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "low_rank.cuh"

typedef Product<NT, SHAPE, W, ALIGNED> Block;

extern "C" __global__ void __launch_bounds__(Block::THREADS, 1)
    lora(bf16 *y0, bf16 *y1, bf16 *y2, bf16 *y3,             // (T, n_i)
         const bf16 *x,                                      // (T, C)
         const W *w0, const W *w1, const W *w2, const W *w3, // (n_i, C)
         const bf16 *s, // (T, s_pitch): linear i's columns from at_i on
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
    s += pick(place.target, at0, at1, at2, at3);
    Chosen chosen(choice, place.m, Block::BM, T, adapters);
    for (int g = chosen.next(-1); g != Chosen::NONE; g = chosen.next(g)) {
        Matrix<float> factor = {b + i64(g) * N * R, R, N, R};
        for (int r = 0; r < R; r += RANK_GROUP) {
            auto copy = [&](u32 to) {
#pragma unroll
                for (int i = 0; i < 2 * Block::BM; i += Block::THREADS) {
                    int line = (i + threadIdx.x) / 2, chunk = threadIdx.x % 2, row = place.m + line;
                    if (2 * Block::BM % Block::THREADS != 0 && line >= Block::BM) break;
                    bool there = row < T && (!choice || choice[row] == g);
                    copy_async(to + Block::SlabLeft::at(line, chunk), s + i64(row) * s_pitch + r + 8 * chunk,
                               there ? 16 : 0);
                }
            };
            block.slab(acc, copy, factor, r);
        }
    }
    block.run(acc, feeds);
    block.store(pick(place.target, y0, y1, y2, y3), acc, T, N);
}
