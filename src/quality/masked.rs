//! Queries with a part of the picture blacked out, asked about in the archive as it is. Where the finding can't be seen any more, what is still
//! told right above chance is told by something else: a border, a marker, a device (Maguolo and Nanni, Information Fusion 76, 2021; DeGrave et
//! al., Nature Machine Intelligence 3, 2021).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::ask::Voter;
use super::asked::{Asking, decided};
use super::cases::Cases;
use super::evaluation::{Control, Controls};
use super::figures::Decided;
use crate::archive::Identity;
use crate::domain::{Embedding, FrameNumber, Space};
use crate::embed::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::{Decoder, ModelInput, Pipeline, Raster8, preprocess};
use crate::ingest::{Dataset, file_keys};

/// Images in one call of the model.
const BATCH: usize = 32;

/// What is blacked out: the middle of a picture, this share of its width and of its height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mask {
    name: &'static str,
    sees: &'static str,
    middle: f64,
}

/// The masks that are tried, the one that leaves more first.
pub const MASKS: [Mask; 2] = [
    Mask {
        name: "center blacked out",
        sees: "all but the middle 60 % of width and height: 64 % of the area",
        middle: 0.6,
    },
    Mask {
        name: "border only",
        sees: "the outer tenth on each side alone: 36 % of the area",
        middle: 0.8,
    },
];

impl Mask {
    /// Blacks it out. Levels are those of the whole picture: what is left looks as it did.
    fn apply(self, picture: &mut Raster8) {
        let span = |side: u32| {
            let edge = (f64::from(side) * (1.0 - self.middle) / 2.0).round() as usize;
            edge..(side as usize).saturating_sub(edge)
        };
        let (columns, rows) = (span(picture.width), span(picture.height));
        let pixel = usize::from(picture.channels);
        let line = picture.width as usize * pixel;
        for row in picture.data.chunks_exact_mut(line).skip(rows.start).take(rows.len()) {
            row[columns.start * pixel..columns.end * pixel].fill(0);
        }
    }
}

/// The queries of one mask.
pub struct Masked {
    mask: Mask,
    /// Item by item: its unit vector; none where it is not asked about, its file is missing, or nothing is left of it.
    vectors: Vec<Option<Vec<f32>>>,
}

/// Embeds the queries of every mask. Files are found in `datasets` by their digests, whatever they are called. `done` is called once an image.
///
/// # Errors
/// `SpaceMismatch` when the model is not that of the vectors; `NotFound` when no file of an image is there; what the model refuses.
pub fn embed(
    cases: &Cases,
    space: &Space,
    identity: &Identity,
    datasets: &[Dataset],
    backend: &mut dyn Backend,
    decoder: &Decoder,
    done: impl Fn() + Sync,
) -> Result<Vec<Masked>> {
    if backend.card().space() != space.of_model() {
        let message = "the controls need the model that made the vectors: this one is of another space";
        return Err(Error::new(ErrorKind::SpaceMismatch, message));
    }
    let dimension = backend.card().dimension;
    let pipeline = Pipeline {
        input: backend.card().input(),
        windows: space.windows()?,
    };
    let files = files(identity, datasets, decoder)?;
    let asked: Vec<(usize, &Dataset, &str)> = (cases.asked())
        .filter_map(|item| {
            let (dataset, file) = files.get(&cases.items[item].record.file_key.0)?;
            Some((item, *dataset, *file))
        })
        .collect();
    if asked.is_empty() {
        let message = "the controls need the images that the vectors were made of: none of them is there";
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    backend.warm_up()?;
    let empty = |mask| Masked {
        mask,
        vectors: vec![None; cases.items.len()],
    };
    let mut masked: Vec<Masked> = MASKS.into_iter().map(empty).collect();
    for batch in asked.chunks(BATCH) {
        let inputs = |&(item, dataset, file): &(usize, &Dataset, &str)| {
            let inputs = inputs(&dataset.read(file)?, cases.items[item].record.frame, decoder, &pipeline);
            done();
            inputs
        };
        let inputs: Vec<Vec<ModelInput>> = batch.par_iter().map(inputs).collect::<Result<_>>()?;
        for (at, masked) in masked.iter_mut().enumerate() {
            let of_mask: Vec<ModelInput> = inputs.iter().map(|inputs| inputs[at].clone()).collect();
            for ((item, ..), raw) in batch.iter().zip(backend.embed(&of_mask)?) {
                let unit = Embedding::from_raw(&raw, dimension).ok();
                masked.vectors[*item] = unit.map(|unit| unit.as_slice().to_vec());
            }
        }
    }
    Ok(masked)
}

/// Where each file is, by the pseudonyms of its frames.
fn files<'a>(
    identity: &Identity,
    datasets: &'a [Dataset],
    decoder: &Decoder,
) -> Result<BTreeMap<[u8; 16], (&'a Dataset, &'a str)>> {
    let entries = |dataset: &'a Dataset| {
        dataset
            .entries()
            .iter()
            .map(move |entry| (dataset, entry.file.as_str()))
    };
    let entries: Vec<(&Dataset, &str)> = datasets.iter().flat_map(entries).collect();
    let keyed = |&(dataset, file): &(&'a Dataset, &'a str)| {
        let keys = file_keys(&dataset.read(file)?, identity, decoder);
        Ok(keys.into_iter().map(move |key| (key.0, (dataset, file))))
    };
    let keyed: Vec<_> = entries.par_iter().map(keyed).collect::<Result<_>>()?;
    Ok(keyed.into_iter().flatten().collect())
}

/// One input a mask.
fn inputs(bytes: &[u8], frame: FrameNumber, decoder: &Decoder, pipeline: &Pipeline) -> Result<Vec<ModelInput>> {
    let (picture, _) = pipeline.eight_bit(&decoder.decode(bytes, frame)?)?;
    let one = |mask: Mask| {
        let mut picture = picture.clone();
        mask.apply(&mut picture);
        preprocess(&picture, &pipeline.input, None)
    };
    MASKS.into_iter().map(one).collect()
}

/// How much the vote still finds, beside what it finds with the whole pictures of the same queries. Each is asked about in the whole archive without its
/// group, by the model's vectors as they are.
pub fn controls<'c>(cases: &'c Cases, masked: &'c [Masked], asking: Asking, resamples: usize) -> Controls {
    let items: Vec<usize> = (cases.asked())
        .filter(|&item| masked.iter().any(|masked| masked.vectors[item].is_some()))
        .collect();
    let shares = |vector: &(dyn Fn(usize) -> Option<&'c [f32]> + Sync)| -> Vec<Vec<f64>> {
        let voter = Voter {
            cases,
            k: asking.k,
            method: asking.method,
        };
        let one = |&item: &usize| {
            let group = cases.items[item].group;
            let answer =
                vector(item).map(|vector| voter.answer(&cases.ranked(vector), |found, _| found.group != group));
            match answer {
                Some(answer) => decided(std::iter::once(&answer), cases.classes.len()),
                // Nothing is left to see: no suggestion.
                None => [vec![0.0; cases.classes.len()], vec![1.0]].concat(),
            }
        };
        items.par_iter().map(one).collect()
    };
    let whole = shares(&|item| Some(cases.vector(item)));
    let classes = cases.count(|case| case.asked);
    let by_guessing = 1.0 / classes.iter().filter(|&&images| images > 0).count().max(1) as f64;
    let row = |name: &str, sees: &str, shares: &[Vec<f64>]| {
        let decided = Decided {
            cases,
            items: &items,
            shares,
            resamples,
        };
        let figures = decided.floor(&whole, None);
        Control {
            name: name.to_owned(),
            sees: sees.to_owned(),
            accuracy: figures.accuracy,
            balanced_accuracy: figures.balanced_accuracy,
            below_whole: figures.below_ours,
            remains: None,
        }
    };
    let mut rows = vec![row("whole picture", "everything", &whole)];
    for masked in masked {
        let shares = shares(&|item| masked.vectors[item].as_deref());
        rows.push(row(masked.mask.name, masked.mask.sees, &shares));
    }
    let above_chance = |row: &Control| row.balanced_accuracy.map(|figure| figure.value - by_guessing);
    let of_whole = above_chance(&rows[0]).filter(|above| *above > 0.0);
    for row in &mut rows {
        row.remains = above_chance(row).zip(of_whole).map(|(own, whole)| own / whole);
    }
    Controls {
        by_guessing,
        queries: items.len(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::tests::cases;
    use super::*;
    use crate::domain::VoteMethod;

    #[test]
    fn the_middle_is_blacked_out_and_nothing_else() {
        for (mask, left) in MASKS.into_iter().zip([64, 36]) {
            for channels in [1u8, 3] {
                let mut picture = Raster8 {
                    width: 10,
                    height: 20,
                    channels,
                    data: vec![9; 200 * usize::from(channels)],
                };
                mask.apply(&mut picture);
                let kept = picture.data.iter().filter(|&&level| level == 9).count();
                assert_eq!(kept, 2 * left * usize::from(channels), "{}", mask.name);
                let line = 10 * usize::from(channels);
                assert!(picture.data[..line].iter().all(|&level| level == 9));
                assert_eq!(picture.data[10 * line + line / 2], 0);
            }
        }
        let mut tiny = Raster8 {
            width: 1,
            height: 1,
            channels: 1,
            data: vec![9],
        };
        MASKS[0].apply(&mut tiny);
    }

    #[test]
    fn what_remains_without_the_finding_is_a_shortcut() {
        // Two classes, told apart by the first component in the border and by the second in the middle.
        let item = |at: usize| {
            (
                at % 2,
                at as u8 + 1,
                0,
                vec![0.1, if at.is_multiple_of(2) { 1.0 } else { -1.0 }],
            )
        };
        let cases = cases(&(0..20).map(item).collect::<Vec<_>>());
        let asking = Asking {
            k: 3,
            method: VoteMethod::Majority,
            extra: false,
        };
        let of = |vector: &dyn Fn(usize) -> Option<Vec<f32>>| Masked {
            mask: MASKS[0],
            vectors: (0..20).map(vector).collect(),
        };
        let same = of(&|at| Some(cases.vector(at).to_vec()));
        let constant = of(&|_| Some(cases.vector(0).to_vec()));
        let gone = of(&|_| None);
        let controls = controls(&cases, &[same, constant, gone], asking, 20);
        let remains: Vec<f64> = controls.rows.iter().map(|row| row.remains.unwrap()).collect();
        assert_eq!((controls.by_guessing, controls.queries), (0.5, 20));
        assert_eq!(remains, [1.0, 1.0, 0.0, -1.0]);
        assert_eq!(controls.rows[2].below_whole.unwrap().value, 0.5);
    }
}
