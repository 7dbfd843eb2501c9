// SwiGLU of two products of one bf16 activation, in their epilogue: the MLP of inference.
//
// math    y = silu(x gateᵀ) ⊙ x upᵀ. Both products are made as gemm.cu makes them and rounded to bf16, as training stores
//         them; so y has the bits of swiglu.cu
// launch  one block per tile of y, half as wide as the tile of products: its right operand is HALF rows of gate over the
//         same rows of up
// options SHAPE of the tile; rows of x, gate and up are multiples of 16 bytes
#include "prelude.cuh"
#include "mainloop.cuh"

typedef Product<NT, SHAPE, bf16, true> Block;
constexpr int HALF = Block::BN / 2;

// Copies tiles of x from row m on, and of gate and of up, which differ in their addresses alone, from row n on.
struct GatedFeeds {
    typedef Tile<bf16, true, HALF, Block::BK> Half;
    typedef Half::Feed<Block::THREADS, true> HalfFeed;
    Block::A::Feed<Block::THREADS, true> x;
    HalfFeed gate;
    const bf16 *up;
    int tiles, copied = 0;

    __device__ GatedFeeds(const Matrix<bf16> &x, const Matrix<bf16> &gate, const Matrix<bf16> &up, int m, int n)
        : x(x, m, 0), gate(gate, n, 0), up(HalfFeed(up, n, 0).from), tiles((x.depth + Block::BK - 1) / Block::BK) {}

    __device__ void copy(u32 stage) {
        if (copied < tiles) {
            x.copy(stage);
            HalfFeed other = gate;
            other.from = up;
            other.copy(stage + Block::A::BYTES + Half::BYTES);
            up = other.from;
            gate.copy(stage + Block::A::BYTES);
        }
        copied++;
        copy_commit();
    }
};

extern "C" __global__ void __launch_bounds__(Block::THREADS, 1) gemm_gated(bf16 *y,          // (M, N)
                                                                           const bf16 *x,    // (M, K)
                                                                           const bf16 *gate, // (N, K)
                                                                           const bf16 *up,   // (N, K)
                                                                           int M, int N, int K) {
    extern __shared__ __align__(1024) u8 memory[];
    Place place(blockIdx.x, M, N, Block::BM, HALF);
    Block block(memory, place.m, place.n);
    Block::Accumulators acc = {};
    GatedFeeds feeds({x, K, M, K}, {gate, K, N, K}, {up, K, N, K}, place.m, place.n);
    block.fill(feeds);
    block.run(acc, feeds);
    block.stage<bf16>(acc);
    constexpr int CHUNKS = HALF / WIDE<bf16>, LINE = line_of(CHUNKS);
    for (int i = threadIdx.x; i < Block::BM * LINE; i += Block::THREADS) {
        int line = i / LINE, chunk = i % LINE;
        int row = place.m + line, column = place.n + chunk * WIDE<bf16>;
        if (LINE > CHUNKS && chunk >= CHUNKS) continue;
        if (row >= M || column >= N) continue;
        Pack<bf16, WIDE<bf16>> g = block.staged<bf16>(line, chunk), u = block.staged<bf16>(line, chunk + CHUNKS);
#pragma unroll
        for (int e = 0; e < WIDE<bf16>; e++) g.at[e] = put<bf16>(gated<bf16>(get(g.at[e]), get(u.at[e])));
        put_pack(y + i64(row) * N + column, g, N - column, N % WIDE<bf16> == 0, false);
    }
}
