//! Branches, calls, fences, and instructions that have no effect here.

use super::builder::{Builder, VirtualOperand};
use super::modifiers::{Modifiers, unsupported};
use super::scopes::Binding;
use crate::error::Result;
use crate::inst::Opcode;
use crate::inst::RegisterClass::{B32, B64};
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers control flow. Returns false for unknown opcodes.
    pub(super) fn control(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        let mut m = Modifiers::of(i);
        match root {
            "bra" => {
                m.take("uni");
                m.expect_none_left(i)?;
                let [target] = self.operands(i)?;
                let label = self.target(target)?;
                self.emit(Opcode::Branch, &[], &[], label as i64)?;
            }
            "brx" => {
                m.take("uni");
                if !m.take("idx") {
                    return Err(unsupported(i));
                }
                m.expect_none_left(i)?;
                let [index, table] = self.operands(i)?;
                let index = self.source(index, B32)?;
                let Operand::Name(table) = *table else { return Err(unsupported(i)) };
                let Some(Binding::Table(table)) = self.find(table) else {
                    return Err(self.error(format!("unknown target list '{table}'")));
                };
                self.emit(Opcode::BranchIndexed, &[], &[index], table as i64)?;
            }
            "call" => {
                m.take("uni");
                m.expect_none_left(i)?;
                self.call(i)?;
            }
            "ret" => {
                m.take("uni");
                m.expect_none_left(i)?;
                match self.return_label {
                    Some(label) => self.emit(Opcode::Branch, &[], &[], label as i64)?,
                    None => self.emit(Opcode::Exit, &[], &[], 0)?,
                }
            }
            "exit" => {
                m.expect_none_left(i)?;
                self.emit(Opcode::Exit, &[], &[], 0)?;
            }
            "trap" => {
                m.expect_none_left(i)?;
                self.emit(Opcode::Trap, &[], &[], 0)?;
            }
            "membar" | "fence" => {
                let words = ["cta", "cluster", "gl", "gpu", "sys", "sc", "acq_rel"];
                words.iter().for_each(|w| _ = m.take(w));
                m.expect_none_left(i)?;
                self.emit(Opcode::Fence, &[], &[], 0)?;
            }
            // Hints and delays: nothing to do, but they count as instructions.
            "nanosleep" => self.emit(Opcode::Sleep, &[], &[], 0)?,
            "prefetch" | "prefetchu" | "discard" | "applypriority" | "brkpt" | "pmevent" => {
                self.emit(Opcode::Nop, &[], &[], 0)?;
            }
            "createpolicy" => {
                let d = self.destination(i.operands.first().ok_or_else(|| unsupported(i))?, B64)?;
                self.emit(Opcode::Mov64, &[d], &[VirtualOperand::B64(0)], 0)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn target(&mut self, o: &Operand<'a>) -> Result<u32> {
        let Operand::Name(name) = *o else { return Err(self.error("a branch needs a label")) };
        match self.find(name) {
            Some(Binding::Label(label)) => Ok(label),
            _ => Err(self.error(format!("unknown label '{name}'"))),
        }
    }

    /// Lowers `call (results), function, (arguments)`; both lists are optional.
    fn call(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let (returns, name, args): (&[Operand<'a>], _, &[Operand<'a>]) = match i.operands.as_slice() {
            [Operand::List(r), Operand::Name(f), Operand::List(a)] => (r, *f, a),
            [Operand::Name(f), Operand::List(a)] => (&[], *f, a),
            [Operand::List(r), Operand::Name(f)] => (r, *f, &[]),
            [Operand::Name(f)] => (&[], *f, &[]),
            _ => return Err(self.error("unsupported call: only direct calls are supported")),
        };
        // A failed device-side assertion ends the kernel.
        if name == "__assertfail" {
            return self.emit(Opcode::Trap, &[], &[], 0);
        }
        let returns = self.parameters(returns)?;
        let args = self.parameters(args)?;
        self.inline_call(name, &returns, &args)
    }

    fn parameters(&mut self, list: &[Operand<'a>]) -> Result<Vec<Binding>> {
        list.iter()
            .map(|o| {
                let found = match o {
                    Operand::Name(name) => self.find(name),
                    _ => None,
                };
                match found {
                    Some(name @ (Binding::Register(_) | Binding::Local(_))) => Ok(name),
                    _ => Err(self.error(format!("{o:?} is not a declared .param of the call"))),
                }
            })
            .collect()
    }
}
