//! What the measurements share: arguments, data that any machine makes again, percentiles.
#![allow(dead_code, reason = "each measurement uses a part")]

use std::sync::Arc;
use std::time::Duration;

use medsearch::domain::{ClassLabel, Embedding, ImageId, Key, Query, Record, Slot};
use medsearch::index::SegmentInput;
use rayon::prelude::*;

/// `--name value` pairs and `--name` alone; `--bench`, which cargo adds, is passed over.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn read() -> Self {
        Self(
            std::env::args()
                .skip(1)
                .filter(|argument| argument != "--bench")
                .collect(),
        )
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.text(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| {
                eprintln!("`{name} {text}` is not a number");
                std::process::exit(2)
            }),
        }
    }
}

/// SplitMix64 and Box-Muller: small, seedable, the same everywhere.
struct Random(u64);

impl Random {
    /// A stream of its own for each row, so that rows can be made in parallel.
    fn of(seed: u64, row: u64) -> Self {
        let mut random = Self(seed ^ row.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn gaussians(&mut self, out: &mut [f32], deviation: f32) {
        for pair in out.chunks_mut(2) {
            let [a, b] = [self.next(), self.next()].map(|bits| ((bits >> 40) as f32 + 0.5) / (1u64 << 24) as f32);
            let (radius, (sin, cos)) = (
                deviation * (-2.0 * a.ln()).sqrt(),
                (std::f32::consts::TAU * b).sin_cos(),
            );
            pair.iter_mut()
                .zip([radius * cos, radius * sin])
                .for_each(|(slot, value)| *slot = value);
        }
    }
}

/// A Gaussian mixture on a random subspace plus noise in all dimensions.
pub struct Mixture {
    pub dimension: usize,
    pub subspace: usize,
    pub components: usize,
    pub classes: usize,
    /// Share of the noise in the length of a vector, squared.
    pub noise: f32,
    /// Share of the rows whose class is drawn, while that of the others follows from their component.
    pub overlap: f64,
    seed: u64,
    basis: Vec<f32>,
    centers: Vec<f32>,
}

/// Deviation of a row from the centre of its component, whose coordinates have deviation 1.
const WITHIN: f32 = 0.5;

impl Mixture {
    pub fn new(arguments: &Arguments) -> Self {
        let (dimension, subspace) = (
            arguments.number("--dimension", 1280),
            arguments.number("--subspace", 32),
        );
        let components = arguments.number("--components", 64);
        let seed = arguments.number("--seed", 7);
        let mut basis = vec![0.0; dimension * subspace];
        Random::of(seed, u64::MAX).gaussians(&mut basis, (dimension as f32).sqrt().recip());
        let mut centers = vec![0.0; components * subspace];
        Random::of(seed, u64::MAX - 1).gaussians(&mut centers, 1.0);
        let classes = arguments.number("--classes", 4);
        Self {
            dimension,
            subspace,
            components,
            classes,
            noise: arguments.number("--noise", 0.1),
            overlap: arguments.number("--overlap", 0.2),
            seed,
            basis,
            centers,
        }
    }

    pub fn describe(&self) -> String {
        format!(
            "{} components on a random {}-dimensional subspace of {} dimensions, {} % noise, {} classes overlapping by {} %, seed {}",
            self.components,
            self.subspace,
            self.dimension,
            (self.noise * 100.0).round(),
            self.classes,
            (self.overlap * 100.0).round(),
            self.seed
        )
    }

    /// Row `number` of an endless table, and its component.
    fn row(&self, number: u64, out: &mut [f32]) -> usize {
        let mut random = Random::of(self.seed, number);
        let component = (random.next() % self.components as u64) as usize;
        let mut latent = vec![0.0; self.subspace];
        random.gaussians(&mut latent, WITHIN);
        let center = &self.centers[component * self.subspace..][..self.subspace];
        latent.iter_mut().zip(center).for_each(|(x, c)| *x += c);
        let signal = self.subspace as f32 * (1.0 + WITHIN * WITHIN);
        random.gaussians(
            out,
            (signal * self.noise / (1.0 - self.noise) / self.dimension as f32).sqrt(),
        );
        for (value, weights) in out.iter_mut().zip(self.basis.chunks_exact(self.subspace)) {
            *value += weights.iter().zip(&latent).map(|(w, x)| w * x).sum::<f32>();
        }
        component
    }

    fn class(&self, number: u64, component: usize) -> usize {
        let mut random = Random::of(!self.seed, number);
        let drawn = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let class = if drawn < self.overlap {
            random.next() as usize
        } else {
            component
        };
        class % self.classes
    }

    /// Rows 0.. as a segment.
    pub fn segment(&self, rows: usize) -> SegmentInput {
        let mut vectors = vec![0.0; rows * self.dimension];
        let rows = vectors.par_chunks_exact_mut(self.dimension).enumerate();
        let records = rows
            .map(|(number, out)| {
                let component = self.row(number as u64, out);
                record(number as u64, self.class(number as u64, component))
            })
            .collect();
        SegmentInput {
            name: "rows/measured".into(),
            dimension: self.dimension,
            shard: None,
            searched: true,
            records,
            vectors: vectors.into(),
        }
    }

    /// Queries that no segment holds.
    pub fn queries(&self, count: usize) -> Vec<Query> {
        let query = |number: usize| {
            let mut raw = vec![0.0; self.dimension];
            self.row((1 << 40) + number as u64, &mut raw);
            let embedding = Embedding::from_raw(&raw, self.dimension).expect("gaussian rows are finite and not zero");
            Query::of(embedding)
        };
        (0..count).into_par_iter().map(query).collect()
    }
}

fn record(number: u64, class: usize) -> Arc<Record> {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&Random::of(1, number).next().to_be_bytes());
    digest[8..].copy_from_slice(&number.to_be_bytes());
    let key = Key(digest);
    let id = ImageId::new(Slot((number % 65_536) as u16), key);
    Arc::new(Record {
        class: Some(ClassLabel::parse(&format!("class {class}")).expect("a plain name")),
        pixel_key: Some(key),
        ..Record::bare(id, key, "2026-01-01T00:00:00Z")
    })
}

/// Percentile of durations in milliseconds.
pub fn percentile_ms(times: &mut [Duration], percent: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, times.len()) - 1;
    times[at].as_secs_f64() * 1e3
}

/// Writes the figures where `--json` says.
pub fn write_json(arguments: &Arguments, figures: &serde_json::Value) -> std::io::Result<()> {
    match arguments.text("--json") {
        Some(path) => std::fs::write(path, format!("{figures:#}\n")),
        None => Ok(()),
    }
}
