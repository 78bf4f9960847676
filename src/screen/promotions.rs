//! What is to go on to the next environment, as a person reads it.

use jiff::Timestamp;

use super::{Paint, Style, age, one_line, time};
use crate::api::{Promotion, PromotionState};

/// `app: v42 waits for approval to go on to production, complete in staging for 2h 5m; deployctl promote …`.
#[must_use]
pub fn promotion(style: Style, promotion: &Promotion, now: Timestamp) -> String {
    let Promotion { role, tag, from, environment, .. } = promotion;
    let paint = match promotion.state {
        PromotionState::WaitsForApproval | PromotionState::Gate => Paint::Yellow,
        _ => Paint::Dim,
    };
    let since = age(now, &promotion.since);
    let next = if promotion.state == PromotionState::WaitsForApproval {
        format!("; deployctl promote -r {role} --from {from}")
    } else {
        String::new()
    };
    let what = format!("{role}: {tag}, complete in {from} for {since}, is to go on to {environment}");
    style.paint(paint, &format!("{what}: {}{next}", promotion_waits(promotion)))
}

/// `waits for approval; 1 of 2 approvals, by ann`.
#[must_use]
pub fn promotion_waits(promotion: &Promotion) -> String {
    let reason = promotion.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    let until = promotion.until.map(|until| format!(" until {}", time(until))).unwrap_or_default();
    let waits = match promotion.state {
        PromotionState::WaitsForApproval => "waits for approval".to_owned(),
        PromotionState::Bakes => format!("bakes{until}"),
        PromotionState::Gate => format!("is kept by a gate{reason}"),
        PromotionState::Frozen => format!("waits for the end of a freeze{until}{reason}"),
        PromotionState::OutsideWindow => format!("waits for its window{until}"),
        PromotionState::Rolling => format!("waits{reason}"),
        PromotionState::Due => "starts now".to_owned(),
    };
    let approvals = if promotion.approvals_needed > 1 { approvals(promotion) } else { String::new() };
    format!("{waits}{approvals}")
}

/// `; 1 of 2 approvals, by ann`.
fn approvals(promotion: &Promotion) -> String {
    let who: Vec<&str> = promotion.approvals.iter().map(|approval| approval.by.as_str()).collect();
    let by = if who.is_empty() { "" } else { ", by " };
    format!("; {} of {} approvals{by}{}", who.len(), promotion.approvals_needed, who.join(" and "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(more: &serde_json::Value) -> String {
        let mut value = json!({
            "role": "app", "tag": "v42", "from": "staging", "environment": "production", "source": "app.staging.1",
            "since": "2026-01-01T00:00:00Z", "state": "waits_for_approval", "approvals_needed": 1,
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let promotion_of = serde_json::from_value(value).unwrap();
        promotion(Style::plain(), &promotion_of, "2026-01-01T00:00:30Z".parse().unwrap())
    }

    #[test]
    fn a_promotion_says_what_it_waits_for_and_what_to_do() {
        assert_eq!(
            shown(&json!({})),
            "app: v42, complete in staging for 30s, is to go on to production: waits for approval; \
             deployctl promote -r app --from staging"
        );
        let approvals = json!([{"by": "ann (ann@laptop)", "at": "2026-01-01T00:00:10Z"}]);
        let text = shown(&json!({"approvals_needed": 2, "approvals": approvals}));
        assert!(text.contains("; 1 of 2 approvals, by ann (ann@laptop); deployctl promote"), "{text}");
        let text = shown(&json!({"state": "bakes", "until": "2026-01-01T00:05:00Z", "approvals_needed": 0}));
        assert!(text.ends_with("production: bakes until 2026-01-01 00:05:00 UTC"), "{text}");
        let text = shown(&json!({"state": "gate", "reason": "`errors` is 7"}));
        assert!(text.ends_with("is kept by a gate: `errors` is 7"), "{text}");
    }
}
