//! The figures as pictures: one SVG for each family of figures, each figure a pair of bars, ours and the reference, with its range.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::report::{Figure, median};

const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 22;
const MARGIN_HEIGHT: u32 = 110;
const OURS: RGBColor = RGBColor(31, 119, 180);
const REFERENCE: RGBColor = RGBColor(180, 180, 180);
/// Room right of the longest bar.
const HEADROOM: f64 = 1.15;

/// A picture: its file's name, its title, and how the names of its figures begin.
const PICTURES: [(&str, &str, &[&str]); 6] = [
    (
        "latency",
        "Idle latency",
        &[
            "uplink_idle",
            "downlink_idle",
            "through_idle",
            "cluster_idle",
        ],
    ),
    ("up", "Device to RocketMQ", &["up_arriving"]),
    (
        "down",
        "RocketMQ to devices, from a backlog",
        &["down_delivered", "fan_out_delivered"],
    ),
    (
        "cpu",
        "CPU time of bridge and RocketMQ a message",
        &["up_cpu", "down_cpu", "fan_out_cpu"],
    ),
    (
        "thread",
        "Time of Mosquitto's thread a message",
        &["broker_thread"],
    ),
    (
        "log",
        "Acknowledged and caught up",
        &["acknowledged", "arriving_sync", "catching_up"],
    ),
];

/// Writes the pictures of those figures that were measured.
pub(crate) fn write(dir: &Path, figures: &[Figure]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    for (name, title, prefixes) in PICTURES {
        let chosen: Vec<&Figure> = figures
            .iter()
            .filter(|figure| {
                prefixes
                    .iter()
                    .any(|prefix| figure.name.starts_with(prefix))
            })
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let path = dir.join(format!("{name}.svg"));
        draw(&path, title, &chosen)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("drawing {}", path.display()))?;
    }
    Ok(())
}

fn draw(
    path: &Path,
    title: &str,
    figures: &[&Figure],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bars = 3 * u32::try_from(figures.len())?;
    let root =
        SVGBackend::new(path, (WIDTH, bars * BAR_HEIGHT + MARGIN_HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = figures
        .iter()
        .flat_map(|figure| figure.values.iter().chain(&figure.reference_values))
        .copied()
        .fold(0.0, f64::max);
    let unit = figures[0].unit;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{title} ({unit})"), ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(30)
        .build_cartesian_2d(0.0..most * HEADROOM, 0.0..f64::from(bars))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|value| format!("{value}"))
        .draw()?;
    for (index, figure) in figures.iter().enumerate() {
        // From the top: a line of text, ours, the reference.
        let top = f64::from(bars) - 3.0 * index as f64;
        let label = format!("{}, beside {}", figure.name, figure.reference);
        chart.draw_series([Text::new(label, (0.0, top - 0.3), ("sans-serif", 13))])?;
        let sides = [
            (&figure.values, OURS, top - 1.9),
            (&figure.reference_values, REFERENCE, top - 2.8),
        ];
        for (values, colour, bottom) in sides {
            let middle = median(values);
            let low = values.iter().copied().fold(f64::MAX, f64::min).min(middle);
            let high = values.iter().copied().fold(0.0, f64::max);
            chart.draw_series([Rectangle::new(
                [(0.0, bottom), (middle, bottom + 0.8)],
                colour.filled(),
            )])?;
            let line = [(low, bottom + 0.4), (high, bottom + 0.4)];
            chart.draw_series([PathElement::new(line, BLACK)])?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_figures_makes_one_picture() {
        let dir = tempfile::tempdir().unwrap();
        let figure = Figure::new(
            "up_arriving_128_bytes",
            "msg/s",
            &[3.0, 1.0],
            ("other", &[1.0]),
            None,
        );
        write(dir.path(), &[figure]).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        let text = fs::read_to_string(dir.path().join("up.svg")).unwrap();
        assert!(text.contains("up_arriving_128_bytes"));
    }
}
