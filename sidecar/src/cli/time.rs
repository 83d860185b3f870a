//! Moments as people write and read them.

/// A moment, Unix milliseconds: `2026-11-25`, `2026-11-25T13:07`, `2026-11-25T13:07:55Z` (UTC), or how long ago: `90s`, `15min`, `2h`, `7d`.
pub(crate) fn parse(text: &str, now_ms: u64) -> Result<u64, String> {
    ago(text)
        .map(|ago_ms| now_ms.saturating_sub(ago_ms))
        .or_else(|| date(text))
        .ok_or_else(|| {
            "must be a time like 2026-11-25T13:07:55Z (UTC) or how long ago: 90s, 15min, 2h, 7d"
                .to_owned()
        })
}

fn ago(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let unit_ms = match unit {
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

fn date(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "0:0:0"));
    let numbers = |text: &str, separator| -> Option<Vec<u64>> {
        let is_number = |part: &str| part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
        text.split(separator)
            .map(|part| part.parse().ok().filter(|_| is_number(part)))
            .collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let &[year, month, day] = &date[..] else {
        return None;
    };
    let (hour, minute, second) = match time[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    let days = days_of(year, month, day).filter(|_| is_time)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days since 1970-01-01. None for a day that is not in the calendar.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + leap(year)).sum();
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    Some(years + months + day - 1)
}

fn leap(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    u64::from(is_leap)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + leap(year),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2026-11-25T13:07:55Z`.
pub(crate) fn format(ms: u64) -> String {
    let seconds = ms / 1000;
    let mut days = seconds / 86_400;
    // A clock that is off by more than that shows it all the same.
    let mut year = 1970;
    while year < 9999 && days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        for ms in [
            0,
            951_782_400_000,
            1_709_164_799_000,
            1_795_573_000_000,
            4_102_444_799_000,
        ] {
            assert_eq!(parse(&format(ms), 0), Ok(ms), "{}", format(ms));
        }
        assert_eq!(format(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(parse("2026-11-25", 0), parse("2026-11-25T00:00Z", 0));
        assert_eq!(parse("1970-01-02 01:00", 0), Ok(25 * 3_600_000));
    }

    #[test]
    fn how_long_ago_counts_from_now() {
        assert_eq!(parse("90s", 100_000), Ok(10_000));
        assert_eq!(parse("2h", 10_000_000), Ok(2_800_000));
        assert_eq!(parse("7d", 5), Ok(0), "nothing is older than 1970");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for wrong in [
            "",
            "soon",
            "5",
            "5weeks",
            "2026-13-01",
            "2026-02-29",
            "2026-11-25T24:00",
            "2026-11-25T1:2:3:4",
            "-1d",
        ] {
            assert!(parse(wrong, 0).is_err(), "{wrong}");
        }
    }
}
