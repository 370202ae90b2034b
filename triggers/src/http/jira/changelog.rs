//! What an issue's changelog says changed.
//!
//! An item names its field by `fieldId`, which only Cloud has, and by `field`, which is shown to people: two custom fields
//! may share it, and a custom field may be called like one of Jira's own.

use std::collections::BTreeSet;

use kickwheel_schemas::payload::JiraMove;
use serde_json::Value;

use super::{Refusal, body};

/// The items of a changelog.
pub(super) struct Changelog<'p>(Vec<Item<'p>>);

struct Item<'p> {
    name: &'p str,
    id: Option<&'p str>,
    custom: bool,
    value: &'p Value,
}

impl<'p> Changelog<'p> {
    pub fn read(payload: &'p Value) -> Result<Self, Refusal> {
        let items = body::list(payload, "changelog.items")?.iter().map(|value| {
            let name = match body::maybe_text(value, "field")? {
                Some(name) => name,
                None => body::text(value, "fieldId")?,
            };
            let id = body::maybe_text(value, "fieldId")?;
            Ok(Item { name, id, custom: body::shown(value, "fieldtype") == Some("custom"), value })
        });
        items.collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing changed but a comment.
    pub fn is_of_comment(&self) -> bool {
        self.0.iter().all(|item| item.is("Comment"))
    }

    /// What the fields are filtered by, each once.
    pub fn fields(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let names = self.0.iter().map(|item| item.id.unwrap_or(item.name));
        names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
    }

    fn item(&self, name: &str) -> Option<&Item<'p>> {
        self.0.iter().find(|item| item.is(name))
    }

    /// Id and name of the status before, and those after.
    pub fn status(&self) -> Option<[(Option<String>, Option<String>); 2]> {
        self.item("status").map(|item| [(item.id("from"), item.shown("from")), (item.id("to"), item.shown("to"))])
    }

    pub fn resolution_to(&self) -> Option<String> {
        self.item("resolution")?.shown("to")
    }

    /// Labels that were added, and those that were taken off: the lists are texts joined by blanks.
    pub fn labels(&self) -> [Vec<String>; 2] {
        let Some(item) = self.item("labels") else { return [Vec::new(), Vec::new()] };
        let labels = |side: &str| -> Vec<String> {
            let text = item.shown(side).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        let (from, to) = (labels("from"), labels("to"));
        let without = |these: &[String], those: &[String]| {
            let known: BTreeSet<&String> = those.iter().collect();
            let mut seen = BTreeSet::new();
            these.iter().filter(|one| !known.contains(one) && seen.insert(*one)).cloned().collect()
        };
        [without(&to, &from), without(&from, &to)]
    }

    pub fn moved(&self) -> Option<JiraMove> {
        let key = self.item("Key").or_else(|| self.0.iter().find(|item| item.id == Some("issuekey")));
        let project = self.item("project");
        if key.is_none() && project.is_none() {
            return None;
        }
        let side = |item: Option<&Item<'_>>, side: &str| item?.shown(side);
        Some(JiraMove {
            key_from: side(key, "from"),
            key_to: side(key, "to"),
            project_from: side(project, "from"),
            project_to: side(project, "to"),
        })
    }

    /// The id of a comment that is gone.
    pub fn comment_before(&self) -> Option<String> {
        let id = self.item("Comment")?.id("from")?;
        id.bytes().all(|byte| byte.is_ascii_digit()).then_some(id)
    }
}

impl Item<'_> {
    /// By its id where there is one, else by the name of a field that is Jira's own.
    fn is(&self, name: &str) -> bool {
        match self.id {
            Some(id) => id.eq_ignore_ascii_case(name),
            None => !self.custom && self.name.eq_ignore_ascii_case(name),
        }
    }

    fn id(&self, side: &str) -> Option<String> {
        body::id(self.value, side)
    }

    fn shown(&self, side: &str) -> Option<String> {
        body::shown(self.value, &format!("{side}String")).map(str::to_owned)
    }
}
