//! The service's choices, as pure functions: which tag, may it start, where to go back to, what to promote.

pub mod windows;

use super::{
    api_error::{ApiError, ApiResult, ErrorKind},
    store::CompleteDeploy,
};
use crate::{
    api::{Freeze, Kind, PromotionState, Release, ReleaseStatus},
    names::Tag,
};

/// The newest release that may be deployed without being named. `releases`: newest first.
#[must_use]
pub fn newest(releases: &[Release]) -> Option<&Tag> {
    releases.iter().find(|release| release.status == ReleaseStatus::Available).map(|release| &release.tag)
}

/// Refuses a release that is broken, but for a person who insists (`force`), and one that somebody rolled back from,
/// unless it was `named`.
pub fn may_start(release: &Release, named: bool, force: bool) -> ApiResult<()> {
    let Release { role, tag, .. } = release;
    let reason = release.reason.as_deref().unwrap_or("nobody said why");
    match release.status {
        ReleaseStatus::Broken if !force => Err(ApiError::new(
            ErrorKind::Broken,
            format!("{role}:{tag} is broken ({reason}): start another tag, or --force it if you know better"),
        )),
        ReleaseStatus::Withheld if !named && !force => Err(ApiError::new(
            ErrorKind::Withheld,
            format!("{role}:{tag} is withheld ({reason}): `deployctl start -t {tag}` deploys it all the same"),
        )),
        _ => Ok(()),
    }
}

/// Refuses a tag that is known with another commit: an image under it was replaced, and what runs under it is unclear. A
/// short commit is the same as the long one that begins with it.
pub fn same_commit(known: &Release, commit: Option<&str>) -> ApiResult<()> {
    let (Some(old), Some(new)) = (known.commit.as_deref(), commit) else { return Ok(()) };
    let is_short = old.len().min(new.len()) >= 7 && (old.starts_with(new) || new.starts_with(old));
    if old == new || is_short {
        return Ok(());
    }
    let Release { role, tag, .. } = known;
    Err(ApiError::new(
        ErrorKind::OtherCommit,
        format!("{role}:{tag} was published from the commit {old}, not {new}: publish this commit under another tag"),
    ))
}

/// Refuses what is new while a freeze covers the place.
pub fn may_thaw(freeze: Option<&Freeze>) -> ApiResult<()> {
    let Some(Freeze { environment, role, reason, by, at, until }) = freeze else { return Ok(()) };
    let what = role.as_ref().map_or_else(|| environment.to_string(), |role| format!("{role} in {environment}"));
    let why = reason.as_deref().filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}"));
    let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
    Err(ApiError::new(
        ErrorKind::Frozen,
        format!(
            "{what} is frozen by {by} since {at}{until}{}; deployctl unfreeze, or --force",
            why.unwrap_or_default()
        ),
    ))
}

/// What to go back to: the last complete deploy of another tag than the one that is left, unless that is marked.
/// `history`: newest first.
#[must_use]
pub fn way_back<'a>(
    history: &'a [CompleteDeploy],
    leaves: Option<&Tag>,
    is_marked: impl Fn(&Tag) -> bool,
) -> Option<&'a CompleteDeploy> {
    history.iter().find(|complete| Some(&complete.tag) != leaves && !is_marked(&complete.tag))
}

/// What of an environment is to be promoted, by itself or by a person: its last complete deploy that was no rollback, if
/// the environment is still on that release and it has not been promoted. `history`: newest first.
#[must_use]
pub fn to_promote<'a>(history: &'a [CompleteDeploy], promoted: Option<&str>) -> Option<&'a CompleteDeploy> {
    let newest = history.first()?;
    let candidate = history.iter().find(|complete| complete.kind != Kind::Rollback)?;
    (candidate.tag == newest.tag && promoted != Some(&candidate.id)).then_some(candidate)
}

/// What a promotion may have to wait for.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing to wait for")]
pub struct Waits {
    /// The complete deploy has not stood for long enough.
    pub bakes: bool,
    /// A gate does not let it pass.
    pub gate: bool,
    /// How many tokens have approved it.
    pub approvals: usize,
    /// How many must; 0 where it goes on by itself.
    pub approvals_needed: u32,
    /// The next environment is frozen.
    pub frozen: bool,
    /// It is outside its window.
    pub closed: bool,
    /// A deploy rolls there.
    pub rolls: bool,
}

/// What a promotion waits for: what keeps it from being approved first, then the approval, then what keeps one that is
/// approved from starting.
#[must_use]
pub fn waits_for(waits: &Waits) -> PromotionState {
    match waits {
        Waits { bakes: true, .. } => PromotionState::Bakes,
        Waits { gate: true, .. } => PromotionState::Gate,
        Waits { approvals, approvals_needed, .. } if approvals_needed.saturating_sub(count(*approvals)) > 0 => {
            PromotionState::WaitsForApproval
        }
        Waits { frozen: true, .. } => PromotionState::Frozen,
        Waits { closed: true, .. } => PromotionState::OutsideWindow,
        Waits { rolls: true, .. } => PromotionState::Rolling,
        Waits { .. } => PromotionState::Due,
    }
}

fn count(approvals: usize) -> u32 {
    u32::try_from(approvals).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(tag: &str, status: ReleaseStatus) -> Release {
        Release {
            role: "app".parse().unwrap(),
            tag: tag.parse().unwrap(),
            published_at: String::new(),
            status,
            environment: None,
            reason: Some("exited with 3".to_owned()),
            logs: None,
            commit: None,
            author: None,
            message: None,
            link: None,
            committed_at: None,
        }
    }

    #[test]
    fn a_tag_belongs_to_one_commit() {
        let known = Release { commit: Some("c0ffee123456".to_owned()), ..release("v1", ReleaseStatus::Available) };
        for same in [None, Some("c0ffee123456"), Some("c0ffee1"), Some("c0ffee1234567890")] {
            assert!(same_commit(&known, same).is_ok(), "{same:?}");
        }
        for other in ["c0f", "deadbeef", ""] {
            let refusal = same_commit(&known, Some(other)).unwrap_err();
            assert!(
                refusal.kind == ErrorKind::OtherCommit && refusal.message.contains("app:v1"),
                "{}",
                refusal.message
            );
        }
        let unknown = release("v1", ReleaseStatus::Available);
        assert!(same_commit(&unknown, Some("deadbeef")).is_ok(), "nothing was said of it before");
    }

    fn complete(id: &str, tag: &str, kind: Kind) -> CompleteDeploy {
        CompleteDeploy { id: id.to_owned(), tag: tag.parse().unwrap(), kind, ended: 0, promote: true }
    }

    #[test]
    fn a_start_without_a_tag_passes_over_what_is_marked() {
        use ReleaseStatus::{Available, Broken, Withheld};
        let releases =
            [release("v4", Withheld), release("v3", Broken), release("v2", Available), release("v1", Available)];
        assert_eq!(newest(&releases).unwrap().as_str(), "v2");
        assert_eq!(newest(&releases[..2]), None);
    }

    #[test]
    fn a_broken_release_wants_force_and_a_withheld_one_its_name() {
        let refused = |status, named, force| may_start(&release("v3", status), named, force).err().map(|e| e.kind);
        for (named, force) in [(false, false), (true, false), (true, true), (false, true)] {
            assert_eq!(refused(ReleaseStatus::Available, named, force), None);
            assert_eq!(refused(ReleaseStatus::Broken, named, force), (!force).then_some(ErrorKind::Broken));
            let withheld = refused(ReleaseStatus::Withheld, named, force);
            assert_eq!(withheld, (!named && !force).then_some(ErrorKind::Withheld));
        }
        let message = may_start(&release("v3", ReleaseStatus::Broken), true, false).unwrap_err().message;
        assert!(message.contains("app:v3") && message.contains("exited with 3"), "{message}");
    }

    #[test]
    fn the_way_back_is_the_last_good_other_tag() {
        use Kind::{Deploy, Rollback};
        let history = [complete("c", "v3", Deploy), complete("b", "v2", Deploy), complete("a", "v1", Rollback)];
        let back = |leaves: &str, marked: &[&str]| {
            let leaves = leaves.parse().unwrap();
            way_back(&history, Some(&leaves), |tag| marked.contains(&tag.as_str())).map(|c| c.tag.to_string())
        };
        assert_eq!(back("v3", &[]).as_deref(), Some("v2"));
        assert_eq!(back("v4", &[]).as_deref(), Some("v3"), "v4 never was complete");
        assert_eq!(back("v3", &["v2"]).as_deref(), Some("v1"));
        assert_eq!(back("v1", &["v2", "v3"]), None);
    }

    #[test]
    fn only_what_the_environment_is_still_on_is_promoted_once() {
        use Kind::{Deploy, Rollback};
        let found = |history: &[CompleteDeploy], promoted| to_promote(history, promoted).map(|c| c.id.clone());
        let (old, new) = (complete("old", "v1", Deploy), complete("new", "v2", Deploy));
        assert_eq!(found(&[new.clone(), old.clone()], None).as_deref(), Some("new"), "the newer replaces the older");
        assert_eq!(found(&[new.clone(), old.clone()], Some("new")), None);
        assert_eq!(found(&[complete("back", "v1", Rollback), new.clone(), old], None), None, "v2 was left");
        let again = complete("back", "v2", Rollback);
        assert_eq!(found(&[again.clone(), new.clone()], None).as_deref(), Some("new"), "v3 broke, v2 is back");
        assert_eq!(found(&[again], None), None, "rollbacks never promote");
        let by_hand = CompleteDeploy { promote: false, ..new };
        assert_eq!(found(&[by_hand], None).as_deref(), Some("new"), "a person may");
    }

    #[test]
    fn a_promotion_waits_for_one_thing_after_the_other() {
        let by_itself = Waits {
            bakes: false,
            gate: false,
            approvals: 0,
            approvals_needed: 0,
            frozen: false,
            closed: false,
            rolls: false,
        };
        let all = Waits {
            bakes: true,
            gate: true,
            approvals: 1,
            approvals_needed: 2,
            frozen: true,
            closed: true,
            rolls: true,
        };
        let mut waits = all;
        let mut seen = Vec::new();
        for next in [
            |waits: &mut Waits| waits.bakes = false,
            |waits: &mut Waits| waits.gate = false,
            |waits: &mut Waits| waits.approvals = 2,
            |waits: &mut Waits| waits.frozen = false,
            |waits: &mut Waits| waits.closed = false,
            |waits: &mut Waits| waits.rolls = false,
        ] {
            seen.push(waits_for(&waits));
            next(&mut waits);
        }
        assert_eq!(seen, PromotionState::ALL[..6]);
        assert_eq!(waits_for(&waits), PromotionState::Due);
        assert_eq!(waits_for(&by_itself), PromotionState::Due);
    }
}
