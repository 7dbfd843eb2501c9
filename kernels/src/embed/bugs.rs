//! Bugs that the checks of `embed` must detect.

use crate::bug::Bug;
use codelsi_engine::DType::{BF16, F32};

pub const BUGS: &[Bug] = &[
    Bug::new(
        "embed.cu",
        "rows are looked up by place, not by id",
        ["load(v, table + i64(row) * C", "load(v, table + t * C"],
        (BF16, "V=5 C=17 T=3 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "a part is looked up as if it began the table",
        ["row = id - first;", "row = id;"],
        (F32, "V=7 from 4 of 20 C=17 T=41 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "a part's gradient is that of the table's first rows",
        ["id = first + row;", "id = row;"],
        (BF16, "V=7 from 4 of 20 C=17 T=41 to BF16"),
    ),
    Bug::new(
        "embed.cu",
        "no barrier before a tile of ids is replaced",
        ["        __syncthreads(); // the last tile has been read\n", ""],
        (F32, "V=9 C=3 T=300 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "no barrier after a tile of ids is stored",
        ["ids[s];\n        __syncthreads();", "ids[s];"],
        (F32, "V=33 C=65 T=100 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "ids beyond the last are read, and not used",
        ["if (s < T) tile[threadIdx.x] = ids[s];", "tile[threadIdx.x] = ids[s];"],
        (F32, "V=5 C=17 T=3 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "the id of a token beyond the last is read, and not used",
        ["int id = t < T ? ids[t] : 0", "int id = ids[t]"],
        (BF16, "V=5 C=17 T=3 to BF16"),
    ),
    Bug::new(
        "embed.cu",
        "a token's place is compared within its tile",
        ["start + i < t", "i < t"],
        (F32, "V=9 C=3 T=300 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "a token stands before itself",
        ["start + i < t", "start + i <= t"],
        (F32, "V=5 C=17 T=3 to F32"),
    ),
    Bug::new(
        "embed.cu",
        "the last token of every id is left out",
        ["to = below(id + 1, order, ids, T)", "to = below(id + 1, order, ids, T) - 1"],
        (BF16, "V=33 C=65 T=100 to BF16"),
    ),
    Bug::new(
        "embed.cu",
        "gradients are gathered in order of place",
        ["dy + i64(order[i]) * C", "dy + i64(i) * C"],
        (F32, "V=33 C=65 T=100 to F32"),
    ),
];
