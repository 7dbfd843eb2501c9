// Paged decode with split-KV: attention of single rows over KV pages, one block per split of SPLIT keys.
//
// math    that of forward.cu, with the same bits
// launch  flash_decode: one block per split of one row, for up to Decode::ROWS query heads of one kv head, so keys
//         and values are read once for all of them. A row that has one split is then complete
//         flash_merge: combines the splits of each row and head, ascending
#include "attend.cuh"

// Grid (alone, K·⌈group / ROWS⌉, splits).
extern "C" __global__ void __launch_bounds__(Decode::WARPS * 32)
    flash_decode(E *o,                 // (T, H·D)
                 float *sums,          // (alone, splits, H, DP)
                 float *stats,         // (alone, splits, H, 2)
                 const E *q,           // (T, H·D)
                 const E *k,           // (N, K, page, D)
                 const E *v,           // (N, K, page, D)
                 const int *sequences, // (T)
                 const int *positions, // (T)
                 const int *tables,    // (S, M)
                 int T, int S, int M, int N, int page, int H, int K, int D, int longest, int alone, float slope) {
    int t = Batch{sequences, positions, T, longest, alone}.find<true>(blockIdx.x);
    if (t >= T) return;
    int position = positions[t], sequence = sequences[t], tile = blockIdx.z * SPLIT;
    if (position < 0 || position / page >= M || sequence < 0 || sequence >= S) asm("trap;");
    if (tile > position) return;
    int G = H / K, kv = blockIdx.y % K, first = blockIdx.y / K * Decode::ROWS; // head, and query head in its group
    int h = kv * G + first, rows = min(G - first, Decode::ROWS);
    Stage<Decode, Job<false, Paged>> stage;
    if (threadIdx.x == 0)
        *stage.job = {{t * H + h, 1, position, 0, rows}, {tables + i64(sequence) * M, M, page, N, K, kv}};
    __syncthreads();
    State<Decode> state;
    copy_queries(stage, q, D);
    attend(state, stage, k, v, tile, {H, D, slope});
    if (position < SPLIT) {
        finish(o, state, stage, D);
        return;
    }
    int part = (blockIdx.x * gridDim.z + blockIdx.z) * H + h;
    Store{sums, stats}.keep(state, [&](int slot) { return slot < rows ? part + slot : -1; });
}

constexpr int LANES = DP / 4; // threads of a head

// Grid (alone, ⌈H·LANES / 128⌉) of 128 threads.
extern "C" __global__ void flash_merge(E *o,                 // (T, H·D)
                                       const float *sums,    // (alone, splits, H, DP)
                                       const float *stats,   // (alone, splits, H, 2)
                                       const int *sequences, // (T)
                                       const int *positions, // (T)
                                       int T, int splits, int H, int D, int longest, int alone) {
    int t = Batch{sequences, positions, T, longest, alone}.find<true>(blockIdx.x);
    if (t >= T || positions[t] < SPLIT) return;
    int i = blockIdx.y * 128 + threadIdx.x, h = i / LANES, c = i % LANES * 4;
    if (h >= H || c >= D) return;
    float top = 0.0f, total = 0.0f, sum[4] = {};
    for (int split = 0; split <= positions[t] / SPLIT; split++) {
        i64 part = (i64(blockIdx.x) * splits + split) * H + h;
        float after[2], x[4];
        load(after, stats + part * 2);
        load(x, sums + part * DP + c);
        if (split == 0) {
            top = after[0];
            total = after[1];
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] = x[j];
            continue;
        }
        Join join(top, after[0]);
        top = join.top;
        total = join(total, after[1]);
#pragma unroll
        for (int j = 0; j < 4; j++) sum[j] = join(sum[j], x[j]);
    }
    float inverse = 1.0f / total;
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] = fmaf(sum[j], inverse, 0.0f);
    store(o + (i64(t) * H + h) * D + c, sum);
}
