//! Resource usage of kernels and advisories, read from the assembler's report (ptxas) in the compiler's log.

use super::nvrtc::Code;

/// Registers and memory that one kernel uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelResources {
    pub kernel: String,
    /// Registers per thread.
    pub registers: usize,
    /// Bytes of static shared memory per block.
    pub shared: usize,
    /// Bytes of stack per thread: arrays that do not fit into registers.
    pub stack: usize,
    /// Bytes of register spills, stores and loads together.
    pub spills: usize,
}

impl Code {
    /// Returns the resources of every kernel in the module.
    pub fn resources(&self) -> Vec<KernelResources> {
        let mut all: Vec<KernelResources> = Vec::new();
        for line in self.log.lines() {
            if let Some(rest) = line.split("Compiling entry function '").nth(1) {
                let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
                all.push(KernelResources { kernel, ..KernelResources::default() });
            }
            let Some(last) = all.last_mut() else { continue };
            if line.contains("bytes stack frame") {
                last.stack = number_before(line, " bytes stack frame");
                last.spills =
                    number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
            } else if line.contains("Used ") && line.contains(" registers") {
                last.registers = number_before(line, " registers");
                last.shared = number_before(line, " bytes smem");
            }
        }
        all
    }
}

impl Code {
    /// Returns the assembler's advisories of slow code, (C7500) to (C7599): products of a warp group that are serialized, a
    /// `setmaxnreg` that is ignored.
    pub fn advisories(&self) -> Vec<String> {
        let is_advisory = |line: &&str| line.contains("(C75");
        self.log.lines().filter(is_advisory).map(|line| line.trim().to_owned()).collect()
    }
}

/// Returns the number in front of `unit`, or 0.
fn number_before(line: &str, unit: &str) -> usize {
    let number = line.find(unit).and_then(|end| line[..end].rsplit([' ', ',']).next()?.parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembler_s_report_is_read() {
        let log = "ptxas info    : 4 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 28 registers, used 1 barriers, 2304 bytes smem, 392 bytes cmem[0], 8 bytes cmem[2]
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 11 registers, used 0 barriers, 384 bytes cmem[0]";
        let code = Code { ptx: String::new(), cubin: Vec::new(), log: log.into() };
        let one =
            KernelResources { kernel: "one".into(), registers: 28, shared: 2304, stack: 16, spills: 12 };
        let two = KernelResources { kernel: "two".into(), registers: 11, ..KernelResources::default() };
        assert_eq!(code.resources(), [one, two]);
        assert!(code.advisories().is_empty());
    }

    #[test]
    fn advisories_of_slow_code_are_found() {
        let log = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
                   insufficient register resources for the wgmma pipeline in the function 'one'
ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum register requirements.
ptxas info    : Compiling entry function 'one' for 'sm_90a'
ptxas info    : Used 28 registers, used 1 barriers, 7504 bytes smem";
        let advisories = Code { ptx: String::new(), cubin: Vec::new(), log: log.into() }.advisories();
        assert_eq!(advisories.len(), 2);
        assert!(advisories[0].contains("serialized") && advisories[1].contains("ignored"), "{advisories:?}");
    }
}
