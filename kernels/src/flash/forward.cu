// Attention of tiles of rows, over packed documents (varlen) or over KV pages.
//
// math    o = softmax(q kᵀ / √D, causal) v by tiles of keys, in splits of SPLIT keys that are combined ascending; the
//         log-sum-exp L = log Σ e^(s / √D) is saved, in base 2 for bf16
// launch  one block per tile of Prefill::ROWS rows of one document and head; the slot of a row is its position modulo
//         that
//
// options PREFILL_TILE, PREFILL or TALL, whose blocks read keys and values half as often
#include "attend.cuh"

typedef Tiled<PREFILL_TILE> Prefill;

// Forward of the rows of the job, over all splits; `lse` may be null.
template <typename Job>
__device__ inline void forward(E *o, float *lse, Store store, const E *q, const E *k, const E *v,
                               const Stage<Prefill, Job> &stage, Heads heads) {
    State<Prefill> state;
    const auto &slots = stage.job->slots;
    auto at = [&](int slot) { return slots.at(slot); };
    Stream<Prefill, Job> stream = {stage, k, v, heads.D};
    copy_queries(stage, q, heads.D);
    stream.start(0);
    for (int tile = 0;;) {
        attend(state, stream, tile, heads.slope);
        if (tile > SPLIT) store.join(state, at);
        if (tile >= slots.end()) break;
        store.keep<false>(state, at);
    }
    finish(o, state, stage, heads.D);
    Prefill tiles;
    if (!lse || !tiles.speaks()) return;
#pragma unroll
    for (int r = 0; r < Prefill::R; r++) {
        int index = at(tiles.row(r));
        if (index >= 0) lse[index] = state.top[r] + logarithm(state.total[r]);
    }
}

// Grid (⌊T / ROWS⌋ + documents, H): tiles with most keys first.
extern "C" __global__ void __launch_bounds__(Prefill::WARPS * 32)
    flash_forward(E *o,              // (T, H·D)
                  float *lse,        // (T, H)
                  float *sums,       // (T, H, DP), working memory; null if no document is longer than SPLIT
                  float *stats,      // (T, H, 2), the same
                  const E *q,        // (T, H·D)
                  const E *k,        // (T, K·D)
                  const E *v,        // (T, K·D)
                  const int *starts, // (documents + 1)
                  int documents, int T, int H, int K, int D, float slope) {
    Piece p = piece<Prefill::ROWS>(starts, documents, T, gridDim.x - 1 - blockIdx.x);
    if (p.first >= p.length) return;
    int h = blockIdx.y, kv = h / (H / K), rows = min(Prefill::ROWS, p.length - p.first);
    Stage<Prefill, Job<true, Packed>> stage;
    if (threadIdx.x == 0) *stage.job = {{(p.start + p.first) * H + h, H, p.first, 0, rows}, {p.start * K + kv, K}};
    __syncthreads();
    forward(o, lse, {sums, stats}, q, k, v, stage, {H, D, slope});
}

// Grid (any, H): runs that `flash_decode` does not take.
extern "C" __global__ void __launch_bounds__(Prefill::WARPS * 32)
    flash_pages(E *o,                 // (T, H·D)
                float *sums,          // (T, H, DP), working memory; null if no sequence is longer than SPLIT
                float *stats,         // (T, H, 2), the same
                const E *q,           // (T, H·D)
                const E *k,           // (N, K, page, D)
                const E *v,           // (N, K, page, D)
                const int *sequences, // (T)
                const int *positions, // (T)
                const int *tables,    // (S, M)
                int T, int S, int M, int N, int page, int H, int K, int D, int longest, int alone, float slope) {
    Batch batch = {sequences, positions, T, longest, alone};
    int h = blockIdx.y;
    Stage<Prefill, Job<true, Paged>> stage;
    for (int run = blockIdx.x;; run = stage.job->run + gridDim.x) {
        int t = batch.find<false>(run);
        if (t >= T) return;
        int low = positions[t] & (Prefill::ROWS - 1), high = low + batch.length(t), sequence = sequences[t];
        if (positions[t] < 0 || sequence < 0 || sequence >= S) asm("trap;");
        __syncthreads(); // the last run's shared memory has been read
        if (threadIdx.x == 0) {
            int kv = h / int(opaque(H) / K); // in each run, or a register would hold it from run to run
            *stage.job = {{(t - low) * H + h, H, positions[t] - low, low, high},
                          {tables + i64(sequence) * M, M, page, N, K, kv},
                          run};
        }
        __syncthreads();
        forward(o, nullptr, {sums, stats}, q, k, v, stage, {H, D, slope});
    }
}
