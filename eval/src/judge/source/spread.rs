//! Calls of methods with spread arguments, rewritten for QuickJS, which takes 65,535 arguments at most: `a.f(x, ...y)`
//! becomes `SPREAD(a, "f", [x, ...y])`, and the emulation of Node calls the method in parts where that is possible.

use super::edits::Edits;
use oxc_ast::ast::{Argument, CallExpression, Expression, Program};
use oxc_ast_visit::{Visit, walk};
use oxc_span::GetSpan;

/// The name of the function that makes such a call, a parameter of the program's wrapper.
pub const SPREAD: &str = "__codelsi_spread";

/// Adds the rewriting of every such call. Optional chains, private methods and `super` stay as they are.
pub fn rewrite(program: &Program<'_>, edits: &mut Edits) {
    Calls { edits }.visit_program(program);
}

struct Calls<'e> {
    edits: &'e mut Edits,
}

impl<'a> Visit<'a> for Calls<'_> {
    fn visit_call_expression(&mut self, call: &CallExpression<'a>) {
        if !call.optional && call.arguments.iter().any(Argument::is_spread) && !call.arguments.is_empty() {
            self.rewrite_call(call);
        }
        walk::walk_call_expression(self, call);
    }
}

impl Calls<'_> {
    fn rewrite_call(&mut self, call: &CallExpression<'_>) {
        let first = call.arguments[0].span().start;
        let object = match &call.callee {
            Expression::StaticMemberExpression(member) if !member.optional => {
                let key = format!(", {:?}, [", member.property.name.as_str());
                self.receiver(&member.object)
                    .then(|| self.edits.replace(member.object.span().end, first, key));
                &member.object
            }
            Expression::ComputedMemberExpression(member) if !member.optional => {
                if self.receiver(&member.object) {
                    let key = member.expression.span();
                    self.edits.replace(member.object.span().end, key.start, ", ");
                    self.edits.replace(key.end, first, ", [");
                }
                &member.object
            }
            _ => return,
        };
        if self.receiver(object) {
            self.edits.insert(call.span.start, format!("{SPREAD}("));
            self.edits.insert(call.span.end - 1, "]");
        }
    }

    /// Returns true if the object of a method's call can stand as an argument.
    fn receiver(&self, object: &Expression<'_>) -> bool {
        !matches!(object, Expression::Super(_)) && !in_optional_chain(object)
    }
}

/// Returns true if a part of the chain of members and calls that `object` ends is optional (`a?.b`).
fn in_optional_chain(mut object: &Expression<'_>) -> bool {
    loop {
        let (optional, inner) = match object {
            Expression::StaticMemberExpression(member) => (member.optional, &member.object),
            Expression::ComputedMemberExpression(member) => (member.optional, &member.object),
            Expression::CallExpression(call) => (call.optional, &call.callee),
            Expression::TSNonNullExpression(inner) => (false, &inner.expression),
            _ => return false,
        };
        if optional {
            return true;
        }
        object = inner;
    }
}
