//! The boxes that serve a release beside those that do not yet: their names in a query, and the verdict on both.

use super::gates::{Reading, brief};
use crate::{
    api::{Deploy, Phase},
    config::CompareGate,
    names::{BoxName, Tag},
};

/// Who serves what while a release rolls.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// The boxes that serve the new release.
    pub boxes: Vec<BoxName>,
    /// The boxes that serve what was there before.
    pub others: Vec<BoxName>,
    /// What that is.
    pub last_good: Option<Tag>,
}

impl Serving {
    /// Who serves what by the rows of a deploy. Boxes that are out serve nothing, nor does who waits for the first release
    /// that there is.
    #[must_use]
    pub fn of(deploy: &Deploy) -> Self {
        let before: &[Phase] =
            if deploy.last_good.is_some() { &[Phase::Expected, Phase::Waiting, Phase::Pulling] } else { &[] };
        let names = |phases: &[Phase]| {
            let rows = deploy.boxes.iter().filter(|row| phases.contains(&row.phase));
            rows.map(|row| row.name.clone()).collect()
        };
        Self { boxes: names(&[Phase::Done]), others: names(before), last_good: deploy.last_good.clone() }
    }

    /// A query with `$boxes`, `$others`, `$tag` and `$last_good` filled in. Names have no quotes and no backslashes; a dot
    /// is put into brackets, so that it stands for itself in each of PromQL's three ways to quote.
    #[must_use]
    pub fn fill_in(&self, query: &str, tag: &Tag) -> String {
        // Without boxes: what matches no name.
        let any = |names: &[BoxName]| match names {
            [] => "-".to_owned(),
            _ => names.iter().map(|name| name.as_str().replace('.', "[.]")).collect::<Vec<_>>().join("|"),
        };
        query
            .replace("$boxes", &any(&self.boxes))
            .replace("$others", &any(&self.others))
            .replace("$tag", tag.as_str())
            .replace("$last_good", self.last_good.as_ref().map_or("", Tag::as_str))
    }
}

/// Holds what the new boxes show against what the others do.
#[must_use]
pub fn judge(gate: &CompareGate, new: f64, old: f64, samples: Option<f64>) -> Reading {
    if let Some((samples, least)) = samples.zip(gate.min_samples)
        && (samples < least || samples.is_nan())
    {
        return Reading::Unknown(format!("it rests on {samples:.0} samples, and {least} are needed"));
    }
    let (shown, beside) = (brief(new), brief(old));
    let text = format!("`{}` is {shown} on the boxes of the release and {beside} on the others", gate.query);
    if new.is_nan() || old.is_nan() {
        return Reading::Unknown(text);
    }
    if new > old * gate.max_ratio {
        return Reading::Fail(format!("{text}: more than {} times", gate.max_ratio));
    }
    Reading::Pass(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> CompareGate {
        let text =
            r#"{"url": "u", "query": "q", "baseline": "b", "max_ratio": 1.5, "samples": "s", "min_samples": 100}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_hits_both_is_not_the_release() {
        let judge = |new, old| judge(&gate(), new, old, Some(100.0));
        assert!(matches!(judge(0.2, 0.0), Reading::Fail(_)));
        assert!(matches!(judge(0.2, 0.1), Reading::Fail(_)));
        assert!(matches!(judge(0.2, 0.2), Reading::Pass(_)));
        assert!(matches!(judge(0.0, 0.0), Reading::Pass(_)));
        assert!(matches!(judge(f64::NAN, 0.1), Reading::Unknown(_)));
    }

    #[test]
    fn too_little_is_no_verdict() {
        assert!(matches!(judge(&gate(), 1.0, 0.0, Some(99.0)), Reading::Unknown(_)));
        assert!(matches!(judge(&gate(), 1.0, 0.0, Some(f64::NAN)), Reading::Unknown(_)));
    }

    #[test]
    fn names_match_themselves_only() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let serving = Serving { boxes: names(&["a.1", "b-2"]), others: Vec::new(), last_good: None };
        let filled = serving.fill_in(r#"x{i=~"$boxes",j!~"$others",t="$tag",l="$last_good"}"#, &"v2".parse().unwrap());
        assert_eq!(filled, r#"x{i=~"a[.]1|b-2",j!~"-",t="v2",l=""}"#);
    }
}
