// Products of bf16 activations on tensor cores: y = a bᵀ (NT), a b (NN) or aᵀ b (TN).
//
// math    y_mn = Σ_k a_mk · b_kn in f32, k ascending in steps of 16; b in f32 is rounded to bf16 as it is read
// launch  one block per tile of y and slice of K (split-K): grid (tiles, slices). With several slices y holds one
//         partial product for each, and `sum` adds them; tiles of SHAPE SLICED alone are ever cut
// options FORM 0 NT, 1 NN, 2 TN; SHAPE of the tile; W storage of b; ALIGNED 1 when rows of a and b are multiples
//         of 16 bytes, else 0
#include "prelude.cuh"
#include "mainloop.cuh"

typedef Product<Form(FORM), SHAPE, W, ALIGNED> Block;

extern "C" __global__ void __launch_bounds__(Block::THREADS) gemm(void *y, // (slices, M, N), bf16 or, if `wide`, f32
                                                                  const bf16 *a, // (M, K); TN (K, M)
                                                                  const W *b,    // NT (N, K); NN, TN (K, N)
                                                                  const float *factors, // of the old rows (M), or null
                                                                  i64 y_at, i64 a_at, i64 b_at, // elements to skip
                                                                  int M, int N, int K, int slice, int wide, int add) {
    extern __shared__ __align__(1024) u8 memory[];
    Place place(blockIdx.x, M, N, Block::BM, Block::BN);
    Block block(memory, place.m, place.n);
    int part = SHAPE == SLICED ? blockIdx.y : 0, k = part * slice, end = min(K, k + slice);
    Matrix<bf16> left = {a + a_at, FORM == TN ? M : K, M, end};
    Matrix<W> right = {b + b_at, FORM == NT ? K : N, N, end};
    Block::Accumulators acc = {};
    Block::Feeds feeds(block, left, right, k);
    block.fill(feeds);
    block.run(acc, feeds);
    if (wide) {
        block.store(static_cast<float *>(y) + y_at + part * i64(M) * N, acc, M, N, add, factors);
    } else {
        block.store(static_cast<bf16 *>(y) + y_at, acc, M, N);
    }
}
