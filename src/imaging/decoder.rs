//! File bytes to a raster, whatever the format.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dicom::BurnedIn;
use super::dicom::decode::DecodedFrame;
use super::dicom::pool::Pool;
use super::dicom::precheck;
use super::dicom::protocol::Settings;
use super::limits::Limits;
use super::raster::Raster;
use super::sniff::{Format, sniff};
use super::voi::GreyScale;
use super::{jpeg, png};
use crate::domain::{FrameNumber, FrameOf};
use crate::error::{Error, ErrorKind, Result};

/// How decoding is bounded.
#[derive(Debug, Clone)]
pub struct DecoderSettings {
    /// Bounds on one file.
    pub limits: Limits,
    /// Most DICOM workers at a time; a further file waits.
    pub workers: usize,
    /// Memory of a worker on top of what the program itself takes.
    pub worker_memory_bytes_max: u64,
    /// Wall-clock and CPU seconds that a DICOM file may take.
    pub worker_seconds_max: u64,
    /// Our own binary, run as `PROGRAM decode-worker`.
    pub program: PathBuf,
}

/// What a file is and says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The picture.
    pub raster: Raster,
    /// What it was written as.
    pub format: Format,
    /// What its grey values stand for.
    pub grey_scale: GreyScale,
    /// Empty but for DICOM.
    pub provenance: Provenance,
    /// Which picture of the file it is.
    pub frame: FrameOf,
}

/// Identifiers and facts of a DICOM header, trimmed, absent when empty. `Debug` tells only which are there.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// PatientID.
    pub patient_id: Option<String>,
    /// IssuerOfPatientID.
    pub issuer: Option<String>,
    /// StudyInstanceUID.
    pub study_uid: Option<String>,
    /// SeriesInstanceUID.
    pub series_uid: Option<String>,
    /// SOPInstanceUID.
    pub sop_uid: Option<String>,
    /// ViewPosition.
    pub view: Option<String>,
    /// The digits of PatientAge.
    pub age: Option<String>,
    /// PatientSex.
    pub sex: Option<String>,
    /// Modality.
    pub modality: Option<String>,
    /// BodyPartExamined.
    pub body_part: Option<String>,
    /// Text that names somebody may be in the pixels.
    #[serde(default)]
    pub burned_in: Option<BurnedIn>,
}

impl Provenance {
    /// Drops values that no honest file has.
    pub(super) fn drop_longer_than(&mut self, bytes_max: usize) {
        let Self {
            patient_id,
            issuer,
            study_uid,
            series_uid,
            sop_uid,
            view,
            age,
            sex,
            modality,
            body_part,
            burned_in: _,
        } = self;
        for value in [
            patient_id, issuer, study_uid, series_uid, sop_uid, view, age, sex, modality, body_part,
        ] {
            value.take_if(|text| text.len() > bytes_max);
        }
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_set();
        let values = [
            ("patient_id", &self.patient_id),
            ("issuer", &self.issuer),
            ("study_uid", &self.study_uid),
            ("series_uid", &self.series_uid),
            ("sop_uid", &self.sop_uid),
            ("view", &self.view),
            ("age", &self.age),
            ("sex", &self.sex),
            ("modality", &self.modality),
            ("body_part", &self.body_part),
        ];
        names
            .entries(values.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name))
            .finish()
    }
}

/// Turns files into rasters. Shared by threads; every call blocks for as long as decoding takes.
pub struct Decoder {
    limits: Limits,
    workers: Pool,
}

/// Largest file that [`Decoder::is_quick`], in bytes.
const QUICK_BYTES_MAX: usize = 128 << 10;
/// Most pixels of it.
const QUICK_PIXELS_MAX: u64 = 600_000;

impl Decoder {
    /// Nothing is started before the first DICOM file.
    pub fn new(settings: DecoderSettings) -> Self {
        let worker = Settings {
            limits: settings.limits,
            memory_bytes_max: settings.worker_memory_bytes_max,
            seconds_max: settings.worker_seconds_max,
        };
        Self {
            limits: settings.limits,
            workers: Pool::new(settings.program, settings.workers, worker),
        }
    }

    /// Bounds on one file.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Pixels that a file announces, at most the limit; 0 where its decoder will refuse it. Costs nothing beside decoding.
    pub fn announced_pixels(&self, bytes: &[u8]) -> u64 {
        let size = self.announced_size(bytes);
        let pixels = size.map_or(0, |(width, height)| u64::from(width) * u64::from(height));
        pixels.min(self.limits.pixels_max)
    }

    /// The columns and rows that a file says it has; none of one that says nothing.
    pub fn announced_size(&self, bytes: &[u8]) -> Option<(u32, u32)> {
        match sniff(bytes).ok()? {
            Format::Png => png::announced_size(bytes),
            Format::Jpeg => jpeg::announced_size(bytes),
            Format::Dicom => precheck::announced_size(bytes, &self.limits),
        }
    }

    /// Whether a file is decoded here, without a worker, in a few milliseconds: a PNG or JPEG of few bytes and pixels.
    pub fn is_quick(&self, bytes: &[u8]) -> bool {
        let here = matches!(sniff(bytes), Ok(Format::Png | Format::Jpeg));
        here && bytes.len() <= QUICK_BYTES_MAX && self.announced_pixels(bytes) <= QUICK_PIXELS_MAX
    }

    /// How many pictures a file has. PNG and JPEG have one; a deflated DICOM file is decoded to tell.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn frames(&self, bytes: &[u8]) -> Result<u32> {
        match sniff(bytes)? {
            Format::Png | Format::Jpeg => Ok(1),
            Format::Dicom => match precheck::frames(bytes, &self.limits)? {
                Some(frames) => Ok(frames),
                None => Ok(self.decode(bytes, FrameNumber::FIRST)?.frame.frames()),
            },
        }
    }

    /// Steps 1 and 2 of the pipeline: PNG and JPEG here, DICOM checked here and decoded in a worker.
    ///
    /// # Errors
    /// `TooLarge`, `TooManyPixels`, `InvalidImage`, `UnsupportedMedia`; `InvalidRequest` for a frame that is not there; `Unavailable` when
    /// no worker starts.
    pub fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<Decoded> {
        self.limits.check_file(bytes.len())?;
        let format = sniff(bytes)?;
        let only = |decode: fn(&[u8], &Limits) -> Result<Raster>| -> Result<DecodedFrame> {
            Ok(DecodedFrame {
                frame: FrameOf::new(frame, 1)?,
                raster: guarded(|| decode(bytes, &self.limits))?,
                grey_scale: GreyScale::default(),
                provenance: Provenance::default(),
            })
        };
        let DecodedFrame {
            raster,
            grey_scale,
            provenance,
            frame,
        } = match format {
            Format::Png => only(png::decode)?,
            Format::Jpeg => only(jpeg::decode)?,
            Format::Dicom => {
                precheck::check(bytes, frame, &self.limits)?;
                self.workers.decode(bytes, frame)?
            }
        };
        Ok(Decoded {
            raster,
            format,
            grey_scale,
            provenance,
            frame,
        })
    }
}

/// A decoder that panics on a file must not take its caller along.
fn guarded(decode: impl FnOnce() -> Result<Raster>) -> Result<Raster> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::InvalidImage, "the file breaks its decoder")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::testing::GRAY_JPEG;

    fn decoder(file_bytes_max: usize) -> Decoder {
        Decoder::new(DecoderSettings {
            limits: Limits {
                file_bytes_max,
                ..Limits::default()
            },
            workers: 1,
            worker_memory_bytes_max: 1 << 30,
            worker_seconds_max: 10,
            program: "/no/such/program".into(),
        })
    }

    #[test]
    fn formats_find_their_decoder() {
        let decode = |bytes: &[u8]| decoder(1 << 20).decode(bytes, FrameNumber::FIRST);
        let decoded = decode(GRAY_JPEG).unwrap();
        assert_eq!((decoded.format, decoded.raster.width()), (Format::Jpeg, 16));
        assert_eq!(decoded.provenance, Provenance::default());
        let png = crate::imaging::png::encode(2, 1, &crate::imaging::Samples::Gray8(vec![1, 2])).unwrap();
        assert_eq!(decode(&png).unwrap().format, Format::Png);
    }

    #[test]
    fn sizes_are_known_before_decoding() {
        let decoder = decoder(1 << 20);
        assert_eq!(decoder.announced_pixels(GRAY_JPEG), 16 * 8);
        let png = crate::imaging::png::encode(2, 3, &crate::imaging::Samples::Gray8(vec![1; 6])).unwrap();
        assert_eq!(decoder.announced_pixels(&png), 6);
        let dicom = crate::imaging::dicom::testing::Dicom::gray16(2, 1, &[1, 2]).file();
        assert_eq!(decoder.announced_pixels(&dicom), 2);
        for cut in 0..png.len().min(24) {
            assert_eq!(decoder.announced_pixels(&png[..cut]), 0);
        }
        assert_eq!(decoder.announced_pixels(b""), 0);
        let mut bomb = png;
        bomb[16..24].fill(0xff);
        assert_eq!(decoder.announced_pixels(&bomb), Limits::default().pixels_max);
    }

    #[test]
    fn only_small_pictures_are_quick() {
        let decoder = decoder(1 << 20);
        let png = |side: u32| {
            let levels = vec![1; (side * side) as usize];
            crate::imaging::png::encode(side, side, &crate::imaging::Samples::Gray8(levels)).unwrap()
        };
        assert!(decoder.is_quick(GRAY_JPEG) && decoder.is_quick(&png(700)));
        assert!(!decoder.is_quick(&png(800)));
        let mut long = png(8);
        long.resize(QUICK_BYTES_MAX + 1, 0);
        assert!(!decoder.is_quick(&long));
        let dicom = crate::imaging::dicom::testing::Dicom::gray16(2, 1, &[1, 2]).file();
        assert!(!decoder.is_quick(&dicom) && !decoder.is_quick(b"text"));
    }

    #[test]
    fn refusals_have_fitting_kinds() {
        let kind = |bytes: &[u8]| decoder(150).decode(bytes, FrameNumber::FIRST).unwrap_err().kind();
        assert_eq!(kind(GRAY_JPEG), ErrorKind::TooLarge);
        assert_eq!(kind(b"GIF89a"), ErrorKind::UnsupportedMedia);
        assert_eq!(kind(b""), ErrorKind::UnsupportedMedia);
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n"), ErrorKind::InvalidImage);
    }

    #[test]
    fn a_missing_program_is_not_the_files_fault() {
        let dicom = crate::imaging::dicom::testing::Dicom::gray16(2, 1, &[1, 2]).file();
        assert_eq!(
            decoder(1 << 20).decode(&dicom, FrameNumber::FIRST).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }

    #[test]
    fn only_dicom_has_more_than_one_frame() {
        let decoder = decoder(1 << 20);
        let second = FrameNumber::try_from(2).unwrap();
        let refused = decoder.decode(GRAY_JPEG, second).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
        assert!(refused.message().contains("the number of frames is `1`"), "{refused}");
        assert_eq!(decoder.decode(GRAY_JPEG, FrameNumber::FIRST).unwrap().frame.frames(), 1);
        let three = crate::imaging::dicom::testing::Dicom::gray8(2, 1, &[1, 2, 3, 4, 5, 6]);
        let three = three.text((0x28, 0x08), b"IS", "3").file();
        assert_eq!(decoder.frames(&three).unwrap(), 3);
        assert_eq!(decoder.frames(GRAY_JPEG).unwrap(), 1);
        // Refused here, before a worker is woken.
        let fourth = FrameNumber::try_from(4).unwrap();
        assert_eq!(
            decoder.decode(&three, fourth).unwrap_err().kind(),
            ErrorKind::InvalidRequest
        );
    }

    #[test]
    fn panics_become_errors() {
        let refused = guarded(|| panic!("a decoder's bug")).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::InvalidImage);
    }

    #[test]
    fn debug_hides_values() {
        let provenance = Provenance {
            patient_id: Some("SECRET".into()),
            ..Provenance::default()
        };
        assert_eq!(format!("{provenance:?}"), r#"{"patient_id"}"#);
    }
}
