// The main loop of every bf16 product: the threadblock tile of y += a · b on tensor cores, f32 accumulators.
//
// pipeline  STAGES tiles of both operands in shared memory: while one is multiplied, the next ones are copied; one
//           barrier per tile. Inside a tile, the fragments of a step of 16 are loaded while those of the previous step
//           are multiplied, across tiles too
// order     an element is one chain of mma over steps of 16, k ascending from the start of the block's slice of K:
//           its bits depend neither on the tile shape nor on the other rows and columns of the tile
// slab      products with few steps of K (the R of an adapter) are accumulated before the main loop, through the
//           stage that the prologue of the pipeline does not fill
// TILE      rows and columns of y, steps of K, stages, warps along rows and columns
#pragma once
#include "tile.cuh"

constexpr int SHAPES[][6] = TILE_SHAPES;

enum Form { NT, NN, TN }; // a bᵀ | a b | aᵀ b

// Chunks that a staged line of y takes: groups of eight where their number is no power of two, so that eight neighbours lie
// in all banks.
__device__ constexpr int line_of(int chunks) { return chunks & (chunks - 1) ? (chunks + 7) / 8 * 8 : chunks; }

// Edits no fragment.
struct AsTheyAre {
    static constexpr bool EDITS = false;
    template <int MT, int COLUMNS> __device__ void operator()(u32 (&)[MT][4], u32 (&)[COLUMNS][2], int, int) const {}
};

// y[0..count] = x, plus `factor` times the old y if `add`; all of x at once where rows are `aligned`.
template <typename Out>
__device__ inline void put_pack(Out *y, Pack<Out, WIDE<Out>> x, int count, bool aligned, bool add, float factor = 1.0f) {
    typedef Pack<Out, WIDE<Out>> Packed;
    if (aligned) {
        if (add) {
            Packed old = *reinterpret_cast<const Packed *>(y);
#pragma unroll
            for (int i = 0; i < WIDE<Out>; i++) x.at[i] = put<Out>(fmaf(factor, get(old.at[i]), get(x.at[i])));
        }
        *reinterpret_cast<Packed *>(y) = x;
    } else {
#pragma unroll
        for (int i = 0; i < WIDE<Out>; i++)
            if (i < count) y[i] = add ? put<Out>(fmaf(factor, get(y[i]), get(x.at[i]))) : x.at[i];
    }
}

// The largest power of two that is at most n.
__device__ constexpr int floor_power_of_two(int n) { return n < 2 ? n : 2 * floor_power_of_two(n / 2); }

template <Form KIND, int S, typename Right, bool WHOLE, int COUNT = SHAPES[S][3]> struct Product {
    static constexpr int BM = SHAPES[S][0], BN = SHAPES[S][1], BK = SHAPES[S][2];
    static constexpr int STAGES = COUNT;
    static constexpr int WARPS_M = SHAPES[S][4], WARPS_N = SHAPES[S][5], THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int MT = BM / WARPS_M / 16, NTILES = BN / WARPS_N / 8; // mma tiles of a warp
    static constexpr int STEPS = BK / 16;
    static_assert(STEPS % 2 == 0, "fragments alternate between two sets");

    typedef Tile<bf16, KIND != TN, BM, BK> A;
    typedef Tile<Right, KIND == NT, BN, BK> B;
    static constexpr int STAGE = A::BYTES + B::BYTES;

    typedef float Accumulators[MT][NTILES][4];
    struct Fragments {
        u32 a[MT][4], b[NTILES][2];
    };

    u32 shared; // address of the stages
    int m, n;   // the tile's first row and column in the product

    __device__ Product(const u8 *memory, int m, int n) : shared(shared_address(memory)), m(m), n(n) {}

    // First row and column of the warp tile in the threadblock tile.
    __device__ static int warp_m() { return warp() / WARPS_N * (BM / WARPS_M); }
    __device__ static int warp_n() { return warp() % WARPS_N * (BN / WARPS_N); }

    __device__ static void multiply(Accumulators &acc, const Fragments &f) {
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NTILES; j++) mma(acc[i][j], f.a[i], f.b[j][0], f.b[j][1]);
    }

    // Copies the tiles of both operands from step `k` on, up to their depth. Of three or six warps, two or four copy: a
    // thread's lines are then swizzled alike, and their addresses differ by constants.
    static constexpr int COPIERS = floor_power_of_two(THREADS);
    struct Feeds {
        typename A::template Feed<COPIERS, WHOLE> a;
        typename B::template Feed<COPIERS, WHOLE> b;
        int tiles, copied = 0;

        __device__ Feeds(const Product &p, const Matrix<bf16> &a, const Matrix<Right> &b, int k)
            : a(a, p.m, k), b(b, p.n, k), tiles((a.depth - k + BK - 1) / BK) {}

        // Starts the copies of the next tile, if there is one.
        __device__ void copy(u32 stage) {
            if (copied < tiles) {
                if (COPIERS == THREADS || threadIdx.x < COPIERS) {
                    a.copy(stage);
                    b.copy(stage + A::BYTES);
                }
            }
            copied++;
            copy_commit();
        }
    };

    // Prologue: starts the copies of all stages but the last. No thread may still be reading the stages.
    template <typename F> __device__ void fill(F &feeds) const {
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) feeds.copy(shared + s * STAGE);
    }

    typedef Tile<bf16, true, BM, 16> SlabLeft;

    // acc += a · b over 16 steps, those of b from `b_k` on, through the last stage; `left` brings a to its address.
    template <typename Left, typename T>
    __device__ void slab(Accumulators &acc, Left left, const Matrix<T> &b, int b_k) const {
        typedef Tile<T, KIND == NT, BN, 16> SlabRight;
        static_assert(SlabLeft::BYTES + SlabRight::BYTES <= STAGE, "a slab fits a stage");
        u32 to_a = shared + (STAGES - 1) * STAGE, to_b = to_a + SlabLeft::BYTES;
        typename SlabRight::template Feed<THREADS, WHOLE>(b, n, b_k).copy(to_b);
        left(to_a);
        copy_commit();
        copy_wait<0>();
        __syncthreads();
        Fragments f;
        SlabLeft::a_fragments(f.a, to_a + SlabLeft::a_lane(warp_m()), 0);
        SlabRight::b_fragments(f.b, to_b + SlabRight::b_lane(warp_n()), 0);
        multiply(acc, f);
        __syncthreads();
    }

    // Main loop: acc += a · b over all tiles of the feeds, which are `Feeds` or alike; `edit` may change fragments (EDITS),
    // given their tile and the step inside of it. The stages must have been filled, and are free when it returns.
    template <typename F, typename Edit = AsTheyAre>
    __device__ void run(Accumulators &acc, F &feeds, Edit edit = Edit()) const {
        u32 a_lane = shared + A::a_lane(warp_m()), b_lane = shared + A::BYTES + B::b_lane(warp_n());
        // In a loop that an edit makes long they would be computed again for each tile.
        if constexpr (Edit::EDITS) a_lane = opaque(a_lane), b_lane = opaque(b_lane);
        Fragments f[2];
        copy_wait<STAGES - 2>();
        __syncthreads();
        A::a_fragments(f[0].a, a_lane, 0);
        B::b_fragments(f[0].b, b_lane, 0);
        u32 read = 0, write = (STAGES - 1) * STAGE;
        for (int tile = 0; tile < feeds.tiles; tile++) {
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                Fragments &now = f[step % 2], &next = f[(step + 1) % 2];
                if (step < STEPS - 1) {
                    A::a_fragments(next.a, a_lane + read, 16 * (step + 1));
                    B::b_fragments(next.b, b_lane + read, 16 * (step + 1));
                } else {
                    // The next tile has landed, and no warp reads this one any more.
                    copy_wait<STAGES - 2>();
                    __syncthreads();
                    read = read + STAGE == STAGES * STAGE ? 0 : read + STAGE;
                    if (tile + 1 < feeds.tiles) {
                        A::a_fragments(next.a, a_lane + read, 0);
                        B::b_fragments(next.b, b_lane + read, 0);
                    }
                }
                if (step == 0) {
                    feeds.copy(shared + write);
                    write = write + STAGE == STAGES * STAGE ? 0 : write + STAGE;
                }
                edit(now.a, now.b, tile, step);
                multiply(acc, now);
            }
        }
    }

    // Calls f(row, column, x, y) for every pair of neighbours that this thread holds, in coordinates of the product.
    template <typename F> __device__ void each(Accumulators &acc, F f) const {
        int row = m + warp_m() + lane() / 4, column = n + warp_n() + lane() % 4 * 2;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int j = 0; j < NTILES; j++)
                    f(row + 16 * i + 8 * half, column + 8 * j, acc[i][j][2 * half], acc[i][j][2 * half + 1]);
    }

    // The tile of y in shared memory.
    template <typename Out> using Staged = Tile<Out, true, BM, line_of(BN / WIDE<Out>) * WIDE<Out>>;

    // Stores acc as a staged tile, over the stages, and waits until all warps have.
    template <typename Out> __device__ void stage(Accumulators &acc) const {
        typedef Staged<Out> C;
        static_assert(C::BYTES <= STAGES * STAGE, "the tile of y fits the stages");
        each(acc, [&](int row, int column, float x0, float x1) {
            int c = column - n, offset = c % WIDE<Out> * sizeof(Out);
            u32 to = shared + C::at(row - m, c / WIDE<Out>) + offset;
            if constexpr (sizeof(Out) == 2) {
                store_shared(to, pair(x0, x1));
            } else {
                store_shared(to, x0, x1);
            }
        });
        __syncthreads();
    }

    // A chunk of the staged tile.
    template <typename Out> __device__ Pack<Out, WIDE<Out>> staged(int line, int chunk) const {
        u32 words[4];
        load_shared(words, shared + Staged<Out>::at(line, chunk));
        Pack<Out, WIDE<Out>> x;
        memcpy(&x, words, 16);
        return x;
    }

    // Epilogue: y (M, N) = acc, plus the old y, times its row's factor if there are `factors`, if `add`; through shared
    // memory, so that a thread writes 16 bytes of a row.
    template <typename Out>
    __device__ void store(Out *y, Accumulators &acc, int M, int N, bool add = false, const float *factors = nullptr) const {
        typedef Staged<Out> C;
        stage<Out>(acc);
        for (int i = threadIdx.x; i < BM * C::CHUNKS; i += THREADS) {
            int line = i / C::CHUNKS, chunk = i % C::CHUNKS;
            int row = m + line, column = n + chunk * WIDE<Out>;
            if (C::CHUNKS * WIDE<Out> > BN && chunk * WIDE<Out> >= BN) continue;
            if (row >= M || column >= N) continue;
            float factor = factors ? factors[row] : 1.0f;
            put_pack(y + i64(row) * N + column, staged<Out>(line, chunk), N - column, N % WIDE<Out> == 0, add, factor);
        }
    }
};

// Tile of this block (threadblock swizzle): blocks that run at the same time share rows of a and columns of b, so that
// both stay in L2.
struct Place {
    int m, n;
    __device__ Place(int block, int M, int N, int BM, int BN) {
        constexpr int GROUP = 8; // tiles along M that are done column by column
        int rows = (M + BM - 1) / BM, columns = (N + BN - 1) / BN;
        int first = block / (GROUP * columns) * GROUP, height = min(rows - first, GROUP);
        int inside = block % (GROUP * columns);
        m = (first + inside % height) * BM;
        n = inside / height * BN;
    }
};
