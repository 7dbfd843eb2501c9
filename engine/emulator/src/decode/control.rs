//! Branches, calls, fences, and what has no effect here.

use super::builder::{Arg, Builder};
use super::modifiers::{Modifiers, unknown};
use super::names::Name;
use crate::error::Result;
use crate::inst::{Class, Op};
use crate::ptx::{Instruction, Operand};

impl<'a> Builder<'a> {
    /// Lowers control flow; false when the opcode is unknown.
    pub(super) fn control(&mut self, root: &str, i: &'a Instruction<'a>) -> Result<bool> {
        let mut m = Modifiers::of(i);
        match root {
            "bra" => {
                m.take("uni");
                m.finish(i)?;
                let [target] = self.operands(i)?;
                let label = self.target(target)?;
                self.emit(Op::Branch, &[], &[], label as i64)?;
            }
            "brx" => {
                m.take("uni");
                if !m.take("idx") {
                    return Err(unknown(i));
                }
                m.finish(i)?;
                let [index, table] = self.operands(i)?;
                let index = self.arg(index, Class::Word)?;
                let Operand::Name(table) = *table else { return Err(unknown(i)) };
                let Some(Name::Table(table)) = self.find(table) else {
                    return Err(self.error(format!("unknown target list '{table}'")));
                };
                self.emit(Op::BranchIndexed, &[], &[index], table as i64)?;
            }
            "call" => {
                m.take("uni");
                m.finish(i)?;
                self.call(i)?;
            }
            "ret" => {
                m.take("uni");
                m.finish(i)?;
                match self.return_label {
                    Some(label) => self.emit(Op::Branch, &[], &[], label as i64)?,
                    None => self.emit(Op::Exit, &[], &[], 0)?,
                }
            }
            "exit" => {
                m.finish(i)?;
                self.emit(Op::Exit, &[], &[], 0)?;
            }
            "trap" => {
                m.finish(i)?;
                self.emit(Op::Trap, &[], &[], 0)?;
            }
            "membar" | "fence" => {
                let words = ["cta", "cluster", "gl", "gpu", "sys", "sc", "acq_rel"];
                words.iter().for_each(|w| _ = m.take(w));
                m.finish(i)?;
                self.emit(Op::Fence, &[], &[], 0)?;
            }
            // Hints and delays: nothing to do, but they count as instructions.
            "nanosleep" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "brkpt" | "pmevent" => {
                self.emit(Op::Nop, &[], &[], 0)?;
            }
            "createpolicy" => {
                let d = self.destination(i.operands.first().ok_or_else(|| unknown(i))?, Class::Double)?;
                self.emit(Op::Mov64, &[d], &[Arg::Double(0)], 0)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn target(&mut self, o: &Operand<'a>) -> Result<u32> {
        let Operand::Name(name) = *o else { return Err(self.error("a branch needs a label")) };
        match self.find(name) {
            Some(Name::Label(label)) => Ok(label),
            _ => Err(self.error(format!("unknown label '{name}'"))),
        }
    }

    /// `call (results), function, (arguments)`; both lists are optional.
    fn call(&mut self, i: &'a Instruction<'a>) -> Result<()> {
        let (returns, name, args): (&[Operand<'a>], _, &[Operand<'a>]) = match i.operands.as_slice() {
            [Operand::List(r), Operand::Name(f), Operand::List(a)] => (r, *f, a),
            [Operand::Name(f), Operand::List(a)] => (&[], *f, a),
            [Operand::List(r), Operand::Name(f)] => (r, *f, &[]),
            [Operand::Name(f)] => (&[], *f, &[]),
            _ => return Err(self.error("only direct calls are known")),
        };
        // A failed device-side assertion ends the kernel.
        if name == "__assertfail" {
            return self.emit(Op::Trap, &[], &[], 0);
        }
        let returns = self.parameters(returns)?;
        let args = self.parameters(args)?;
        self.expand(name, &returns, &args)
    }

    fn parameters(&mut self, list: &[Operand<'a>]) -> Result<Vec<Name>> {
        list.iter()
            .map(|o| {
                let found = match o {
                    Operand::Name(name) => self.find(name),
                    _ => None,
                };
                match found {
                    Some(name @ (Name::Register(_) | Name::Local(_))) => Ok(name),
                    _ => Err(self.error(format!("{o:?} is no parameter of a call"))),
                }
            })
            .collect()
    }
}
