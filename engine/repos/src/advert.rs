//! What a server says of its repository before anything is fetched: capabilities and refs, in git's version 0 protocol.
//!
//! Read here, though libgit2 reads it too, because libgit2 would take names for text, has no limit, and cannot say what
//! kind of repository it did not understand. Pure: bytes in, refs out. Where the bytes come from is in
//! [`crate::transport`]. Source of the format: git's `gitprotocol-pack(5)` and `gitprotocol-http(5)`.

use std::collections::BTreeMap;

use git2::Oid;

/// Most refs of one repository, tags and what they peel to counted each.
pub const MAX_REFS: usize = 100_000;
/// Most bytes of one advertisement: room for that many refs, twice, with long names.
pub const MAX_ADVERT_BYTES: usize = 64 * 1024 * 1024;

/// Branches and tags of a repository, as its server lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// What the server's `HEAD` names if that branch exists; else `main`, `master`, or the only branch there is.
    pub default_branch: Option<String>,
    /// Sorted by name. Names that are not UTF-8 are left out.
    pub refs: Vec<RemoteRef>,
}

/// A branch or tag of an origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteRef {
    /// In full, for example `refs/heads/main`.
    pub name: String,
    /// Full hex id of what it points at: for an annotated tag the tag object.
    pub target: String,
    /// For an annotated tag: full hex id of what it finally names, nearly always a commit.
    pub peeled: Option<String>,
}

/// An advertisement, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advert {
    /// Every ref with a safe name, `HEAD` not among them.
    pub refs: BTreeMap<Vec<u8>, Advertised>,
    /// The branch that `HEAD` names, without `refs/heads/`.
    pub head: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advertised {
    pub target: Oid,
    pub peeled: Option<Oid>,
}

/// Why an advertisement cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdvertError {
    /// Not the protocol, or not all of it.
    #[error("it does not speak git's protocol ({0})")]
    Malformed(String),
    #[error("it uses the object format {0}, and only sha1 repositories can be read")]
    ObjectFormat(String),
    #[error("its history is incomplete (a shallow clone); run `git fetch --unshallow` there")]
    Shallow,
    #[error("it has more than {MAX_REFS} refs")]
    TooManyRefs,
    /// The server's own words instead of an answer.
    #[error("the server says: {0}")]
    Refused(String),
}

/// One length-prefixed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Flush,
    Line(&'a [u8]),
}

/// The digits that give a line's length, themselves included.
pub(crate) const LENGTH_DIGITS: usize = 4;

/// How long the packet with these length digits is, the digits included.
pub(crate) fn packet_len(digits: &[u8]) -> Result<usize, AdvertError> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    let len = text.and_then(|text| usize::from_str_radix(text, 16).ok());
    match len {
        Some(0) => Ok(LENGTH_DIGITS),
        Some(len) if len >= LENGTH_DIGITS => Ok(len),
        Some(_) | None => Err(AdvertError::Malformed(format!("\"{}\" is no length", digits.escape_ascii()))),
    }
}

fn next_packet<'a>(rest: &mut &'a [u8]) -> Result<Option<Packet<'a>>, AdvertError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let cut_off = || AdvertError::Malformed("the answer is cut off".into());
    let digits = rest.get(..LENGTH_DIGITS).ok_or_else(cut_off)?;
    let len = packet_len(digits)?;
    let packet = if digits == b"0000" {
        Packet::Flush
    } else {
        Packet::Line(rest.get(LENGTH_DIGITS..len).ok_or_else(cut_off)?.trim_ascii_end())
    };
    *rest = &rest[len..];
    Ok(Some(packet))
}

/// Reads an advertisement of either service. `announced`: it opens with the name of the service, as over http.
pub(crate) fn parse(bytes: &[u8], announced: bool) -> Result<Advert, AdvertError> {
    let mut rest = bytes;
    if announced {
        match next_packet(&mut rest)? {
            Some(Packet::Line(line)) if line.starts_with(b"# service=git-") => {}
            Some(Packet::Line(line)) if line.starts_with(b"ERR ") => return Err(refused(line)),
            Some(_) | None => return Err(AdvertError::Malformed("it does not name its service".into())),
        }
        if next_packet(&mut rest)? != Some(Packet::Flush) {
            return Err(AdvertError::Malformed("it does not name its service".into()));
        }
    }
    let mut advert = Advert::default();
    let mut first = true;
    loop {
        let line = match next_packet(&mut rest)? {
            Some(Packet::Line(line)) => line,
            Some(Packet::Flush) => return Ok(advert),
            None => return Err(AdvertError::Malformed("the list of refs does not end".into())),
        };
        if line == b"version 1" && first {
            continue;
        }
        if line.starts_with(b"ERR ") {
            return Err(refused(line));
        }
        if line.starts_with(b"shallow ") {
            return Err(AdvertError::Shallow);
        }
        let mut parts = line.splitn(2, |byte| *byte == 0);
        let named = parts.next().unwrap_or_default();
        if let (true, Some(capabilities)) = (first, parts.next()) {
            advert.head = read_capabilities(capabilities)?;
        }
        first = false;
        read_ref(&mut advert, named)?;
        if advert.refs.len() > MAX_REFS {
            return Err(AdvertError::TooManyRefs);
        }
    }
}

fn refused(line: &[u8]) -> AdvertError {
    AdvertError::Refused(String::from_utf8_lossy(&line[4..]).trim().escape_debug().to_string())
}

/// The branch that `HEAD` names.
fn read_capabilities(capabilities: &[u8]) -> Result<Option<String>, AdvertError> {
    let mut head = None;
    for capability in capabilities.split(|byte| *byte == b' ') {
        if let Some(format) = capability.strip_prefix(b"object-format=")
            && format != b"sha1"
        {
            return Err(AdvertError::ObjectFormat(format.escape_ascii().to_string()));
        }
        if let Some(target) = capability.strip_prefix(b"symref=HEAD:")
            && let Some(branch) = target.strip_prefix(b"refs/heads/")
            && is_safe(target)
        {
            head = std::str::from_utf8(branch).ok().map(str::to_owned);
        }
    }
    Ok(head)
}

fn read_ref(advert: &mut Advert, line: &[u8]) -> Result<(), AdvertError> {
    let malformed = || AdvertError::Malformed(format!("\"{}\" is no ref", line.escape_ascii()));
    let space = line.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
    let (id, name) = (&line[..space], &line[space + 1..]);
    if id.len() == SHA256_HEX_LEN {
        return Err(AdvertError::ObjectFormat("sha256".into()));
    }
    let id = std::str::from_utf8(id).ok().and_then(crate::mirrors::full_id).ok_or_else(malformed)?;
    // An empty repository has no ref that could carry the capabilities.
    if name == b"capabilities^{}" || name == b"HEAD" || name == b".have" {
        return Ok(());
    }
    if let Some(tag) = name.strip_suffix(b"^{}") {
        if let Some(known) = advert.refs.get_mut(tag) {
            known.peeled = Some(id);
        }
        return Ok(());
    }
    if is_safe(name) {
        advert.refs.insert(name.to_vec(), Advertised { target: id, peeled: None });
    } else {
        tracing::warn!(name = %name.escape_ascii(), "ignoring a ref with a name that git forbids");
    }
    Ok(())
}

const SHA256_HEX_LEN: usize = 64;

/// Git's own rules for names (`git-check-ref-format(1)`), over bytes: a server may say anything, and we write it to disk.
fn is_safe(name: &[u8]) -> bool {
    let forbidden = |byte: &u8| byte.is_ascii_control() || b" ~^:?*[\\".contains(byte);
    name.starts_with(b"refs/")
        && !name.iter().any(forbidden)
        && !name.windows(2).any(|pair| pair == b".." || pair == b"@{")
        && !name.ends_with(b".")
        && name
            .split(|byte| *byte == b'/')
            .all(|part| !part.is_empty() && !part.starts_with(b".") && !part.ends_with(b".lock"))
}

/// Branches and tags.
pub(crate) fn is_mirrored(name: &[u8]) -> bool {
    name.starts_with(b"refs/heads/") || name.starts_with(b"refs/tags/")
}

/// The default branch among `names` (full names of refs), where `HEAD` names `named`.
pub(crate) fn default_branch<'a>(named: Option<&str>, names: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let branches: Vec<&str> = names
        .filter_map(|name| name.strip_prefix(b"refs/heads/"))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect();
    let only = if branches.len() == 1 { branches.first().copied() } else { None };
    let candidates = [named, Some("main"), Some("master"), only];
    candidates.into_iter().flatten().find(|name| branches.contains(name)).map(str::to_owned)
}

impl Advert {
    /// Branches and tags only.
    pub(crate) fn heads(&self) -> Heads {
        let mirrored = || self.refs.iter().filter(|(name, _)| is_mirrored(name));
        let default_branch = default_branch(self.head.as_deref(), mirrored().map(|(name, _)| name.as_slice()));
        let refs = mirrored()
            .filter_map(|(name, advertised)| {
                Some(RemoteRef {
                    name: std::str::from_utf8(name).ok()?.to_owned(),
                    target: advertised.target.to_string(),
                    peeled: advertised.peeled.map(|id| id.to_string()),
                })
            })
            .collect();
        Heads { default_branch, refs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8]) -> Vec<u8> {
        [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn advert(lines: &[Vec<u8>]) -> Result<Advert, AdvertError> {
        let lines: Vec<Vec<u8>> = lines.iter().map(|text| line(text)).collect();
        parse(&[lines.concat(), b"0000".to_vec()].concat(), false)
    }

    fn text(line: String) -> Vec<u8> {
        line.into_bytes()
    }

    #[test]
    fn branches_tags_and_what_they_peel_to() {
        let seen = advert(&[
            text(format!("{} HEAD\0side-band-64k symref=HEAD:refs/heads/trunk object-format=sha1\n", id('1'))),
            text(format!("{} refs/heads/trunk\n", id('1'))),
            text(format!("{} refs/notes/x\n", id('4'))),
            text(format!("{} refs/tags/v1\n", id('2'))),
            text(format!("{} refs/tags/v1^{{}}\n", id('3'))),
        ])
        .expect("a good one");
        let heads = seen.heads();
        assert_eq!(heads.default_branch.as_deref(), Some("trunk"));
        assert_eq!(
            heads.refs,
            [
                RemoteRef { name: "refs/heads/trunk".into(), target: id('1'), peeled: None },
                RemoteRef { name: "refs/tags/v1".into(), target: id('2'), peeled: Some(id('3')) },
            ]
        );
        assert!(seen.refs.contains_key(b"refs/notes/x".as_slice()));
    }

    #[test]
    fn an_empty_repository_has_no_refs() {
        let seen = advert(&[text(format!("{} capabilities^{{}}\0ofs-delta\n", id('0')))]).expect("a good one");
        assert_eq!(seen, Advert::default());
        assert_eq!(parse(b"0000", false), Ok(Advert::default()));
        assert_eq!(parse(b"001e# service=git-upload-pack\n00000000", true), Ok(Advert::default()));
    }

    #[test]
    fn names_that_git_forbids_are_left_out() {
        for name in [
            "refs/heads/../../x",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads//a",
            "refs/heads/a~1",
            "elsewhere",
        ] {
            let seen = advert(&[text(format!("{} {name}\0x\n", id('1')))]).expect("the rest is good");
            assert!(seen.refs.is_empty(), "{name}");
        }
    }

    #[test]
    fn other_answers_are_told_apart() {
        let check = |seen: Result<Advert, AdvertError>, part: &str| {
            let error = seen.expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        };
        check(advert(&[text(format!("{} HEAD\0object-format=sha256\n", id('1')))]), "object format sha256");
        check(advert(&[text(format!("{} HEAD\0x\n", "1".repeat(64)))]), "object format sha256");
        check(advert(&[text(format!("shallow {}\n", id('1')))]), "shallow");
        check(advert(&[b"ERR access denied\n".to_vec()]), "the server says: access denied");
        check(advert(&[b"nonsense".to_vec()]), "is no ref");
        check(parse(b"<html>", false), "is no length");
        check(parse(b"0003", false), "is no length");
        check(parse(b"00ff", false), "cut off");
        check(parse(b"", false), "does not end");
        check(parse(b"0000", true), "does not name its service");
    }
}
