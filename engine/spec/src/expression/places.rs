//! Where the words of an expression stand.
//!
//! CEL keeps the place of one token for each node: of an operator, a bracket or a dot. The word that a mistake is about
//! stands beside it.

use std::ops::Range;

use kickwheel_core::expr::cel::common::ast::{Expr as Ast, IdedExpr, SelectExpr, SourceInfo, operators};

/// The words of one expression.
pub(super) struct Places<'e> {
    source: &'e str,
    info: &'e SourceInfo,
}

impl<'e> Places<'e> {
    pub fn new(source: &'e str, info: &'e SourceInfo) -> Self {
        Self { source, info }
    }

    /// The token that stands for a node: an operator, a bracket, a dot, a name or a literal.
    pub fn token(&self, id: u64) -> Range<usize> {
        match self.info.offset_for(id) {
            Some((start, stop)) => {
                let start = (start as usize).min(self.source.len());
                start..(stop as usize + 1).clamp(start, self.source.len())
            }
            None => 0..self.source.len(),
        }
    }

    /// The word after a dot. `has(a.b)` keeps only the place of its bracket: then the dot is the one after the operand.
    pub fn field(&self, id: u64, select: &SelectExpr) -> Range<usize> {
        let before = if select.test { self.extent(&select.operand) } else { self.token(id) };
        let rest = self.source.get(before.end..).unwrap_or_default();
        let skipped = |c: char| c.is_whitespace() || c == '`' || (c == '.' && select.test);
        let start = before.end + rest.len() - rest.trim_start_matches(skipped).len();
        if self.source.get(start..).is_some_and(|rest| rest.starts_with(&select.field)) {
            start..start + select.field.len()
        } else {
            before
        }
    }

    /// The word before an opening bracket.
    pub fn function(&self, id: u64, name: &str) -> Range<usize> {
        let bracket = self.token(id);
        let before = self.source.get(..bracket.start).unwrap_or_default().trim_end();
        if before.ends_with(name) { before.len() - name.len()..before.len() } else { bracket }
    }

    /// A node with what it is made of, as far as its tokens tell.
    pub fn extent(&self, node: &IdedExpr) -> Range<usize> {
        let own = match &node.expr {
            Ast::Select(select) => self.field(node.id, select),
            Ast::Call(call) if symbol(&call.func_name).is_none() && !call.func_name.starts_with('_') => {
                self.function(node.id, &call.func_name)
            }
            _ => self.token(node.id),
        };
        let inner = match &node.expr {
            Ast::Select(select) => Some(self.extent(&select.operand)),
            Ast::Call(call) => call.target.as_deref().or(call.args.first()).map(|first| self.extent(first)),
            Ast::Comprehension(comprehension) => Some(self.extent(&comprehension.iter_range)),
            Ast::Unspecified | Ast::Ident(_) | Ast::List(_) | Ast::Literal(_) | Ast::Map(_) | Ast::Struct(_) => None,
        };
        match inner {
            Some(inner) => own.start.min(inner.start)..own.end.max(inner.end),
            None => own,
        }
    }
}

/// A binary operator as it is written.
pub(super) fn symbol(operator: &str) -> Option<&'static str> {
    Some(match operator {
        operators::ADD => "+",
        operators::SUBSTRACT => "-",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::LESS => "<",
        operators::LESS_EQUALS => "<=",
        operators::GREATER => ">",
        operators::GREATER_EQUALS => ">=",
        operators::IN => "in",
        _ => return None,
    })
}
