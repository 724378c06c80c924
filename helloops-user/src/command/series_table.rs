//! A table of latency distributions, one line each: work first, waits apart.

use comfy_table::{CellAlignment, Table, presets};
use unicode_width::UnicodeWidthStr;

use super::distribution::Axis;
use super::quantity::{count, nanoseconds, rate};
use super::terminal::{Screen, Tone, clean};
use crate::histogram::Series;

/// A column of the table.
struct Column<'a> {
    title: String,
    alignment: CellAlignment,
    /// How soon it goes if the terminal is too narrow; 0 never goes.
    dispensable: u8,
    cell: Box<dyn Fn(&Series) -> String + 'a>,
}

/// Draws the table. With `seconds` there is a column of calls per second over that time. Columns
/// that the terminal is too narrow for are left out.
pub fn render(series: &[Series], seconds: Option<f64>, screen: &Screen) -> String {
    let (waits, work): (Vec<&Series>, Vec<&Series>) = series
        .iter()
        .filter(|series| !is_the_end(series))
        .partition(|series| series.wait);
    let all: Vec<&Series> = work.iter().chain(&waits).copied().collect();
    let mut columns = columns(&all, seconds);
    let mut lines = draw(&columns, &all);
    while lines
        .iter()
        .any(|line| line.width() > screen.width.unwrap_or(usize::MAX))
    {
        let Some(dispensable) = columns.iter().map(|column| column.dispensable).max() else {
            break;
        };
        if dispensable == 0 {
            break;
        }
        columns.retain(|column| column.dispensable != dispensable);
        lines = draw(&columns, &all);
    }

    let mut text = String::new();
    let mut push = |tone: Option<Tone>, line: &str| {
        let line = screen.fit(line);
        match tone {
            Some(tone) => text.push_str(&screen.paint(tone, line)),
            None => text.push_str(&line),
        }
        text.push('\n');
    };
    let mut lines = lines.iter();
    if let Some(header) = lines.next() {
        push(Some(Tone::Faint), header);
    }
    for line in lines.by_ref().take(work.len()) {
        push(None, line);
    }
    if !waits.is_empty() {
        push(Some(Tone::Faint), "waiting for something to happen:");
        for line in lines {
            push(None, line);
        }
    }
    text
}

/// Whether this is only how a thread ends: by a call that is not meant to return.
fn is_the_end(series: &Series) -> bool {
    series.count == 0 && matches!(series.call.as_str(), "exit" | "exit_group")
}

fn columns<'a>(all: &[&Series], seconds: Option<f64>) -> Vec<Column<'a>> {
    let mut columns = Vec::new();
    let mut add =
        |title: &str, alignment, dispensable, cell: Box<dyn Fn(&Series) -> String + 'a>| {
            columns.push(Column {
                title: title.to_owned(),
                alignment,
                dispensable,
                cell,
            });
        };
    let (left, right) = (CellAlignment::Left, CellAlignment::Right);
    let one_target = all
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.target == b.target));
    if !one_target {
        add(
            "target",
            left,
            0,
            Box::new(|series| clean(&series.target).into_owned()),
        );
    }
    if all.iter().any(|series| series.pid.is_some()) {
        let pid = |series: &Series| {
            series
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string())
        };
        add("pid", right, 0, Box::new(pid));
    }
    add(
        "call",
        left,
        0,
        Box::new(|series| clean(&series.call).into_owned()),
    );
    let total = |series: &Series| nanoseconds((series.mean * series.count as f64) as u64);
    add("time", right, 1, Box::new(total));
    add("calls", right, 0, Box::new(|series| count(series.count)));
    if let Some(seconds) = seconds.filter(|&seconds| seconds > 0.0) {
        let per_second = move |series: &Series| rate(series.count as f64 / seconds);
        add("calls/s", right, 4, Box::new(per_second));
    }
    if all.iter().any(|series| !failures(series).is_empty()) {
        add("errors", right, 2, Box::new(failures));
    }
    if all.iter().any(|series| series.unfinished > 0) {
        add(
            "unfinished",
            right,
            4,
            Box::new(|series| count(series.unfinished)),
        );
    }
    for (title, quantile, dispensable) in [
        ("p50", "0.5", 0),
        ("p90", "0.9", 5),
        ("p99", "0.99", 0),
        ("p99.9", "0.999", 6),
    ] {
        let value = move |series: &Series| {
            series
                .quantiles
                .get(quantile)
                .map_or_else(|| "-".to_owned(), |&value| nanoseconds(value))
        };
        add(title, right, dispensable, Box::new(value));
    }
    let max = |series: &Series| match series.count {
        0 => "-".to_owned(),
        _ => nanoseconds(series.max),
    };
    add("max", right, 1, Box::new(max));
    if let Some(axis) = Axis::over(all.iter().copied()) {
        add(
            &axis.title(),
            left,
            3,
            Box::new(move |series| axis.sparkline(series)),
        );
    }
    columns
}

/// Failed calls and the most frequent errno. The kernel's own restarts are no failures.
fn failures(series: &Series) -> String {
    let failed = series
        .errors
        .iter()
        .filter(|(name, _)| !name.starts_with("ERESTART"));
    let (total, kinds) = failed
        .clone()
        .fold((0_u64, 0), |(total, kinds), (_, times)| {
            (total.saturating_add(*times), kinds + 1)
        });
    match failed.max_by_key(|(_, times)| **times) {
        Some((name, _)) if kinds == 1 => format!("{} {}", count(total), clean(name)),
        Some((name, _)) => format!("{} {}…", count(total), clean(name)),
        None => String::new(),
    }
}

fn draw(columns: &[Column<'_>], series: &[&Series]) -> Vec<String> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(columns.iter().map(|column| column.title.as_str()));
    for series in series {
        table.add_row(columns.iter().map(|column| (column.cell)(series)));
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(drawn) = table.column_mut(index) {
            drawn
                .set_padding((0, 2))
                .set_cell_alignment(column.alignment);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}
