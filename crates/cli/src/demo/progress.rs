//! What is seen while the demo runs: steps as lines, and each region's share as a bar. All of it on stderr.
//!
//! On a terminal the bars move; elsewhere a line is written each second. Start with [`Progress::new`].

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Phase;
use super::lag::Lags;
use crate::output::note;

/// How often bars move.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// One region's share.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) flights_count: u64,
    pub(super) done: Arc<AtomicU64>,
}

/// Says what happens.
#[derive(Clone)]
pub(super) struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let has_bars = std::io::stderr().is_terminal();
        Self { bars: has_bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())) }
    }

    /// A line that stays.
    pub(super) fn step(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Shows the shares until the replay is over.
    pub(super) async fn watch(self, rows: Vec<Row>, lags: Lags, phase: watch::Receiver<Phase>) {
        match &self.bars {
            Some(bars) => draw(bars, rows, lags, phase).await,
            None => write(rows, lags, phase).await,
        }
    }
}

async fn draw(bars: &MultiProgress, rows: Vec<Row>, lags: Lags, phase: watch::Receiver<Phase>) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let style = ProgressStyle::with_template("  {prefix} {bar:36.cyan/blue} {pos:>6}/{len} flights  {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─");
    let bar = |row: &Row| {
        let bar = bars.add(ProgressBar::new(row.flights_count).with_style(style.clone()));
        bar.with_prefix(format!("{:width$}", row.name))
    };
    let rows: Vec<(ProgressBar, Row)> = rows.into_iter().map(|row| (bar(&row), row)).collect();
    let mut ticks = interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *phase.borrow() != Phase::Over {
        ticks.tick().await;
        for ((bar, row), lag) in rows.iter().zip(lags.seen()) {
            bar.set_position(row.done.load(Ordering::Relaxed));
            bar.set_message(format!("lag {:.1} s", lag.latest));
        }
    }
    rows.iter().for_each(|(bar, _)| bar.finish_and_clear());
}

async fn write(rows: Vec<Row>, lags: Lags, phase: watch::Receiver<Phase>) {
    let start = Instant::now();
    let mut ticks = interval(LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, when there is nothing to say.
    ticks.tick().await;
    let mut phase = phase;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // An error means that the sender is gone, which is over too.
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
        }
        let part = |(row, lag): (&Row, super::lag::Lag)| {
            let percent = 100 * row.done.load(Ordering::Relaxed) / row.flights_count.max(1);
            format!("{} {percent:>3} % (lag {:.1} s)", row.name, lag.latest)
        };
        let parts: Vec<String> = rows.iter().zip(lags.seen()).map(part).collect();
        note(&format!("  {:>4.0} s  {}", start.elapsed().as_secs_f64(), parts.join("  ")));
    }
}
