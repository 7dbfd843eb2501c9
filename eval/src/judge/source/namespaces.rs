//! Namespaces that the transformer alone does not compile as TypeScript does: `export let`, whose variable lives in the
//! namespace's object, and what one block of a namespace exports and another uses by its name.

use super::edits::Edits;
use oxc_ast::ast::{
    AssignmentTargetPropertyIdentifier, BindingIdentifier, BindingPattern, BindingProperty, Declaration,
    ExportDeclaration, IdentifierReference, ObjectProperty, Program, Statement, TSModuleBlock,
    TSNamespaceDeclaration, TSNamespaceDeclarationBody, VariableDeclaration,
};
use oxc_ast_visit::{Visit, walk};
use oxc_semantic::{Scoping, SymbolId};
use oxc_span::GetSpan;
use oxc_syntax::scope::ScopeId;
use std::collections::{HashMap, HashSet};

/// Adds the rewriting of these variables: their declarations become assignments to the namespace's object, and every use
/// names it.
pub fn rewrite(program: &Program<'_>, scoping: &Scoping, edits: &mut Edits) {
    let mut found = Blocks::default();
    found.visit_program(program);
    if found.blocks.is_empty() {
        return;
    }
    Uses { scoping, found: &found, edits, shorthand: false }.visit_program(program);
}

/// A block of a namespace.
struct Block {
    namespace: Option<SymbolId>,
    name: String,
    exports: HashSet<String>,
}

#[derive(Default)]
struct Blocks {
    blocks: HashMap<ScopeId, Block>,
    /// The variables that are exported, with the names of their namespaces.
    variables: HashMap<SymbolId, String>,
    /// The namespaces around the place of the walk.
    names: Vec<String>,
}

impl<'a> Visit<'a> for Blocks {
    fn visit_ts_namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>) {
        if let (TSNamespaceDeclarationBody::TSModuleBlock(body), Some(scope), false) =
            (&it.body, it.scope_id.get(), it.declare)
        {
            let (name, namespace) = (it.id.name.to_string(), it.id.symbol_id.get());
            self.blocks.insert(scope, Block { namespace, name, exports: exports(body) });
        }
        self.names.push(it.id.name.to_string());
        walk::walk_ts_namespace_declaration(self, it);
        self.names.pop();
    }

    fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        if let (Some(variables), Some(namespace)) = (exported_variables(it), self.names.last()) {
            for name in variables.declarations.iter().flat_map(|d| d.id.get_binding_identifiers()) {
                self.variables.extend(name.symbol_id.get().map(|symbol| (symbol, namespace.clone())));
            }
        }
        walk::walk_export_declaration(self, it);
    }
}

/// Returns the names of the values that a block exports.
fn exports(body: &TSModuleBlock<'_>) -> HashSet<String> {
    let mut names = HashSet::new();
    for statement in &body.body {
        let Statement::ExportDeclaration(export) = statement else { continue };
        match &export.declaration {
            Declaration::VariableDeclaration(it) => {
                let identifiers = it.declarations.iter().flat_map(|d| d.id.get_binding_identifiers());
                names.extend(identifiers.map(|name| name.name.to_string()));
            }
            Declaration::FunctionDeclaration(it) => {
                names.extend(it.id.as_ref().map(|id| id.name.to_string()))
            }
            Declaration::ClassDeclaration(it) => names.extend(it.id.as_ref().map(|id| id.name.to_string())),
            Declaration::TSEnumDeclaration(it) => names.extend([it.id.name.to_string()]),
            Declaration::TSNamespaceDeclaration(it) => names.extend([it.id.name.to_string()]),
            _ => {}
        }
    }
    names
}

/// Returns the declaration of `export let` or `export var`.
fn exported_variables<'b, 'a>(it: &'b ExportDeclaration<'a>) -> Option<&'b VariableDeclaration<'a>> {
    match &it.declaration {
        Declaration::VariableDeclaration(variables) if !variables.kind.is_const() && !variables.declare => {
            Some(variables)
        }
        _ => None,
    }
}

struct Uses<'s> {
    scoping: &'s Scoping,
    found: &'s Blocks,
    edits: &'s mut Edits,
    /// True for the name in `{ name }`, which is a key as well.
    shorthand: bool,
}

impl<'a> Visit<'a> for Uses<'_> {
    fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        let variables = exported_variables(it).filter(|v| self.are_in_namespace(v));
        match variables {
            None => walk::walk_export_declaration(self, it),
            Some(variables) => self.assign(it, variables),
        }
    }

    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        if let Some(namespace) = self.namespace_of(it) {
            self.qualify(it.span.start, it.name.as_str(), &namespace);
        }
    }

    fn visit_object_property(&mut self, it: &ObjectProperty<'a>) {
        match it.shorthand {
            false => walk::walk_object_property(self, it),
            true => self.as_shorthand(|uses| uses.visit_expression(&it.value)),
        }
    }

    fn visit_assignment_target_property_identifier(&mut self, it: &AssignmentTargetPropertyIdentifier<'a>) {
        self.as_shorthand(|uses| uses.visit_identifier_reference(&it.binding));
        if let Some(init) = &it.init {
            self.visit_expression(init);
        }
    }
}

impl Uses<'_> {
    fn as_shorthand(&mut self, visit: impl FnOnce(&mut Self)) {
        self.shorthand = true;
        visit(self);
        self.shorthand = false;
    }

    fn qualify(&mut self, at: u32, name: &str, namespace: &str) {
        let key = if self.shorthand { format!("{name}: ") } else { String::new() };
        self.edits.insert(at, format!("{key}{namespace}."));
    }

    fn are_in_namespace(&self, variables: &VariableDeclaration<'_>) -> bool {
        let names = variables.declarations.iter().flat_map(|d| d.id.get_binding_identifiers());
        names.filter_map(|name| name.symbol_id.get()).all(|id| self.found.variables.contains_key(&id))
    }

    /// Returns the namespace that must stand before a name: that of an exported variable, or the one whose other block
    /// exports it.
    fn namespace_of(&self, it: &IdentifierReference<'_>) -> Option<String> {
        let reference = self.scoping.get_reference(it.reference_id.get()?);
        let declared = reference.symbol_id();
        if let Some(namespace) = declared.and_then(|symbol| self.found.variables.get(&symbol)) {
            return Some(namespace.clone());
        }
        let home = declared.map(|symbol| self.scoping.symbol_scope_id(symbol));
        for scope in self.scoping.scope_ancestors(reference.scope_id()) {
            if Some(scope) == home {
                return None;
            }
            let Some(block) = self.found.blocks.get(&scope) else { continue };
            let same = |other: &&Block| block.namespace.is_some() && other.namespace == block.namespace;
            if self.found.blocks.values().filter(same).any(|b| b.exports.contains(it.name.as_str())) {
                return Some(block.name.clone());
            }
        }
        None
    }

    /// Turns `export let a = 1, { b } = c` into `;(N.a = 1), ({ b: N.b } = c)`.
    fn assign(&mut self, export: &ExportDeclaration<'_>, variables: &VariableDeclaration<'_>) {
        let mut done = export.span.start;
        for (i, declarator) in variables.declarations.iter().enumerate() {
            let separator = if i == 0 { ";" } else { ", " };
            match &declarator.init {
                None => self.edits.replace(done, declarator.span.end, format!("{separator}void 0")),
                Some(init) => {
                    let pattern = declarator.id.span();
                    self.edits.replace(done, pattern.start, format!("{separator}("));
                    self.target(&declarator.id);
                    let end = declarator.id.span().end;
                    self.edits.replace(end, init.span().start, " = ");
                    self.visit_expression(init);
                    self.edits.insert(init.span().end, ")");
                }
            }
            done = declarator.span.end;
        }
    }

    /// Visits the names that a pattern declares: each becomes a member of its namespace.
    fn target(&mut self, pattern: &BindingPattern<'_>) {
        Targets(self).visit_binding_pattern(pattern);
    }
}

/// The walk through a pattern that becomes the target of an assignment.
struct Targets<'u, 's>(&'u mut Uses<'s>);

impl<'a> Visit<'a> for Targets<'_, '_> {
    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        let namespace = it.symbol_id.get().and_then(|symbol| self.0.found.variables.get(&symbol)).cloned();
        self.0.qualify(it.span.start, it.name.as_str(), &namespace.unwrap_or_default());
    }

    fn visit_binding_property(&mut self, it: &BindingProperty<'a>) {
        if !it.shorthand {
            return walk::walk_binding_property(self, it);
        }
        self.0.shorthand = true;
        match &it.value {
            BindingPattern::AssignmentPattern(with_default) => {
                self.visit_binding_pattern(&with_default.left);
                self.0.shorthand = false;
                self.0.visit_expression(&with_default.right);
            }
            value => self.visit_binding_pattern(value),
        }
        self.0.shorthand = false;
    }

    fn visit_expression(&mut self, it: &oxc_ast::ast::Expression<'a>) {
        self.0.visit_expression(it);
    }
}
