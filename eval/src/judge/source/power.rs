//! Powers, rewritten for QuickJS, whose `**` has other last digits than V8's: `a ** b` becomes `POWER(a, b)`, which is
//! `Math.pow` for numbers.

use super::edits::Edits;
use oxc_ast::ast::{
    AssignmentExpression, AssignmentOperator, AssignmentTarget, BinaryExpression, BinaryOperator, Expression,
    Program,
};
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};

/// The name of the function that computes a power, a parameter of the program's wrapper. `POWER.of(object, key)` reads what
/// `POWER.assign(it, exponent)` raises.
pub const POWER: &str = "__codelsi_power";

/// Adds the rewriting of every power in a program. An assignment to a target in parentheses, or to a private property of a
/// computed object, stays as it is.
pub fn rewrite(program: &Program<'_>, source: &str, edits: &mut Edits) {
    Powers { source, edits }.visit_program(program);
}

struct Powers<'s> {
    source: &'s str,
    edits: &'s mut Edits,
}

impl<'a> Visit<'a> for Powers<'_> {
    fn visit_binary_expression(&mut self, binary: &BinaryExpression<'a>) {
        if binary.operator == BinaryOperator::Exponential {
            self.edits.insert(binary.span.start, format!("{POWER}("));
            self.edits.replace(binary.left.span().end, binary.right.span().start, ", ");
            self.edits.insert(binary.span.end, ")");
        }
        walk::walk_binary_expression(self, binary);
    }

    fn visit_assignment_expression(&mut self, assignment: &AssignmentExpression<'a>) {
        let in_parentheses = assignment.left.span().start != assignment.span.start;
        if assignment.operator == AssignmentOperator::Exponential && !in_parentheses {
            self.rewrite_assignment(assignment);
        }
        walk::walk_assignment_expression(self, assignment);
    }
}

impl Powers<'_> {
    fn rewrite_assignment(&mut self, assignment: &AssignmentExpression<'_>) {
        let (left, right) = (assignment.left.span(), assignment.right.span().start);
        let mut of_object = |object: Span, key: Result<Span, &str>| {
            self.edits.insert(left.start, format!("{POWER}.assign({POWER}.of("));
            match key {
                Ok(key) => {
                    self.edits.replace(object.end, key.start, ", ");
                    self.edits.replace(key.end, right, "), ");
                }
                Err(name) => self.edits.replace(object.end, right, format!(", {name:?}), ")),
            }
        };
        match &assignment.left {
            target if can_be_read_twice(target) => {
                let target = &self.source[left.start as usize..left.end as usize];
                self.edits.replace(left.end, right, format!(" = {POWER}({target}, "));
            }
            AssignmentTarget::StaticMemberExpression(member) => {
                of_object(member.object.span(), Err(member.property.name.as_str()))
            }
            AssignmentTarget::ComputedMemberExpression(member) => {
                of_object(member.object.span(), Ok(member.expression.span()))
            }
            _ => return,
        }
        self.edits.insert(assignment.span.end, ")");
    }
}

/// Returns true if the parts of a target have no effect when they are evaluated, so that its text can stand twice.
fn can_be_read_twice(target: &AssignmentTarget<'_>) -> bool {
    let plain = |object: &Expression<'_>| {
        matches!(object, Expression::Identifier(_) | Expression::ThisExpression(_) | Expression::Super(_))
    };
    match target {
        AssignmentTarget::AssignmentTargetIdentifier(_) => true,
        AssignmentTarget::StaticMemberExpression(member) => plain(&member.object),
        AssignmentTarget::PrivateFieldExpression(member) => plain(&member.object),
        AssignmentTarget::ComputedMemberExpression(member) => {
            plain(&member.object) && (plain(&member.expression) || member.expression.is_literal())
        }
        _ => false,
    }
}
