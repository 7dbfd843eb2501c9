// Paged decode with split-KV: attention of single rows over KV pages, one block per split of SPLIT keys.
//
// math    that of forward.cu, with the same bits
// launch  one block per split of one row, for up to Decode::ROWS query heads of one kv head, so keys and values are read
//         once for all of them. A row that has one split is then complete; of one that has more, the block that arrives
//         last joins the splits, ascending
// pipeline  tiles of keys and of values take turns in a ring of RING: while one is used, the next ones are copied
#include "attend.cuh"

constexpr int LANES = DP / 4; // threads that join the splits of a head
constexpr int RING = 2 * Decode::STAGES;
typedef Job<false, Paged> Single;

// Shared memory of a block: half of the ring for keys, half for values.
struct Ring : Stage<Decode, Single> {
    // Tile number `step` of k0, v0, k1, v1, …
    __device__ E *at(int step) const { return (step % 2 ? v : k) + step / 2 % (RING / 2) * TILE * DP; }
};

// Computes the state of the split that begins at position `first`.
__device__ inline void attend_split(State<Decode> &state, const Ring &ring, const E *k, const E *v, int first,
                                    Heads heads) {
    const Slots<false> &slots = ring.job->slots;
    int end = min(first + SPLIT, slots.end());
    auto copy = [&](int step) {
        typedef Copy<TILE, Decode::WARPS> Copy;
        int tile = first + step / 2 * TILE, row = Copy::row();
        if (tile < end) {
            int place = row < TILE && tile + row < end ? ring.job->keys(tile + row) : -1;
            Copy::start(ring.at(step), step % 2 ? v : k, place, heads.D);
        }
        copy_commit();
    };
    state.clear();
#pragma unroll
    for (int step = 0; step < RING - 1; step++) copy(step);
#pragma unroll 1
    for (int step = 0, tile = first; tile < end; step += 2, tile += TILE) {
        copy_wait<RING - 2>();
        __syncthreads(); // k is there, and the last v has been used
        copy(step + RING - 1);
        Decode tiles;
        bool sees = tiles.first() < slots.high;
        Decode::Square s = {};
        if (sees) tiles.dots(s, ring.q, ring.at(step), ring.exchange);
        copy_wait<RING - 2>();
        __syncthreads(); // v is there, and k has been used
        copy(step + RING);
        if (sees) {
            if (tile + TILE > end) hide<Decode>(s, slots, tile);
            Decode::Factor p;
            state.fold(p, s, heads.slope, tile == first);
            tiles.gather(state.sums, p, ring.at(step + 1), ring.exchange);
        }
    }
    state.close();
}

// Joins the splits of `rows` heads of a row, ascending.
__device__ inline void join_splits(E *o,               // (rows, D)
                                   const float *sums,  // (splits, …): (rows, DP) of every `apart` heads
                                   const float *stats, // (splits, …): (rows, 2) of every `apart` heads
                                   int splits, int apart, int rows, int D) {
    for (int i = threadIdx.x; i < rows * LANES; i += blockDim.x) {
        int head = i / LANES, c = i % LANES * 4;
        if (c >= D) continue;
        float top = 0.0f, total = 0.0f, sum[4] = {};
        for (int split = 0; split < splits; split++) {
            i64 part = i64(split) * apart + head;
            float after[2], x[4];
            load_shared_by_blocks(after, stats + part * 2);
            load_shared_by_blocks(x, sums + part * DP + c);
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
        store(o + head * D + c, sum);
    }
}

// Grid (alone, K·⌈group / ROWS⌉, splits).
extern "C" __global__ void __launch_bounds__(Decode::WARPS * 32)
    flash_decode(E *o,                 // (T, H·D)
                 float *sums,          // (alone, splits, H, DP)
                 float *stats,         // (alone, splits, H, 2)
                 u32 *arrivals,        // (alone, K·⌈group / ROWS⌉): 0 before and after
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
    Ring ring;
    if (threadIdx.x == 0)
        *ring.job = {{t * H + h, 1, position, 0, rows}, {tables + i64(sequence) * M, M, page, N, K, kv}};
    __syncthreads();
    State<Decode> state;
    copy_queries(ring, q, D);
    attend_split(state, ring, k, v, tile, {H, D, slope});
    if (position < SPLIT) {
        finish(o, state, ring, D);
        return;
    }
    rows = ring.job->slots.high; // again: in a register it would lie all the while
    i64 part = i64(blockIdx.x) * gridDim.z * H + h;
    int here = part + blockIdx.z * H;
    Store{sums, stats}.keep<true>(state, [&](int slot) { return slot < rows ? here + slot : -1; });
    if (!is_last(arrivals + blockIdx.x * gridDim.y + blockIdx.y, position / SPLIT)) return;
    join_splits(o + (i64(t) * H + h) * D, sums + part * DP, stats + part * 2, position / SPLIT + 1, H, rows, D);
}
