//! A scan: which components it codes, how they are interleaved, and the way of their lines into the picture.

use super::coder::{Coder, Gradients};
use super::header::Header;
use super::parameters::{Parameters, Presets};
use super::{invalid, unsupported};
use crate::error::Result;

/// What of the scan header (ITU-T T.87, C.2.3) and the segments before matters for decoding.
#[derive(Debug)]
pub(super) struct Scan {
    /// Their places in the frame.
    pub components: Vec<usize>,
    /// The samples of a pixel are coded together, not line by line.
    by_sample: bool,
    parameters: Parameters,
    /// After so many lines the coding starts anew.
    restart_lines: Option<usize>,
}

impl Scan {
    /// Reads the body of SOS.
    pub fn read(body: &[u8], header: &Header, presets: &Presets, restart_lines: Option<usize>) -> Result<Self> {
        let malformed = || invalid("its scan header has a wrong length");
        let (&count, rest) = body.split_first().ok_or_else(malformed)?;
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(malformed)?;
        let &[near, interleave, point_transform] = rest else {
            return Err(malformed());
        };
        let mut components = Vec::new();
        for &[id, table] in selectors.as_chunks::<2>().0 {
            let place = header.ids.iter().position(|&known| known == id);
            let place = place.filter(|place| !components.contains(place));
            components.push(place.ok_or_else(|| invalid(format!("a scan has component `{id}` out of place")))?);
            if table != 0 {
                return Err(unsupported("JPEG-LS with mapping tables is not read"));
            }
        }
        if point_transform != 0 {
            return Err(unsupported("JPEG-LS with a point transform is not read"));
        }
        match (interleave, components.len()) {
            (0, 1) | (1 | 2, 2..) => {}
            (mode, count) => return Err(invalid(format!("`{count}` components in interleave mode `{mode}`"))),
        }
        Ok(Self {
            components,
            by_sample: interleave == 2,
            parameters: Parameters::new(header.precision, near, presets)?,
            restart_lines,
        })
    }

    /// Puts the samples in their places of the picture and says where the coded data ends.
    pub fn decode(&self, coded: &[u8], header: &Header, samples: &mut [u16]) -> Result<usize> {
        let end = match (self.by_sample, self.components.len()) {
            (true, 2) => self.intervals::<2>(coded, header, samples),
            (true, 3) => self.intervals::<3>(coded, header, samples),
            (true, 4) => self.intervals::<4>(coded, header, samples),
            _ => self.intervals::<1>(coded, header, samples),
        };
        end.ok_or_else(|| invalid("its coded data is damaged or cut off"))
    }

    fn intervals<const N: usize>(&self, coded: &[u8], header: &Header, samples: &mut [u16]) -> Option<usize> {
        let gradients = Gradients::new(&self.parameters);
        let row = header.width as usize * header.ids.len();
        let interval = self
            .restart_lines
            .map_or(samples.len(), |lines| lines.saturating_mul(row));
        let mut at = 0;
        for (number, samples) in samples.chunks_mut(interval).enumerate() {
            if let Some(before) = number.checked_sub(1) {
                at += restart_marker(&coded[at..], before)?;
            }
            let coder = Coder::new(&coded[at..], &self.parameters, &gradients);
            at += self.interval::<N>(coder, header, samples)?;
        }
        Some(at)
    }

    /// The lines between two starts. A plane has pixels of `N` samples: one with all samples, or `N` is 1.
    fn interval<const N: usize>(&self, mut coder: Coder<'_>, header: &Header, samples: &mut [u16]) -> Option<usize> {
        let width = header.width as usize;
        let mut planes: Vec<Plane<N>> = self
            .components
            .chunks(N)
            .map(|components| Plane::new(components, width))
            .collect();
        for row in samples.chunks_exact_mut(width * header.ids.len()) {
            for plane in &mut planes {
                plane.advance(&mut coder)?;
                plane.put(row, header.ids.len());
            }
        }
        coder.end()
    }
}

/// The last two lines of components that are coded together.
struct Plane<'a, const N: usize> {
    components: &'a [usize],
    above: Vec<[u16; N]>,
    line: Vec<[u16; N]>,
    run_index: usize,
}

impl<'a, const N: usize> Plane<'a, N> {
    fn new(components: &'a [usize], width: usize) -> Self {
        let blank = vec![[0; N]; width + 2];
        Self {
            components,
            above: blank.clone(),
            line: blank,
            run_index: 0,
        }
    }

    /// Decodes the next line; beyond its ends it goes on as A.2.1 wants it.
    fn advance(&mut self, coder: &mut Coder<'_>) -> Option<()> {
        std::mem::swap(&mut self.above, &mut self.line);
        let behind = self.above.len() - 1;
        self.above[behind] = self.above[behind - 1];
        self.line[0] = self.above[1];
        coder.line(&self.above, &mut self.line, &mut self.run_index)
    }

    fn put(&self, row: &mut [u16], components: usize) {
        for (pixel, decoded) in row.chunks_exact_mut(components).zip(&self.line[1..]) {
            for (&component, &sample) in self.components.iter().zip(decoded) {
                pixel[component] = sample;
            }
        }
    }
}

/// Passes over the restart marker that is due, RST0 to RST7 in turn (ITU-T T.81, B.2.1), and fill bytes before it.
fn restart_marker(coded: &[u8], number: usize) -> Option<usize> {
    let fill = coded.iter().take_while(|&&byte| byte == 0xff).count();
    let due = 0xd0 + (number % 8) as u8;
    (fill > 0 && coded.get(fill) == Some(&due)).then_some(fill + 1)
}
