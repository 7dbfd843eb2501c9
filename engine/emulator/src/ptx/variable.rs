//! Declarations of variables and their initializers.

use super::lexer::Token;
use super::parser::{Parser, space};
use super::{Initializer, Operand, Variable};
use crate::error::{Error, Result};

impl<'a> Parser<'a> {
    /// Parses `.space .align n .type name[count] = init`, up to the `;`, `,` or `)` that ends it.
    pub(super) fn variable(&mut self, external: bool) -> Result<Variable<'a>> {
        let line = self.line();
        let first = self.identifier()?;
        let state_space =
            space(first).ok_or_else(|| Error::ptx(line, format!("unknown state space '{first}'")))?;
        let mut align = None;
        let mut ty = None;
        let mut vector = 1;
        // `.ptr .global .align 16` after the type describes the pointee.
        let mut pointee = false;
        while let Some(Token::Identifier(word)) = self.peek()
            && word.starts_with('.')
        {
            self.next()?;
            match word {
                ".align" => {
                    let n = self.unsigned()?;
                    align = if pointee { align } else { Some(n) };
                }
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".ptr" => pointee = true,
                ".global" | ".shared" | ".const" | ".local" if pointee => {}
                ".attribute" => self.attribute()?,
                _ => ty = Some(&word[1..]),
            }
        }
        let ty = ty.ok_or_else(|| self.unexpected("a type"))?;
        let size = type_size(ty).ok_or_else(|| Error::ptx(line, format!("unknown type '.{ty}'")))?;
        let name = self.identifier()?;
        let (array, mut count) = self.extents()?;
        let init = match self.eat(b'=') {
            true => self.initializer(0)?,
            false => Vec::new(),
        };
        if array && count == 0 {
            count = init.len() as u64;
        }
        let count = count.saturating_mul(vector);
        if count.saturating_mul(size as u64) > 1 << 40 {
            return Err(Error::ptx(line, format!("'{name}' is too large")));
        }
        let align = align.unwrap_or(size * vector as u32);
        if !align.is_power_of_two() || align > 1 << 20 {
            return Err(Error::ptx(line, format!("'{name}' has alignment {align}")));
        }
        Ok(Variable { name, line, space: state_space, external, align, ty, count, array, init })
    }

    fn attribute(&mut self) -> Result<()> {
        self.expect(b'(')?;
        while !self.eat(b')') {
            self.next()?;
        }
        Ok(())
    }

    /// Parses `[a][b]`. Returns true if there are any, and the number of elements; 0 for `[]`.
    fn extents(&mut self) -> Result<(bool, u64)> {
        let mut count = 1u64;
        let mut array = false;
        while self.eat(b'[') {
            array = true;
            if self.eat(b']') {
                count = 0;
            } else {
                count = count.saturating_mul(self.unsigned()? as u64);
                self.expect(b']')?;
            }
        }
        Ok((array, count))
    }

    fn initializer(&mut self, depth: u32) -> Result<Vec<Initializer<'a>>> {
        if depth > 8 {
            return Err(self.unexpected("a flatter initializer"));
        }
        if self.eat(b'{') {
            let mut all = Vec::new();
            if self.eat(b'}') {
                return Ok(all);
            }
            loop {
                all.extend(self.initializer(depth + 1)?);
                if !self.eat(b',') {
                    break;
                }
            }
            self.expect(b'}')?;
            return Ok(all);
        }
        let Some(Token::Identifier(word)) = self.peek() else {
            return Ok(vec![match self.literal()? {
                Operand::Float(bits, _) => Initializer::Value(bits),
                Operand::Int(v) => Initializer::Value(v as u64),
                _ => return Err(self.unexpected("a number")),
            }]);
        };
        self.next()?;
        let generic = word == "generic" && self.eat(b'(');
        let name = if generic { self.identifier()? } else { word };
        if generic {
            self.expect(b')')?;
        }
        let offset = if self.eat(b'+') { self.integer()? } else { 0 };
        Ok(vec![Initializer::Address(name, offset)])
    }
}

/// Returns the size in bytes of a fundamental type, named without its dot.
pub fn type_size(ty: &str) -> Option<u32> {
    Some(match ty {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" | "tf32" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        _ => return None,
    })
}
