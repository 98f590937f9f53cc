//! How a result is shown: tables in Markdown, so that they can be pasted into
//! the docs, and verdicts on our targets.
#![allow(clippy::print_stdout, reason = "a benchmark speaks to the person who runs it")]

use std::fmt;

/// A table with a heading for each column. The first column is text and stands
/// left, the others are figures and stand right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<T: Into<String>>(headings: impl IntoIterator<Item = T>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(f, "| {cell:<0$} ", widths[column])?,
                    _ => write!(f, "| {cell:>0$} ", widths[column])?,
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let mark = if column == 0 { "-" } else { ":" };
                    write!(f, "|{}{mark}", "-".repeat(width + 1))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// Which side of a limit is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The figure is to be at most the limit.
    AtMost,
    /// The figure is to be at least the limit.
    AtLeast,
}

/// Prints whether a figure meets its target. A miss is printed, never a failure:
/// machines differ.
pub fn verdict(what: &str, figure: f64, target: Target, limit: f64) {
    let (word, met) = match target {
        Target::AtMost => ("at most", figure <= limit),
        Target::AtLeast => ("at least", figure >= limit),
    };
    let met = if met { "met" } else { "NOT MET" };
    println!("- {what}: {figure:.3}; target {word} {limit:.3}: {met}");
}

/// Prints what the figures were measured on.
pub fn machine() {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    println!("machine: {cores} cores, {}; load before the run {load}\n", model.unwrap_or("?"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(["peer", "ns"]);
        table.row(["quick", "83.1"]);
        table.row(["ü", "1200.0"]);
        let expected = "\
| peer  |     ns |
|-------|-------:|
| quick |   83.1 |
| ü     | 1200.0 |
";
        assert_eq!(table.to_string(), expected);
    }
}
