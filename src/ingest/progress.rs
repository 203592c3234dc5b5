//! How far a long run is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

/// Progress on stderr, of images or other equal steps. Images known from an earlier run count, but not for the rate.
pub(crate) struct Progress {
    /// What is counted, in the plural.
    unit: &'static str,
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    known: usize,
    begun: Instant,
    last_line: Instant,
    line_every: Duration,
}

impl Progress {
    /// Of images. `line_every`: time between two lines where there is no terminal.
    pub fn new(total: usize, line_every: Duration) -> Self {
        Self::of("images", total, line_every)
    }

    /// Of something else, in the plural.
    pub fn of(unit: &'static str, total: usize, line_every: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left"))
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64).with_style(style)
        });
        let now = Instant::now();
        Self {
            unit,
            bar,
            total,
            done: 0,
            known: 0,
            begun: now,
            last_line: now,
            line_every,
        }
    }

    /// More images than were known of.
    pub fn more(&mut self, images: usize) {
        self.total += images;
        if let Some(bar) = &self.bar {
            bar.inc_length(images as u64);
        }
    }

    /// An image of an earlier run.
    pub fn known(&mut self) {
        self.known += 1;
        if let Some(bar) = &self.bar {
            // Not `inc`: thousands in the first second would promise an early end.
            bar.set_position((self.done + self.known) as u64);
            bar.reset_eta();
        }
        self.begun = Instant::now();
    }

    /// Images that are finished, well or badly.
    pub fn done(&mut self, images: usize) {
        self.done += images;
        if let Some(bar) = &self.bar {
            bar.inc(images as u64);
        } else if self.last_line.elapsed() >= self.line_every {
            self.last_line = Instant::now();
            eprintln!(
                "{}",
                line(
                    self.unit,
                    self.done + self.known,
                    self.total,
                    self.done,
                    self.begun.elapsed()
                )
            );
        }
    }

    /// Something that must not be lost in the bar.
    pub fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }

    pub fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish(),
            None => eprintln!(
                "{}",
                line(
                    self.unit,
                    self.done + self.known,
                    self.total,
                    self.done,
                    self.begun.elapsed()
                )
            ),
        }
    }
}

/// `fresh` of the `at` units took `elapsed`.
fn line(unit: &str, at: usize, total: usize, fresh: usize, elapsed: Duration) -> String {
    let rate = fresh as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = Duration::try_from_secs_f64(total.saturating_sub(at) as f64 / rate);
    match left {
        Ok(left) if at < total && fresh > 0 => {
            format!(
                "{at} of {total} {unit}, {rate:.1} {unit}/s, {} left",
                FormattedDuration(left)
            )
        }
        _ => format!("{at} of {total} {unit}, {rate:.1} {unit}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line("images", 600, 1800, 300, seconds(10)),
            "600 of 1800 images, 30.0 images/s, 00:00:40 left"
        );
        assert_eq!(line("steps", 5, 10, 0, seconds(0)), "5 of 10 steps, 0.0 steps/s");
        assert_eq!(line("images", 10, 10, 10, seconds(5)), "10 of 10 images, 2.0 images/s");
    }
}
