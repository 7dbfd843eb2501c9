//! The parser: tokens to a syntax tree.

use super::lexer::{self, LocatedToken, Token};
use super::{Function, Instruction, Operand, ParsedModule, StateSpace, Statement, StatementKind};
use crate::error::{Error, Result};

/// Parses a module.
pub fn parse(text: &str) -> Result<ParsedModule<'_>> {
    let mut parser = Parser { tokens: lexer::tokenize(text)?, at: 0 };
    let mut parsed = ParsedModule::default();
    while parser.peek().is_some() {
        parser.top_level(&mut parsed)?;
    }
    Ok(parsed)
}

pub(super) struct Parser<'a> {
    tokens: Vec<LocatedToken<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|s| s.token)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |s| s.line)
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>> {
        let token = self.peek().ok_or_else(|| Error::ptx(self.line(), "the text ends too early"))?;
        self.at += 1;
        Ok(token)
    }

    pub(super) fn eat(&mut self, mark: u8) -> bool {
        let found = self.peek() == Some(Token::Punctuation(mark));
        self.at += found as usize;
        found
    }

    pub(super) fn expect(&mut self, mark: u8) -> Result<()> {
        match self.eat(mark) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("'{}'", mark as char))),
        }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.peek() {
            Some(Token::Identifier(w) | Token::Number(w)) => format!("'{w}'"),
            Some(Token::String(t)) => format!("\"{t}\""),
            Some(Token::Punctuation(m)) => format!("'{}'", m as char),
            None => "the end".into(),
        };
        Error::ptx(self.line(), format!("expected {wanted}, found {found}"))
    }

    pub(super) fn identifier(&mut self) -> Result<&'a str> {
        match self.peek() {
            Some(Token::Identifier(w)) => {
                self.at += 1;
                Ok(w)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn integer(&mut self) -> Result<i64> {
        let negative = self.eat(b'-');
        match self.peek() {
            Some(Token::Number(w)) => {
                let value = lexer::integer(w).ok_or_else(|| self.unexpected("an integer"))? as i64;
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => Err(self.unexpected("an integer")),
        }
    }

    pub(super) fn unsigned(&mut self) -> Result<u32> {
        let line = self.line();
        self.integer()?.try_into().map_err(|_| Error::ptx(line, "a number out of range"))
    }

    /// Parses a numeric literal with its sign.
    pub(super) fn literal(&mut self) -> Result<Operand<'a>> {
        let negative = self.eat(b'-');
        let Some(Token::Number(word)) = self.peek() else { return Err(self.unexpected("a number")) };
        let value = match (lexer::float(word), lexer::integer(word)) {
            (Some((bits, double)), _) => {
                let sign = if double { 1 << 63 } else { 1 << 31 };
                Operand::Float(if negative { bits ^ sign } else { bits }, double)
            }
            (None, Some(v)) => Operand::Int(if negative { (v as i64).wrapping_neg() } else { v as i64 }),
            (None, None) => return Err(self.unexpected("a number")),
        };
        self.at += 1;
        Ok(value)
    }

    fn top_level(&mut self, parsed: &mut ParsedModule<'a>) -> Result<()> {
        match self.identifier()? {
            ".version" | ".target" | ".address_size" => {
                self.next()?;
                while self.eat(b',') {
                    self.next()?;
                }
            }
            ".file" => {
                let number = self.unsigned()?;
                let Token::String(path) = self.next()? else { return Err(self.unexpected("a path")) };
                while self.eat(b',') {
                    self.integer()?;
                }
                parsed.files.push((number, path));
            }
            ".section" => self.section()?,
            ".visible" | ".weak" | ".common" => {}
            ".extern" => match self.peek() {
                Some(Token::Identifier(".func")) => {
                    self.at += 1;
                    self.function(false)?;
                }
                _ => parsed.variables.push(self.module_variable(true)?),
            },
            ".entry" => parsed.functions.extend(self.function(true)?),
            ".func" => parsed.functions.extend(self.function(false)?),
            ".global" | ".const" | ".shared" => {
                self.at -= 1;
                parsed.variables.push(self.module_variable(false)?);
            }
            ".pragma" => {
                self.next()?;
                self.expect(b';')?;
            }
            other => {
                self.at -= 1;
                return Err(Error::ptx(self.line(), format!("unknown directive '{other}'")));
            }
        }
        Ok(())
    }

    fn module_variable(&mut self, external: bool) -> Result<super::Variable<'a>> {
        let variable = self.variable(external)?;
        self.expect(b';')?;
        Ok(variable)
    }

    /// Skips a debug section.
    fn section(&mut self) -> Result<()> {
        self.identifier()?;
        self.expect(b'{')?;
        while !self.eat(b'}') {
            self.next()?;
        }
        Ok(())
    }

    /// Parses a function after `.entry` or `.func`; `None` for a declaration without a body.
    fn function(&mut self, entry: bool) -> Result<Option<Function<'a>>> {
        let line = self.line();
        let returns = if self.peek() == Some(Token::Punctuation(b'(')) { self.params()? } else { Vec::new() };
        let name = self.identifier()?;
        let params = if self.peek() == Some(Token::Punctuation(b'(')) { self.params()? } else { Vec::new() };
        let mut f = Function {
            name,
            line,
            entry,
            params,
            returns,
            max_threads: None,
            min_blocks: None,
            body: vec![],
        };
        while let Some(Token::Identifier(directive)) = self.peek() {
            self.at += 1;
            match directive {
                ".maxntid" | ".reqntid" => {
                    let mut total = self.unsigned()?;
                    while self.eat(b',') {
                        total = total.saturating_mul(self.unsigned()?);
                    }
                    f.max_threads = Some(total);
                }
                ".minnctapersm" => f.min_blocks = Some(self.unsigned()?),
                ".maxnreg" | ".maxclusterrank" | ".blocksareclusters" | ".explicitcluster" => {
                    if matches!(self.peek(), Some(Token::Number(_))) {
                        self.integer()?;
                    }
                }
                ".noreturn" => {}
                ".pragma" => {
                    self.next()?;
                    self.expect(b';')?;
                }
                _ => return Err(Error::ptx(self.line(), format!("unknown directive '{directive}'"))),
            }
        }
        if self.eat(b';') {
            return Ok(None);
        }
        self.expect(b'{')?;
        f.body = self.body()?;
        Ok(Some(f))
    }

    fn params(&mut self) -> Result<Vec<super::Variable<'a>>> {
        self.expect(b'(')?;
        let mut params = Vec::new();
        if self.eat(b')') {
            return Ok(params);
        }
        loop {
            params.push(self.variable(false)?);
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(b')')?;
        Ok(params)
    }

    /// Parses statements up to the brace that closes the function.
    fn body(&mut self) -> Result<Vec<Statement<'a>>> {
        let mut body = Vec::new();
        let mut depth = 0usize;
        loop {
            let line = self.line();
            let kind = if self.eat(b'{') {
                depth += 1;
                StatementKind::Open
            } else if self.eat(b'}') {
                if depth == 0 {
                    return Ok(body);
                }
                depth -= 1;
                StatementKind::Close
            } else if self.eat(b';') {
                continue;
            } else if self.peek() == Some(Token::Punctuation(b'@')) {
                StatementKind::Instruction(self.instruction()?)
            } else {
                match self.statement(&mut body)? {
                    Some(kind) => kind,
                    None => continue,
                }
            };
            body.push(Statement { line, kind });
        }
    }

    /// Parses a statement that starts with an identifier; one that declares several names pushes all but the last.
    fn statement(&mut self, body: &mut Vec<Statement<'a>>) -> Result<Option<StatementKind<'a>>> {
        let line = self.line();
        let first = self.identifier()?;
        Ok(Some(match first {
            ".reg" => {
                let ty = self.identifier()?;
                loop {
                    let name = self.identifier()?;
                    let count = match self.eat(b'<') {
                        true => Some(self.unsigned()?),
                        false => None,
                    };
                    if count.is_some() {
                        self.expect(b'>')?;
                    }
                    let kind = StatementKind::Registers { ty, name, count };
                    if self.eat(b';') {
                        break kind;
                    }
                    self.expect(b',')?;
                    body.push(Statement { line, kind });
                }
            }
            ".loc" => {
                let (file, at) = (self.unsigned()?, self.unsigned()?);
                self.integer()?;
                while self.eat(b',') {
                    self.identifier()?;
                    while matches!(self.peek(), Some(Token::Number(_) | Token::Punctuation(b'+'))) {
                        self.at += 1;
                    }
                    if let Some(Token::Identifier(w)) = self.peek()
                        && self.tokens[self.at].line == line
                        && !w.starts_with('.')
                    {
                        self.at += 1;
                        while self.eat(b'+') {
                            self.integer()?;
                        }
                    }
                }
                StatementKind::Location { file, line: at }
            }
            ".pragma" => {
                self.next()?;
                self.expect(b';')?;
                return Ok(None);
            }
            ".shared" | ".local" | ".param" | ".global" | ".const" => {
                self.at -= 1;
                StatementKind::Variable(self.module_variable(false)?)
            }
            name if self.eat(b':') => match self.peek() {
                Some(Token::Identifier(".branchtargets")) => {
                    self.at += 1;
                    let mut labels = vec![self.identifier()?];
                    while self.eat(b',') {
                        labels.push(self.identifier()?);
                    }
                    self.expect(b';')?;
                    StatementKind::BranchTargets { name, labels }
                }
                _ => StatementKind::Label(name),
            },
            directive if directive.starts_with('.') => {
                return Err(Error::ptx(line, format!("unknown directive '{directive}'")));
            }
            _ => {
                self.at -= 1;
                StatementKind::Instruction(self.instruction()?)
            }
        }))
    }

    fn instruction(&mut self) -> Result<Instruction<'a>> {
        let guard = match self.eat(b'@') {
            true => {
                let negated = self.eat(b'!');
                Some((self.identifier()?, negated))
            }
            false => None,
        };
        let opcode: Vec<_> = self.identifier()?.split('.').collect();
        let mut operands = Vec::new();
        while !self.eat(b';') {
            operands.push(self.operand(0)?);
            if !self.eat(b',') {
                self.expect(b';')?;
                break;
            }
        }
        Ok(Instruction { guard, opcode, operands })
    }

    fn operand(&mut self, depth: u32) -> Result<Operand<'a>> {
        if depth > 4 {
            return Err(self.unexpected("fewer nested operands"));
        }
        match self.peek() {
            Some(Token::Punctuation(b'{')) => Ok(Operand::Vector(self.list(b'{', b'}', depth)?)),
            Some(Token::Punctuation(b'(')) => Ok(Operand::List(self.list(b'(', b')', depth)?)),
            Some(Token::Punctuation(b'[')) => self.address(),
            Some(Token::Punctuation(b'!')) => {
                self.at += 1;
                Ok(Operand::Not(self.identifier()?))
            }
            Some(Token::Identifier(name)) => {
                self.at += 1;
                if self.eat(b'|') {
                    return Ok(Operand::Pair(name, self.identifier()?));
                }
                match self.eat(b'+') {
                    true => Ok(Operand::Offset(name, self.integer()?)),
                    false => Ok(Operand::Name(name)),
                }
            }
            _ => self.literal(),
        }
    }

    fn list(&mut self, open: u8, close: u8, depth: u32) -> Result<Vec<Operand<'a>>> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(self.operand(depth + 1)?);
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(close)?;
        Ok(items)
    }

    fn address(&mut self) -> Result<Operand<'a>> {
        self.expect(b'[')?;
        let operand = match self.peek() {
            Some(Token::Identifier(base)) => {
                self.at += 1;
                let offset = match (self.eat(b'+'), self.peek()) {
                    (true, _) | (false, Some(Token::Punctuation(b'-'))) => self.integer()?,
                    _ => 0,
                };
                Operand::Address(Some(base), offset)
            }
            _ => Operand::Address(None, self.integer()?),
        };
        self.expect(b']')?;
        Ok(operand)
    }
}

/// Returns the state space that a directive or modifier names.
pub fn space(word: &str) -> Option<StateSpace> {
    Some(match word.trim_start_matches('.') {
        "global" => StateSpace::Global,
        "shared" | "shared::cta" => StateSpace::Shared,
        "local" => StateSpace::Local,
        "const" => StateSpace::Const,
        "param" | "param::entry" | "param::func" => StateSpace::Param,
        _ => return None,
    })
}
