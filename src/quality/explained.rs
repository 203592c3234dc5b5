//! Whether heat maps point at what makes images alike: insertion and deletion (RISE: Petsiuk, Das, Saenko, BMVC 2018), beside maps that know nothing.
//!
//! The maps are those of `search::shares`, the split of the cosine into pairs of cells (Stylianou et al., WACV 2019; Zhu et al., TIP 2021), or of
//! `search::occlusion`.

use rayon::prelude::*;

use super::bootstrap;
use super::cases::Cases;
use super::evaluation::{Available, Explanations, MapFigures};
use super::random::Random;
use super::subject::Opened;
use crate::domain::{Embedding, Excerpt, similarity};
use crate::embed::{Backend, Cells, ModelCard};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, InputSpec, ModelInput, render};
use crate::search::occlusion::{Windows, mean_colour};
use crate::search::prepare;
use crate::search::shares::{Grid, shares};

/// Equal steps in which an image is revealed or covered. What differs between images is far more than what finer steps would add.
const STEPS: usize = 10;
/// Images of the model in one call.
const BATCH: usize = 16;
/// What insertion begins with: the image so blurred that no finding is left. A share of its side.
const BLUR_SIGMA: f64 = 1.0 / 24.0;

/// An image with its neighbor, ready for the model.
struct Pair {
    item: usize,
    input: ModelInput,
    neighbor: Vec<f32>,
}

/// Areas under the curves of one image: insertion and deletion.
type Areas = [f64; 2];

/// The maps, the explanation first, and what each knows.
const MAPS: [(&str, &str); 5] = [
    ("explanation", "where the similarity comes from"),
    ("random", "nothing: the order of places is drawn by lot"),
    ("uniform, faded", "nothing: all of the image at once, faint at first"),
    (
        "uniform, by rows",
        "nothing: row by row from the top, as places without an order are sorted",
    ),
    (
        "uniform, dotted",
        "nothing: a dot in every cell, which grow until they meet",
    ),
];

/// Whether a model is the one that made the vectors of an archive: its explanations would be of something else.
///
/// # Errors
/// `SpaceMismatch` when it is not.
pub fn check_model(opened: &Opened, card: &ModelCard) -> Result<()> {
    if opened.version.state.manifest.space.of_model() == card.space() {
        return Ok(());
    }
    let message = "the model is not the one that made these vectors: its explanations would be of something else";
    Err(Error::new(ErrorKind::SpaceMismatch, message))
}

/// Explains `wanted` images, as many of each class, and measures the maps. Each image is compared with its nearest of another group, by the model's own
/// vectors, in the pictures that the archive keeps. `done` is called after each.
///
/// - Insertion: the blurred image is revealed in [`STEPS`] equal steps, the places with the largest shares first; the figure is the mean cosine to the
///   neighbor over the steps (the area under the curve). Larger is better.
/// - Deletion: the image is covered with its mean colour in the same order. Smaller is better.
/// - Random: the same grid of random shares.
/// - Uniform: a map that is the same everywhere has no order, so there is more than one way to follow it. Faded: the whole image at once, mixed with what it
///   begins or ends with in equal steps. By rows: what a sort that keeps equal places as they come makes of it. Dotted: every cell shows the same part of its
///   pixels, from its centre outwards.
///
/// Random orders are the fair comparison: as many pixels in patches of the same size. Fading and dots change what kind of image the network sees, and err to
/// either side: weak contrasts spare what it knows (high in both figures), dots everywhere destroy it at once (low in both). Each is to be read in both.
///
/// The model has passed [`check_model`].
///
/// # Errors
/// What reading pictures and running the model refuse.
pub async fn explained(
    cases: &Cases,
    archives: &[&Opened],
    backend: &mut dyn Backend,
    decoder: &Decoder,
    wanted: usize,
    resamples: usize,
    done: impl Fn(),
) -> Result<Available<Explanations>> {
    let mut kept: Vec<usize> = cases.asked().collect();
    kept.retain(|&item| cases.items[item].record.pixels.is_some());
    if kept.is_empty() {
        return Ok(Available::no(
            "no pictures are kept but thumbnails, which are not what the model saw: give `--embeddings` with `--data`, or an archive that keeps views",
        ));
    }
    let method = if backend.card().cells.is_some() {
        "cells"
    } else {
        "occlusion"
    };
    let mut areas: Vec<(usize, [Areas; MAPS.len()])> = Vec::new();
    for item in evenly(cases, kept, wanted) {
        let Some(neighbor) = nearest(cases, item) else { continue };
        let input = picture(cases, item, archives, decoder, &backend.card().input()).await?;
        let pair = Pair {
            item,
            input,
            neighbor: cases.vector(neighbor).to_vec(),
        };
        areas.push((item, areas_of(&pair, backend)?));
        done();
    }
    if areas.is_empty() {
        return Ok(Available::no("no image has a neighbor of another group"));
    }
    Ok(Available::Yes(figures(cases, &areas, method, resamples)))
}

/// `wanted` of `items`, in turns of the classes, each class in an order drawn by a fixed seed.
fn evenly(cases: &Cases, items: Vec<usize>, wanted: usize) -> Vec<usize> {
    let mut random = Random::new(0);
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); cases.classes.len()];
    items
        .into_iter()
        .for_each(|item| of_class[cases.items[item].class].push(item));
    of_class.iter_mut().for_each(|items| random.shuffle(items));
    let turns = of_class.iter().map(Vec::len).max().unwrap_or(0);
    let turn = |turn: usize| of_class.iter().filter_map(move |items| items.get(turn).copied());
    (0..turns).flat_map(turn).take(wanted).collect()
}

/// The nearest of another group.
fn nearest(cases: &Cases, item: usize) -> Option<usize> {
    let others = cases.ranked(cases.vector(item)).into_iter().map(|(_, at)| at as usize);
    let group = cases.items[item].group;
    others.into_iter().find(|&at| cases.items[at].group != group)
}

/// The kept picture, as the model takes it.
async fn picture(
    cases: &Cases,
    item: usize,
    archives: &[&Opened],
    decoder: &Decoder,
    spec: &InputSpec,
) -> Result<ModelInput> {
    let record = &cases.items[item].record;
    let mut last = Error::internal("an image without a picture was chosen");
    for opened in archives {
        let Some(pixels) = &record.pixels else { break };
        match opened.archive.read_pack(&pixels.pack).await {
            Ok(png) => {
                let shown = render(&png, pixels, None, record.window(), None)?;
                return Ok(prepare(decoder, &(*spec).into(), &shown, Excerpt::default())?.input);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The areas of each of [`MAPS`].
fn areas_of(pair: &Pair, backend: &mut dyn Backend) -> Result<[Areas; MAPS.len()]> {
    let map = map(pair, backend)?;
    let canvases = Canvases::of(pair, backend)?;
    let ours = canvases.ordered(&order(&map, &pair.input), pair, backend)?;
    let mut random = Random::new(pair.item as u64);
    let lot = Grid {
        cells: map.cells.iter().map(|_| random.unit()).collect(),
        ..map
    };
    let by_lot = canvases.ordered(&order(&lot, &pair.input), pair, backend)?;
    let faint = |step: usize| vec![step as f32 / STEPS as f32; canvases.pixels()];
    let faded = canvases.areas(faint, pair, backend)?;
    let as_they_come: Vec<u32> = (0u32..).take(canvases.pixels()).collect();
    let rows = canvases.ordered(&as_they_come, pair, backend)?;
    let dotted = canvases.ordered(&dots(&map, &pair.input), pair, backend)?;
    Ok([ours, by_lot, faded, rows, dotted])
}

/// The map that the product shows.
fn map(pair: &Pair, backend: &mut dyn Backend) -> Result<Grid> {
    if backend.card().cells.is_some() {
        let both: Vec<(Vec<f32>, Cells)> = backend.cells(std::slice::from_ref(&pair.input))?;
        let grid = both.first().and_then(|(_, cells)| shares(cells, None, &pair.neighbor));
        return grid.ok_or_else(|| Error::internal("the cells can't be compared"));
    }
    let (windows, mean) = (Windows::of(&pair.input), mean_colour(&pair.input));
    let covered: Vec<ModelInput> = (0..windows.count())
        .map(|at| windows.covered(&pair.input, at, mean))
        .collect();
    let (rows, columns) = windows.grid();
    // The less is left, the larger the share; what it is at first is the same for all.
    let cells = similarities(&covered, &pair.neighbor, backend)?;
    Ok(Grid {
        rows,
        columns,
        cells: cells.into_iter().map(|left| -left).collect(),
    })
}

/// Pixels by falling share, the map between the centres of its cells interpolated; equal ones as they come.
fn order(map: &Grid, input: &ModelInput) -> Vec<u32> {
    let (width, height) = (input.width as usize, input.height as usize);
    let place = |at: usize, side: usize, cells: usize| {
        let centre = ((at as f64 + 0.5) * cells as f64 / side as f64 - 0.5).clamp(0.0, (cells - 1) as f64);
        let first = centre.floor() as usize;
        (first, (first + 1).min(cells - 1), centre - centre.floor())
    };
    let columns: Vec<_> = (0..width).map(|x| place(x, width, map.columns)).collect();
    let value = |row: usize, &(left, right, part): &(usize, usize, f64)| {
        let cells = &map.cells[row * map.columns..];
        cells[left] * (1.0 - part) + cells[right] * part
    };
    let mut values = Vec::with_capacity(width * height);
    for y in 0..height {
        let (upper, lower, part) = place(y, height, map.rows);
        values.extend(
            columns
                .iter()
                .map(|at| value(upper, at) * (1.0 - part) + value(lower, at) * part),
        );
    }
    falling(&values)
}

/// Pixels from the centre of each cell of the map outwards, all cells alike.
fn dots(map: &Grid, input: &ModelInput) -> Vec<u32> {
    let (width, height) = (input.width as usize, input.height as usize);
    // In whole numbers, so that no cell is ahead of another by rounding.
    let from_centre = |at: usize, side: usize, cells: usize| {
        let place = (2 * at + 1) * cells;
        let centre = (2 * (place / (2 * side)) + 1) * side;
        place.abs_diff(centre) as f64 / side as f64
    };
    let columns: Vec<f64> = (0..width).map(|x| from_centre(x, width, map.columns)).collect();
    let mut values = Vec::with_capacity(width * height);
    for y in 0..height {
        let row = from_centre(y, height, map.rows);
        values.extend(columns.iter().map(|column| -column.max(row)));
    }
    falling(&values)
}

/// Places by falling value, equal ones as they come.
fn falling(values: &[f64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0u32..).take(values.len()).collect();
    order.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
    order
}

/// An image with what insertion begins and deletion ends with.
struct Canvases {
    image: Vec<f32>,
    blurred: Vec<f32>,
    mean: [f32; 3],
    /// Similarities of the image, and of what insertion begins and deletion ends with: the ends of every curve.
    whole: f64,
    least: Areas,
}

impl Canvases {
    fn of(pair: &Pair, backend: &mut dyn Backend) -> Result<Self> {
        let input = &pair.input;
        let width = input.width as usize;
        let image: Vec<f32> = input.pixels.iter().copied().map(f32::from).collect();
        let sigma = width as f64 * BLUR_SIGMA;
        let channels: Vec<Vec<f32>> = (0..3)
            .into_par_iter()
            .map(|channel| {
                let plane: Vec<f32> = image.iter().skip(channel).step_by(3).copied().collect();
                gaussian(&plane, width, sigma)
            })
            .collect();
        let blurred = (0..image.len()).map(|at| channels[at % 3][at / 3]).collect();
        let mut canvases = Self {
            blurred,
            mean: mean_colour(input).map(f32::from),
            image,
            whole: 0.0,
            least: [0.0; 2],
        };
        let nothing = vec![0f32; canvases.pixels()];
        let (inserted, deleted) = (
            canvases.inserted(&nothing, pair),
            canvases.deleted(&vec![1.0; nothing.len()], pair),
        );
        let ends = similarities(&[input.clone(), inserted, deleted], &pair.neighbor, backend)?;
        canvases.whole = ends[0];
        canvases.least = [ends[1], ends[2]];
        Ok(canvases)
    }

    fn pixels(&self) -> usize {
        self.image.len() / 3
    }

    /// The areas where pixels have their turn in this order.
    fn ordered(&self, order: &[u32], pair: &Pair, backend: &mut dyn Backend) -> Result<Areas> {
        let revealed = |step: usize| {
            let mut mask = vec![0f32; order.len()];
            let count = step * order.len() / STEPS;
            order[..count].iter().for_each(|&pixel| mask[pixel as usize] = 1.0);
            mask
        };
        self.areas(revealed, pair, backend)
    }

    /// `masks(step)` says how much of each pixel has had its turn, 0 to 1, after so many of [`STEPS`].
    fn areas(&self, masks: impl Fn(usize) -> Vec<f32> + Sync, pair: &Pair, backend: &mut dyn Backend) -> Result<Areas> {
        let both: Vec<(ModelInput, ModelInput)> = (1..STEPS)
            .into_par_iter()
            .map(|step| {
                let mask = masks(step);
                (self.inserted(&mask, pair), self.deleted(&mask, pair))
            })
            .collect();
        let (inserted, deleted): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        let between = [
            similarities(&inserted, &pair.neighbor, backend)?,
            similarities(&deleted, &pair.neighbor, backend)?,
        ];
        let [inserted, deleted] = between.map(|between| between.into_iter());
        let ([blurred, covered], whole) = (self.least.map(std::iter::once), std::iter::once(self.whole));
        let inserted: Vec<f64> = blurred.chain(inserted).chain(whole.clone()).collect();
        let deleted: Vec<f64> = whole.chain(deleted).chain(covered).collect();
        Ok([area(&inserted), area(&deleted)])
    }

    /// The blurred image with what has had its turn.
    fn inserted(&self, mask: &[f32], pair: &Pair) -> ModelInput {
        self.mixed(pair, |at| self.blurred[at], |pixel| mask[pixel])
    }

    /// The image, covered where pixels have had their turn.
    fn deleted(&self, mask: &[f32], pair: &Pair) -> ModelInput {
        self.mixed(pair, |at| self.mean[at % 3], |pixel| 1.0 - mask[pixel])
    }

    /// What is `beneath`, with the image's `share` of each pixel.
    fn mixed(&self, pair: &Pair, beneath: impl Fn(usize) -> f32, share: impl Fn(usize) -> f32) -> ModelInput {
        let level = |at: usize| beneath(at) + (self.image[at] - beneath(at)) * share(at / 3);
        ModelInput {
            pixels: (0..self.image.len())
                .map(|at| level(at).round().clamp(0.0, 255.0) as u8)
                .collect(),
            ..pair.input
        }
    }
}

/// Cosine of each image to the neighbor; 0 for one of which nothing is left.
fn similarities(inputs: &[ModelInput], neighbor: &[f32], backend: &mut dyn Backend) -> Result<Vec<f64>> {
    let mut found = Vec::with_capacity(inputs.len());
    for batch in inputs.chunks(BATCH) {
        found.extend(backend.embed(batch)?.iter().map(|raw| {
            Embedding::from_raw(raw, neighbor.len())
                .map_or(0.0, |unit| f64::from(similarity(unit.as_slice(), neighbor)))
        }));
    }
    Ok(found)
}

/// Area under a curve over equal steps from 0 to 1 (trapezia).
fn area(curve: &[f64]) -> f64 {
    let steps = curve.len().saturating_sub(1).max(1) as f64;
    curve.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum::<f64>() / steps
}

/// Gaussian blur of a plane of `width` columns, its edge pixels repeated beyond it.
fn gaussian(plane: &[f32], width: usize, sigma: f64) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as usize;
    let weight = |at: usize| (-((at as f64 - radius as f64) / sigma).powi(2) / 2.0).exp();
    let kernel: Vec<f64> = (0..=2 * radius).map(weight).collect();
    let sum: f64 = kernel.iter().sum();
    let kernel: Vec<f32> = kernel.into_iter().map(|weight| (weight / sum) as f32).collect();
    let line = |line: &[f32]| -> Vec<f32> {
        let last = line.len() - 1;
        let padded: Vec<f32> = (0..line.len() + 2 * radius)
            .map(|at| line[at.saturating_sub(radius).min(last)])
            .collect();
        let dot = |window: &[f32]| window.iter().zip(&kernel).map(|(x, weight)| x * weight).sum();
        padded.windows(kernel.len()).map(dot).collect()
    };
    let across: Vec<f32> = plane.chunks_exact(width).flat_map(line).collect();
    let height = plane.len() / width;
    let mut blurred = vec![0f32; plane.len()];
    for column in 0..width {
        let values: Vec<f32> = (0..height).map(|row| across[row * width + column]).collect();
        for (row, value) in line(&values).into_iter().enumerate() {
            blurred[row * width + column] = value;
        }
    }
    blurred
}

fn figures(cases: &Cases, areas: &[(usize, [Areas; MAPS.len()])], method: &str, resamples: usize) -> Explanations {
    let groups: Vec<usize> = areas.iter().map(|&(item, _)| cases.items[item].group).collect();
    let mean = |drawn: &[usize], value: &dyn Fn(&[Areas; MAPS.len()]) -> f64| {
        let sum: f64 = drawn.iter().map(|&at| value(&areas[at].1)).sum();
        (!drawn.is_empty()).then(|| sum / drawn.len() as f64)
    };
    // Of each map: insertion, deletion, and by how much the explanation is better in each.
    let all = bootstrap::by_group(&groups, resamples, 0, |drawn| {
        let of = |map: usize| {
            [
                mean(drawn, &|areas| areas[map][0]),
                mean(drawn, &|areas| areas[map][1]),
                mean(drawn, &|areas| areas[0][0] - areas[map][0]),
                mean(drawn, &|areas| areas[map][1] - areas[0][1]),
            ]
        };
        (0..MAPS.len()).flat_map(of).collect()
    });
    let maps = MAPS.iter().zip(all.chunks_exact(4)).enumerate();
    Explanations {
        method: method.to_owned(),
        images: areas.len(),
        steps: STEPS,
        maps: maps
            .map(|(at, ((name, sees), figures))| MapFigures {
                name: (*name).to_owned(),
                sees: (*sees).to_owned(),
                insertion: figures[0],
                deletion: figures[1],
                insertion_below_explanation: figures[2].filter(|_| at > 0),
                deletion_above_explanation: figures[3].filter(|_| at > 0),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(side: u32, level: impl Fn(usize) -> u8) -> ModelInput {
        let pixels = (0..(side * side) as usize).flat_map(|at| [level(at); 3]).collect();
        ModelInput {
            width: side,
            height: side,
            pixels,
        }
    }

    #[test]
    fn pixels_come_by_the_share_of_their_place() {
        let map = Grid {
            rows: 2,
            columns: 2,
            cells: vec![0.1, 0.2, 0.9, -0.4],
        };
        let order = order(&map, &input(8, |_| 0));
        let mut all = order.clone();
        all.sort_unstable();
        assert_eq!(all, (0..64).collect::<Vec<_>>());
        let quarter = |pixel: u32| (pixel / 8 / 4, pixel % 8 / 4);
        // The corners show their own cell alone: the lower left first, the lower right last.
        assert_eq!((quarter(order[0]), quarter(order[63])), ((1, 0), (1, 1)));
        assert_eq!(
            order[0], 48,
            "row 6, column 0: the first where the lower left counts whole"
        );
    }

    #[test]
    fn dots_show_as_much_of_every_cell() {
        let map = Grid {
            rows: 2,
            columns: 2,
            cells: vec![0.0; 4],
        };
        let order = dots(&map, &input(12, |_| 0));
        let mut shown = [0; 4];
        for pixel in &order[..64] {
            shown[(pixel / 12 / 6 * 2 + pixel % 12 / 6) as usize] += 1;
        }
        assert_eq!(shown, [16; 4]);
        assert_eq!(order[..4], [26, 27, 32, 33], "from the centres");
    }

    #[test]
    fn a_blur_keeps_the_sum_of_what_is_inside_and_a_plane_as_it_is() {
        assert!(gaussian(&[7.0; 30], 6, 1.0).iter().all(|x| (x - 7.0).abs() < 1e-4));
        let mut plane = vec![0f32; 41 * 41];
        plane[20 * 41 + 20] = 1.0;
        let blurred = gaussian(&plane, 41, 3.0);
        assert!((blurred.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(
            blurred[20 * 41 + 20] > blurred[20 * 41 + 21]
                && (blurred[20 * 41 + 23] - blurred[23 * 41 + 20]).abs() < 1e-6
        );
    }

    #[test]
    fn areas_are_of_trapezia() {
        assert_eq!(area(&[0.0, 1.0]), 0.5);
        assert_eq!(area(&[1.0, 1.0, 0.0]), 0.75);
        assert_eq!(area(&[]), 0.0);
    }

    /// With the thumbnail embedder, which is linear in the pixels: of a picture whose left half is the neighbor's and whose right half is its opposite, what
    /// helps is on the left, and a map by occlusion finds it.
    #[test]
    fn an_explanation_beats_maps_that_know_nothing() {
        let mut backend = crate::embed::ThumbnailBackend::default();
        let stripes = |at: usize| if (at / 32 / 4).is_multiple_of(2) { 60u8 } else { 190 };
        let neighbor = backend.embed(&[input(32, stripes)]).unwrap().remove(0);
        let query = input(32, |at| if at % 32 < 16 { stripes(at) } else { 250 - stripes(at) });
        let pair = Pair {
            item: 3,
            input: query,
            neighbor: Embedding::from_raw(&neighbor, 1024).unwrap().as_slice().to_vec(),
        };
        let [ours, others @ ..] = areas_of(&pair, &mut backend).unwrap();
        for other in others {
            assert!(
                ours[0] > other[0] + 0.1 && ours[1] < other[1] - 0.1,
                "{ours:?} {other:?}"
            );
        }
    }
}
