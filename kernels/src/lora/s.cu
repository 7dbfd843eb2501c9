// Low-rank products of adapters over x, for bf16 activations: S = s x̃ Aᵀ, and the dropout mask.
//
// math    x̃ = mask/(1-p) ⊙ x. Each product is split into partial f32 sums over slices of C (split-K), which gemm's `sum` adds
//         in order. Factors of 1/(1-p) and s are applied to them
// layout  that of low_rank.cuh
// launch  per block: a tile's rows, 16 for each warp, and its groups of one adapter that they have chosen, SLICE channels;
//         the first of a row's blocks store the mask
// options SHAPE of the tile; ALIGNED 1 when rows of x and a are multiples of 16 bytes, else 0
#include "prelude.cuh"
#include "mainloop.cuh"
#include "mask.cuh"
#include "low_rank.cuh"

typedef Product<NT, SHAPE, bf16, ALIGNED> Rows;

// Copies x, and the A of each group of a block, of one adapter. A is loaded a tile ahead into registers, rounded and stored,
// so that each element is rounded once in a block.
struct RoundedFeeds {
    static constexpr int COPIERS = Rows::COPIERS, PACKS = Rows::BK / 4; // packs of four in a line
    static constexpr int STEP = COPIERS / PACKS;                        // lines that are stored at a time
    static constexpr int LINES = (Rows::BN + STEP - 1) / STEP;          // of a thread
    Rows::A::Feed<COPIERS, ALIGNED> x;
    const float *from[LINES]; // lines of A of this thread's packs
    int ends[LINES];          // their channels of the slice, 0 where there is no line
    float next[LINES][4];     // packs of the tile that is stored next
    int at, tiles, copied = 0; // first channel of these
    u32 first;                 // this thread's first pack in a stage, not computed again for each tile

    // Channels from `k` to `end`.
    __device__ RoundedFeeds(const Rows &block, const bf16 *activations, const Factors &f, int adapter, int T, int C, int k,
                            int end)
        : x({activations, C, T, end}, block.m, k), at(k + threadIdx.x % PACKS * 4),
          tiles((end - k + Rows::BK - 1) / Rows::BK) {
        static_assert(STEP % 8 == 0, "a thread's lines are swizzled alike");
        int pack = threadIdx.x % PACKS;
        first = opaque(Rows::A::BYTES + Rows::B::at(line(0), pack / 2) + pack % 2 * 8);
#pragma unroll
        for (int i = 0; i < LINES; i++) {
            from[i] = has(i) ? line_of_a(f, block.n + line(i), adapter, C) : nullptr;
            ends[i] = from[i] ? end : 0;
        }
        if (threadIdx.x < COPIERS) load_next();
    }

    __device__ static int line(int i) { return i * STEP + threadIdx.x / PACKS; }
    __device__ static bool has(int i) { return Rows::BN % STEP == 0 || line(i) < Rows::BN; }

    __device__ void load_next() {
#pragma unroll
        for (int i = 0; i < LINES; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++) next[i][e] = 0.0f;
            if (ALIGNED) {
                if (at < ends[i]) load(next[i], from[i] + at);
            } else {
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (at + e < ends[i]) next[i][e] = from[i][at + e];
            }
        }
    }

    __device__ void copy(u32 stage) {
        if (copied < tiles && threadIdx.x < COPIERS) {
            x.copy(stage);
#pragma unroll
            for (int i = 0; i < LINES; i++) {
                u32 to = stage + first + i * STEP * Rows::B::PITCH;
                if (has(i)) store_shared(to, pair(next[i][0], next[i][1]), pair(next[i][2], next[i][3]));
            }
            at += Rows::BK;
            load_next();
        }
        copied++;
        copy_commit();
    }
};

// The dropout mask of a block's rows: makes the words of two tiles of x while the one before them is multiplied, and zeroes
// the dropped channels of x, the left operand, where pairs along K are channels 2i and 2i + 1 of a word.
struct MaskedRows {
    static constexpr bool EDITS = true;
    static constexpr int WORDS = Rows::BK / 32, BLOCKS = Rows::BK / 8;
    static constexpr int BYTES = Rows::BM * WORDS * 4 + 64; // of a tile: those of two neighbours lie in different banks
    static_assert(Rows::THREADS == 2 * Rows::BM && Rows::MT == 1 && WORDS == 2, "a thread makes the two words of a row");

    ChannelWords random; // of this thread's row
    u32 threshold, channel; // the block's first channel, in the unsharded input
    u32 shared; // address of the words of four tiles: two are read, and two are made
    u32 rows, left; // address of those of this thread's rows of a fragment, and the shift of its bits to the signs of bytes
    u32 of_tokens; // address of the words that blocks of eight channels have of any token
    u32 *mask;  // (words left): this thread's row from the block's first word on
    int words, tiles;
    bool whole, packs; // words are whole blocks of channels; rows of the mask are multiples of 8 bytes
    u32 shifted[2][2]; // the words of a fragment's rows, this thread's even and odd channels as signs of bytes

    __device__ static u32 place(int tile) { return tile % MASK_TILES * BYTES; }

    // Offset of what a block of eight channels has of any token; two tiles' lie in different banks.
    __device__ static u32 place(int tile, int block) { return tile * (BLOCKS * 16 + 16) + block * 16; }

    // Makes what all rows share.
    __device__ void prepare() const {
        if (!whole) return;
        for (int i = threadIdx.x; i < tiles * BLOCKS; i += Rows::THREADS)
            store_shared(of_tokens + place(i / BLOCKS, i % BLOCKS), random.of_tokens(channel / 8 + i).at);
        __syncthreads();
    }

    // Makes the words of `tile` and of the next one, each by half of the threads.
    __device__ void make(int tile) {
        tile += threadIdx.x % 2;
        if (tile >= tiles) return;
        u32 bits[WORDS];
        if (whole) {
            compare_blocks(bits, threshold, [&](int b) {
                Words block;
                load_shared(block.at, of_tokens + place(tile, b));
                return random.of(block);
            });
        } else {
            mask_words(bits, random, threshold, channel + Rows::BK * tile);
        }
        store_shared(shared + place(tile) + threadIdx.x / 2 * WORDS * 4, bits[0], bits[1]);
        keep(tile * WORDS, bits);
    }

    __device__ void keep(int first, const u32 (&bits)[WORDS]) {
        if (packs) {
            if (first < words) *reinterpret_cast<Pack<u32, WORDS> *>(mask + first) = {bits[0], bits[1]};
            return;
        }
#pragma unroll
        for (int w = 0; w < WORDS; w++)
            if (first + w < words) mask[first + w] = bits[w];
    }

    template <int COLUMNS> __device__ void operator()(u32 (&a)[1][4], u32 (&)[COLUMNS][2], int tile, int step) {
        if (step == 0 && tile % 2 == 1) make(tile + 1);
        if (step % 2 == 0) shift(tile, step / 2);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const u32 (&signs)[2] = shifted[e % 2];
            a[0][e] &= spread_signs(signs[0], signs[1], 0xcc88 + (step % 2 * 2 + e / 2) * 0x1111);
        }
    }

    // Loads a word of each row, which two steps use: a byte of it is eight channels of a fragment.
    __device__ void shift(int tile, int word) {
        u32 from = rows + place(tile) + word * 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 bits = __float_as_uint(load_shared(from + 8 * half * WORDS * 4));
            shifted[half][0] = bits << left;
            shifted[half][1] = bits << (left - 4);
        }
    }
};

extern "C" __global__ void __launch_bounds__(Rows::THREADS)
    lora_s(float *parts,      // (slices, T, pitch)
           u32 *mask,         // (T, ⌈C/32⌉), or null
           const bf16 *x,     // (T, C)
           const int *tokens, // (T): id of each token; or null without dropout
           const int *choice, // (T): each row's adapter; or null, and there is one
           const float *a0, const float *a1, const float *a2, const float *a3,     // (adapters, R, C)
           int r0, int r1, int r2, int r3, float s0, float s1, float s2, float s3, // scales of S
           u64 seed, u32 step, u32 site, u32 threshold, int first, int adapters, int T, int C, int slice, int pitch) {
    extern __shared__ __align__(1024) u8 memory[];
    // There is one block along the columns unless a block has as many groups as it can.
    int columns = Rows::BN < MAX_GROUPS * RANK_GROUP ? 1 : round_up(pitch, Rows::BN) / Rows::BN;
    int nth = blockIdx.y / columns, column = blockIdx.y % columns;
    Rows block(memory, blockIdx.x * Rows::BM, column * Rows::BN);
    int adapter = Chosen(choice, block.m, Rows::BM, T, adapters).nth(nth);
    if (adapter == Chosen::NONE && nth > 0) return;
    int k = blockIdx.z * slice, end = min(C, k + slice);
    Factors factors = {a0, a1, a2, a3, r0, r1, r2, r3, s0, s1, s2, s3};
    RoundedFeeds feeds(block, x, factors, adapter, T, C, k, end);
    Rows::Accumulators acc = {};
    block.fill(feeds);
    if (tokens) {
        int row = block.m + threadIdx.x / 2, words = (C + 31) / 32;
        bool stores = row < T && column == 0;
        MaskedRows masked = {ChannelWords(seed, step, site, row < T ? tokens[row] : 0), threshold, u32(first + k)};
        masked.shared = block.shared + Rows::STAGES * Rows::STAGE;
        masked.rows = opaque(masked.shared + (Rows::warp_m() + lane() / 4) * MaskedRows::WORDS * 4);
        masked.left = opaque(7 - lane() % 4);
        masked.of_tokens = masked.shared + MASK_TILES * MaskedRows::BYTES;
        masked.mask = mask + i64(row) * words + k / 32;
        masked.words = stores ? words - k / 32 : 0;
        masked.tiles = feeds.tiles;
        masked.whole = in_whole_blocks(threshold, first);
        masked.packs = words % 2 == 0;
        masked.prepare();
        masked.make(0);
        block.run(acc, feeds, masked);
    } else {
        block.run(acc, feeds);
    }
    parts += i64(blockIdx.z) * T * pitch;
    each_pair(block, acc, factors, choice, adapter, nth == 0, parts, T, pitch,
              [](float *to, const float (&pair)[2]) { store(to, pair); });
}
