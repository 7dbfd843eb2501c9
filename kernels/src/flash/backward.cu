// Backward over packed documents: FlashAttention-2, algorithm 2, in two passes without atomics.
//
// math    P = e^(q kᵀ / √D − L), Δ = Σ_d do·o, dS = P ⊙ (do vᵀ − Δ):
//         dq = dS k / √D, dk = dSᵀ q / √D, dv = Pᵀ do. Masked entries of P and dS are zero
// launch  flash_delta: one block per tile of rows of do and of o; Δ is the diagonal of their product
//         flash_dq: one block per tile of Queries::ROWS rows of one document and head; it loops over the keys before
//         them
//         flash_dkdv: one block per tile of Columns::ROWS keys of one document and kv head; it loops over the rows
//         after them, of every query head. It holds the scores transposed: the result of one product is an operand of
//         the next
// Both passes double-buffer the tiles they loop over, and each product overlaps with a copy: a buffer is refilled as
// soon as its tile has been used.
#include "attend.cuh"

// Shared memory of either pass: two resident tiles (a, b), two that are loaded in the loop (x, y).
template <typename Tiles, typename Job> struct Walk {
    Job *job;
    E *a, *b;           // (ROWS, DP)
    E *x, *y;           // (COLS, DP)
    float *lse, *delta; // (COLS)
    float *exchange;
    __device__ Walk() {
        job = reinterpret_cast<Job *>(shared);
        lse = reinterpret_cast<float *>(shared + HEAD);
        delta = lse + TILE;
        a = reinterpret_cast<E *>(delta + TILE);
        b = a + Tiles::ROWS * DP;
        x = b + Tiles::ROWS * DP;
        y = x + Tiles::COLS * DP;
        exchange = reinterpret_cast<float *>(y + Tiles::COLS * DP);
    }
    __device__ void swap() {
        E *t = x;
        x = y;
        y = t;
    }
};

// Starts copying a tile of ROWS rows of (…, D); `row` returns the index of each.
template <int ROWS, int WARPS, typename Row> __device__ inline void copy_tile(E *to, const E *from, int D, Row row) {
    typedef Copy<ROWS, WARPS> Copy;
    int r = Copy::row();
    Copy::start(to, from, r < ROWS ? row(r) : -1, D);
}

template <typename Tiles> __device__ inline void scale_by(typename Tiles::Wide &w, float scale) {
#pragma unroll
    for (int r = 0; r < Tiles::R; r++)
#pragma unroll
        for (int n = 0; n < Tiles::RUNS; n++)
#pragma unroll
            for (int i = 0; i < Tiles::RUN; i++) w.at(r, n, i) *= scale;
}

// Δ is summed in the order of dP: where a row sees one key, o = v, and dP − Δ must be zero to the last bit.
extern "C" __global__ void __launch_bounds__(Columns::WARPS * 32, 1) flash_delta(float *delta, // (rows)
                                                                                 const E *d_o, // (rows, D)
                                                                                 const E *o,   // (rows, D)
                                                                                 int rows, int D) {
    typedef Columns Tiles;
    E *a = reinterpret_cast<E *>(shared), *b = a + Tiles::ROWS * DP;
    int first = blockIdx.x * Tiles::ROWS;
    auto at = [&](int r) { return first + r < rows ? first + r : -1; };
    copy_tile<Tiles::ROWS, Tiles::WARPS>(a, d_o, D, at);
    copy_tile<Tiles::ROWS, Tiles::WARPS>(b, o, D, at);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    Tiles tiles;
    typename Tiles::Square s;
    tiles.dots(s, a, b, nullptr);
#pragma unroll
    for (int r = 0; r < Tiles::R; r++)
#pragma unroll
        for (int c = 0; c < Tiles::C; c++)
            if (tiles.row(r) == tiles.column(c) && at(tiles.row(r)) >= 0) delta[at(tiles.row(r))] = s.at(r, c);
}

// Grid (⌊T / ROWS⌋ + documents, H): tiles with most keys first.
extern "C" __global__ void __launch_bounds__(Queries::WARPS * 32, 1)
    flash_dq(E *dq,              // (T, H·D)
             const E *q,         // (T, H·D)
             const E *k,         // (T, K·D)
             const E *v,         // (T, K·D)
             const E *d_o,       // (T, H·D)
             const float *lse,   // (T, H), as forward left it
             const float *delta, // (T, H)
             const int *starts,  // (documents + 1)
             int documents, int T, int H, int K, int D, float slope, float scale) {
    typedef Queries Tiles;
    Piece p = piece<Tiles::ROWS>(starts, documents, T, gridDim.x - 1 - blockIdx.x);
    if (p.first >= p.length) return;
    Walk<Tiles, Job<true, Packed>> walk;
    int h = blockIdx.y, kv = h / (H / K), rows = min(Tiles::ROWS, p.length - p.first);
    if (threadIdx.x == 0) *walk.job = {{(p.start + p.first) * H + h, H, p.first, 0, rows}, {p.start * K + kv, K}};
    __syncthreads();
    const auto &slots = walk.job->slots;
    auto at = [&](int slot) { return slots.at(slot); };
    copy_tile<Tiles::ROWS, Tiles::WARPS>(walk.a, q, D, at);
    copy_tile<Tiles::ROWS, Tiles::WARPS>(walk.b, d_o, D, at);
    auto copy = [&](E *to, const E *from, int tile) {
        copy_tile<Tiles::COLS, Tiles::WARPS>(to, from, D, [&](int r) {
            return tile + r < slots.end() ? walk.job->keys(tile + r) : -1;
        });
        copy_commit();
    };
    copy(walk.x, k, 0);
    float top[Tiles::R], mean[Tiles::R]; // L and Δ
    {
        Tiles tiles;
#pragma unroll
        for (int r = 0; r < Tiles::R; r++) {
            int index = at(tiles.row(r));
            top[r] = index < 0 ? INFINITE : lse[index];
            mean[r] = index < 0 ? 0.0f : delta[index];
        }
    }
    typename Tiles::Wide sums = {};
    for (int tile = 0; tile < slots.end(); tile += Tiles::COLS) {
        copy_wait<0>();
        __syncthreads(); // the keys are in x, and y has been used
        copy(walk.y, v, tile);
        Tiles tiles;
        int first = tiles.first(), last = first + Tiles::SPAN - 1;
        bool sees = first < slots.high && tile <= slots.place(last);
        typename Tiles::Square s = {}, ds = {};
        if (sees) tiles.dots(s, walk.a, walk.x, walk.exchange);
        copy_wait<0>();
        __syncthreads(); // the values are in y
        if (sees) tiles.dots(ds, walk.b, walk.y, walk.exchange);
        __syncthreads(); // y has been used
        if (tile + Tiles::COLS < slots.end()) copy(walk.y, k, tile + Tiles::COLS);
        if (sees) {
            if (tile + Tiles::COLS - 1 > slots.place(first)) hide<Tiles>(s, slots, tile);
#pragma unroll
            for (int r = 0; r < Tiles::R; r++)
#pragma unroll
                for (int c = 0; c < Tiles::C; c++)
                    ds.at(r, c) = power(s.at(r, c), slope, top[r]) * (ds.at(r, c) - mean[r]);
            tiles.gather(sums, ds, walk.x, walk.exchange);
        }
        walk.swap();
    }
    scale_by<Tiles>(sums, scale);
    Tiles().write(dq, D, sums, at, walk.a, D);
}

struct KeyJob {
    Slots<true> slots; // rows of k seen as (T·K, D)
    int start, length; // of the document
};

// Grid (⌊T / ROWS⌋ + documents, K): early keys, which most rows attend to, first.
extern "C" __global__ void __launch_bounds__(Columns::WARPS * 32, 1)
    flash_dkdv(E *dk,              // (T, K·D)
               E *dv,              // (T, K·D)
               const E *q,         // (T, H·D)
               const E *k,         // (T, K·D)
               const E *v,         // (T, K·D)
               const E *d_o,       // (T, H·D)
               const float *lse,   // (T, H), as forward left it
               const float *delta, // (T, H)
               const int *starts,  // (documents + 1)
               int documents, int T, int H, int K, int D, float slope, float scale) {
    typedef Columns Tiles;
    Piece p = piece<Tiles::ROWS>(starts, documents, T, blockIdx.x);
    if (p.first >= p.length) return;
    Walk<Tiles, KeyJob> walk;
    int G = H / K, kv = blockIdx.y, rows = min(Tiles::ROWS, p.length - p.first);
    if (threadIdx.x == 0) *walk.job = {{(p.start + p.first) * K + kv, K, p.first, 0, rows}, p.start, p.length};
    __syncthreads();
    const KeyJob &job = *walk.job;
    auto at = [&](int slot) { return job.slots.at(slot); };
    copy_tile<Tiles::ROWS, Tiles::WARPS>(walk.a, k, D, at);
    copy_tile<Tiles::ROWS, Tiles::WARPS>(walk.b, v, D, at);
    auto copy = [&](E *to, const E *from, int h, int tile) {
        copy_tile<Tiles::COLS, Tiles::WARPS>(to, from, D, [&](int r) {
            return tile + r < job.length ? (job.start + tile + r) * H + h : -1;
        });
    };
    // Queries with their L and Δ. Rows past the document are zeros, L too: their P is 1, and adds zeros.
    auto copy_queries = [&](E *to, int h, int tile) {
        copy(to, q, h, tile);
        if (threadIdx.x < 2 * TILE) {
            int position = tile + threadIdx.x % TILE;
            bool real = position < job.length;
            const float *from = (threadIdx.x < TILE ? lse : delta) + i64(real ? job.start + position : 0) * H + h;
            copy_async_word(shared_address(walk.lse + threadIdx.x), from, real ? 4 : 0);
        }
        copy_commit();
    };
    int h = kv * G, tile = p.first;
    copy_queries(walk.x, h, tile);
    typename Tiles::Wide dk_sums = {}, dv_sums = {};
    bool more;
    do {
        copy_wait<0>();
        __syncthreads(); // the queries are in x, and y has been used
        copy(walk.y, d_o, h, tile);
        copy_commit();
        Tiles tiles;
        bool sees = tiles.first() < job.slots.high;
        typename Tiles::Square s = {}, ds = {};
        if (sees) {
            tiles.dots(s, walk.a, walk.x, walk.exchange);
#pragma unroll
            for (int c = 0; c < Tiles::C; c++) {
                float top = walk.lse[tiles.column(c)];
#pragma unroll
                for (int r = 0; r < Tiles::R; r++) s.at(r, c) = power(s.at(r, c), slope, top);
            }
            if (tile < job.slots.place(tiles.first() + Tiles::SPAN - 1)) {
#pragma unroll
                for (int r = 0; r < Tiles::R; r++)
#pragma unroll
                    for (int c = 0; c < Tiles::C; c++)
                        if (tile + tiles.column(c) < job.slots.place(tiles.row(r))) s.at(r, c) = 0.0f;
            }
        }
        copy_wait<0>();
        __syncthreads(); // the gradients are in y
        if (sees) {
            tiles.dots(ds, walk.b, walk.y, walk.exchange);
#pragma unroll
            for (int c = 0; c < Tiles::C; c++) {
                float mean = walk.delta[tiles.column(c)];
#pragma unroll
                for (int r = 0; r < Tiles::R; r++) ds.at(r, c) = s.at(r, c) * (ds.at(r, c) - mean);
            }
            tiles.gather(dv_sums, s, walk.y, walk.exchange);
        }
        __syncthreads(); // y, L and Δ have been used
        tile += Tiles::COLS;
        if (tile >= job.length) {
            tile = job.slots.position;
            h++;
        }
        more = h < (kv + 1) * G;
        if (more) copy_queries(walk.y, h, tile);
        if (sees) tiles.gather(dk_sums, ds, walk.x, walk.exchange);
        walk.swap();
    } while (more);
    scale_by<Tiles>(dk_sums, scale);
    Tiles().write(dk, D, dk_sums, at, walk.a, D);
    Tiles().write(dv, D, dv_sums, at, walk.b, D);
}
