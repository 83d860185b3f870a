//! The ledger's rows, and how they are written.

use std::fmt::Write as _;

use serde::Serialize;

/// The way of a message, seen from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the device to RocketMQ.
    Uplink,
    /// From RocketMQ to the device.
    Downlink,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Uplink, Direction::Downlink];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Uplink => "uplink",
            Direction::Downlink => "downlink",
        }
    }
}

/// One fault in one direction.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The fault's name.
    pub fault: &'static str,
    /// The direction.
    pub direction: Direction,
    /// Different messages that were sent.
    pub sent: usize,
    /// Those that the sender was given an acknowledgement for.
    pub acked: usize,
    /// Different messages that arrived.
    pub arrived: usize,
    /// Acknowledged messages that did not.
    pub lost: usize,
    /// Repetitions of ours. Those of a device that sends again, and of MQTT after a lost connection, are not among them.
    pub duplicated: usize,
    /// Messages behind a later one of their device.
    pub reordered: usize,
    /// Seconds until it went on; `None` where a fault interrupts nothing.
    pub recovery_s: Option<f64>,
    /// All that has to hold held.
    pub passed: bool,
    /// Why it did not, and what else is worth knowing. For people.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Row {
    /// A row of which nothing is known yet, which is no pass.
    pub fn empty(fault: &'static str, direction: Direction) -> Row {
        Row {
            fault,
            direction,
            sent: 0,
            acked: 0,
            arrived: 0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            recovery_s: None,
            passed: false,
            notes: Vec::new(),
        }
    }

    fn cells(&self) -> [String; 10] {
        [
            self.fault.to_owned(),
            self.direction.name().to_owned(),
            self.sent.to_string(),
            self.acked.to_string(),
            self.arrived.to_string(),
            self.lost.to_string(),
            self.duplicated.to_string(),
            self.reordered.to_string(),
            self.recovery_s
                .map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}")),
            if self.passed { "yes" } else { "NO" }.to_owned(),
        ]
    }
}

const HEADINGS: [&str; 10] = [
    "fault",
    "direction",
    "sent",
    "acked",
    "arrived",
    "lost",
    "duplicated",
    "reordered",
    "recovery s",
    "passed",
];

/// The rows as JSON, an array of objects.
pub fn json(rows: &[Row]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(rows).map(|text| text + "\n")
}

/// The rows as a table for a terminal.
pub fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; 10]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let widths: [usize; 10] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - cell.chars().count());
            // Words to the left, numbers to the right.
            let padded = if column < 2 {
                format!("{cell}{blanks}  ")
            } else {
                format!("{blanks}{cell}  ")
            };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The rows as a table of Markdown, behind a line that says when and with what it was made.
pub fn markdown(rows: &[Row], made: &str) -> String {
    let mut text = format!("{made}\n\n");
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(&HEADINGS.map(str::to_owned)));
    text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n");
    for row in rows {
        text.push_str(&line(&row.cells()));
    }
    let noted: Vec<&Row> = rows.iter().filter(|row| !row.notes.is_empty()).collect();
    if !noted.is_empty() {
        text.push('\n');
        for row in noted {
            let notes = row.notes.join("; ");
            writeln!(text, "- {}, {}: {notes}", row.fault, row.direction.name())
                .unwrap_or_default();
        }
    }
    text
}

/// The lines between which a document holds the table.
pub const MARKERS: [&str; 2] = ["<!-- faults:begin -->", "<!-- faults:end -->"];

/// The document with the table between its [`MARKERS`]; the table alone where there is no document yet.
pub fn insert(document: &str, table: &str) -> Result<String, String> {
    let [begin, end] = MARKERS;
    if document.trim().is_empty() {
        return Ok(format!("{begin}\n{table}{end}\n"));
    }
    let cut = || {
        let (before, rest) = document.split_once(begin)?;
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    };
    let (before, after) = cut().ok_or_else(|| format!("it has no lines {begin} and {end}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            sent: 12,
            recovery_s: Some(0.25),
            passed: true,
            notes: vec!["a note".to_owned()],
            ..Row::empty("kill-sidecar", Direction::Uplink)
        }
    }

    #[test]
    fn the_json_has_exactly_the_documented_fields() {
        let text = json(&[row(), Row::empty("x", Direction::Downlink)]).unwrap();
        let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut fields: Vec<&str> = rows[0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        fields.sort_unstable();
        let mut documented = [
            "fault",
            "direction",
            "sent",
            "acked",
            "arrived",
            "lost",
            "duplicated",
            "reordered",
            "recovery_s",
            "passed",
        ];
        documented.sort_unstable();
        assert_eq!(fields, documented);
        assert_eq!(rows[0]["direction"], "uplink");
        assert_eq!(rows[0]["recovery_s"], 0.25);
        assert!(rows[1]["recovery_s"].is_null());
        assert_eq!(rows[1]["passed"], false);
    }

    #[test]
    fn the_markdown_goes_between_the_markers_and_replaces_what_was_there() {
        let [begin, end] = MARKERS;
        let table = markdown(&[row()], "Made today.");
        let document = format!("# Title\n\n{begin}\nold\n{end}\n\nmore\n");
        let new = insert(&document, &table).unwrap();
        assert!(
            new.starts_with("# Title\n") && new.ends_with("\n\nmore\n"),
            "{new}"
        );
        assert!(new.contains("| kill-sidecar | uplink | 12 |") && !new.contains("old"));
        assert_eq!(insert(&new, &table).unwrap(), new);
        assert!(insert("no markers", &table).is_err());
        assert!(insert("", &table).unwrap().starts_with(begin));
    }

    #[test]
    fn the_table_shows_a_failure() {
        let text = table(&[row(), Row::empty("x", Direction::Downlink)]);
        assert!(
            text.lines().nth(1).unwrap().ends_with("0.2  yes") || text.contains("0.2"),
            "{text}"
        );
        assert!(text.lines().nth(2).unwrap().ends_with("NO"), "{text}");
    }
}
