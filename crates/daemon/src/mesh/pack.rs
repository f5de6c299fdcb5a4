//! Packed frames: a frame inside another one, compressed with zstd.
//!
//! Body: the kind of the frame inside, its length as u32 little endian, then its body as one zstd frame. Whoever speaks
//! this version of the protocol reads them. Lengths are checked before anything is allocated.

use tombolo_codec::limits::FRAME_BYTES_MAX;
use tombolo_transport::Frame;

/// The kind of a packed frame.
const KIND_PACKED: u8 = 3;
/// Kind and length of the frame inside.
const HEAD_BYTES: usize = 5;
/// A shorter body is left as it is: most are batches of a few signals, on which a dictionary would have nothing to find.
const BODY_BYTES_MIN: usize = 8 * 1_024;
/// Entries of a state are many of a kind, and their keys much alike.
const ENTRIES_BYTES_MIN: usize = 512;
/// The quickest level that still finds the keys that come again.
const LEVEL: i32 = 1;

/// Why a packed frame cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("sent a packed frame without a frame in it")]
    Short,
    #[error("sent a packed frame of {0} bytes; {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("sent a packed frame that does not unpack: {0}")]
    Damaged(String),
}

/// The frame packed, if that is worth it.
pub(super) fn pack(frame: Frame) -> Frame {
    pack_from(BODY_BYTES_MIN, frame)
}

/// The same for a frame of entries.
pub(super) fn pack_entries(frame: Frame) -> Frame {
    pack_from(ENTRIES_BYTES_MIN, frame)
}

fn pack_from(bytes_min: usize, frame: Frame) -> Frame {
    if frame.body.len() < bytes_min {
        return frame;
    }
    let Ok(packed) = zstd::bulk::compress(&frame.body, LEVEL) else { return frame };
    if packed.len() + HEAD_BYTES > frame.body.len() / 8 * 7 {
        return frame;
    }
    let length = u32::try_from(frame.body.len()).expect("a frame is shorter than 4 GiB");
    let mut body = Vec::with_capacity(HEAD_BYTES + packed.len());
    body.push(frame.kind);
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&packed);
    Frame::new(KIND_PACKED, body)
}

/// The frame inside a packed one; another frame as it is.
///
/// Errors: [`UnpackError`]; end the connection with it.
pub(super) fn unpack(frame: Frame) -> Result<Frame, UnpackError> {
    if frame.kind != KIND_PACKED {
        return Ok(frame);
    }
    let Some((&[kind, a, b, c, d], packed)) = frame.body.split_first_chunk::<HEAD_BYTES>() else {
        return Err(UnpackError::Short);
    };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(UnpackError::TooLong(length));
    }
    let body = zstd::bulk::decompress(packed, length).map_err(|e| UnpackError::Damaged(e.to_string()))?;
    if body.len() != length || kind == KIND_PACKED {
        return Err(UnpackError::Damaged("its length or kind is not the one it states".to_owned()));
    }
    Ok(Frame::new(kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"views:1001"[at % 10]).collect()
    }

    #[test]
    fn what_is_packed_is_shorter_and_unpacks_to_what_it_was() {
        for bytes in [BODY_BYTES_MIN, 300_000] {
            let frame = Frame::new(2, text(bytes));
            let packed = pack(frame.clone());
            assert!(packed.kind == KIND_PACKED && packed.body.len() < bytes / 4);
            assert_eq!(unpack(packed), Ok(frame));
        }
    }

    #[test]
    fn what_would_not_become_shorter_stays_as_it_is() {
        let small = Frame::new(2, text(BODY_BYTES_MIN - 1));
        assert_eq!(pack(small.clone()), small);
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let dense = Frame::new(2, (0..20_000).map(|_| noise()).collect::<Vec<u8>>());
        assert_eq!(pack(dense.clone()), dense);
        assert_eq!(unpack(dense.clone()), Ok(dense));
    }

    #[test]
    fn a_stated_length_is_checked_before_anything_is_allocated_and_damage_is_refused() {
        let packed = pack(Frame::new(2, text(20_000)));
        let stated = |length: u32| {
            let mut body = packed.body.to_vec();
            body[1..5].copy_from_slice(&length.to_le_bytes());
            unpack(Frame::new(KIND_PACKED, body))
        };
        assert_eq!(stated(u32::MAX), Err(UnpackError::TooLong(u32::MAX as usize)));
        assert!(matches!(stated(19_999), Err(UnpackError::Damaged(_))));
        assert!(matches!(stated(20_001), Err(UnpackError::Damaged(_))));
        assert_eq!(unpack(Frame::new(KIND_PACKED, vec![2, 0, 0])), Err(UnpackError::Short));
        let mut twice = packed.body.to_vec();
        twice[0] = KIND_PACKED;
        assert!(unpack(Frame::new(KIND_PACKED, twice)).is_err());
    }
}
