//! How large a file and a picture may be. Checked from the header, before anything is decoded.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Longest side of a picture, in pixels.
pub const SIDE_MAX: u32 = 32_767;

/// Bounds on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes of a file.
    pub file_bytes_max: usize,
    /// Most pixels (columns times rows) of a picture.
    pub pixels_max: u64,
}

impl Default for Limits {
    /// 64 MiB, 64 Mpixel.
    fn default() -> Self {
        Self {
            file_bytes_max: 64 << 20,
            pixels_max: 64 << 20,
        }
    }
}

impl Limits {
    /// Refuses a file over the byte limit.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check_file(&self, bytes: usize) -> Result<()> {
        if bytes > self.file_bytes_max {
            let message = format!(
                "the file has `{bytes}` bytes, at most `{}` are taken",
                self.file_bytes_max
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// Refuses a picture without pixels or with too many.
    ///
    /// # Errors
    /// `InvalidImage`, `TooManyPixels`.
    pub fn check_size(&self, width: u32, height: u32) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("a picture of `{width}x{height}` has no pixels"),
            ));
        }
        if width.max(height) > SIDE_MAX || u64::from(width) * u64::from(height) > self.pixels_max {
            let message = format!(
                "a picture of `{width}x{height}` is over the limit of `{}` pixels, `{SIDE_MAX}` a side",
                self.pixels_max
            );
            return Err(Error::new(ErrorKind::TooManyPixels, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let limits = Limits {
            file_bytes_max: 10,
            pixels_max: 100,
        };
        assert!(limits.check_file(10).is_ok());
        assert_eq!(limits.check_file(11).unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(limits.check_size(10, 10).is_ok());
        assert_eq!(limits.check_size(101, 1).unwrap_err().kind(), ErrorKind::TooManyPixels);
        assert_eq!(limits.check_size(0, 5).unwrap_err().kind(), ErrorKind::InvalidImage);
        let long = Limits::default().check_size(SIDE_MAX + 1, 1).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::TooManyPixels);
        assert!(Limits::default().check_size(u32::MAX, u32::MAX).is_err());
    }
}
