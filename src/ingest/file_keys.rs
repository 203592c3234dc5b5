//! By which pseudonyms an archive knows what is in a file.

use sha2::{Digest, Sha256};

use crate::archive::Identity;
use crate::domain::{Frames, Key};
use crate::imaging::Decoder;

/// The pseudonyms of a file's frames, the first one's first. A file that can't be read has that one alone.
pub fn file_keys(bytes: &[u8], identity: &Identity, decoder: &Decoder) -> Vec<Key> {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let frames = decoder.frames(bytes).unwrap_or(1);
    let keys = Frames::All
        .of(frames)
        .map(|frame| identity.file_key(&frame.digest(&digest)));
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{IdentityMode, Secret};
    use crate::domain::FrameNumber;
    use crate::imaging::testing::{Dicom, GRAY_JPEG};
    use crate::imaging::{DecoderSettings, Limits};

    #[test]
    fn each_frame_has_its_own_and_the_first_that_of_the_file() {
        let identity = Identity::new(Secret::from_bytes([1; 32]), IdentityMode::Linked);
        let decoder = Decoder::new(DecoderSettings {
            limits: Limits::default(),
            workers: 1,
            worker_memory_bytes_max: 1 << 30,
            worker_seconds_max: 10,
            program: "none".into(),
        });
        let keys = |bytes: &[u8]| file_keys(bytes, &identity, &decoder);
        let alone = |bytes: &[u8]| identity.file_key(&Sha256::digest(bytes).into());

        let three = Dicom::gray8(1, 1, &[1, 2, 3]).text((0x28, 0x08), b"IS", "3").file();
        let digest: [u8; 32] = Sha256::digest(&three).into();
        let of = |number| identity.file_key(&FrameNumber::try_from(number).unwrap().digest(&digest));
        assert_eq!(keys(&three), [alone(&three), of(2), of(3)]);
        for one in [GRAY_JPEG, b"no image"] {
            assert_eq!(keys(one), [alone(one)]);
        }
    }
}
