// Products of one bf16 activation with up to four bf16 weights in one launch: q|k|v and gate|up of inference.
//
// math    y_i = x W_iᵀ, each as gemm.cu makes it, with the same bits
// launch  one block per tile of a y_i
// options SHAPE of the tile; rows of x and of every W_i are multiples of 16 bytes
#include "prelude.cuh"
#include "group.cuh"

typedef Product<NT, SHAPE, bf16, true> Block;

extern "C" __global__ void __launch_bounds__(Block::THREADS)
    gemm_group(bf16 *y0, bf16 *y1, bf16 *y2, bf16 *y3,                         // (M, n_i)
               const bf16 *x,                                                  // (M, K)
               const bf16 *w0, const bf16 *w1, const bf16 *w2, const bf16 *w3, // (n_i, K)
               int n0, int n1, int n2, int n3, int M, int K) {
    extern __shared__ __align__(1024) u8 memory[];
    GroupPlace place(blockIdx.x, M, n0, n1, n2, n3, Block::BM, Block::BN);
    int N = pick(place.target, n0, n1, n2, n3);
    Block block(memory, place.m, place.n);
    Matrix<bf16> left = {x, K, M, K};
    Matrix<bf16> right = {pick(place.target, w0, w1, w2, w3), K, N, K};
    Block::Accumulators acc = {};
    Block::Feeds feeds(block, left, right, 0);
    block.fill(feeds);
    block.run(acc, feeds);
    block.store(pick(place.target, y0, y1, y2, y3), acc, M, N);
}
