//! How clients want a picture shown.

use serde::Deserialize;
use utoipa::IntoParams;

use super::ask::{invalid, numbers};
use crate::error::Result;
use crate::http::upload::echo;

/// Longest side that a picture may be asked for in.
const SIZE_MAX: u32 = 4096;

/// How to show a picture.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RenderQuery {
    /// Grey levels to spread over black to white, as `center,width` of stored values; if left out, as the image was embedded.
    #[param(example = "2048,4096")]
    window: Option<String>,
    /// Longest side in pixels, at most 4096.
    #[param(example = 1024, value_type = Option<u32>, minimum = 1, maximum = 4096)]
    size: Option<String>,
}

impl RenderQuery {
    /// Center and width, checked.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but two numbers of which the second is positive.
    pub fn window(&self) -> Result<Option<(f64, f64)>> {
        let Some(text) = &self.window else { return Ok(None) };
        match numbers(text).as_deref() {
            Some([center, width]) if *width > 0.0 => Ok(Some((*center, *width))),
            _ => Err(invalid(format!(
                "`window` is center,width with a positive width, got `{}`",
                echo(text)
            ))),
        }
    }

    /// The longest side, checked.
    ///
    /// # Errors
    /// `InvalidRequest` outside 1..=4096.
    pub fn size(&self) -> Result<Option<u32>> {
        let Some(text) = &self.size else { return Ok(None) };
        match text.parse() {
            Ok(size) if (1..=SIZE_MAX).contains(&size) => Ok(Some(size)),
            _ => Err(invalid(format!(
                "`size` is a whole number from 1 to {SIZE_MAX}, got `{}`",
                echo(text)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_sizes_are_checked() {
        let query = |window: &str, size: &str| RenderQuery {
            window: Some(window.into()),
            size: Some(size.into()),
        };
        assert_eq!(query("40, 400", "1").window().unwrap(), Some((40.0, 400.0)));
        for window in ["", "1", "1,0", "1,-2", "nan,1", "1,inf", "1,2,3"] {
            assert!(query(window, "1").window().is_err(), "{window}");
        }
        for size in ["", "0", "4097", "-1", "1e3"] {
            assert!(query("1,1", size).size().is_err(), "{size}");
        }
    }
}
