//! The PTX text as a syntax tree: names are kept as written, nothing is resolved yet.

mod lexer;
mod parser;
mod variable;

pub use parser::{parse, space};
pub use variable::type_size;

/// A module as parsed.
#[derive(Debug, Default)]
pub struct ParsedModule<'a> {
    /// Number and path of each `.file` directive.
    pub files: Vec<(u32, &'a str)>,
    pub variables: Vec<Variable<'a>>,
    pub functions: Vec<Function<'a>>,
}

/// An `.entry` or `.func` with its body.
#[derive(Debug)]
pub struct Function<'a> {
    pub name: &'a str,
    pub line: u32,
    pub entry: bool,
    pub params: Vec<Variable<'a>>,
    pub returns: Vec<Variable<'a>>,
    /// `.maxntid` or `.reqntid`, multiplied out.
    pub max_threads: Option<u32>,
    pub min_blocks: Option<u32>,
    pub body: Vec<Statement<'a>>,
}

/// A state space named in a declaration, an instruction, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateSpace {
    Generic,
    Global,
    Shared,
    Local,
    Const,
    Param,
}

/// A declared variable.
#[derive(Clone, Debug)]
pub struct Variable<'a> {
    pub name: &'a str,
    pub line: u32,
    pub space: StateSpace,
    pub external: bool,
    pub align: u32,
    /// Element type without the dot: `u32`, `b8`.
    pub ty: &'a str,
    /// Number of elements; 0 for an array of unstated length.
    pub count: u64,
    /// True for `name[...]`.
    pub array: bool,
    pub init: Vec<Initializer<'a>>,
}

/// One element of an initializer.
#[derive(Clone, Debug)]
pub enum Initializer<'a> {
    Value(u64),
    /// The address of a variable plus an offset. Device addresses are generic ones too.
    Address(&'a str, i64),
}

/// A statement of a function body, with its line.
#[derive(Debug)]
pub struct Statement<'a> {
    pub line: u32,
    pub kind: StatementKind<'a>,
}

#[derive(Debug)]
pub enum StatementKind<'a> {
    Open,
    Close,
    Label(&'a str),
    /// `.reg .b32 %r<9>` declares %r0 to %r8; without a count one register of that name.
    Registers {
        ty: &'a str,
        name: &'a str,
        count: Option<u32>,
    },
    Variable(Variable<'a>),
    /// `.loc file line`.
    Location {
        file: u32,
        line: u32,
    },
    /// `name: .branchtargets a, b;`
    BranchTargets {
        name: &'a str,
        labels: Vec<&'a str>,
    },
    Instruction(Instruction<'a>),
}

/// An instruction as written.
#[derive(Debug)]
pub struct Instruction<'a> {
    /// The guard predicate, and true if it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// The dotted parts of the opcode: `ld`, `global`, `u32`.
    pub opcode: Vec<&'a str>,
    pub operands: Vec<Operand<'a>>,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, special register, variable, function or label.
    Name(&'a str),
    /// `!name`.
    Not(&'a str),
    /// `a|b`, two destinations.
    Pair(&'a str, &'a str),
    Int(i64),
    /// The bits of a float literal, and true for a double.
    Float(u64, bool),
    /// `{a, b, ...}`.
    Vector(Vec<Operand<'a>>),
    /// `[base + offset]`; a base that is absent is an absolute address.
    Address(Option<&'a str>, i64),
    /// `base + offset` outside brackets.
    Offset(&'a str, i64),
    /// `(a, b)` of a call.
    List(Vec<Operand<'a>>),
}
