//! What every finding means and what to do next: those of regions, and those of `tombolo doctor`.

/// A finding in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FindingText {
    pub(super) code: &'static str,
    pub(super) meaning: &'static str,
    pub(super) next: &'static str,
}

const fn text(code: &'static str, meaning: &'static str, next: &'static str) -> FindingText {
    FindingText { code, meaning, next }
}

/// All of them.
pub(super) const FINDINGS: &[FindingText] = &[
    text(
        "apply_error",
        "A log of another region cannot be applied here; it is halted, the others go on.",
        "Keep the data directories; `tombolo status` names the log, `tombolo wal inspect` reads it.",
    ),
    text(
        "apply_paused",
        "What a region writes is received and not applied here, because somebody asked for that.",
        "POST /v1/admin/resume-apply with the peer's name: what waits is applied in order.",
    ),
    text(
        "checkpoint_failed",
        "A checkpoint could not be written; logs are kept meanwhile, and the next start reads more of them.",
        "Look at the disk of the data directory: df -h, dmesg.",
    ),
    text(
        "clock_ahead",
        "A record carried a stamp too far ahead of this region's clock; it was applied, and the clock here stays.",
        "Correct the clock of the region that the finding names: chronyc tracking.",
    ),
    text(
        "clock_behind",
        "This region's clock is behind its peers' by more than the bound; its register writes may lose against theirs.",
        "Correct this machine's clock: chronyc makestep.",
    ),
    text(
        "clock_skew",
        "This region's clock is ahead of most peers' by more than the bound; it refuses register writes.",
        "Correct this machine's clock: chronyc makestep.",
    ),
    text(
        "damaged_cells",
        "Entries are not the same here and in another region, and no write can have made them so: memory or a checkpoint is damaged.",
        "`tombolo verify` says which entries and in which region; `tombolo verify --repair` mends them, and only them.",
    ),
    text(
        "data_loss",
        "A range of a log is damaged here and no region that answers holds it.",
        "Bring back a region or a backup that may hold it; `tombolo wal inspect` shows the range.",
    ),
    text(
        "foreign_log",
        "A batch came of a log that no member writes; it was refused.",
        "See who sent it in `tombolo status`, and whether the cluster's files name all regions.",
    ),
    text(
        "fork",
        "Two different batches have the same place in a log: its writer's disk was copied or altered. The log is halted.",
        "Keep both data directories; find out which process ran on a copy, and stop it.",
    ),
    text(
        "hello_refused",
        "A peer was refused: another cluster, another certificate, another version or another number of shards.",
        "Read the finding's text; make the peer's files and binary those of this cluster.",
    ),
    text(
        "difference_failed",
        "A difference of the states could not be made durable; nothing has changed, and it is tried again.",
        "Look at the disk of the data directory: df -h, dmesg.",
    ),
    text(
        "difference_unexplained",
        "A difference came whole, and the digests of the two regions still do not fit: in one of them a digest that is kept \
         contradicts its entries, in memory or in a checkpoint. What came was installed.",
        "`tombolo verify` says which entries or digests are wrong, and in which region; `tombolo verify --repair` mends them.",
    ),
    text(
        "joining",
        "This region began without data. It takes writes, and refuses reads until it holds what the others held when it \
         came.",
        "Wait; `tombolo lag --watch` shows how far it is. Read in another region meanwhile.",
    ),
    text(
        "retention_passed",
        "The log grew beyond `storage.wal_retention_bytes` while a member was away, so parts of it went. That member takes \
         the entries in which the states differ when it is back; nothing is lost.",
        "Bring the member back, or raise `wal_retention_bytes` if such absences are to be healed by the log.",
    ),
    text(
        "log_unreadable",
        "Batches that a peer wants cannot be read from the files here.",
        "Check the disk: dmesg; then `tombolo wal inspect`.",
    ),
    text(
        "misplaced",
        "A batch came under a name that this region alone may write; it was refused.",
        "Find out whether two processes run as this region.",
    ),
    text(
        "not_whole",
        "The region has not caught up yet with what the others held when it started; it serves, and its acks do not count for garbage.",
        "Bring back the regions it waits for, or remove them from the cluster.",
    ),
    text(
        "peer_catching_up",
        "A region lacks writes that are old, and lacks fewer of them than a moment ago.",
        "Wait; `tombolo lag --watch` shows how it goes.",
    ),
    text(
        "peer_slow",
        "A region lacks writes older than two seconds and does not get nearer.",
        "The finding names the end that limits: look at the disk and CPU of that region, or at the network between.",
    ),
    text(
        "peer_stalled",
        "A region lacks writes and has acknowledged nothing for some seconds, although it is connected.",
        "The finding names the end that limits: `tombolo status` of that region says if it is paused or a log is halted.",
    ),
    text(
        "peer_unreachable",
        "There is no connection between two regions; each goes on by itself, and they merge once it is back.",
        "Check that the region runs, and the UDP path between the peer addresses.",
    ),
    text(
        "quarantine",
        "Damaged files were set aside; what they held was fetched from peers, or is missing.",
        "See `data_loss`; keep the files until all regions are equal: tombolo verify.",
    ),
    text(
        "region_unreachable",
        "A region's HTTP door did not answer.",
        "Start it: tombolo serve --cluster DIR --region NAME.",
    ),
    text(
        "revisions_differ",
        "Regions have applied different revisions of the cluster's members.",
        "Wait for the greatest: tombolo await --revision N; see why a region lags.",
    ),
    text(
        "rot",
        "A file of a log is damaged before its end; it is set aside and its batches are fetched from peers.",
        "Check the disk: dmesg, smartctl; see whether `data_loss` follows.",
    ),
    text(
        "state_differs",
        "Regions that hold the same prefixes of all logs show different states. This must never happen.",
        "Keep all data directories and run tombolo verify.",
    ),
    text(
        "storage_failed",
        "A write or sync failed; the log it belonged to takes nothing more in this process.",
        "Check the disk: dmesg; then restart the daemon.",
    ),
    text(
        "storage_full",
        "The disk of the data directory is full: writes are refused, reads go on.",
        "Make room: df -h. Writes resume by themselves.",
    ),
    text(
        "superseded",
        "A process speaks as an incarnation of a region that a later one has followed: two processes of it run.",
        "Stop the older process.",
    ),
    text(
        "token_ahead",
        "A client's token carries a time too far ahead of this region's clock; the time was ignored.",
        "Correct the clock of the region that gave the token: chronyc tracking.",
    ),
    text("versions_differ", "Regions run different builds.", "Finish the upgrade."),
    text(
        "inherited",
        "This region took over the logs of one that was removed, as its heir.",
        "Nothing; tombolo status shows the members.",
    ),
    text(
        "members_not_saved",
        "A change of the members could not be made durable here; nothing was done, and peers tell it again.",
        "Look at the disk of the data directory: df -h, dmesg.",
    ),
    text(
        "removed",
        "This region was removed from its cluster: it takes no writes, and what it holds grows old.",
        "Stop it; it may return only as a new region: tombolo region add.",
    ),
];
