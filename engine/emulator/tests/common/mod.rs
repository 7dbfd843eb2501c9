//! Small kernels for the tests: a body in PTX, wrapped with registers and parameters.
#![allow(dead_code)]

use codelsi_emulator::{Counters, Error, FaultKind, Gpu, LaunchConfig, Schedule};

/// A module with one kernel `k(out, in, n)`. `%rd0` is `out`, `%rd1` is `in`, `%r0` is `tid.x`, `%r63` is `n`.
pub fn module(declarations: &str, body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n{declarations}\n\
         .visible .entry k(.param .u64 k_out, .param .u64 k_in, .param .u32 k_n)\n{{\n\
         .reg .pred %p<32>; .reg .b16 %h<32>; .reg .b32 %r<64>; .reg .b64 %rd<32>;\n\
         .reg .f32 %f<32>; .reg .f64 %fd<32>;\n\
         ld.param.u64 %rd0, [k_out]; ld.param.u64 %rd1, [k_in]; ld.param.u32 %r63, [k_n];\n\
         mov.u32 %r0, %tid.x;\n{body}\nret;\n}}\n"
    )
}

/// A test kernel with its launch configuration and input.
pub struct TestKernel {
    pub body: String,
    pub declarations: String,
    pub input: Vec<u32>,
    /// Number of output words.
    pub output: usize,
    pub n: u32,
    pub threads: u32,
    pub blocks: u32,
    pub shared: u32,
    pub schedule: Schedule,
    /// Blocks to execute; none executes all.
    pub sampled: Option<u64>,
}

impl TestKernel {
    pub fn new(body: impl Into<String>) -> TestKernel {
        TestKernel {
            body: body.into(),
            declarations: String::new(),
            input: vec![0],
            output: 32,
            n: 0,
            threads: 32,
            blocks: 1,
            shared: 0,
            schedule: Schedule::Early,
            sampled: None,
        }
    }

    /// Launches the kernel. Returns the counters and the output; words that it does not write are 0xdead_beef.
    pub fn launch(&self) -> Result<(Counters, Vec<u32>), Error> {
        let gpu = Gpu::new("sm_80")?;
        gpu.set_schedule(self.schedule);
        gpu.set_sampled_blocks(self.sampled);
        let loaded = gpu.load(&module(&self.declarations, &self.body))?;
        let (out, input) = (gpu.alloc(4 * self.output)?, gpu.alloc(4 * self.input.len())?);
        gpu.write(out, &0xdead_beefu32.to_le_bytes().repeat(self.output))?;
        gpu.write(input, &self.input.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>())?;
        let mut args = Vec::new();
        args.extend(out.to_le_bytes());
        args.extend(input.to_le_bytes());
        args.extend(self.n.to_le_bytes());
        let config = LaunchConfig {
            grid: [self.blocks, 1, 1],
            block: [self.threads, 1, 1],
            shared_bytes: self.shared,
        };
        let counters = gpu.launch(loaded.kernel("k").expect("the kernel"), config, &args)?;
        let mut bytes = vec![0; 4 * self.output];
        gpu.read(out, &mut bytes)?;
        let words =
            bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("4 bytes"))).collect();
        Ok((counters, words))
    }

    /// Returns the output, which must be the same in both schedules.
    pub fn words(mut self) -> Vec<u32> {
        let early = self.launch().unwrap_or_else(|e| panic!("{e}")).1;
        self.schedule = Schedule::Late;
        let late = self.launch().unwrap_or_else(|e| panic!("late: {e}")).1;
        assert_eq!(early, late, "the schedules disagree");
        early
    }

    /// Returns the kind of the fault, which must be the same in both schedules, and the message of the first.
    pub fn fault(mut self) -> (FaultKind, String) {
        let mut found = [Schedule::Early, Schedule::Late].map(|schedule| {
            self.schedule = schedule;
            match self.launch() {
                Ok(_) => panic!("no fault in schedule {schedule:?}"),
                Err(e) => (e.fault().unwrap_or_else(|| panic!("not a fault: {e}")).kind, e.to_string()),
            }
        });
        assert_eq!(found[0].0, found[1].0, "{} / {}", found[0].1, found[1].1);
        assert!(!found[0].1.contains('\n'));
        std::mem::replace(&mut found[0], (FaultKind::Trap, String::new()))
    }
}

/// Runs `body` on every row of inputs: words a, b, c, d of thread t are in `%r1` to `%r4` and `%f1` to `%f4`;
/// the result is taken from `%r10`.
pub fn map_rows(body: &str, rows: &[[u32; 4]]) -> Vec<u32> {
    let body = format!(
        "mul.wide.u32 %rd10, %r0, 16; add.s64 %rd10, %rd1, %rd10;\n\
         ld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd10];\n\
         mov.b32 %f1, %r1; mov.b32 %f2, %r2; mov.b32 %f3, %r3; mov.b32 %f4, %r4;\n\
         {body}\n\
         mul.wide.u32 %rd10, %r0, 4; add.s64 %rd10, %rd0, %rd10; st.global.u32 [%rd10], %r10;"
    );
    let mut out = Vec::new();
    for chunk in rows.chunks(256) {
        let mut test = TestKernel::new(body.clone());
        test.input = chunk.iter().flatten().copied().collect();
        (test.output, test.threads) = (chunk.len(), chunk.len() as u32);
        out.extend(test.words());
    }
    out
}

/// Returns random words, among which special values are frequent.
pub fn random(n: usize, seed: u64) -> Vec<u32> {
    const SPECIAL: [u32; 16] = [
        0,
        1,
        2,
        31,
        32,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0000_0001,
        0x8000_0003,
        0x7f7f_ffff,
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as u32 ^ (state >> 51) as u32
    };
    (0..n)
        .map(|_| match next() % 4 {
            0 => SPECIAL[next() as usize % SPECIAL.len()],
            1 => (next() % 200) as f32 as u32,
            2 => ((next() as i32 as f32) / 65536.0).to_bits(),
            _ => next(),
        })
        .collect()
}

/// Returns random rows for [`map_rows`].
pub fn random_rows(n: usize, seed: u64) -> Vec<[u32; 4]> {
    random(4 * n, seed).chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect()
}
