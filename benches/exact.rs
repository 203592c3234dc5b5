//! The scan against the memory it stands for: GB/s of the kernel, of the whole search, and of merely reading all the bytes. The kernel reads
//! half of them for most rows, so that it may be the faster one.
//!
//! `cargo bench --bench exact`; smaller: `-- --rows 20000`. `--json FILE` writes the figures.

mod support;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use medsearch::domain::{Ask, similarity};
use medsearch::index::{IndexSettings, Segment, Sieve, Snapshot, SnapshotInput, exact};
use medsearch::search::local::search;
use serde_json::json;
use support::{Arguments, Mixture, write_json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read();
    let mixture = Mixture::new(&arguments);
    let rows: usize = arguments.number("--rows", 100_000);
    let rounds: usize = arguments.number("--rounds", 7);
    let rows_input = Arc::new(mixture.segment(rows));
    let query = mixture.queries(1).remove(0);
    let vector = query.embedding.as_slice();
    let bytes = rows * mixture.dimension * size_of::<f32>();
    println!(
        "{rows} rows of {} dimensions: {:.0} MB, best of {rounds} rounds",
        mixture.dimension,
        bytes as f64 / 1e6
    );

    let mut figures = serde_json::Map::new();
    let mut report = |name: &str, run: &mut dyn FnMut()| {
        let mut seconds = f64::MAX;
        for _ in 0..rounds {
            let start = Instant::now();
            run();
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        let rate = bytes as f64 / seconds / 1e9;
        println!("{name:32} {:8.2} ms {rate:7.2} GB/s", seconds * 1e3);
        figures.insert(
            name.to_owned(),
            json!({"ms": seconds * 1e3, "gigabytes_per_second": rate}),
        );
    };

    {
        let segment = Segment::new(&rows_input, None)?;
        let searched = segment.matrix().ok_or("a segment that is searched")?;
        let matrix: Vec<f32> = (0..rows as u32)
            .flat_map(|row| searched.row(segment.slot_of(row)))
            .collect();
        report("read, one thread", &mut || {
            black_box(read(&matrix));
        });
        report("similarity as compiled for all", &mut || {
            black_box(
                matrix
                    .chunks_exact(mixture.dimension)
                    .map(|row| similarity(vector, row))
                    .fold(-1.0, f32::max),
            );
        });
        report("scan kernel, one thread", &mut || {
            let mut best = Best(-1.0);
            exact::scan(vector, searched, 0..rows as u32, &mut best);
            black_box(best.0);
        });
    }
    for scan_threads in [1, std::thread::available_parallelism()?.get()] {
        let settings = IndexSettings {
            scan_threads,
            ..IndexSettings::default()
        };
        let input = SnapshotInput {
            version: 1,
            dimension: mixture.dimension,
            metric: None,
            classes: Vec::new(),
            segments: vec![(rows_input.clone(), Vec::new())],
            graphs: Vec::new(),
        };
        let snapshot = Snapshot::build(&input, None, &settings)?;
        report(&format!("search, k = 10, {scan_threads} threads"), &mut || {
            black_box(search(&snapshot, &query, &Ask::default()).expect("an exact search needs nothing that can fail"));
        });
    }
    write_json(
        &arguments,
        &json!({"rows": rows, "dimension": mixture.dimension, "bytes": bytes, "figures": figures}),
    )?;
    Ok(())
}

/// The largest similarity alone.
struct Best(f32);

impl Sieve for Best {
    fn welcomes(&self, similarity: f32) -> bool {
        similarity > self.0
    }

    fn offer(&mut self, _row: u32, similarity: f32) {
        self.0 = self.0.max(similarity);
    }
}

/// Reads everything and does as little as possible with it.
fn read(matrix: &[f32]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in matrix.chunks_exact(32) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(u64::from(value.to_bits()));
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
