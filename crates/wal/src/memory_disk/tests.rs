//! The disk itself: what survives a power cut, what a failed sync hides.

use super::*;

fn content(disk: &MemoryDisk, path: &str) -> Vec<u8> {
    disk.read_at(&disk.open(path).unwrap(), 0, usize::MAX).unwrap()
}

#[test]
fn synced_bytes_survive_and_unsynced_ones_survive_by_the_sector_or_in_part() {
    let mut seen_kept = false;
    let mut seen_lost = false;
    let mut seen_torn = false;
    for seed in 0..200 {
        let disk = MemoryDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.write_at(&file, 0, &[1; 1_024]).unwrap();
        disk.sync_data(&file).unwrap();
        disk.sync_dir("").unwrap();
        disk.write_at(&file, 512, &[2; 1_024]).unwrap();
        disk.power_loss(seed);
        let bytes = content(&disk, "a");
        assert!(bytes[..512].iter().all(|byte| *byte == 1));
        let twos = bytes[512..1_024].iter().filter(|byte| **byte == 2).count();
        seen_kept |= twos == 512;
        seen_lost |= twos == 0;
        seen_torn |= twos > 0 && twos < 512;
        assert!(disk.read_at(&file, 0, 1).is_err(), "a file opened before the cut is stale");
    }
    assert!(seen_kept && seen_lost && seen_torn);
}

#[test]
fn names_survive_only_with_their_directory_synced_or_by_chance() {
    let mut seen_lost = false;
    for seed in 0..50 {
        let disk = MemoryDisk::new(seed);
        disk.create_dir("d").unwrap();
        disk.sync_dir("").unwrap();
        disk.create("d/kept").unwrap();
        disk.sync_dir("d").unwrap();
        disk.create("d/new").unwrap();
        disk.rename("d/kept", "d/renamed").unwrap();
        disk.power_loss(seed);
        let names = disk.list("d").unwrap();
        seen_lost |= !names.contains(&"new".to_owned());
        let kept = names.iter().filter(|name| *name == "kept" || *name == "renamed").count();
        assert_eq!(kept, 1, "a rename happens or does not: {names:?}");
    }
    assert!(seen_lost);
}

#[test]
fn a_failed_sync_leaves_pages_that_a_later_sync_does_not_write() {
    let lost = (0..50).any(|seed| {
        let disk = MemoryDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.sync_dir("").unwrap();
        disk.write_at(&file, 0, &[1; 512]).unwrap();
        disk.fail_syncs(1);
        assert!(disk.sync_data(&file).is_err());
        disk.sync_data(&file).unwrap();
        assert_eq!(content(&disk, "a"), [1; 512]);
        disk.power_loss(seed);
        content(&disk, "a").is_empty()
    });
    assert!(lost);
}

#[test]
fn a_full_disk_takes_part_of_a_write_and_removing_a_file_gives_space_back() {
    let disk = MemoryDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.write_at(&file, 0, &[1; 100]).unwrap();
    disk.limit_space(Some(30));
    assert!(disk.write_at(&file, 50, &[2; 100]).unwrap_err().is_full());
    assert_eq!(disk.len(&file).unwrap(), 130);
    disk.write_at(&file, 0, &[3; 130]).unwrap();
    disk.remove("a").unwrap();
    let file = disk.create("b").unwrap();
    disk.write_at(&file, 0, &[1; 130]).unwrap();
    assert!(disk.write_at(&file, 130, &[1]).unwrap_err().is_full());
}

#[test]
fn an_image_holds_what_is_durable_and_nothing_else() {
    let disk = MemoryDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.write_at(&file, 0, &[1; 600]).unwrap();
    disk.sync_data(&file).unwrap();
    disk.sync_dir("").unwrap();
    disk.write_at(&file, 0, &[2; 900]).unwrap();
    disk.create("b").unwrap();
    let image = disk.durable_copy();
    assert_eq!(image.files(), [("a".to_owned(), 600)]);
    assert_eq!(content(&image, "a"), [1; 600]);
    assert_eq!(content(&disk, "a"), [2; 900], "the disk itself goes on");
}
