//! A region that began without data, new or wiped: it refuses reads until it is past its join mark, so that nobody
//! takes what has not come yet for what is not there.
//!
//! A file in the data directory says so until then, also across restarts. Where no member answers at all there is
//! nothing to wait for: after a while reads are served, until one does. Start with [`begin`] and [`watch()`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tombolo_codec::{Reject, RejectCode};
use tombolo_replica::{JoinReport, Notice, Replica};
use tombolo_wal::DiskError;

use crate::service::Region;

/// The file that says so.
const FILE: &str = "joining";
/// How long reads wait for a first member to answer.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// How long a read waits for the mark to be passed before it is refused: longer than from one look to the next, so that
/// what a barrier has reached is read.
const BEHIND_WAIT: Duration = Duration::from_millis(500);
/// From one look at the shards to the next.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same where nobody answers.
const LOOK_ALONE_EVERY: Duration = Duration::from_millis(500);
/// When a refused reader may ask again.
const RETRY_AFTER_MS: u32 = 500;

/// How far a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody who could know has answered yet.
    Unmet,
    /// Nobody did for so long that there may be nobody.
    Alone,
    /// Less is here than others had.
    Behind,
    /// Past the mark, or it began with data.
    Done,
}

/// Whether reads are served.
#[derive(Debug)]
pub(crate) struct Joining {
    stage: watch::Sender<Stage>,
    file: PathBuf,
}

/// Notes in an empty data directory that what it is to hold has yet to come; says whether it is so. To be called before
/// the directory is claimed.
///
/// Errors: the disk's.
pub(crate) fn begin(dir: &Path, is_new: bool) -> Result<bool, DiskError> {
    let file = dir.join(FILE);
    let write = || {
        std::fs::File::create(&file)?.sync_all()?;
        std::fs::File::open(dir)?.sync_all()
    };
    if is_new {
        write().map_err(|cause| DiskError::Io {
            path: file.display().to_string(),
            operation: "create",
            cause: cause.to_string(),
        })?;
    }
    Ok(file.exists())
}

impl Joining {
    pub(crate) fn new(dir: &Path, is_joining: bool) -> Self {
        let stage = if is_joining { Stage::Unmet } else { Stage::Done };
        Self { stage: watch::Sender::new(stage), file: dir.join(FILE) }
    }

    /// Whether it is all over.
    pub(crate) fn is_done(&self) -> bool {
        *self.stage.borrow() == Stage::Done
    }

    /// Waits for the first answer of a member, if none has come yet, and a moment for the mark to be passed.
    ///
    /// Errors: `joining` while less is here than others had.
    pub(crate) async fn check(&self) -> Result<(), Reject> {
        if self.is_done() {
            return Ok(());
        }
        let mut stage = self.stage.subscribe();
        // The sender lives as long as what is asked here.
        let _ = stage.wait_for(|stage| *stage != Stage::Unmet).await;
        let is_past = stage.wait_for(|stage| *stage != Stage::Behind);
        if let Ok(Ok(_)) = tokio::time::timeout(BEHIND_WAIT, is_past).await {
            return Ok(());
        }
        let text = "this region began without data and has yet to take over what others hold; ask again, or another \
                    region";
        Err(Reject::new(RejectCode::Joining, text).retry_after_ms(RETRY_AFTER_MS))
    }

    fn set(&self, stage: Stage) {
        self.stage.send_if_modified(|present| std::mem::replace(present, stage) != stage);
    }
}

/// Looks until the region is past its mark, or `stop`.
pub(crate) async fn watch(region: Region, mut stop: watch::Receiver<bool>) {
    let (shared, started) = (region.shared(), tokio::time::Instant::now());
    while !shared.joining.is_done() {
        let mut reports = Vec::new();
        for shard in shared.shards.ids() {
            let Ok(report) = shared.shards.inspect(shard, |replica: &Replica, _| replica.joining()).await
            else {
                return;
            };
            reports.push(report);
        }
        let stage = stage_of(&reports, started.elapsed() >= ALONE_AFTER);
        shared.joining.set(stage);
        let findings = &shared.outlets.findings;
        match stage {
            Stage::Behind => {
                let text =
                    "it began without data and refuses reads until it holds what others held".to_owned();
                findings.raise("region", &Notice { code: "joining", text });
            }
            Stage::Done => {
                findings.clear("joining", "region");
                if let Err(error) = std::fs::remove_file(&shared.joining.file) {
                    tracing::warn!("{}: {error}", shared.joining.file.display());
                }
            }
            Stage::Unmet | Stage::Alone => {}
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(if stage == Stage::Alone { LOOK_ALONE_EVERY } else { LOOK_EVERY }) => {}
        }
    }
}

fn stage_of(shards: &[Option<JoinReport>], is_late: bool) -> Stage {
    let joining: Vec<&JoinReport> = shards.iter().flatten().collect();
    if joining.iter().any(|shard| shard.is_behind) {
        return Stage::Behind;
    }
    // Where all who answered have nothing either, only all together prove that there is nothing.
    let knows = joining.iter().any(|shard| shard.has_mark) || joining.len() < shards.len();
    let enough = |shard: &&JoinReport| shard.met_count >= if knows { 1 } else { shard.others_count };
    match joining.iter().all(enough) {
        true => Stage::Done,
        false if is_late => Stage::Alone,
        false => Stage::Unmet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(met_count: usize, has_mark: bool, is_behind: bool) -> Option<JoinReport> {
        Some(JoinReport { met_count, others_count: 2, has_mark, is_behind })
    }

    #[test]
    fn a_region_is_past_its_mark_only_once_someone_knows_and_nothing_is_missing() {
        let stages = |shards: &[Option<JoinReport>]| [false, true].map(|is_late| stage_of(shards, is_late));
        // Nobody answered, then one that has nothing either, then both.
        assert_eq!(stages(&[shard(0, false, false); 2]), [Stage::Unmet, Stage::Alone]);
        assert_eq!(stages(&[shard(1, false, false); 2]), [Stage::Unmet, Stage::Alone]);
        assert_eq!(stages(&[shard(2, false, false); 2]), [Stage::Done; 2]);
        // One that has something is enough, also where a shard is empty; another region may be away.
        assert_eq!(stages(&[shard(1, true, true), shard(1, false, false)]), [Stage::Behind; 2]);
        assert_eq!(stages(&[shard(1, true, false), shard(1, false, false)]), [Stage::Done; 2]);
        assert_eq!(stages(&[shard(1, true, false), shard(0, false, false)]), [Stage::Unmet, Stage::Alone]);
        // Whole, or begun with data.
        assert_eq!(stages(&[None, None]), [Stage::Done; 2]);
    }

    #[test]
    fn a_new_directory_is_joining_until_its_file_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!begin(dir.path(), false).expect("it reads"));
        assert!(begin(dir.path(), true).expect("it is written"));
        assert!(begin(dir.path(), false).expect("it reads"), "also after a restart");
    }
}
