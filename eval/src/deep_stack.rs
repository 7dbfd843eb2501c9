//! A stack that the TypeScript parser cannot exhaust.
//!
//! oxc's parser and the walks over its trees recurse, and a model writes what they read: one answer of open parentheses
//! would end the process. Every level of nesting takes a byte of text at least, so a stack in proportion to the text
//! suffices for any text. Its pages cost nothing until they are used.

/// Bytes of the longest text; longer ones are not examined. The parser goes back and forth over `a<a<a<…`, so time grows
/// with the square of the text.
pub const MAX_TEXT: usize = 16 << 10;
/// Bytes of stack for a byte of text: several times what the deepest form takes (the test lists them).
const STACK_PER_BYTE: usize = 8 << 10;
/// Bytes of stack for any text.
const STACK: usize = 4 << 20;

/// Runs work that recurses over a parsed `text` in a thread with a stack for it; `None` if the text is too long, or there
/// is no memory for such a stack.
pub fn with_stack_for<T: Send>(text: &str, work: impl FnOnce() -> T + Send) -> Option<T> {
    if text.len() > MAX_TEXT {
        return None;
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK + STACK_PER_BYTE * text.len());
        builder.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
