//! Who asks, and what that one may do.
//!
//! A request carries either the data folder's own token, which opens everything, or an API token, whose role and project
//! limit it. Each route names the least role that it wants ([`needs`], [`needs_everywhere`]); a route that names none does
//! not exist, which a test checks. 401 means that nobody knows the token, 403 that its bearer may not.
//!
//! Tokens that were found are remembered for a moment, so that a poller does not cost a query each time: a revoked token
//! may open for [`REMEMBERED`] longer on another replica, never here.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use kickwheel_runtime::{Bearer, engine::access::token_hash};
use kickwheel_schemas::{Millis, api::Role};
use subtle::ConstantTimeEq as _;

use crate::{refusal::Refusal, routes::Door};

/// How long a token that was found is taken for granted.
pub const REMEMBERED: Duration = Duration::from_secs(3);
/// Tokens that are remembered; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 1_000;

/// Bearers by the hash of their token: so no token lies about, and looking one up tells nothing about another.
#[derive(Debug, Default)]
pub struct KnownTokens(Mutex<HashMap<String, (Instant, Bearer)>>);

impl KnownTokens {
    fn get(&self, token: &str) -> Option<Bearer> {
        let known = self.0.lock().expect("no holder of this lock panics");
        let (_, bearer) = known.get(&token_hash(token)).filter(|(at, _)| at.elapsed() < REMEMBERED)?;
        // Its end is looked at each time, by this server's clock.
        bearer.expires_at.is_none_or(|end| end > Millis::now()).then(|| bearer.clone())
    }

    fn remember(&self, token: &str, bearer: &Bearer) {
        let mut known = self.0.lock().expect("no holder of this lock panics");
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(token_hash(token), (Instant::now(), bearer.clone()));
    }

    /// After a revocation.
    pub fn forget_all(&self) {
        self.0.lock().expect("no holder of this lock panics").clear();
    }
}

/// Who holds the data folder.
fn owner() -> Bearer {
    Bearer {
        id: "data-folder".to_owned(),
        name: "the data folder's token".to_owned(),
        role: Role::Admin,
        project: None,
        expires_at: None,
    }
}

/// The token of a request; none also when there are several.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, given) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)
}

/// Whether it is the data folder's token. In constant time, so that answering times tell nothing about it.
fn is_owners(given: &[u8], owners: &str) -> bool {
    !owners.is_empty() && bool::from(given.ct_eq(owners.as_bytes()))
}

/// Who asks. Unknown, expired and revoked tokens get the same answer.
pub async fn who(door: &Door, headers: &HeaderMap) -> Result<Bearer, Refusal> {
    let given = token(headers).ok_or_else(unauthorized)?;
    if is_owners(given, door.token()) {
        return Ok(owner());
    }
    let given = std::str::from_utf8(given).map_err(|_| unauthorized())?;
    if let Some(known) = door.known_tokens().get(given) {
        return Ok(known);
    }
    let bearer = door.engine().bearer(given).await?.ok_or_else(unauthorized)?;
    door.known_tokens().remember(given, &bearer);
    Ok(bearer)
}

/// The same for all requests without, or with a wrong, token.
pub fn unauthorized() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "send `Authorization: Bearer <token>` with a token that is neither expired nor revoked: one of `kickwheel tokens \
         create`, or that in the file `token` of the data folder, which the command line finds by itself: `kickwheel runs \
         ls`",
    )
}

/// Around everything that needs a token, unknown routes included: without one nobody learns which routes there are.
pub async fn lock(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    match who(&door, request.headers()).await {
        Ok(bearer) => {
            let project = door.engine().default_project();
            if bearer.project.as_deref().is_some_and(|only| only != project) {
                return forbidden(&bearer, "project_forbidden", &format!("the project {project:?}")).into_response();
            }
            request.extensions_mut().insert(bearer);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn forbidden(bearer: &Bearer, code: &str, wanted: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        code,
        format!("this needs {wanted}, and {} is a token of the role {}", bearer.name, bearer.role.as_str())
            + &bearer.project.as_ref().map_or_else(String::new, |p| format!(" for the project {p:?} only")),
    )
}

/// Refuses who may not.
fn check(bearer: Option<&Bearer>, role: Role, everywhere: bool) -> Result<(), Refusal> {
    let bearer = bearer.ok_or_else(unauthorized)?;
    if bearer.role < role {
        return Err(forbidden(bearer, "role_missing", &format!("the role {}", role.as_str())));
    }
    if everywhere && bearer.project.is_some() {
        return Err(forbidden(bearer, "project_forbidden", "a token for all projects"));
    }
    Ok(())
}

/// These methods of a route are for bearers of this role, or of a higher one.
pub fn needs(role: Role, methods: MethodRouter<Door>) -> MethodRouter<Door> {
    guarded(role, false, methods)
}

/// The same for what concerns the whole installation: a token of one project does not open it.
pub fn needs_everywhere(role: Role, methods: MethodRouter<Door>) -> MethodRouter<Door> {
    guarded(role, true, methods)
}

fn guarded(role: Role, everywhere: bool, methods: MethodRouter<Door>) -> MethodRouter<Door> {
    methods.route_layer(from_fn(move |request: Request, next: Next| async move {
        match check(request.extensions().get::<Bearer>(), role, everywhere) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check_token(header: Option<&'static str>, owners: &str, accepted: bool) {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        let ours = token(&headers).is_some_and(|given| is_owners(given, owners));
        assert_eq!(ours, accepted, "{header:?}");
    }

    #[test]
    fn only_the_whole_token_as_bearer_opens() {
        check_token(Some("Bearer abc"), "abc", true);
        check_token(Some("bearer abc"), "abc", true);
        check_token(Some("Bearer ab"), "abc", false);
        check_token(Some("Bearer abcd"), "abc", false);
        check_token(Some("Bearer "), "abc", false);
        check_token(Some("Basic abc"), "abc", false);
        check_token(Some("abc"), "abc", false);
        check_token(None, "abc", false);
        check_token(Some("Bearer "), "", false);
    }

    fn bearer(role: Role, project: Option<&str>) -> Bearer {
        Bearer { role, project: project.map(str::to_owned), ..owner() }
    }

    #[test]
    fn a_higher_role_may_what_a_lower_one_may_and_not_the_other_way_round() {
        for (given, has) in Role::ALL.into_iter().enumerate() {
            for (wanted, needs) in Role::ALL.into_iter().enumerate() {
                assert_eq!(check(Some(&bearer(has, None)), needs, false).is_ok(), given >= wanted, "{has:?} {needs:?}");
            }
        }
        assert!(check(Some(&bearer(Role::Admin, Some("p"))), Role::Viewer, true).is_err());
        assert!(check(Some(&bearer(Role::Admin, Some("p"))), Role::Admin, false).is_ok());
        let refusal = check(Some(&bearer(Role::Viewer, None)), Role::Admin, false).expect_err("a viewer");
        assert!(refusal.0.detail.contains("the role admin"), "{}", refusal.0.detail);
        assert_eq!(check(None, Role::Viewer, false).expect_err("nobody").0.status, 401);
    }

    #[test]
    fn a_remembered_token_ends_by_the_clock_and_with_a_revocation() {
        let known = KnownTokens::default();
        known.remember("a", &owner());
        known.remember("b", &Bearer { expires_at: Some(Millis(1)), ..owner() });
        assert!(known.get("a").is_some() && known.get("b").is_none() && known.get("c").is_none());
        known.forget_all();
        assert!(known.get("a").is_none());
    }
}
