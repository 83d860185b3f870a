//! Figures with their references: medians over the rounds, as a table and as JSON.

use serde::Serialize;

/// What a figure should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At most the reference and this on top, by the median of the rounds' differences: rounds drift together.
    ReferencePlus(f64),
    /// At least so many times the reference, by the median of the rounds' ratios.
    RatioAtLeast(f64),
    /// At most so many times the reference, by the median of the rounds' ratios.
    RatioAtMost(f64),
}

/// One figure and its reference, a value a round each; the n-th of both come from the same round.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) reference: String,
    pub(crate) reference_values: Vec<f64>,
    pub(crate) goal: Option<Goal>,
}

/// One element of the JSON array.
#[derive(Serialize)]
struct Record {
    name: String,
    value: f64,
    unit: String,
    reference: String,
    reference_value: f64,
    ratio: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        values: &[f64],
        (reference, reference_values): (&str, &[f64]),
        goal: Option<Goal>,
    ) -> Self {
        Figure {
            name: name.into(),
            unit,
            values: values.to_vec(),
            reference: reference.to_owned(),
            reference_values: reference_values.to_vec(),
            goal,
        }
    }

    fn record(&self) -> Record {
        let (value, reference_value) = (median(&self.values), median(&self.reference_values));
        Record {
            name: self.name.clone(),
            value: rounded(value),
            unit: self.unit.to_owned(),
            reference: self.reference.clone(),
            reference_value: rounded(reference_value),
            ratio: (reference_value != 0.0).then(|| rounded(value / reference_value)),
            goal: self.goal.map(|goal| match goal {
                Goal::AtLeast(least) => format!(">= {least} {}", self.unit),
                Goal::AtMost(most) => format!("<= {most} {}", self.unit),
                Goal::ReferencePlus(more) => format!("<= reference + {more} {}", self.unit),
                Goal::RatioAtLeast(least) => format!(">= {} x reference", rounded(least)),
                Goal::RatioAtMost(most) => format!("<= {} x reference", rounded(most)),
            }),
            met: self.goal.map(|goal| match goal {
                Goal::AtLeast(least) => value >= least,
                Goal::AtMost(most) => value <= most,
                Goal::ReferencePlus(more) => median(&self.differences()) <= more,
                Goal::RatioAtLeast(least) => median(&self.ratios()) >= least,
                Goal::RatioAtMost(most) => median(&self.ratios()) <= most,
            }),
        }
    }

    /// Rounds without a reference are left out.
    fn ratios(&self) -> Vec<f64> {
        self.values
            .iter()
            .zip(&self.reference_values)
            .filter(|(_, reference)| **reference != 0.0)
            .map(|(value, reference)| value / reference)
            .collect()
    }

    fn differences(&self) -> Vec<f64> {
        self.values
            .iter()
            .zip(&self.reference_values)
            .map(|(value, reference)| value - reference)
            .collect()
    }
}

/// The figures as a JSON array, one object each.
pub(crate) fn json(figures: &[Figure]) -> serde_json::Result<String> {
    let records: Vec<Record> = figures.iter().map(Figure::record).collect();
    serde_json::to_string_pretty(&records)
}

/// The figures as a table in Markdown: medians, in brackets the smallest and the largest round.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut rows = vec![
        [
            "figure",
            "measured",
            "reference",
            "difference",
            "ratio",
            "goal",
            "met",
        ]
        .map(str::to_owned),
    ];
    for figure in figures {
        let record = figure.record();
        rows.push([
            figure.name.clone(),
            format!("{} {}", with_range(&figure.values), figure.unit),
            format!(
                "{} ({})",
                with_range(&figure.reference_values),
                figure.reference
            ),
            format!("{:+}", rounded(median(&figure.differences()))),
            record
                .ratio
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio}")),
            record.goal.unwrap_or_else(|| "–".to_owned()),
            record
                .met
                .map_or("–", |met| if met { "yes" } else { "NO" })
                .to_owned(),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell:<width$} "));
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&rows[0]) + &line(&dashes);
    for row in &rows[1..] {
        text += &line(row);
    }
    text
}

/// The middle value; the mean of the middle two of an even number; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The nearest-rank percentile; 0 of nothing.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn with_range(values: &[f64]) -> String {
    let sorted = sorted(values);
    let ends = (
        sorted.first().copied().unwrap_or(0.0),
        sorted.last().copied().unwrap_or(0.0),
    );
    format!(
        "{} [{}–{}]",
        rounded(median(values)),
        rounded(ends.0),
        rounded(ends.1)
    )
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// As many digits as such a measurement can carry: whole numbers from 100 on, three digits after the point below.
fn rounded(value: f64) -> f64 {
    let scale = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(goal: Goal) -> Figure {
        Figure::new(
            "n",
            "ms",
            &[3.0, 1.0, 8.0],
            ("r", &[2.5, 0.5, 1.0]),
            Some(goal),
        )
    }

    #[test]
    fn goals_are_judged_by_medians() {
        assert_eq!(figure(Goal::AtLeast(3.0)).record().met, Some(true));
        assert_eq!(figure(Goal::AtLeast(3.1)).record().met, Some(false));
        assert_eq!(figure(Goal::ReferencePlus(0.5)).record().met, Some(true));
        assert_eq!(figure(Goal::ReferencePlus(0.4)).record().met, Some(false));
        assert_eq!(figure(Goal::AtMost(3.0)).record().met, Some(true));
        assert_eq!(figure(Goal::AtMost(2.9)).record().met, Some(false));
        // The rounds' ratios are 1.2, 2 and 8.
        assert_eq!(figure(Goal::RatioAtLeast(2.0)).record().met, Some(true));
        assert_eq!(figure(Goal::RatioAtLeast(2.1)).record().met, Some(false));
        assert_eq!(figure(Goal::RatioAtMost(2.0)).record().met, Some(true));
        assert_eq!(figure(Goal::RatioAtMost(1.9)).record().met, Some(false));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), 100.0);
        assert_eq!(percentile(&values, 99), 198.0);
        assert_eq!(percentile(&[], 99), 0.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn the_table_and_the_json_name_every_figure() {
        let figures = [figure(Goal::AtLeast(3.0))];
        assert_eq!(table(&figures).lines().count(), 3);
        let parsed: serde_json::Value = serde_json::from_str(&json(&figures).unwrap()).unwrap();
        assert_eq!(parsed[0]["goal"], ">= 3 ms");
        assert_eq!(parsed[0]["ratio"], 3.0);
    }
}
