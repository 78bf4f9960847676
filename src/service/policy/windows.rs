//! Whether deploys may start at a time, and when they next may. Pure: the time comes in as a value.

use jiff::{Timestamp, ZonedDateTime, civil::Date};

use crate::{
    config::Window,
    names::Place,
    service::api_error::{ApiError, ApiResult, ErrorKind},
};

/// How far ahead the next opening is looked for. Every window opens in each week, but where clocks are put forward over it.
const DAYS_AHEAD: i64 = 15;

/// No window is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// When the next one opens.
    pub opens: Option<ZonedDateTime>,
}

/// Whether all of `windows` are closed at the time `now`. Where there are none, any time will do.
#[must_use]
pub fn closed<'a>(windows: impl IntoIterator<Item = &'a Window>, now: Timestamp) -> Option<Closed> {
    let mut spans = windows.into_iter().flat_map(|window| spans(window, now)).peekable();
    spans.peek()?;
    let mut opens: Option<ZonedDateTime> = None;
    for (from, to) in spans {
        if from.timestamp() <= now && now < to.timestamp() {
            return None;
        }
        if from.timestamp() > now && opens.as_ref().is_none_or(|earliest| from < *earliest) {
            opens = Some(from);
        }
    }
    Some(Closed { opens })
}

/// The times at which a window is open, from yesterday's on: that one may last past midnight.
fn spans(window: &Window, now: Timestamp) -> impl Iterator<Item = (ZonedDateTime, ZonedDateTime)> {
    let zone = window.zone.rules();
    let first = now.to_zoned_datetime(zone.clone()).date().yesterday();
    let days = first.into_iter().flat_map(|first| first.series(jiff::Span::new().days(1)));
    let days = days.take(usize::try_from(DAYS_AHEAD + 2).unwrap_or(usize::MAX));
    days.filter(|day| window.days.contain(day.weekday())).filter_map(|day| span(window, day))
}

/// A time that clocks skip counts as the one after the gap; of two, where they are put back, the first counts.
fn span(window: &Window, day: Date) -> Option<(ZonedDateTime, ZonedDateTime)> {
    let (from, to) = (window.hours.from, window.hours.to);
    let last = if to > from { day } else { day.tomorrow().ok()? };
    let zone = window.zone.rules();
    let span =
        (zone.to_zoned_datetime(day.to_datetime(from)).ok()?, zone.to_zoned_datetime(last.to_datetime(to)).ok()?);
    (span.0 < span.1).then_some(span)
}

/// Refuses what is new while every window of `place` is closed.
pub fn may_start(place: &Place, closed: Option<&Closed>) -> ApiResult<()> {
    let Some(closed) = closed else { return Ok(()) };
    Err(ApiError::new(ErrorKind::OutsideWindow, format!("{place} is {}: wait, or --force", outside(closed))))
}

/// `outside its window, which opens on Mon 2026-11-30 at 09:00 CET`.
#[must_use]
pub fn outside(closed: &Closed) -> String {
    let opens =
        closed.opens.as_ref().map(|opens| opens.strftime(", which opens on %a %Y-%m-%d at %H:%M %Z").to_string());
    format!("outside its window{}", opens.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &str, hours: &str, zone: &str) -> Window {
        let value = serde_json::json!({"environment": "production", "days": days, "hours": hours, "zone": zone});
        serde_json::from_value(value).unwrap()
    }

    /// When the next one opens: `open` while one is.
    fn next(windows: &[Window], now: &str) -> String {
        let closed = closed(windows, now.parse().unwrap());
        closed.map_or("open".to_owned(), |closed| closed.opens.unwrap().to_string())
    }

    #[test]
    fn a_window_is_open_from_its_first_hour_until_just_before_its_last() {
        let berlin = [window("Mon-Thu", "09:00-16:00", "Europe/Berlin")];
        // A Monday in winter, an hour ahead of UTC.
        assert_eq!(next(&berlin, "2026-11-30T07:59:59Z"), "2026-11-30T09:00:00+01:00[Europe/Berlin]");
        assert_eq!(next(&berlin, "2026-11-30T08:00:00Z"), "open");
        assert_eq!(next(&berlin, "2026-11-30T14:59:59Z"), "open");
        assert_eq!(next(&berlin, "2026-11-30T15:00:00Z"), "2026-12-01T09:00:00+01:00[Europe/Berlin]");
        // Thursday afternoon: not before Monday.
        assert_eq!(next(&berlin, "2026-12-03T15:00:00Z"), "2026-12-07T09:00:00+01:00[Europe/Berlin]");
        assert_eq!(next(&[], "2026-12-03T15:00:00Z"), "open");
    }

    #[test]
    fn a_window_keeps_its_hours_when_clocks_change() {
        let berlin = [window("Mon-Sun", "09:00-16:00", "Europe/Berlin")];
        // 2026-03-29 at 02:00 clocks are put forward: from then on nine is an hour earlier in UTC.
        assert_eq!(next(&berlin, "2026-03-28T07:30:00Z"), "2026-03-28T09:00:00+01:00[Europe/Berlin]");
        assert_eq!(next(&berlin, "2026-03-28T20:00:00Z"), "2026-03-29T09:00:00+02:00[Europe/Berlin]");
        assert_eq!(next(&berlin, "2026-03-29T07:00:00Z"), "open");
        assert_eq!(next(&berlin, "2026-03-29T14:00:00Z"), "2026-03-30T09:00:00+02:00[Europe/Berlin]");
        // 2026-10-25 at 03:00 they are put back.
        assert_eq!(next(&berlin, "2026-10-24T20:00:00Z"), "2026-10-25T09:00:00+01:00[Europe/Berlin]");
        assert_eq!(next(&berlin, "2026-10-25T14:59:59Z"), "open");
    }

    #[test]
    fn hours_that_clocks_skip_or_repeat() {
        let night = [window("Sun", "02:00-03:00", "Europe/Berlin")];
        // On 2026-03-29 there is no such hour; on 2026-10-25 it comes twice, and the window is open for both.
        assert_eq!(next(&night, "2026-03-28T12:00:00Z"), "2026-04-05T02:00:00+02:00[Europe/Berlin]");
        assert_eq!(next(&night, "2026-10-24T23:59:59Z"), "2026-10-25T02:00:00+02:00[Europe/Berlin]");
        for now in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            assert_eq!(next(&night, now), "open", "{now}");
        }
        assert_eq!(next(&night, "2026-10-25T02:00:00Z"), "2026-11-01T02:00:00+01:00[Europe/Berlin]");
    }

    #[test]
    fn a_window_may_last_past_midnight_and_the_earliest_of_several_counts() {
        let nights = [window("Fri", "22:00-04:00", "UTC"), window("Sat", "20:00-24:00", "America/New_York")];
        assert_eq!(next(&nights, "2026-11-27T21:00:00Z"), "2026-11-27T22:00:00+00:00[UTC]");
        assert_eq!(next(&nights, "2026-11-28T03:59:59Z"), "open");
        assert_eq!(next(&nights, "2026-11-28T04:00:00Z"), "2026-11-28T20:00:00-05:00[America/New_York]");
        assert_eq!(next(&nights, "2026-11-29T04:59:59Z"), "open");
        assert_eq!(next(&nights, "2026-11-29T05:00:00Z"), "2026-12-04T22:00:00+00:00[UTC]");
    }

    #[test]
    fn a_refusal_says_when_it_opens() {
        let place = Place { environment: "production".parse().unwrap(), role: "app".parse().unwrap() };
        let berlin = [window("Mon-Thu", "09:00-16:00", "Europe/Berlin")];
        let closed = closed(&berlin, "2026-11-29T12:00:00Z".parse().unwrap());
        let refusal = may_start(&place, closed.as_ref()).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::OutsideWindow);
        assert_eq!(
            refusal.message,
            "app in production is outside its window, which opens on Mon 2026-11-30 at 09:00 CET: wait, or --force"
        );
        assert!(may_start(&place, None).is_ok());
    }
}
