//! What the reader sees: headings, aligned tables, verdicts, and progress while it takes its time.

use std::io::{IsTerminal, Write};

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub fn heading(title: &str, how: &str) {
    println!("\n{title}\n{}", "-".repeat(title.chars().count()));
    println!("{how}\n");
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table(vec![head.map(String::from).to_vec()])
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.0[0].len(), "a row as wide as the head");
        self.0.push(cells.to_vec());
    }

    pub fn print(&self) {
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                line += &if column == 0 { format!("  {cell:<width$}") } else { format!("   {cell:>width$}") };
            }
            println!("{}", line.trim_end());
        }
    }
}

/// A figure beside its target.
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    None,
}

pub fn verdict(value: f64, target: Target) -> String {
    let (met, sign, bound) = match target {
        Target::None => return format!("{value:.2}            "),
        Target::AtLeast(bound) => (value >= bound, ">=", bound),
        Target::AtMost(bound) => (value <= bound, "<=", bound),
    };
    format!("{value:.2} {} {sign} {bound:<5}", if met { "meets " } else { "MISSES" })
}

/// A yes or no beside a target in words.
pub fn mark(met: bool) -> &'static str {
    if met { "meets" } else { "MISSES" }
}

pub fn nanoseconds(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e5 => format!("{:.1} us", ns / 1e3),
        ..1e6 => format!("{:.0} us", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// One line on standard error that is written over; nothing where nobody looks.
pub fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text:<78}\r");
        let _ = std::io::stderr().flush();
    }
}
