//! What an expression gives, found by walking its syntax tree.
//!
//! Each mistake is shown at its own word ([`super::places`]), and a field that may be missing is allowed where the
//! expression has made sure of it ([`super::facts`]).

use std::{ops::Range, rc::Rc};

use kickwheel_core::{
    expr::{
        cel::common::ast::{
            CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, IdedExpr, LiteralValue, SourceInfo, operators,
        },
        functions,
    },
    plan::Phase,
};

use super::{
    Scope,
    facts::{Facts, facts_if, path_of},
    functions::{MACROS, STANDARD, TYPE_NAMES},
    places::{Places, symbol},
    types::{Class, Member, Owner, Record, Type, dataset},
};
use crate::{
    diagnostic::{Code, Report, nearest},
    values,
};

/// A mistake in an expression.
pub(super) struct Problem {
    pub code: Code,
    /// Bytes of the expression.
    pub part: Range<usize>,
    pub message: String,
    pub help: Option<Help>,
}

/// Help that may need a search among names, which is done only when it is wanted.
pub(super) enum Help {
    Text(String),
    Nearest { written: String, what: &'static str, known: Vec<String> },
}

impl Help {
    pub fn text(self, report: &Report<'_>) -> String {
        match self {
            Self::Text(text) => text,
            Self::Nearest { written, what, known } => report.suggest(&written, what, known.iter().map(String::as_str)),
        }
    }
}

pub(super) struct Inference<'e, 's> {
    source: &'e str,
    places: Places<'e>,
    scope: &'e Scope<'s>,
    /// Names that comprehensions bind, innermost last.
    locals: Vec<(String, Type)>,
    pub problems: Vec<Problem>,
    pub steps: Vec<(usize, Range<usize>)>,
    pub datasets: Vec<String>,
}

impl<'e, 's> Inference<'e, 's> {
    pub fn new(source: &'e str, info: &'e SourceInfo, scope: &'e Scope<'s>) -> Self {
        Self {
            source,
            places: Places::new(source, info),
            scope,
            locals: Vec::new(),
            problems: Vec::new(),
            steps: Vec::new(),
            datasets: Vec::new(),
        }
    }

    pub fn run(&mut self, root: &IdedExpr) -> Type {
        let facts = self.scope.facts.clone();
        self.infer(root, &facts)
    }

    /// The type of a node whose value is used. `steps` and `datasets` have none: only what they name has.
    fn infer(&mut self, node: &IdedExpr, facts: &Facts) -> Type {
        let variable = match self.infer_any(node, facts) {
            Type::Steps => "steps",
            Type::Datasets => "datasets",
            ty => return ty,
        };
        self.whole(variable, self.places.extent(node));
        Type::Any
    }

    fn infer_any(&mut self, node: &IdedExpr, facts: &Facts) -> Type {
        match &node.expr {
            Ast::Unspecified => Type::Any,
            Ast::Literal(literal) => literal_type(literal),
            Ast::Ident(name) => self.variable(node, name, facts),
            Ast::Select(select) => {
                let part = self.places.field(node.id, select);
                let path = path_of(node);
                let operand = self.infer_any(&select.operand, facts);
                let ty = self.member(&operand, &select.field, &part, path.as_deref(), select.test, facts);
                if select.test { Type::Boolean } else { ty }
            }
            Ast::Call(call) => self.call(node, call, facts),
            Ast::List(list) => {
                let mut item = Type::Nothing;
                for element in &list.elements {
                    item = item.join(&self.infer(element, facts));
                }
                Type::list(item)
            }
            Ast::Map(map) => {
                let mut members = Vec::new();
                let mut open = false;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let key = self.infer(&entry.key, facts);
                    let ty = self.infer(&entry.value, facts);
                    match &entry.key.expr {
                        Ast::Literal(LiteralValue::String(name)) => {
                            members.push(Member { name: name.inner().to_owned(), ty, optional: false });
                        }
                        _ => open |= key != Type::Nothing,
                    }
                }
                if open {
                    Type::Map(Rc::new(Type::Any))
                } else {
                    Type::Record(Rc::new(Record { owner: Owner::Value, members }))
                }
            }
            Ast::Struct(value) => {
                let part = self.places.extent(node);
                self.problem(
                    Code::UnknownFunction,
                    part,
                    format!("there is no type `{}`; a map is written `{{\"key\": value}}`", value.type_name),
                    None,
                );
                Type::Any
            }
            Ast::Comprehension(comprehension) => self.comprehension(comprehension, facts),
        }
    }

    fn variable(&mut self, node: &IdedExpr, name: &str, facts: &Facts) -> Type {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((_, ty)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return ty.clone();
        }
        if let Some((_, ty)) = self.scope.variables.iter().find(|(known, _)| *known == name) {
            return match (ty, &facts.event_types) {
                (Type::Variants(variants), Some(left)) if name == "event" => {
                    Type::Variants(Rc::new(variants.iter().filter(|(ty, _)| left.contains(ty)).cloned().collect()))
                }
                _ => ty.clone(),
            };
        }
        if TYPE_NAMES.contains(&name) {
            return Type::Any;
        }
        let part = self.places.extent(node);
        if let Some((_, why)) = self.scope.absent.iter().find(|(absent, _)| *absent == name) {
            self.problem(Code::UnknownVariable, part, format!("`{name}` cannot be read here: {why}"), None);
            return Type::Any;
        }
        let known = self.scope.variables.iter().map(|(known, _)| (*known).to_owned()).collect();
        let help = Help::Nearest { written: name.to_owned(), what: "variables", known };
        self.problem(Code::UnknownVariable, part, format!("there is no variable `{name}`"), Some(help));
        Type::Any
    }

    /// The field `name` of a value; `test` when only its presence is asked for.
    fn member(
        &mut self,
        operand: &Type,
        name: &str,
        part: &Range<usize>,
        path: Option<&str>,
        test: bool,
        facts: &Facts,
    ) -> Type {
        let assured = test || path.is_some_and(|path| facts.present.iter().any(|known| known == path));
        match operand {
            Type::Any | Type::Nothing | Type::Null => Type::Any,
            Type::Map(value) => value.as_ref().clone(),
            Type::Steps => self.step(name, part),
            Type::Datasets => self.dataset(name, part),
            Type::Record(record) => match record.member(name) {
                Some(member) => {
                    if member.optional && !assured {
                        self.uncertain(path.unwrap_or(name), part, &member.ty, "it may be missing");
                    }
                    member.ty.clone()
                }
                None => self.unknown_member(record, name, part, path),
            },
            Type::Variants(variants) => self.variant_member(variants, name, part, path, assured),
            Type::List(item) => {
                let help = match item.as_ref() {
                    Type::Nothing => None,
                    _ => Some(Help::Text(format!(
                        "pick one as `[0].{name}`, or take all with `.map(item, item.{name})`"
                    ))),
                };
                self.problem(Code::ExpressionType, part.clone(), format!("a list has no field `{name}`"), help);
                Type::Any
            }
            Type::Boolean | Type::Integer | Type::Double | Type::Number | Type::Text => {
                let message = format!("{} has no field `{name}`", operand.describe());
                self.problem(Code::ExpressionType, part.clone(), message, None);
                Type::Any
            }
        }
    }

    fn variant_member(
        &mut self,
        variants: &Rc<Vec<(String, Type)>>,
        name: &str,
        part: &Range<usize>,
        path: Option<&str>,
        assured: bool,
    ) -> Type {
        let mut found: Vec<(String, Type)> = Vec::new();
        let (mut lacking, mut doubtful, mut known) = (Vec::new(), Vec::new(), Vec::<String>::new());
        for (event_type, ty) in variants.iter() {
            match ty {
                Type::Record(record) => match record.member(name) {
                    Some(member) => {
                        if member.optional {
                            doubtful.push(event_type.as_str());
                        }
                        found.push((event_type.clone(), member.ty.clone()));
                    }
                    None => {
                        lacking.push(event_type.as_str());
                        known.extend(record.members.iter().map(|member| member.name.clone()));
                    }
                },
                Type::Map(value) => found.push((event_type.clone(), value.as_ref().clone())),
                _ => found.push((event_type.clone(), Type::Any)),
            }
        }
        let written = path.unwrap_or(name);
        if found.is_empty() {
            if !variants.is_empty() {
                known.sort();
                known.dedup();
                let help = Help::Nearest { written: name.to_owned(), what: "fields", known };
                let message = format!("no event that starts this workflow has a field `{written}`");
                self.problem(Code::UnknownField, part.clone(), message, Some(help));
            }
            return Type::Any;
        }
        let joined = found.iter().fold(Type::Nothing, |ty, (_, next)| ty.join(next));
        let always = lacking.is_empty() && doubtful.is_empty();
        if !assured && !always {
            let mut why = Vec::new();
            if !lacking.is_empty() {
                why.push(format!("{} has no such field", lacking.join(" and ")));
            }
            if !doubtful.is_empty() {
                why.push(format!("it may be missing or null in {}", doubtful.join(" and ")));
            }
            self.uncertain(written, part, &joined, &why.join("; "));
        }
        let all_records = found.iter().all(|(_, ty)| matches!(ty, Type::Record(_)));
        if all_records || joined == Type::Any { Type::Variants(Rc::new(found)) } else { joined }
    }

    fn uncertain(&mut self, path: &str, part: &Range<usize>, ty: &Type, why: &str) {
        let help = format!(
            "write `has({path}) ? {path} : {}`, or make sure of it with `has({path})` in `if`",
            ty.default_text()
        );
        let message = format!("`{path}` is not always there: {why}");
        self.problem(Code::UncertainField, part.clone(), message, Some(Help::Text(help)));
    }

    fn unknown_member(&mut self, record: &Record, name: &str, part: &Range<usize>, path: Option<&str>) -> Type {
        let known: Vec<String> = record.members.iter().map(|member| member.name.clone()).collect();
        let written = path.unwrap_or(name);
        let (code, message, what) = match record.owner {
            Owner::Value => (Code::UnknownField, format!("there is no field `{written}`"), "fields"),
            Owner::Inputs => (Code::UnknownInput, format!("the input `{name}` is not declared"), "inputs"),
            Owner::Matrix => (Code::UnknownAxis, format!("the matrix has no axis `{name}`"), "axes"),
            Owner::Outputs => (Code::UnknownOutput, format!("the step declares no output `{name}`"), "outputs"),
            Owner::Step | Owner::ArrayStep if name == "best" => {
                let help = "the plugin `best-of` chooses among `${{ steps.NAME.tasks }}`";
                let message = "`best` belongs to sweeps, which this version does not have";
                self.problem(Code::UnknownField, part.clone(), message.into(), Some(Help::Text(help.into())));
                return Type::Any;
            }
            Owner::Step | Owner::ArrayStep => (Code::UnknownField, format!("a step has no field `{name}`"), "fields"),
        };
        self.problem(code, part.clone(), message, Some(Help::Nearest { written: name.to_owned(), what, known }));
        Type::Any
    }

    fn step(&mut self, name: &str, part: &Range<usize>) -> Type {
        let steps = self.scope.steps;
        let Some(index) = steps.iter().position(|step| step.name == name) else {
            let known: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
            // `steps.train-big` is read as a subtraction, whose left side is not what was meant.
            let rest = &self.source[part.end..];
            let dashed = known.iter().find(|step| {
                step.strip_prefix(name).is_some_and(|more| more.starts_with('-') && rest.starts_with(more))
            });
            let help = match dashed.or_else(|| {
                nearest(name, known.iter().map(String::as_str)).and_then(|near| known.iter().find(|step| *step == near))
            }) {
                Some(step) if step.contains('-') => Help::Text(format!("did you mean `steps[\"{step}\"]`?")),
                _ => Help::Nearest { written: name.to_owned(), what: "steps", known },
            };
            self.problem(Code::UnknownStep, part.clone(), format!("there is no step `{name}`"), Some(help));
            return Type::Any;
        };
        let other = &steps[index];
        if let Some(me) = self.scope.step {
            if me == index {
                self.problem(Code::SelfNeed, part.clone(), format!("the step `{name}` reads itself"), None);
                return Type::Any;
            }
            if steps[me].phase < other.phase {
                let message = format!("the step `{name}` runs later: it belongs to {}", section(other.phase));
                self.problem(Code::CrossPhase, part.clone(), message, None);
                return Type::Any;
            }
        }
        self.steps.push((index, part.clone()));
        other.ty.clone()
    }

    fn dataset(&mut self, name: &str, part: &Range<usize>) -> Type {
        if !values::is_dataset_name(name) {
            let message = format!("`{name}` cannot be the name of a dataset");
            self.problem(Code::BadName, part.clone(), message, Some(Help::Text("for example `churn/raw`".into())));
            return Type::Any;
        }
        self.datasets.push(name.to_owned());
        dataset()
    }

    fn whole(&mut self, variable: &str, part: Range<usize>) {
        let help =
            format!("write `{variable}[\"NAME\"]` with the name itself: what is read must be known before the run");
        let message = format!("`{variable}` can only be read by name");
        self.problem(Code::ExpressionType, part, message, Some(Help::Text(help)));
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr, facts: &Facts) -> Type {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => {
                self.boolean(left, facts, "&&");
                let facts = facts.and(&facts_if(self.scope, left, true));
                self.boolean(right, &facts, "&&");
                Type::Boolean
            }
            (operators::LOGICAL_OR, [left, right]) => {
                self.boolean(left, facts, "||");
                let facts = facts.and(&facts_if(self.scope, left, false));
                self.boolean(right, &facts, "||");
                Type::Boolean
            }
            (operators::LOGICAL_NOT, [operand]) => {
                self.boolean(operand, facts, "!");
                Type::Boolean
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.boolean(condition, facts, "?");
                let yes_facts = facts.and(&facts_if(self.scope, condition, true));
                let no_facts = facts.and(&facts_if(self.scope, condition, false));
                let yes = self.infer(yes, &yes_facts);
                yes.join(&self.infer(no, &no_facts))
            }
            (operators::INDEX, [operand, index]) => self.index(node, operand, index, facts),
            (operators::NEGATE, [operand]) => {
                let ty = self.infer(operand, facts);
                if ty.class().is_some_and(|class| class != Class::Number) {
                    let message = format!("`-` needs a number, but this is {}", ty.describe());
                    self.problem(Code::ExpressionType, self.places.extent(operand), message, None);
                }
                ty
            }
            (operator, [left, right]) if call.target.is_none() && symbol(operator).is_some() => {
                let left = self.infer(left, facts);
                let right = self.infer(right, facts);
                self.binary(node, operator, &left, &right)
            }
            (operators::NOT_STRICTLY_FALSE, [operand]) => self.infer(operand, facts),
            (name, arguments) => {
                let target = call.target.as_ref().map(|target| self.infer(target, facts));
                for argument in arguments {
                    self.infer(argument, facts);
                }
                self.function(node, name, target.is_some(), arguments.len())
            }
        }
    }

    fn boolean(&mut self, operand: &IdedExpr, facts: &Facts, operator: &str) {
        let ty = self.infer(operand, facts);
        if ty.class().is_some_and(|class| class != Class::Boolean) {
            let message = format!("`{operator}` needs a boolean, but this is {}", ty.describe());
            self.problem(Code::ExpressionType, self.places.extent(operand), message, None);
        }
    }

    fn index(&mut self, node: &IdedExpr, operand: &IdedExpr, index: &IdedExpr, facts: &Facts) -> Type {
        let part = self.places.extent(index);
        let container = self.infer_any(operand, facts);
        if let Ast::Literal(LiteralValue::String(name)) = &index.expr {
            return match container {
                Type::List(_) => {
                    let message = "a list is indexed by a whole number".to_owned();
                    self.problem(Code::ExpressionType, part, message, None);
                    Type::Any
                }
                _ => self.member(&container, name.inner(), &part, path_of(node).as_deref(), false, facts),
            };
        }
        let by = self.infer(index, facts);
        match &container {
            Type::Steps => self.whole("steps", part),
            Type::Datasets => self.whole("datasets", part),
            Type::List(item) => {
                if by.class().is_some_and(|class| class != Class::Number) {
                    let message = format!("a list is indexed by a whole number, but this is {}", by.describe());
                    self.problem(Code::ExpressionType, part, message, None);
                }
                return item.as_ref().clone();
            }
            Type::Map(value) => return value.as_ref().clone(),
            Type::Boolean | Type::Integer | Type::Double | Type::Number | Type::Text => {
                let message = format!("{} cannot be indexed", container.describe());
                self.problem(Code::ExpressionType, part, message, None);
            }
            Type::Any | Type::Nothing | Type::Null | Type::Record(_) | Type::Variants(_) => {}
        }
        Type::Any
    }

    fn binary(&mut self, node: &IdedExpr, operator: &str, left: &Type, right: &Type) -> Type {
        let written = symbol(operator).unwrap_or(operator);
        let classes = left.class().zip(right.class());
        let fits = match operator {
            operators::EQUALS | operators::NOT_EQUALS => classes.is_none_or(|(a, b)| a == b),
            operators::IN => right.class().is_none_or(|class| matches!(class, Class::List | Class::Map)),
            operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
                classes.is_none_or(|(a, b)| a == b && !matches!(a, Class::List | Class::Map))
            }
            operators::ADD => {
                classes.is_none_or(|(a, b)| a == b && matches!(a, Class::Number | Class::Text | Class::List))
            }
            _ => classes.is_none_or(|(a, b)| a == Class::Number && b == Class::Number),
        };
        let gives = match operator {
            operators::ADD if left.class() == Some(Class::Text) && right.class() == Some(Class::Text) => Type::Text,
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO => {
                match classes {
                    Some(_) if fits => left.join(right),
                    _ => Type::Any,
                }
            }
            _ => Type::Boolean,
        };
        let arithmetic = gives != Type::Boolean;
        let mixed = matches!((left, right), (Type::Integer, Type::Double) | (Type::Double, Type::Integer));
        if !fits || (arithmetic && mixed) {
            let help = match classes {
                Some((Class::Number, Class::Number)) => Some("convert one of them with `double(…)` or `int(…)`"),
                Some((Class::Text, Class::Number) | (Class::Number, Class::Text)) => {
                    Some("convert one of them with `string(…)`, `int(…)` or `double(…)`")
                }
                _ if operator == operators::IN && right.class() == Some(Class::Text) => {
                    Some("for a part of a text, write `text.contains(part)`")
                }
                _ => None,
            };
            let left = if mixed { "a whole number or another" } else { left.describe() };
            let message = if mixed {
                format!("`{written}` does not mix whole and other numbers")
            } else {
                format!("`{written}` does not take {left} and {}", right.describe())
            };
            let part = self.places.token(node.id);
            self.problem(Code::ExpressionType, part, message, help.map(|help| Help::Text(help.into())));
        }
        gives
    }

    fn function(&mut self, node: &IdedExpr, name: &str, on_value: bool, arguments: usize) -> Type {
        let part = self.places.function(node.id, name);
        if !on_value && functions().iter().any(|ours| ours.name == name) {
            if !self.scope.status_functions {
                self.problem(
                    Code::UnknownFunction,
                    part,
                    format!("`{name}()` can only be used in a step's `if`"),
                    None,
                );
            } else if arguments > 0 {
                self.problem(Code::ExpressionType, part, format!("`{name}()` takes no arguments"), None);
            }
            return Type::Boolean;
        }
        if let Some((_, _, usage)) = MACROS.iter().find(|(known, on, _)| *known == name && *on == on_value) {
            let message = format!("`{name}` is not used rightly");
            self.problem(Code::ExpressionType, part, message, Some(Help::Text((*usage).to_owned())));
            return Type::Any;
        }
        let found = STANDARD.iter().find(|known| known.name == name && known.on_value == on_value);
        let Some(found) = found else {
            let help = if STANDARD.iter().any(|known| known.name == name) {
                let usage =
                    if on_value { format!("write `{name}(value)`") } else { format!("write `value.{name}(…)`") };
                Help::Text(usage)
            } else {
                let standard = STANDARD.iter().filter(|known| known.on_value == on_value).map(|known| known.name);
                let macros = MACROS.iter().filter(|(_, on, _)| *on == on_value).map(|(known, _, _)| *known);
                let ours =
                    functions().iter().filter(|_| !on_value && self.scope.status_functions).map(|ours| ours.name);
                let known = standard.chain(macros).chain(ours).map(str::to_owned).collect();
                Help::Nearest { written: name.to_owned(), what: "functions", known }
            };
            self.problem(Code::UnknownFunction, part, format!("there is no function `{name}`"), Some(help));
            return Type::Any;
        };
        if !found.arguments.contains(&arguments) {
            let message = format!("`{name}` does not take {arguments} arguments");
            self.problem(Code::ExpressionType, part, message, None);
        }
        found.gives.clone()
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr, facts: &Facts) -> Type {
        let ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, accu_init, loop_cond, loop_step, result } =
            comprehension;
        let range = self.infer(iter_range, facts);
        let item = match &range {
            Type::List(item) => item.as_ref().clone(),
            Type::Map(_) | Type::Record(_) => Type::Text,
            Type::Any | Type::Nothing | Type::Null | Type::Variants(_) | Type::Steps | Type::Datasets => Type::Any,
            Type::Boolean | Type::Integer | Type::Double | Type::Number | Type::Text => {
                let message = format!("a list is needed, but this is {}", range.describe());
                self.problem(Code::ExpressionType, self.places.extent(iter_range), message, None);
                Type::Any
            }
        };
        let outside = self.locals.len();
        let start = self.infer(accu_init, facts);
        self.locals.push((accu_var.clone(), start.clone()));
        self.locals.push((iter_var.clone(), item));
        if let Some(second) = iter_var2 {
            self.locals.push((second.clone(), Type::Any));
        }
        self.infer(loop_cond, facts);
        let step = self.infer(loop_step, facts);
        self.locals.truncate(outside);
        self.locals.push((accu_var.clone(), start.join(&step)));
        let ty = self.infer(result, facts);
        self.locals.truncate(outside);
        ty
    }

    fn problem(&mut self, code: Code, part: Range<usize>, message: String, help: Option<Help>) {
        self.problems.push(Problem { code, part, message, help });
    }
}

/// The section of a file that holds the steps of a phase.
pub(crate) fn section(phase: Phase) -> &'static str {
    match phase {
        Phase::Main => "`steps`",
        Phase::OnFailure => "`on_failure`",
        Phase::Finally => "`finally`",
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Boolean,
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => Type::Any,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Integer,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::Text,
    }
}
