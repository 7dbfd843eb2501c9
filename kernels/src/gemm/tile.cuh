// Tiles of bf16 or f32 in shared memory: asynchronous copies into them, and loads of mma fragments from them.
//
// layout  a matrix of a product has an outer dimension (M or N) and K; the one that is contiguous in memory runs along
//         the lines of the tile. The 16-byte chunks of a line are swizzled by exclusive or with a key of the line, so
//         that copies (consecutive chunks of a line) and fragments (one chunk of eight lines) access every bank once
// bounds  chunks beyond the matrix become zero; they are not read
// f32     master weights are copied unchanged and rounded to bf16 as fragments are loaded
#pragma once

// Operand of a product: `outer` rows or columns and `depth` steps of K; `pitch` is the leading dimension.
template <typename Elem> struct Matrix {
    const Elem *p;
    i64 pitch;
    int outer, depth;
};

// Copies a chunk of 16 bytes whose first `count` elements exist: at once where all chunks are whole and aligned
// (WHOLE), else element by element.
template <bool WHOLE, typename Elem> __device__ inline void copy_chunk(u32 to, const Elem *from, int count) {
    if constexpr (WHOLE) {
        copy_async(to, from, count > 0 ? 16 : 0);
    } else {
        constexpr int PER_WORD = 4 / sizeof(Elem);
        u32 words[4] = {};
#pragma unroll
        for (int i = 0; i < WIDE<Elem>; i++) {
            u32 bits = 0;
            if (i < count) {
                if constexpr (PER_WORD == 2) {
                    bits = from[i].bits;
                } else {
                    bits = __float_as_uint(from[i]);
                }
            }
            words[i / PER_WORD] |= bits << (i % PER_WORD * 16);
        }
        store_shared(to, words);
    }
}

template <typename Elem, bool ALONG_K, int OUTER, int DEPTH> struct Tile {
    static constexpr int LINES = ALONG_K ? OUTER : DEPTH;
    static constexpr int PITCH = (ALONG_K ? DEPTH : OUTER) * sizeof(Elem); // bytes of a line
    static constexpr int CHUNKS = PITCH / 16;
    static constexpr int BYTES = LINES * PITCH;
    static constexpr bool WIDENED = sizeof(Elem) == 4;

    // Offset of a chunk of a line, swizzled. bf16: the eight lines of an ldmatrix matrix get eight keys. f32: lines are
    // read by pairs of chunks, lines 0-3, 4-7, the even ones or the odd ones at a time, so each of these fours gets
    // four keys.
    __device__ static u32 at(int line, int chunk) {
        int key;
        if constexpr (WIDENED) {
            key = 2 * (CHUNKS >= 8 ? (line ^ line / 4 % 2) % 4 : line / 2 % 2);
        } else {
            key = CHUNKS >= 8 ? line % 8 : line * CHUNKS / 8 % CHUNKS;
        }
        return line * PITCH + (chunk ^ key) * 16;
    }

    // One thread's share of the copies of a block's tiles, one after another along K.
    template <int THREADS, bool WHOLE> struct Feed {
        static constexpr int STEP = THREADS / CHUNKS; // lines that the block copies at a time
        static_assert(THREADS % CHUNKS == 0, "a block copies whole lines");
        const Elem *from;
        i64 pitch;
        int lines, elements; // that exist from this thread's first one on

        Feed() = default;

        __device__ Feed(const Matrix<Elem> &m, int outer, int k) : pitch(m.pitch) {
            int line = threadIdx.x / CHUNKS, element = threadIdx.x % CHUNKS * WIDE<Elem>;
            int major = (ALONG_K ? outer : k) + line, minor = (ALONG_K ? k : outer) + element;
            from = m.p + major * m.pitch + minor;
            lines = (ALONG_K ? m.outer : m.depth) - major;
            elements = (ALONG_K ? m.depth : m.outer) - minor;
        }

        __device__ void copy(u32 tile) {
            int line = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
            for (int l = 0; l < LINES; l += STEP) {
                if (LINES % STEP != 0 && line + l >= LINES) break;
                copy_chunk<WHOLE>(tile + at(line + l, chunk), from + l * pitch, l < lines ? elements : 0);
            }
            from += ALONG_K ? DEPTH : DEPTH * pitch;
            (ALONG_K ? elements : lines) -= DEPTH;
        }
    };

    // Offsets at which this lane loads the fragments that start at `outer`.
    __device__ static u32 a_lane(int outer) {
        int l = lane();
        return ALONG_K ? at(outer + l % 16, l / 16) : at(l / 16 * 8 + l % 8, outer / 8 + l / 8 % 2);
    }
    __device__ static u32 b_lane(int outer) {
        int l = lane(), g = l / 4, t = l % 4;
        if constexpr (WIDENED) {
            return ALONG_K ? at(outer + g, t / 2) + t % 2 * 8 : at(2 * t, outer / 4 + g / 4) + g % 4 * 4;
        } else {
            return ALONG_K ? at(outer + l / 16 * 8 + l % 8, l / 8 % 2) : at(l % 16, outer / 8 + l / 16);
        }
    }

    // Address `from` advanced by outer and k, multiples of 8 and 16. Steps along a line stay within the swizzled bits,
    // and so are exclusive ors.
    __device__ static u32 moved(u32 from, int outer, int k) {
        constexpr int SIZE = sizeof(Elem);
        return ALONG_K ? (from ^ (k * SIZE)) + outer * PITCH : (from ^ (outer * SIZE)) + k * PITCH;
    }

    // Loads the fragments of rows 16·i of the left operand, i < COUNT.
    template <int COUNT> __device__ static void a_fragments(u32 (&a)[COUNT][4], u32 from, int k) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if constexpr (ALONG_K) {
                load_matrices(a[i], moved(from, 16 * i, k));
            } else {
                load_matrices_transposed(a[i], moved(from, 16 * i, k));
            }
        }
    }

    // Loads the fragments of columns 8·j of the right operand, j < COUNT.
    template <int COUNT> __device__ static void b_fragments(u32 (&b)[COUNT][2], u32 from, int k) {
        static_assert(COUNT == 1 || COUNT % 2 == 0, "");
        if constexpr (WIDENED) {
#pragma unroll
            for (int j = 0; j < COUNT; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) b[j][half] = rounded_pair(moved(from, 8 * j, k), half);
        } else if constexpr (COUNT == 1) {
            load_two_matrices<!ALONG_K>(b[0], moved(from, 0, k));
        } else {
#pragma unroll
            for (int j = 0; j < COUNT; j += 2) {
                u32 x[4];
                if constexpr (ALONG_K) {
                    load_matrices(x, moved(from, 8 * j, k));
                } else {
                    load_matrices_transposed(x, moved(from, 8 * j, k));
                }
                b[j][0] = x[0], b[j][1] = x[1], b[j + 1][0] = x[2], b[j + 1][1] = x[3];
            }
        }
    }

    // Loads two f32 neighbours along K, rounded to bf16; the second half of a fragment is 8 steps further.
    __device__ static u32 rounded_pair(u32 from, int half) {
        if constexpr (ALONG_K) {
            float x[2];
            load_shared(x, from ^ (32 * half));
            return pair(x[0], x[1]);
        } else {
            from += 8 * half * PITCH;
            return pair(load_shared(from), load_shared((from ^ 32) + PITCH));
        }
    }
};
