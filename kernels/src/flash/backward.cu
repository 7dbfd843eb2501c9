// Backward over packed documents: FlashAttention-2, algorithm 2, in one pass whose sums have a fixed order.
//
// math    P = e^(q kᵀ / √D − L), Δ = Σ_d do·o, dS = P ⊙ (do vᵀ − Δ):
//         dq = dS k / √D, dk = dSᵀ q / √D, dv = Pᵀ do. Masked entries of P and dS are zero
// launch  flash_delta: one block per tile of rows of do and of o; Δ is the diagonal of their product
//         flash_backward: one block per tile of Keys::ROWS keys of one document and kv head; it loops over the rows after
//         them, of every query head, and holds the scores transposed
// order   A tile of rows of q gets a summand of dq from each tile of keys up to its own: from its own first, from the
//         document's first keys last. `turns` counts the summands that a tile has got; a block waits for its turn, and
//         adds. Blocks start in the order of blockIdx, x first, and wait for such only that started before them. All
//         begin with the rows nearest to their keys, so that a turn is due, mostly, before it is waited for. The sums of
//         STRIP rows lie together in working memory, as the threads hold them
#include "attend.cuh"
#if MMA
#include "backward_mma.cuh"
#else
#include "backward_ffma.cuh"
#endif

// Starts copying a tile of ROWS rows of (…, D); `row` returns the index of each.
template <int ROWS, int WARPS, typename Row> __device__ inline void copy_tile(E *to, const E *from, int D, Row row) {
    typedef Copy<ROWS, WARPS> Copy;
    int r = Copy::row();
    Copy::start(to, from, r < ROWS ? row(r) : -1, D);
}

// Δ is summed in the order of dP: where a row sees one key, o = v, and dP − Δ must be zero to the last bit.
extern "C" __global__ void __launch_bounds__(Diagonal::WARPS * 32, 1)
    flash_delta(float *delta, // (rows)
                u32 *turns,   // (count), set to 0; may be null
                const E *d_o, // (rows, D)
                const E *o,   // (rows, D)
                int count, int rows, int D) {
    typedef Diagonal Tiles;
    E *a = reinterpret_cast<E *>(shared), *b = a + Tiles::ROWS * DP;
    int first = blockIdx.x * Tiles::ROWS;
    for (int i = flat<1>(); turns && i < count; i += gridDim.x * blockDim.x) turns[i] = 0;
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

// The summands of dq of a tile of rows of q.
struct Turn {
    u32 *got;    // how many it has got; null if none wait for this block's
    float *sums; // its strips (STRIP, DP), every H of them
    int strips;
    int before; // summands before this block's
};

// What a block works on.
struct KeyJob {
    Slots<true> slots; // rows of k seen as (T·K, D)
    int start, length; // of the document
    int tile, strip;   // numbers of its first tile and of its first strip of rows of q
    Turn turn;
};

// Rows of q of a step, with their L and Δ.
struct Step {
    E *q; // (COLS, DP)
    float *lse, *delta;
};

// Shared memory of a block.
struct Walk {
    KeyJob *job;
    float *rows; // L and Δ of two steps
    E *k, *v;    // (ROWS, DP)
    E *d_o;      // (COLS, DP)
    E *q;        // (COLS, DP) of two steps
    E *p, *d_s;  // exchanged (ROWS, COLS)
    __device__ Walk() {
        job = reinterpret_cast<KeyJob *>(shared);
        rows = reinterpret_cast<float *>(shared + HEAD);
        k = reinterpret_cast<E *>(rows + 4 * Keys::COLS);
        v = k + Keys::ROWS * DP;
        d_o = v + Keys::ROWS * DP;
        q = d_o + Keys::COLS * DP;
        p = q + 2 * Keys::COLS * DP;
        d_s = p + Keys::EXCHANGE;
    }
    __device__ Step step(int parity) const {
        float *lse = rows + parity * 2 * Keys::COLS;
        return {q + parity * Keys::COLS * DP, lse, lse + Keys::COLS};
    }
};

// Loads or stores the summands so far.
__device__ inline void load_sums(Keys::Queries &w, Turn turn, int H) {
    Keys().in_strips(w, [&](int strip, int offset, float (&x)[4]) {
        if (strip < turn.strips) load_shared_by_blocks(x, turn.sums + i64(strip * H) * STRIP * DP + offset);
    });
}
__device__ inline void store_sums(Keys::Queries &w, Turn turn, int H) {
    Keys().in_strips(w, [&](int strip, int offset, float (&x)[4]) {
        if (strip < turn.strips) store_shared_by_blocks(turn.sums + i64(strip * H) * STRIP * DP + offset, x);
    });
}

__device__ inline void scale_by(Keys::Wide &w, float scale) {
#pragma unroll
    for (int r = 0; r < Keys::R; r++)
#pragma unroll
        for (int n = 0; n < Keys::RUNS; n++)
#pragma unroll
            for (int i = 0; i < Keys::RUN; i++) w.at(r, n, i) *= scale;
}

// Grid (⌊T / ROWS⌋ + documents, K): a document's last keys first.
extern "C" __global__ void __launch_bounds__(Keys::WARPS * 32, 1)
    flash_backward(E *dq,              // (T, H·D)
                   E *dk,              // (T, K·D)
                   E *dv,              // (T, K·D)
                   float *sums,        // (⌊T / STRIP⌋ + documents, H, STRIP, DP), working memory; null if no document is
                                       // longer than ROWS
                   u32 *turns,         // (⌊T / COLS⌋ + documents, H): 0; the same
                   const E *q,         // (T, H·D)
                   const E *k,         // (T, K·D)
                   const E *v,         // (T, K·D)
                   const E *d_o,       // (T, H·D)
                   const float *lse,   // (T, H), as forward left it
                   const float *delta, // (T, H)
                   const int *starts,  // (documents + 1)
                   int documents, int T, int H, int K, int D, float slope, float scale) {
    Piece p = piece<Keys::ROWS>(starts, documents, T, gridDim.x - 1 - blockIdx.x);
    if (p.first >= p.length) return;
    Walk walk;
    int G = H / K, kv = blockIdx.y;
    if (threadIdx.x == 0) {
        int rows = min(Keys::ROWS, p.length - p.first);
        Slots<true> slots = {(p.start + p.first) * K + kv, K, p.first, 0, rows};
        *walk.job = {slots, p.start, p.length, p.start / Keys::COLS + p.document, p.start / STRIP + p.document, {}};
    }
    __syncthreads();
    KeyJob &job = *walk.job;
    auto at = [&](int slot) { return job.slots.at(slot); };
    copy_tile<Keys::ROWS, Keys::WARPS>(walk.k, k, D, at);
    copy_tile<Keys::ROWS, Keys::WARPS>(walk.v, v, D, at);
    auto row = [&](int h, int position) { return position < job.length ? (job.start + position) * H + h : -1; };
    auto copy = [&](E *to, const E *from, int h, int tile) {
        copy_tile<Keys::COLS, Keys::WARPS>(to, from, D, [&](int r) { return row(h, tile + r); });
    };
    // Rows past the document are zeros, L too: their P is 1, and adds zeros.
    auto copy_queries = [&](const Step &to, int h, int tile) {
        copy(to.q, q, h, tile);
        if (threadIdx.x < 2 * Keys::COLS) {
            int index = row(h, tile + threadIdx.x % Keys::COLS);
            const float *from = (threadIdx.x < Keys::COLS ? lse : delta) + max(index, 0);
            copy_async_word(shared_address(to.lse + threadIdx.x), from, index < 0 ? 0 : 4);
        }
    };
    int h = kv * G, tile = p.first;
    copy_queries(walk.step(0), h, tile);
    copy_commit();
    copy(walk.d_o, d_o, h, tile);
    copy_commit();
    Keys::Wide dk_sums = {}, dv_sums = {};
    int parity = 0;
    bool more;
    do {
        copy_wait<1>();
        __syncthreads(); // the queries are there, those of the last step have been used, and its dq has been stored
        if (threadIdx.x == 0 && job.turn.got) end_turn(job.turn.got);
        int next = tile + Keys::COLS, next_head = h;
        if (next >= job.length) {
            next = job.slots.position;
            next_head++;
        }
        more = next_head < (kv + 1) * G;
        if (more) copy_queries(walk.step(1 - parity), next_head, next);
        copy_commit();
        Step step = walk.step(parity);
        int reach = min(job.slots.high, tile + Keys::COLS - job.slots.position); // keys that these rows see
        bool sees = Keys().first() < reach;
        Keys::Square s = {};
        Keys::Factor p = {}, d_s = {};
        if (sees) {
            Keys tiles;
            tiles.dots(s, walk.k, step.q);
            float top[Keys::C];
            tiles.of_columns(top, step.lse);
#pragma unroll
            for (int c = 0; c < Keys::C; c++)
#pragma unroll
                for (int r = 0; r < Keys::R; r++) s.at(r, c) = power(s.at(r, c), slope, top[c]);
            if (tile < job.slots.place(tiles.first() + Keys::SPAN - 1)) {
#pragma unroll
                for (int r = 0; r < Keys::R; r++)
#pragma unroll
                    for (int c = 0; c < Keys::C; c++)
                        if (tile + tiles.column(c) < job.slots.place(tiles.row(r))) s.at(r, c) = 0.0f;
            }
            p = tiles.put(walk.p, s);
        }
        copy_wait<1>();
        __syncthreads(); // the gradients and P are there
        if (sees) {
            Keys tiles;
            Keys::Square ds;
            tiles.dots(ds, walk.v, walk.d_o);
            float mean[Keys::C];
            tiles.of_columns(mean, step.delta);
#pragma unroll
            for (int c = 0; c < Keys::C; c++)
#pragma unroll
                for (int r = 0; r < Keys::R; r++) ds.at(r, c) = s.at(r, c) * (ds.at(r, c) - mean[c]);
            d_s = tiles.put(walk.d_s, ds);
            tiles.gather(dv_sums, p, walk.p, walk.d_o);
        }
        if (threadIdx.x == 0) {
            int number = job.slots.position / Keys::ROWS, before = tile / Keys::ROWS - number; // of these keys
            u32 *got = turns + i64(job.tile + tile / Keys::COLS) * H + h;
            float *strips = sums + (i64(job.strip + tile / STRIP) * H + h) * STRIP * DP;
            if (before > 0) wait_for_turn(got, before);
            int count = (min(job.length - tile, Keys::COLS) + STRIP - 1) / STRIP;
            job.turn = {number > 0 ? got : nullptr, strips, count, before};
        }
        __syncthreads(); // dS is there, the gradients have been used, and it is the block's turn
        if (more) copy(walk.d_o, d_o, next_head, next);
        copy_commit();
        Keys::Queries dq_sums = {};
        if (job.turn.before > 0) load_sums(dq_sums, job.turn, H);
        if (sees) Keys().gather(dk_sums, d_s, walk.d_s, walk.step(parity).q);
        Keys().gather_transposed(dq_sums, walk.d_s, walk.k, reach);
        if (job.turn.got) {
            store_sums(dq_sums, job.turn, H);
        } else {
            Keys().write(dq, D, dq_sums, [&](int r) { return row(h, tile + r); }, scale, D);
        }
        tile = next;
        h = next_head;
        parity = 1 - parity;
    } while (more);
    __syncthreads(); // dq has been stored, and k and v have been used
    if (threadIdx.x == 0 && job.turn.got) end_turn(job.turn.got);
    scale_by(dk_sums, scale);
    Keys().write(dk, D, dk_sums, at, walk.k, D);
    Keys().write(dv, D, dv_sums, at, walk.v, D);
}
