//! Whether somebody's name may be written into the pixels, as far as a header tells.

use serde::{Deserialize, Serialize};

/// SOP classes of pictures that programs and cameras write on: ultrasound, secondary capture, endoscopy, photographs (PS3.4, B.5), with the retired ones.
const WRITTEN_ON: [&str; 14] = [
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.6",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
    "1.2.840.10008.5.1.4.1.1.77.1.1",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1",
    "1.2.840.10008.5.1.4.1.1.77.1.4",
    "1.2.840.10008.5.1.4.1.1.77.1.4.1",
    "1.2.840.10008.5.1.4.1.1.77.1.5.1",
];
/// Modalities of the same.
const MODALITIES: [&str; 6] = ["US", "IVUS", "SC", "OT", "XC", "ES"];

/// Why text that names somebody may be in the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BurnedIn {
    /// BurnedInAnnotation says so.
    Declared,
    /// It says nothing, and the image is of a kind that is written on: by SOP class, modality, a screen that was saved, or a conversion.
    Suspected,
}

impl BurnedIn {
    /// Its name in records and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Suspected => "suspected",
        }
    }
}

/// What a header says that bears on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signs<'a> {
    /// BurnedInAnnotation (0028,0301).
    pub annotation: Option<&'a str>,
    /// SOPClassUID (0008,0016).
    pub sop_class: Option<&'a str>,
    /// Modality (0008,0060).
    pub modality: Option<&'a str>,
    /// ImageType (0008,0008), its values behind backslashes.
    pub image_type: Option<&'a str>,
    /// ConversionType (0008,0064): from what it was converted.
    pub conversion: Option<&'a str>,
}

impl Signs<'_> {
    /// Judges them. Where BurnedInAnnotation says NO, that is believed (PS3.3, C.7.6.1.1).
    pub fn burned_in(&self) -> Option<BurnedIn> {
        match self.annotation {
            Some("YES") => return Some(BurnedIn::Declared),
            Some("NO") => return None,
            _ => {}
        }
        let is_saved = self.image_type.is_some_and(|text| text.contains("SAVE"));
        let is_written_on = self.sop_class.is_some_and(|uid| WRITTEN_ON.contains(&uid))
            || self.modality.is_some_and(|modality| MODALITIES.contains(&modality));
        (is_saved || is_written_on || self.conversion.is_some()).then_some(BurnedIn::Suspected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_counts_and_the_files_own_word_most() {
        let none = Signs::default();
        let sc = Signs {
            sop_class: Some("1.2.840.10008.5.1.4.1.1.7"),
            ..none
        };
        let said = |annotation| Signs {
            annotation: Some(annotation),
            ..sc
        };
        for (signs, expected) in [
            (none, None),
            (sc, Some(BurnedIn::Suspected)),
            (said("YES"), Some(BurnedIn::Declared)),
            (said("NO"), None),
            (said("perhaps"), Some(BurnedIn::Suspected)),
            (
                Signs {
                    modality: Some("US"),
                    ..none
                },
                Some(BurnedIn::Suspected),
            ),
            (
                Signs {
                    modality: Some("CT"),
                    ..none
                },
                None,
            ),
            (
                Signs {
                    image_type: Some("DERIVED\\SECONDARY\\SCREEN SAVE"),
                    ..none
                },
                Some(BurnedIn::Suspected),
            ),
            (
                Signs {
                    image_type: Some("ORIGINAL\\PRIMARY"),
                    ..none
                },
                None,
            ),
            (
                Signs {
                    conversion: Some("DF"),
                    ..none
                },
                Some(BurnedIn::Suspected),
            ),
            (
                Signs {
                    sop_class: Some("1.2.840.10008.5.1.4.1.1.2"),
                    ..none
                },
                None,
            ),
        ] {
            assert_eq!(signs.burned_in(), expected, "{signs:?}");
        }
    }
}
