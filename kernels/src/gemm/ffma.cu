// Products of f32 activations by fused multiply-adds: y = a bᵀ (NT), a b (NN) or aᵀ b (TN).
//
// math    y_mn = Σ_k a_mk · b_kn, one chain in f32, k ascending; b may be stored in bf16
// launch  one block per tile of y. Its tiles of a and b lie in shared memory with K slowest, double-buffered: while one
//         is multiplied, the next is loaded into registers
// options FORM 0 NT, 1 NN, 2 TN; SHAPE of the tile: 0 for few rows, 1; W storage of b
#include "prelude.cuh"

constexpr int SIZES[][4] = TILES;
constexpr int BM = SIZES[SHAPE][0], BN = SIZES[SHAPE][1], BK = SHAPE ? 16 : 64;
constexpr int TM = SIZES[SHAPE][2], TN = SIZES[SHAPE][3]; // sizes of a thread tile
constexpr int COLUMNS = BN / TN, THREADS = BM / TM * COLUMNS;
constexpr int V = SHAPE ? 4 : 2; // neighbours that one access of shared memory moves
constexpr int QUAD = 4;          // elements that one access of global memory moves

// A matrix of the product: `outer` rows or columns and `depth` steps of K.
template <typename Elem> struct Matrix {
    const Elem *p;
    i64 pitch;
    int outer, depth;
};

// Tile of one operand in shared memory, (BK, OUTER). Groups of 8 of a line are swizzled by every fourth line, so that
// quads along K, which are stored as columns, go to different banks.
template <typename Elem, bool ALONG_K, int OUTER> struct Tile {
    static constexpr int PER_LINE = (ALONG_K ? BK : OUTER) / QUAD;
    static constexpr int QUADS = BK * OUTER / QUAD, EACH = (QUADS + THREADS - 1) / THREADS;
    typedef float Lines[BK][OUTER];

    __device__ static int at(int k, int outer) { return outer ^ (k / 4 * 8 & (OUTER - 1) & 24); }

    // Loads this thread's quads of the tile at (outer, k), zero beyond the matrix.
    __device__ static void fetch(float (&x)[EACH][QUAD], const Matrix<Elem> &m, int outer, int k) {
        bool aligned = m.pitch % QUAD == 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int quad = i * THREADS + threadIdx.x;
            int line = quad / PER_LINE, first = quad % PER_LINE * QUAD;
            int major = (ALONG_K ? outer : k) + line, minor = (ALONG_K ? k : outer) + first;
            int majors = ALONG_K ? m.outer : m.depth, minors = ALONG_K ? m.depth : m.outer;
            int count = major < majors && quad < QUADS ? minors - minor : 0;
            const Elem *from = m.p + major * m.pitch + minor;
            if (aligned && count > 0) {
                load(x[i], from);
            } else {
#pragma unroll
                for (int e = 0; e < QUAD; e++) x[i][e] = e < count ? get(from[e]) : 0.0f;
            }
        }
    }

    __device__ static void keep(Lines &lines, const float (&x)[EACH][QUAD]) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int quad = i * THREADS + threadIdx.x;
            int line = quad / PER_LINE, first = quad % PER_LINE * QUAD;
            if (QUADS % THREADS != 0 && quad >= QUADS) break;
            if constexpr (ALONG_K) {
#pragma unroll
                for (int e = 0; e < QUAD; e++) lines[first + e][at(first + e, line)] = x[i][e];
            } else {
                store(&lines[line][at(line, first)], x[i]);
            }
        }
    }
};

typedef Tile<float, FORM != 2, BM> A;
typedef Tile<W, FORM == 0, BN> B;

// Position along a side of SIZE of element i of the COUNT elements of a thread.
template <int SIZE, int COUNT> __device__ inline int position(int thread, int i) {
    return i / V * (SIZE / (COUNT / V)) + thread * V + i % V;
}

template <int SIZE, int COUNT>
__device__ inline void part(float (&x)[COUNT], const float (&line)[SIZE], int k, int thread) {
#pragma unroll
    for (int i = 0; i < COUNT; i += V) {
        float v[V];
        load(v, &line[Tile<float, true, SIZE>::at(k, position<SIZE, COUNT>(thread, i))]);
#pragma unroll
        for (int e = 0; e < V; e++) x[i + e] = v[e];
    }
}

// y[0..count] = x, plus `factor` times the old y if `add`; all of x at once where rows are `aligned`.
template <typename Out>
__device__ inline void put_part(Out *y, float (&x)[V], int count, bool aligned, bool add, float factor) {
    if (aligned && count > 0) {
        float old[V] = {};
        if (add) load(old, y);
#pragma unroll
        for (int e = 0; e < V; e++) x[e] = add ? fmaf(factor, old[e], x[e]) : x[e];
        store(y, x);
    } else {
#pragma unroll
        for (int e = 0; e < V; e++)
            if (e < count) y[e] = put<Out>(add ? fmaf(factor, get(y[e]), x[e]) : x[e]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) gemm_f32(void *y,        // (M, N), bf16 or, if `wide`, f32
                                                               const float *a, // (M, K); TN (K, M)
                                                               const W *b,     // NT (N, K); NN, TN (K, N)
                                                               const float *factors, // of the old rows (M), or null
                                                               i64 y_at, i64 a_at, i64 b_at, // elements to skip
                                                               int M, int N, int K, int wide, int add) {
    __shared__ __align__(16) A::Lines as[2];
    __shared__ __align__(16) B::Lines bs[2];
    int m = blockIdx.y * BM, n = blockIdx.x * BN, row = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS;
    Matrix<float> left = {a + a_at, FORM == 2 ? M : K, M, K};
    Matrix<W> right = {b + b_at, FORM == 0 ? K : N, N, K};
    float next_a[A::EACH][QUAD], next_b[B::EACH][QUAD], acc[TM][TN] = {};
    A::fetch(next_a, left, m, 0);
    B::fetch(next_b, right, n, 0);
    A::keep(as[0], next_a);
    B::keep(bs[0], next_b);
    __syncthreads();
    for (int k = 0, now = 0; k < K; k += BK, now ^= 1) {
        A::fetch(next_a, left, m, k + BK);
        B::fetch(next_b, right, n, k + BK);
#pragma unroll
        for (int step = 0; step < BK; step++) {
            float x[TM], w[TN];
            part<BM>(x, as[now][step], step, row);
            part<BN>(w, bs[now][step], step, column);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) acc[i][j] = fmaf(x[i], w[j], acc[i][j]);
        }
        A::keep(as[now ^ 1], next_a);
        B::keep(bs[now ^ 1], next_b);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; i++) {
        int at_m = m + position<BM, TM>(row, i);
        if (at_m >= M) continue;
        float factor = factors ? factors[at_m] : 1.0f;
#pragma unroll
        for (int j = 0; j < TN; j += V) {
            int at_n = n + position<BN, TN>(column, j);
            i64 at = y_at + i64(at_m) * N + at_n;
            float v[V];
#pragma unroll
            for (int e = 0; e < V; e++) v[e] = acc[i][j + e];
            if (wide) {
                put_part(static_cast<float *>(y) + at, v, N - at_n, N % V == 0, add, factor);
            } else {
                put_part(static_cast<bf16 *>(y) + at, v, N - at_n, N % V == 0, add, factor);
            }
        }
    }
}
