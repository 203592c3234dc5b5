//! Transfer syntaxes that are read (PS3.5, chapter 10 and annex A).

use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};

use super::unsupported;
use crate::error::Result;

/// How pixel data is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Native,
    /// Run lengths (PS3.5, annex G).
    Rle,
    /// 8-bit DCT.
    JpegBaseline,
    /// The same, or of 12 bits.
    JpegExtended,
    /// Process 14, any predictor.
    JpegLossless,
    /// JPEG-LS, lossless or nearly so.
    JpegLs,
    /// JPEG 2000, reversible or not.
    Jpeg2000,
}

/// How a data set is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Value representations are left out.
    pub implicit: bool,
    /// Numbers are big endian.
    pub big_endian: bool,
    /// The data set is one raw deflate stream.
    pub deflated: bool,
    /// How pixel data is coded.
    pub coding: Coding,
}

impl Syntax {
    /// Implicit VR Little Endian.
    pub const IMPLICIT: Self = Self {
        implicit: true,
        ..Self::EXPLICIT
    };
    /// Explicit VR Little Endian.
    pub const EXPLICIT: Self = Self {
        implicit: false,
        big_endian: false,
        deflated: false,
        coding: Coding::Native,
    };

    /// The syntax of a Transfer Syntax UID.
    ///
    /// # Errors
    /// `UnsupportedMedia` that names the syntax.
    pub fn from_uid(uid: &str) -> Result<Self> {
        let coded = |coding| Self {
            coding,
            ..Self::EXPLICIT
        };
        match uid {
            "1.2.840.10008.1.2" => Ok(Self::IMPLICIT),
            "1.2.840.10008.1.2.1" => Ok(Self::EXPLICIT),
            "1.2.840.10008.1.2.2" => Ok(Self {
                big_endian: true,
                ..Self::EXPLICIT
            }),
            "1.2.840.10008.1.2.1.99" => Ok(Self {
                deflated: true,
                ..Self::EXPLICIT
            }),
            "1.2.840.10008.1.2.5" => Ok(coded(Coding::Rle)),
            "1.2.840.10008.1.2.4.50" => Ok(coded(Coding::JpegBaseline)),
            "1.2.840.10008.1.2.4.51" => Ok(coded(Coding::JpegExtended)),
            "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => Ok(coded(Coding::JpegLossless)),
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Ok(coded(Coding::JpegLs)),
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => Ok(coded(Coding::Jpeg2000)),
            _ => Err(unsupported(match TransferSyntaxRegistry.get(uid) {
                Some(known) => format!("the transfer syntax `{}` ({}) is not read", known.uid(), known.name()),
                // An unknown one could hold anything: it is not repeated.
                None => "the transfer syntax is unknown".into(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_syntaxes_are_named() {
        let message = |uid| Syntax::from_uid(uid).unwrap_err().message().to_owned();
        assert!(message("1.2.840.10008.1.2.4.201").contains("High-Throughput JPEG 2000"));
        assert!(message("1.2.840.10008.1.2.4.110").contains("JPEG XL"));
        assert_eq!(message("1.2.3"), "the transfer syntax is unknown");
        assert!(Syntax::from_uid("1.2.840.10008.1.2.5").is_ok());
    }
}
