//! What an expression reads, found in its syntax tree: free variables, members of a variable, calls.
//!
//! `[1].map(steps, steps.x)` reads no step: names that a comprehension binds are not free inside it.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, IdedExpr, LiteralValue, operators};

/// Which members of a variable an expression reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// `X` of `root.X`, `root["X"]` and `has(root.X)`, each once, in order of appearance.
    pub names: Vec<String>,
    /// The variable is also read in a way that names no member, for example `root[inputs.x]` or `size(root)`.
    pub whole: bool,
}

impl Members {
    /// Whether the variable is not read at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.whole
    }
}

/// Calls `visit` with each direct child, in the order of the source.
pub(super) fn for_each_child<'e>(node: &'e IdedExpr, mut visit: impl FnMut(&'e IdedExpr)) {
    match &node.expr {
        Ast::Unspecified | Ast::Ident(_) | Ast::Literal(_) => {}
        Ast::Call(CallExpr { target, args, .. }) => {
            if let Some(target) = target {
                visit(target);
            }
            args.iter().for_each(visit);
        }
        Ast::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().for_each(visit);
        }
        Ast::List(list) => list.elements.iter().for_each(visit),
        Ast::Select(select) => visit(&select.operand),
        Ast::Map(map) => map.entries.iter().for_each(|entry| visit_entry(&entry.expr, &mut visit)),
        Ast::Struct(value) => value.entries.iter().for_each(|entry| visit_entry(&entry.expr, &mut visit)),
    }
}

fn visit_entry<'e>(entry: &'e EntryExpr, visit: &mut impl FnMut(&'e IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key);
            visit(&entry.value);
        }
    }
}

/// Free variables, each once, in order of appearance.
pub(super) fn variables(root: &IdedExpr) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &mut |node, bound| {
        if let Some(name) = free_name(node, bound) {
            push_once(&mut found, name);
        }
        true
    });
    found
}

/// Members of the free variable `root_name`.
pub(super) fn members(root: &IdedExpr, root_name: &str) -> Members {
    let mut found = Members::default();
    walk(root, &mut Vec::new(), &mut |node, bound| {
        if free_name(node, bound) == Some(root_name) {
            found.whole = true;
        }
        match member_access(node) {
            Some((operand, name)) if free_name(operand, bound) == Some(root_name) => {
                push_once(&mut found.names, name);
                false
            }
            Some(_) | None => true,
        }
    });
    found
}

/// The longest paths of members below the free variable `root_name`: `["data", "branch"]` of `event.data.branch`.
pub(super) fn paths(root: &IdedExpr, root_name: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    walk(root, &mut Vec::new(), &mut |node, bound| {
        let mut names = Vec::new();
        let mut at = node;
        while let Some((operand, name)) = member_access(at) {
            names.push(name.to_owned());
            at = operand;
        }
        if names.is_empty() || free_name(at, bound) != Some(root_name) {
            return true;
        }
        names.reverse();
        if !found.contains(&names) {
            found.push(names);
        }
        false
    });
    found
}

/// Whether the global function `name` is called.
pub(super) fn calls(root: &IdedExpr, name: &str) -> bool {
    let mut found = false;
    walk(root, &mut Vec::new(), &mut |node, _| {
        found |= matches!(&node.expr, Ast::Call(call) if call.func_name == name && call.target.is_none());
        true
    });
    found
}

/// `operand.name` or `operand["name"]`.
fn member_access(node: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    match &node.expr {
        Ast::Select(select) => Some((&select.operand, &select.field)),
        Ast::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, IdedExpr { expr: Ast::Literal(LiteralValue::String(name)), .. }] => Some((operand, name.inner())),
            _ => None,
        },
        _ => None,
    }
}

fn free_name<'e>(node: &'e IdedExpr, bound: &[&str]) -> Option<&'e str> {
    let Ast::Ident(name) = &node.expr else { return None };
    // A leading dot asks for the outermost scope, whatever is bound; `@` marks the accumulators that macros make.
    match name.strip_prefix('.') {
        Some(absolute) => Some(absolute),
        None if name.starts_with('@') || bound.contains(&name.as_str()) => None,
        None => Some(name),
    }
}

/// Visits every node with the names bound around it; `visit` says whether to go on below the node.
fn walk<'e>(node: &'e IdedExpr, bound: &mut Vec<&'e str>, visit: &mut impl FnMut(&'e IdedExpr, &[&'e str]) -> bool) {
    if !visit(node, bound) {
        return;
    }
    let Ast::Comprehension(comprehension) = &node.expr else {
        for_each_child(node, |child| walk(child, bound, visit));
        return;
    };
    let ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, accu_init, loop_cond, loop_step, result } =
        comprehension.as_ref();
    walk(iter_range, bound, visit);
    walk(accu_init, bound, visit);
    let outside = bound.len();
    bound.push(accu_var);
    walk(result, bound, visit);
    bound.push(iter_var);
    bound.extend(iter_var2.as_deref());
    walk(loop_cond, bound, visit);
    walk(loop_step, bound, visit);
    bound.truncate(outside);
}

fn push_once(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}
