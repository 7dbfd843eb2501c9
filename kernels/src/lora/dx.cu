// Adapted linears, backward to their input: one pass over the frozen weights for bf16 activations.
//
// math    dx = mask/(1-p) ⊙ Σ dS A + Σ dy W over up to four linears that share x. The slabs dS A come first, are masked
//         in the accumulators, and the main products continue from there
// launch  one block per tile of dx
// options SHAPE of the tile; W storage of the weights; ALIGNED 1 when rows of dy, w and a are multiples of 16 bytes
#include "prelude.cuh"
#include "mainloop.cuh"
#include "mask.cuh"
#include "targets.cuh"

typedef Product<NN, SHAPE, W, ALIGNED> Block;

constexpr int WORDS = Block::BN / 32; // of the mask in a row of a tile
static_assert(WORDS <= 8 && Block::BM * WORDS % Block::THREADS == 0, "eight rows of words have 32 banks");

// Offset of a word in shared memory: equal words of eight rows lie in different banks.
__device__ inline u32 word_at(int row, int word) { return (row * WORDS + (word ^ row / 4 % 2)) * 4; }

// Starts the copies of the tile's words, so that each sector of the mask is read once.
__device__ inline void copy_words(const Block &block, const u32 *mask, int T, int C) {
    int words = (C + 31) / 32;
#pragma unroll
    for (int i = 0; i < Block::BM * WORDS; i += Block::THREADS) {
        int row = (i + threadIdx.x) / WORDS, word = threadIdx.x % WORDS, t = block.m + row, w = block.n / 32 + word;
        copy_async_word(block.shared + word_at(row, word), mask + i64(t) * words + w, t < T && w < words ? 4 : 0);
    }
}

// Zeroes dropped columns and scales up the others.
__device__ inline void drop(Block::Accumulators &acc, const Block &block, float up) {
    static_assert(Block::NTILES % 4 == 0, "a warp's columns are whole words");
    int row = Block::warp_m() + lane() / 4, word = Block::warp_n() / 32;
#pragma unroll
    for (int i = 0; i < Block::MT; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < Block::NTILES; j += 4) {
                u32 from = block.shared + word_at(row + 16 * i + 8 * half, word + j / 4);
                u32 bits = __float_as_uint(load_shared(from)) >> (lane() % 4);
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    float &x = acc[i][j + e / 2][2 * half + e % 2];
                    x = bits >> mask_bit(e / 2 * 8 + e % 2) & 1 ? x * up : 0.0f;
                }
            }
    __syncthreads(); // the words lie where the first tiles of dy and W come
}

extern "C" __global__ void __launch_bounds__(Block::THREADS)
    lora_dx(bf16 *dx,        // (T, C)
            const u32 *mask, // (T, ⌈C/32⌉), or null
            const bf16 *ds,  // (T, pitch): the linears' columns side by side, each R rounded up to 16
            const float *a0, const float *a1, const float *a2, const float *a3, // (R, C), null beyond the last linear
            const bf16 *dy0, const bf16 *dy1, const bf16 *dy2, const bf16 *dy3, // (T, N)
            const W *w0, const W *w1, const W *w2, const W *w3,                 // (N, C)
            int r0, int r1, int r2, int r3, int n0, int n1, int n2, int n3, float up, int T, int C, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    Place place(blockIdx.x, T, C, Block::BM, Block::BN);
    Block block(memory, place.m, place.n);
    Block::Accumulators acc = {};
    int at = 0;
    if (mask) copy_words(block, mask, T, C); // a slab waits for them
    for (int i = 0; i < TARGETS; i++) {
        int R = pick(i, r0, r1, r2, r3), padded = (R + RANK_GROUP - 1) / RANK_GROUP * RANK_GROUP;
        Matrix<bf16> left = {ds, pitch, T, at + padded};
        Matrix<float> right = {pick(i, a0, a1, a2, a3), C, C, R};
        for (int r = 0; r < R; r += RANK_GROUP) {
            auto copy = [&](u32 to) { Block::SlabLeft::Feed<Block::THREADS, true>(left, place.m, at + r).copy(to); };
            block.slab(acc, copy, right, r);
        }
        at += padded;
    }
    if (mask) drop(acc, block, up);
    for (int i = 0; i < TARGETS; i++) {
        int N = pick(i, n0, n1, n2, n3);
        if (N == 0) break;
        Matrix<bf16> left = {pick(i, dy0, dy1, dy2, dy3), N, T, N};
        Matrix<W> right = {pick(i, w0, w1, w2, w3), C, C, N};
        Block::Feeds feeds(block, left, right, 0);
        block.fill(feeds);
        block.run(acc, feeds);
    }
    block.store(dx, acc, T, C);
}
