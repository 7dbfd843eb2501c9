// Tiles of rows in shared memory, and the assignment of the rows of a batch to blocks.
//
// A row of a tile is DP elements: the D of a head, padded with zeros. It consists of 16-byte chunks, and chunk c of row
// r is stored at c XOR r % 8 (swizzle): one chunk of eight rows, or all chunks of one row, touch every bank once.
//
// options E storage, MMA whether products run on tensor cores (E = bf16) or as FFMA (E = float), DP 64 or 128
#pragma once
#include "prelude.cuh"

enum { PREFILL, TALL, DECODE, DIAGONAL, KEYS }; // rows of MMA_TILES and FFMA_TILES
constexpr int CHUNK = WIDE<E>;
constexpr int CHUNKS = DP / CHUNK;

// Exponents are in base 2 for bf16, where `slope` is log₂ e / √D and a power costs one instruction. For f32 they are
// natural and `slope` is 1 / √D: in base 2 a log-sum-exp is half as large again, and so is its rounding error.
__device__ inline float grown(float x) { return MMA ? exp2_fast(x) : expf(x); }
__device__ inline float logarithm(float x) { return MMA ? log2f(x) : logf(x); }

// e^(s / √D − top), with `top` in the same base.
__device__ inline float power(float s, float slope, float top) { return grown(fmaf(s, slope, -top)); }

// Query heads, channels of a head, and the scale of scores.
struct Heads {
    int H, D;
    float slope;
};

// The slots of a block are the rows of its query tile. Slot s holds row at(s) of q seen as (T·H, D), at position
// place(s). CLIMB: slots are consecutive positions of a sequence; else they are heads of one row.
template <bool CLIMB> struct Slots {
    int index, step; // at(0), perhaps before q if low > 0, and from slot to slot
    int position;    // place(0)
    int low, high;   // slots in use
    __device__ int at(int s) const { return s >= low && s < high ? index + s * step : -1; }
    __device__ int place(int s) const { return CLIMB ? position + s : position; }
    __device__ int end() const { return place(high - 1) + 1; } // keys that they see
};

// Thread index, opaque to the compiler: values that a phase of a kernel computes from it are not kept in registers
// between phases.
struct Thread {
    u32 index = opaque(threadIdx.x);
    __device__ int lane() const { return index % 32; }
    __device__ int warp() const { return index / 32; }
};

template <typename P> __device__ inline P *chunk(P *tile, int row, int c) {
    return tile + (row * CHUNKS + (c ^ (row & 7))) * CHUNK;
}

// Copy of a tile of ROWS rows by WARPS warps: CHUNKS lanes per row, STRIDE rows at a time, so that the rows of a lane
// differ by multiples of 8 and its chunks lie in one column. A lane gets the place of each row from the lane that computes
// it.
template <int ROWS, int WARPS> struct Copy {
    static constexpr int STEP = 32 / CHUNKS, STRIDE = STEP * WARPS, COUNT = ROWS / STRIDE;
    static_assert(STRIDE % 8 == 0 && COUNT * STRIDE == ROWS && COUNT <= CHUNKS, "whole steps, a lane for each");

    // Row whose place this lane must compute; ROWS or more for none.
    __device__ static int row() {
        Thread self;
        return self.lane() % CHUNKS * STRIDE + self.warp() * STEP + self.lane() / CHUNKS;
    }

    // Starts copying rows of (…, D). `place` is the index of row(), negative for a row of zeros.
    __device__ static void start(E *tile, const E *from, int place, int D) { start_all({tile}, {from}, place, D); }

    // The same rows of N arrays.
    template <int N>
    __device__ static void start_all(E *const (&tiles)[N], const E *const (&from)[N], int place, int D) {
        Thread self;
        int c = self.lane() % CHUNKS, row_bytes = D * int(sizeof(E)); // in bytes, one multiply-add an address
        u32 to[N];
#pragma unroll
        for (int n = 0; n < N; n++)
            to[n] = shared_address(chunk(tiles[n], self.warp() * STEP + self.lane() / CHUNKS, c));
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int source = __shfl_sync(FULL, place, i, CHUNKS);
            bool real = source >= 0 && c * CHUNK < D;
#pragma unroll
            for (int n = 0; n < N; n++) {
                const u8 *p = reinterpret_cast<const u8 *>(from[n] + c * CHUNK) + i64(source) * row_bytes;
                copy_async(to[n] + i * STRIDE * CHUNKS * 16, p, real ? 16 : 0); // p is not read if it is not real
            }
        }
    }
};

// Rows of one head of a packed document, in (T, heads·D) seen as (T·heads, D).
struct Packed {
    int first, heads; // row of position 0, and rows from position to position
    __device__ int operator()(int position) const { return first + position * heads; }
};

// Rows of kv head `kv` in KV pages (N, K, page, D) seen as (N·K·page, D), through a block table (M).
struct Paged {
    const int *table;
    int M, page, N, K, kv;
    __device__ int operator()(int position) const {
        int i = position / page;
        if (i >= M) asm("trap;");
        int p = table[i];
        if (p < 0 || p >= N) asm("trap;");
        return (p * K + kv) * page + position - i * page;
    }
};

// ---- documents

// A tile of a document's rows.
struct Piece {
    int document, start, length;
    int first; // position of the tile's first row
};

// Tile number `slot` among the tiles of ROWS rows of all documents. Document i owns the numbers from ⌊startᵢ / ROWS⌋ +
// i on, which is always enough, so no prefix sums are needed. Some numbers are unused: then `first` lies past the
// document.
template <int ROWS> __device__ inline Piece piece(const int *starts, int documents, int T, int slot) {
    if (starts[0] != 0 || starts[documents] != T) asm("trap;");
    int before = 0;
    for (int i = 0; i < documents; i += 32) {
        int d = i + lane();
        before += __popc(__ballot_sync(FULL, d < documents && starts[d] / ROWS + d <= slot));
    }
    int d = before - 1, start = starts[d], length = starts[d + 1] - start;
    if (start < 0 || length < 0 || start + length > T) asm("trap;");
    return {d, start, length, (slot - start / ROWS - d) * ROWS};
}

// ---- runs

// New rows over pages. Consecutive rows at consecutive positions of a sequence are a run, cut where the position
// is a multiple of `longest` (a power of two). Among the runs of one row, the first `alone` are decoded in splits.
struct Batch {
    const int *sequences, *positions; // (T)
    int T, longest, alone;

    __device__ bool leads(int t) const {
        return t <= 0 || t >= T || sequences[t] != sequences[t - 1] || positions[t] != positions[t - 1] + 1 ||
               (positions[t] & (longest - 1)) == 0;
    }

    // First row of the n-th of the runs decoded in splits (or of the others); T if there are fewer.
    template <bool ALONE> __device__ int find(int n) const {
        if (ALONE && longest == 1) return n < alone ? n : T; // every row is a run
        u32 below = (1u << lane()) - 1;
        int single = 0, found = 0; // so far
        for (int base = 0; base < T; base += 32) {
            int t = base + lane();
            bool lead = t < T && leads(t), one = lead && leads(t + 1);
            u32 ones = __ballot_sync(FULL, one);
            bool apart = one && single + __popc(ones & below) < alone;
            u32 hits = __ballot_sync(FULL, ALONE ? apart : lead && !apart);
            u32 hit = __ballot_sync(FULL, hits >> lane() & 1 && found + __popc(hits & below) == n);
            if (hit) return base + __ffs(hit) - 1;
            single += __popc(ones);
            found += __popc(hits);
        }
        return T;
    }

    // Number of rows of the run that begins at t.
    __device__ int length(int t) const {
        for (int n = 1;; n += 32) {
            u32 next = __ballot_sync(FULL, leads(t + n + lane()));
            if (next) return n + __ffs(next) - 1;
        }
    }
};
