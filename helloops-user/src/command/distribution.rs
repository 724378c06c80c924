//! A latency distribution, drawn with letters: as rows with bars, and as a sparkline.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::quantity::{count, nanoseconds, number_of};
use super::terminal::{Screen, Tone, clean};
use crate::histogram::Series;

/// The most rows of a drawing.
const ROWS: usize = 20;

/// Where rows may begin, as parts of a power of ten, from coarse to fine: the preferred numbers
/// that divide each decade about evenly on a logarithmic scale.
const SCALES: [&[u64]; 5] = [
    &[10],
    &[10, 20, 50],
    &[10, 15, 20, 30, 50, 70],
    &[10, 12, 15, 18, 22, 27, 33, 39, 47, 56, 68, 82],
    &[
        10, 11, 12, 13, 15, 16, 18, 20, 22, 24, 27, 30, 33, 36, 39, 43, 47, 51, 56, 62, 68, 75, 82,
        91,
    ],
];

/// Eighths of a column, from the left.
const BAR: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// Eighths of a line, from below.
const SPARK: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A series in full: what was counted, a row with a bar for each range of latencies, and the
/// percentiles, each also marked at the row that holds it. Rows are logarithmic, and a bucket that
/// reaches over the end of its row (by less than 1 %) counts in it. `over` says what time it is
/// about, such as `the last 1m`.
pub fn draw(series: &Series, over: &str, screen: &Screen) -> String {
    let mut text = headline(series, over, screen);
    if series.count == 0 {
        return text;
    }
    let rows = rows(series);
    let most = rows.iter().map(|row| row.calls).max().unwrap_or(1).max(1);
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let share = format!("{:.1} %", row.calls as f64 * 100.0 / series.count as f64);
            (
                nanoseconds(row.low),
                nanoseconds(row.high),
                count(row.calls),
                share,
            )
        })
        .collect();
    let widest = |cell: fn(&(String, String, String, String)) -> &String| {
        cells
            .iter()
            .map(|cells| cell(cells).width())
            .max()
            .unwrap_or(0)
    };
    let (low, high) = (widest(|cells| &cells.0), widest(|cells| &cells.1));
    let (calls, share) = (widest(|cells| &cells.2), widest(|cells| &cells.3));
    let marks = rows.iter().map(|row| row.marks.width()).max().unwrap_or(0);
    let others = low + high + calls + share + marks + 12;
    let bar_width = screen.columns().saturating_sub(others).clamp(4, 60);
    for (row, cells) in rows.iter().zip(&cells) {
        let bar = bar(row.calls, most, bar_width);
        let line = format!(
            "  {} – {} {} {}  {}  {}",
            right(&cells.0, low),
            right(&cells.1, high),
            screen.paint(Tone::Mark, bar),
            right(&cells.2, calls),
            right(&cells.3, share),
            screen.paint(Tone::Strong, row.marks.as_str()),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let _ = writeln!(text, "\n  {}", percentiles(series));
    text
}

fn headline(series: &Series, over: &str, screen: &Screen) -> String {
    let mut text = String::new();
    let process = series
        .pid
        .map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let waits = if series.wait { " (waits)" } else { "" };
    let total = (series.mean * series.count as f64) as u64;
    let call = format!("{}{waits}", clean(&series.call));
    let _ = write!(
        text,
        "{}{process}  {}: {}, {} in all, {over}",
        clean(&series.target),
        screen.paint(Tone::Strong, call),
        number_of(series.count, "call"),
        nanoseconds(total)
    );
    if series.unfinished > 0 {
        let _ = write!(text, "; {} never returned", count(series.unfinished));
    }
    text.push('\n');
    if !series.errors.is_empty() {
        let mut errors: Vec<_> = series.errors.iter().collect();
        errors.sort_by(|left, right| right.1.cmp(left.1));
        let errors: Vec<_> = errors
            .iter()
            .map(|(name, times)| format!("{} {}", clean(name), count(**times)))
            .collect();
        let _ = writeln!(
            text,
            "  errors: {}",
            screen.paint(Tone::Bad, errors.join(", "))
        );
    }
    text
}

fn percentiles(series: &Series) -> String {
    let mut parts = vec![format!("min {}", nanoseconds(series.min))];
    parts.push(format!("mean {}", nanoseconds(series.mean as u64)));
    for (name, value) in quantiles(series) {
        parts.push(format!("{name} {}", nanoseconds(value)));
    }
    parts.push(format!("max {}", nanoseconds(series.max)));
    parts.join("   ")
}

/// The quantiles of a series as percentiles, ascending: `p50` and so on.
fn quantiles(series: &Series) -> Vec<(String, u64)> {
    let mut quantiles: Vec<(f64, u64)> = series
        .quantiles
        .iter()
        .filter_map(|(quantile, &value)| Some((quantile.parse().ok()?, value)))
        .collect();
    quantiles.sort_by(|left, right| left.0.total_cmp(&right.0));
    let name = |quantile: f64| format!("p{}", (quantile * 1e5).round() / 1e3);
    quantiles
        .into_iter()
        .map(|(quantile, value)| (name(quantile), value))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// The first latency, in nanoseconds.
    low: u64,
    /// The first latency of the next row.
    high: u64,
    calls: u64,
    /// The percentiles in it.
    marks: String,
}

fn rows(series: &Series) -> Vec<Row> {
    let lowest = series.buckets.first().map_or(0, |bucket| bucket.0);
    let highest = series.buckets.last().map_or(0, |bucket| bucket.0);
    let mut bounds = Vec::new();
    for scale in SCALES {
        let finer = row_bounds(scale, lowest, highest);
        if !bounds.is_empty() && finer.len() > ROWS + 1 {
            break;
        }
        bounds = finer;
    }
    let mut rows: Vec<Row> = bounds
        .windows(2)
        .filter_map(|bounds| match *bounds {
            [low, high] => Some(Row {
                low,
                high,
                calls: 0,
                marks: String::new(),
            }),
            _ => None,
        })
        .collect();
    let row_of = |rows: &[Row], value| rows.partition_point(|row| row.high <= value);
    for &(low, _, calls) in &series.buckets {
        let index = row_of(&rows, low);
        if let Some(row) = rows.get_mut(index) {
            row.calls = row.calls.saturating_add(calls);
        }
    }
    let mut marks = quantiles(series);
    marks.push(("max".to_owned(), series.max));
    for (name, value) in marks {
        // A percentile is the end of its bucket, which counts where it begins.
        let bucket = series.buckets.partition_point(|bucket| bucket.1 < value);
        let Some(&(low, _, _)) = series.buckets.get(bucket) else {
            continue;
        };
        let index = row_of(&rows, low);
        if let Some(row) = rows.get_mut(index) {
            if !row.marks.is_empty() {
                row.marks.push(' ');
            }
            row.marks.push_str(&name);
        }
    }
    rows
}

/// The beginnings of the rows that hold `lowest` to `highest`, and the end of the last.
fn row_bounds(scale: &[u64], lowest: u64, highest: u64) -> Vec<u64> {
    let mut all = vec![0];
    for power in 0..=14 {
        all.extend(scale.iter().map(|step| step * 10_u64.pow(power) / 10));
    }
    all.dedup();
    let first = all
        .partition_point(|&bound| bound <= lowest)
        .saturating_sub(1);
    let last = all
        .partition_point(|&bound| bound <= highest)
        .min(all.len() - 1);
    all.get(first..=last)
        .map(<[u64]>::to_vec)
        .unwrap_or_default()
}

/// A bar of `width` columns; whatever is not zero shows.
fn bar(value: u64, most: u64, width: usize) -> String {
    let eighths = (value as f64 / most as f64 * (width * 8) as f64).round() as usize;
    let eighths = if value > 0 {
        eighths.clamp(1, width * 8)
    } else {
        0
    };
    let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
    bar.extend(
        (eighths % 8)
            .checked_sub(1)
            .and_then(|index| BAR.get(index)),
    );
    bar.extend(std::iter::repeat_n(
        ' ',
        width.saturating_sub(eighths.div_ceil(8)),
    ));
    bar
}

fn right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// A logarithmic scale that several sparklines share: whole powers of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// The power of ten (of nanoseconds) that it begins with.
    first: u32,
    /// The power of ten that it ends before.
    end: u32,
}

impl Axis {
    /// The scale that all these series fit on; `None` if none of them has a value.
    pub fn over<'a>(series: impl IntoIterator<Item = &'a Series>) -> Option<Self> {
        let powers = series
            .into_iter()
            .flat_map(|series| &series.buckets)
            .map(|bucket| power(bucket.0));
        let (first, last) = powers.fold((u32::MAX, 0), |(first, last), power| {
            (first.min(power), last.max(power))
        });
        (first <= last).then_some(Self {
            first,
            end: last + 1,
        })
    }

    /// Columns that a sparkline takes.
    pub fn width(&self) -> usize {
        (self.end - self.first) as usize * self.steps()
    }

    /// What stands above the sparklines: where the scale begins and ends.
    pub fn title(&self) -> String {
        let bound = |power| nanoseconds(10_u64.saturating_pow(power)).replace(".00", "");
        let (first, end) = (bound(self.first), bound(self.end));
        let gap = self
            .width()
            .saturating_sub(first.width() + end.width())
            .max(1);
        format!("{first}{}{end}", " ".repeat(gap))
    }

    /// The calls of a series by latency, each column in proportion to the highest.
    pub fn sparkline(&self, series: &Series) -> String {
        let mut columns = vec![0_u64; self.width()];
        for &(low, high, calls) in &series.buckets {
            let middle = ((low + high) as f64 / 2.0).max(1.0).log10();
            let column = ((middle - f64::from(self.first)) * self.steps() as f64).max(0.0) as usize;
            let last = columns.len().saturating_sub(1);
            if let Some(column) = columns.get_mut(column.min(last)) {
                *column = column.saturating_add(calls);
            }
        }
        let most = columns.iter().copied().max().unwrap_or(1).max(1);
        let level = |&calls: &u64| match calls {
            0 => ' ',
            calls => {
                let level = (calls as f64 / most as f64 * 8.0).ceil() as usize;
                SPARK.get(level.clamp(1, 8) - 1).copied().unwrap_or('█')
            }
        };
        columns.iter().map(level).collect()
    }

    /// Columns for each power of ten.
    fn steps(&self) -> usize {
        match self.end - self.first {
            0..=4 => 5,
            5..=7 => 3,
            _ => 2,
        }
    }
}

fn power(value: u64) -> u32 {
    value.checked_ilog10().unwrap_or(0)
}
