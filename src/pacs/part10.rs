//! The little that is read of a DICOM file before the decoder does: which instance its head says that it is (PS3.10, 7.1).

/// Where the head begins: after the preamble and `DICM`.
const HEAD: usize = 132;
/// Elements of the head that are looked at.
const ELEMENTS_MAX: usize = 32;
/// Media Storage SOP Instance UID.
const SOP_INSTANCE_UID: (u16, u16) = (0x0002, 0x0003);
/// Value representations with a length of four bytes (PS3.5, 7.1.2); those that may stand in a head.
const LONG: [&[u8]; 4] = [b"OB", b"OW", b"UN", b"UT"];

/// Media Storage SOP Instance UID without its padding; none where the file has no head, or not that in it. The head is Explicit VR Little Endian.
pub fn sop_instance_uid(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.get(HEAD..).filter(|_| file.get(HEAD - 4..HEAD) == Some(b"DICM"))?;
    for _ in 0..ELEMENTS_MAX {
        let (header, after) = rest.split_first_chunk::<8>()?;
        let [g0, g1, e0, e1, vr @ .., l0, l1] = *header;
        let tag = (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
        if tag.0 != SOP_INSTANCE_UID.0 || tag > SOP_INSTANCE_UID {
            return None;
        }
        let (length, after) = if LONG.contains(&vr.as_slice()) {
            let (length, after) = after.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*length), after)
        } else {
            (u32::from(u16::from_le_bytes([l0, l1])), after)
        };
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        if tag == SOP_INSTANCE_UID {
            return Some(
                value
                    .trim_ascii_end()
                    .strip_suffix(b"\0")
                    .unwrap_or(value.trim_ascii_end()),
            );
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: (u16, u16), vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        bytes.extend(vr);
        if LONG.contains(&vr.as_slice()) {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
        bytes
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        [[0; 128].as_slice(), b"DICM", &elements.concat()].concat()
    }

    #[test]
    fn the_uid_of_a_head_is_found() {
        let before = [
            element((2, 0), b"UL", &[100, 0, 0, 0]),
            element((2, 1), b"OB", &[0, 1]),
            element((2, 2), b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        ];
        for padded in [b"1.2.3\0".as_slice(), b"1.2.3", b"1.2.3 "] {
            let elements = [before.as_slice(), &[element((2, 3), b"UI", padded)]].concat();
            assert_eq!(sop_instance_uid(&file(&elements)), Some(b"1.2.3".as_slice()));
        }
        assert_eq!(sop_instance_uid(&file(&before)), None);
        assert_eq!(sop_instance_uid(&file(&[element((2, 0x10), b"UI", b"1.2")])), None);
        assert_eq!(sop_instance_uid(b"\x89PNG"), None);
        assert_eq!(
            sop_instance_uid(&file(&[vec![2, 0, 3, 0, b'U', b'I', 200, 0, b'1']])),
            None
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sop_instance_uid(&file(&[vec![2, 0], rest]));
        }
    }
}
