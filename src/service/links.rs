//! Links to the source code: what a deploy changes, made of `service.roles.*.repository` and the releases' commits.

use anyhow::Result;

use super::Service;
use crate::{
    api::{Deploy, State},
    names::Tag,
};

impl Service {
    /// The deploy with the address of what it changes, where the role has a repository and both commits are known, and
    /// with the gate that holds it.
    pub fn linked(&self, deploy: Deploy) -> Result<Deploy> {
        let gate = self.gate_doubt(&deploy.id).filter(|_| deploy.state == State::Rolling);
        let deploy = Deploy { gate, ..deploy };
        let Some(repository) = self.config.service.role(&deploy.role).repository else { return Ok(deploy) };
        let commit = |tag: Option<&Tag>| -> Result<Option<String>> {
            let Some(tag) = tag else { return Ok(None) };
            Ok(self.store.release(&deploy.role, tag)?.and_then(|release| release.commit))
        };
        let (old, new) = (commit(deploy.last_good.as_ref())?, commit(Some(&deploy.tag))?);
        let compare = old.zip(new).and_then(|(old, new)| compare(&repository, &old, &new));
        Ok(Deploy { compare, ..deploy })
    }
}

/// Whether a link leads to a web page, and nowhere else: `javascript:` is an address, too.
pub fn is_web(link: &str) -> bool {
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty()) && link.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The address of the comparison of two commits: GitHub's form, and GitLab's where the address says that it is one.
fn compare(repository: &str, old: &str, new: &str) -> Option<String> {
    let base = base(repository)?;
    let both = is_revision(old) && is_revision(new) && old != new;
    both.then(|| format!("{base}{}compare/{old}...{new}", separator(base)))
}

/// The address of a commit.
pub fn commit(repository: &str, commit: &str) -> Option<String> {
    let base = base(repository)?;
    is_revision(commit).then(|| format!("{base}{}commit/{commit}", separator(base)))
}

fn base(repository: &str) -> Option<&str> {
    let base = repository.trim_end_matches('/');
    let base = base.strip_suffix(".git").unwrap_or(base);
    is_web(base).then_some(base)
}

fn separator(base: &str) -> &'static str {
    if base.contains("gitlab") { "/-/" } else { "/" }
}

/// A commit is what CI says it is: only what cannot change the rest of an address becomes part of one.
fn is_revision(commit: &str) -> bool {
    !commit.is_empty() && commit.len() <= 64 && commit.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_the_form_of_its_host() {
        let link = |repository, old, new| compare(repository, old, new);
        assert_eq!(link("https://github.com/o/n.git/", "a1", "b2").unwrap(), "https://github.com/o/n/compare/a1...b2");
        assert_eq!(link("https://gitlab.x.io/o/n", "a1", "b2").unwrap(), "https://gitlab.x.io/o/n/-/compare/a1...b2");
        assert_eq!(link("https://github.com/o/n", "a1", "a1"), None, "nothing changes");
        assert_eq!(link("https://github.com/o/n", "a1", "../../x?y"), None);
        assert_eq!(link("javascript:alert(1)", "a1", "b2"), None);
        assert_eq!(commit("https://gitlab.x.io/o/n", "a1").unwrap(), "https://gitlab.x.io/o/n/-/commit/a1");
        assert_eq!(commit("https://github.com/o/n", "a1\"><script>"), None);
    }

    #[test]
    fn only_web_pages_are_links() {
        assert!(is_web("https://ci.internal/1?a=b#c") && is_web("http://x"));
        for bad in ["", "https://", "javascript:alert(1)", "https://a b", "https://a\nb", "//x", "data:text/html,x"] {
            assert!(!is_web(bad), "{bad}");
        }
    }
}
