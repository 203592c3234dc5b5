//! A picture at a glance.

use super::eight_bit::luma;
use super::{Raster8, resize};
use crate::domain::Appearance;

/// Side of the picture that is looked at, pixels.
const SIDE: usize = 32;

/// What a picture looks like, whatever its size.
pub fn appearance(picture: &Raster8) -> Appearance {
    let (channels, side) = (usize::from(picture.channels), SIDE as u32);
    let small: Vec<u8> = resize::resize(&picture.data, channels, (picture.width, picture.height), (side, side));
    let pixels: Vec<[u8; 3]> = small
        .chunks_exact(channels)
        .map(|pixel| <[u8; 3]>::try_from(pixel).unwrap_or([pixel[0]; 3]))
        .collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / count
    };
    let span = |[r, g, b]: &[u8; 3]| f64::from(r.max(g).max(b) - r.min(g).min(b)) / 255.0;
    let levels: Vec<f64> = pixels.iter().map(|&pixel| f64::from(luma(pixel)) / 255.0).collect();
    let brightness = mean(&mut levels.iter().copied());
    let contrast = mean(&mut levels.iter().map(|level| (level - brightness).powi(2))).sqrt();
    let across = mean(
        &mut levels
            .chunks_exact(SIDE)
            .flat_map(|row| row.windows(2))
            .map(|two| (two[0] - two[1]).abs()),
    );
    let down = mean(
        &mut levels
            .iter()
            .zip(&levels[SIDE..])
            .map(|(upper, lower)| (upper - lower).abs()),
    );
    Appearance {
        colour: mean(&mut pixels.iter().map(span)),
        brightness,
        contrast,
        // A picture that is flat at this size has no detail.
        detail: if contrast > 0.0 {
            (across + down) / 2.0 / contrast
        } else {
            0.0
        },
        elongation: (f64::from(picture.width) / f64::from(picture.height)).ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, level: impl Fn(u32, u32) -> [u8; 3]) -> Appearance {
        let at = |at: u32| level(at % width, at / width);
        appearance(&Raster8 {
            width,
            height,
            channels: 3,
            data: (0..width * height).flat_map(at).collect(),
        })
    }

    #[test]
    fn measures_are_what_they_are_named() {
        let red = picture(64, 64, |_, _| [255, 0, 0]);
        assert_eq!(
            (red.colour, red.contrast < 1e-9, red.detail, red.elongation),
            (1.0, true, 0.0, 0.0)
        );
        let halves = picture(128, 32, |x, _| [if x < 64 { 0 } else { 255 }; 3]);
        assert_eq!(halves.colour, 0.0);
        assert!(
            (halves.brightness - 0.5).abs() < 0.01 && (halves.contrast - 0.5).abs() < 0.02,
            "{halves:?}"
        );
        assert!((halves.elongation - 4f64.ln()).abs() < 1e-12);
        let checks = picture(32, 32, |x, y| [if (x + y) % 2 == 0 { 0 } else { 255 }; 3]);
        assert!(
            (checks.detail - 2.0).abs() < 0.01 && halves.detail < 0.1,
            "{checks:?} {halves:?}"
        );
    }

    #[test]
    fn the_size_does_not_matter() {
        let wave = |side: f64| {
            move |x: u32, y: u32| {
                [(127.0 + 100.0 * (f64::from(x) / side * 6.0).sin() * (f64::from(y) / side * 5.0).cos()) as u8; 3]
            }
        };
        let (small, large) = (picture(64, 64, wave(64.0)), picture(512, 512, wave(512.0)));
        for (a, b) in [
            (small.brightness, large.brightness),
            (small.contrast, large.contrast),
            (small.detail, large.detail),
        ] {
            assert!((a - b).abs() < 0.02, "{small:?} {large:?}");
        }
    }
}
