//! What an expression has made sure of before a part of it is evaluated.
//!
//! `has(x.y)` and `event.type == "…"` hold on one side of `&&`, `||` and `? :`, and a step's `if` holds for all its other
//! expressions. Only what certainly holds is a fact; the evaluator stops at the first side that decides.

use kickwheel_core::expr::cel::common::ast::{Expr as Ast, IdedExpr, LiteralValue, operators};

use super::{Scope, types::Type};

/// What has been made sure of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Paths such as `event.data.branch` that are there.
    pub(super) present: Vec<String>,
    /// The event types that are left.
    pub(super) event_types: Option<Vec<String>>,
}

impl Facts {
    pub(super) fn and(&self, more: &Self) -> Self {
        let mut both = self.clone();
        both.present.extend(more.present.iter().cloned());
        both.event_types = match (both.event_types, &more.event_types) {
            (Some(mine), Some(theirs)) => Some(mine.into_iter().filter(|ty| theirs.contains(ty)).collect()),
            (mine, theirs) => mine.or_else(|| theirs.clone()),
        };
        both
    }
}

/// What holds where `node` is `value`.
pub(super) fn facts_if(scope: &Scope<'_>, node: &IdedExpr, value: bool) -> Facts {
    match &node.expr {
        Ast::Select(select) if select.test && value => {
            Facts { present: path_of(node).into_iter().collect(), event_types: None }
        }
        Ast::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [operand]) => facts_if(scope, operand, !value),
            (operators::LOGICAL_AND, [left, right]) if value => {
                facts_if(scope, left, true).and(&facts_if(scope, right, true))
            }
            (operators::LOGICAL_OR, [left, right]) if !value => {
                facts_if(scope, left, false).and(&facts_if(scope, right, false))
            }
            (operators::EQUALS, [left, right]) => event_types(scope, left, right, value),
            (operators::NOT_EQUALS, [left, right]) => event_types(scope, left, right, !value),
            _ => Facts::default(),
        },
        _ => Facts::default(),
    }
}

/// `event.type == "…"` leaves one event type, its contrary all others.
fn event_types(scope: &Scope<'_>, left: &IdedExpr, right: &IdedExpr, equal: bool) -> Facts {
    let (path, literal) = match (&left.expr, &right.expr) {
        (_, Ast::Literal(LiteralValue::String(literal))) => (path_of(left), literal.inner()),
        (Ast::Literal(LiteralValue::String(literal)), _) => (path_of(right), literal.inner()),
        _ => return Facts::default(),
    };
    if path.as_deref() != Some("event.type") {
        return Facts::default();
    }
    let Some((_, Type::Variants(variants))) = scope.variables.iter().find(|(name, _)| *name == "event") else {
        return Facts::default();
    };
    let left = variants.iter().map(|(ty, _)| ty).filter(|ty| (ty.as_str() == literal) == equal).cloned().collect();
    Facts { present: Vec::new(), event_types: Some(left) }
}

/// `a.b.c` of selections and literal indices on a name.
pub(super) fn path_of(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Ast::Ident(name) => Some(name.strip_prefix('.').unwrap_or(name).to_owned()),
        Ast::Select(select) => Some(format!("{}.{}", path_of(&select.operand)?, select.field)),
        Ast::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, IdedExpr { expr: Ast::Literal(LiteralValue::String(name)), .. }] => {
                Some(format!("{}.{}", path_of(operand)?, name.inner()))
            }
            _ => None,
        },
        _ => None,
    }
}
