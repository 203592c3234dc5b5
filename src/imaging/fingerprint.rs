//! A fingerprint of a picture that tells near-duplicates (re-encoded, resized, slightly cropped, brightened, bordered)
//! from pictures that merely look alike, as chest X-rays do.
//!
//! [`Fingerprint::of`] cuts flat borders off, averages what remains into 32 × 32 cells and keeps the rank of every cell
//! in [`BITS`] bits: ranks are the same after any growing grey curve (gamma, contrast, brightness).
//! [`Fingerprint::similarity`] first lays one picture over the other, with a scale and a shift along either axis
//! (Gauss-Newton image registration: Lucas and Kanade, "An iterative image registration technique with an application
//! to stereo vision", IJCAI 1981; Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004), which undoes crops, and
//! then correlates the fine structure (each cell less its surroundings) where the two overlap: the coarse structure
//! says "chest", the fine one says which.
//!
//! Only integers and plain `f32`/`f64` sums, products, quotients and roots in a fixed order: the same on every machine.

use super::Raster8;
use super::eight_bit::luma;

/// Cells along either axis.
const SIDE: usize = 32;
const CELLS: usize = SIDE * SIDE;
/// Bits that are kept of a cell's rank.
const BITS: usize = 8;
const LEVELS: u32 = 1 << BITS;
/// Length of a fingerprint in bytes.
const BYTES: usize = CELLS * BITS / 8;

/// Pairs with at least this similarity are near-duplicates, unless one asks for another bound.
///
/// `scripts/measure_duplicates.py` makes 28 changed copies (JPEG, size, crops up to 8 % a side, gamma, contrast, brightness, borders, several at once) of each of
/// 300 chest X-rays of three sources and looks for them with `medsearch duplicates`; `bench/results/duplicates.json` has recall and precision at this and
/// other bounds, the patients in halves. What is found between pictures that nobody changed is a question to a person: other exposures of one patient
/// reach 0.81.
pub const NEAR_DUPLICATE: f32 = 0.8;
/// Pairs with at least this similarity of outlines are worth [`Fingerprint::similarity`], ...
///
/// A cosine alone does not do: a border changes the vector and not the picture.
pub const OUTLINE_CANDIDATE: f32 = 0.92;
/// ... and so are pairs with at least this cosine of their embeddings (EfficientNet-Lite0, whole picture, pooled).
pub const COSINE_CANDIDATE: f32 = 0.8;

/// An outer row or column is border where the variance of its grey values is at most this: a border has 0, and up to
/// about 2 after JPEG compression.
const BORDER_VARIANCE: u128 = 16;
/// Least part of an axis that cutting borders leaves, as a divisor; a picture flatter than that is left whole.
const KEEP: usize = 4;
/// Half the side of the coarse level that registration starts on: twice the reach, a quarter of the work.
const COARSE: usize = SIDE / 2;
const OUTLINE_SIDE: usize = SIDE / 4;
/// Cells at every side that are not of the middle: a crop of 6 %.
const CENTRE_MARGIN: usize = 2;
const COARSE_STEPS: usize = 8;
const FINE_STEPS: usize = 4;
/// Scales that registration starts from: from 1 alone, some crops of 6 to 8 % a side are missed.
const STARTS: [f64; 3] = [1.0, 0.85, 1.18];
/// Bounds of the registration: a scale of at most this or its inverse, ...
const SCALE_MAX: f64 = 1.35;
/// ... a shift of at most this in half pictures, ...
const SHIFT_MAX: f64 = 0.35;
/// ... and at most this per step in either.
const STEP_MAX: f64 = 0.1;
/// Levenberg's damping relative to the mean curvature: keeps steps finite on pictures without structure.
const DAMPING: f64 = 1e-3;
/// Least overlap that is judged, as a divisor of the picture.
const OVERLAP_DIVISOR: usize = 3;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// The fingerprint of a picture; of a coloured one, of its luma. All flat pictures have one.
    pub fn of(picture: &Raster8) -> Self {
        let grey: std::borrow::Cow<[u8]> = match picture.data.as_chunks::<3>().0 {
            pixels if picture.channels == 3 => pixels.iter().map(|&pixel| luma(pixel)).collect(),
            _ => (&picture.data[..]).into(),
        };
        Self::of_grey(picture.width, picture.height, &grey)
    }

    /// Of a row-major raster. One shorter than its width and height say is read as if it went on in black, and one without pixels as one black pixel.
    fn of_grey(width: u32, height: u32, grey: &[u8]) -> Self {
        let view = View {
            width: width as usize,
            height: height as usize,
            grey,
        };
        let cells = if view.width == 0 || view.height == 0 {
            [0; CELLS]
        } else {
            view.shrink(view.without_border())
        };
        let mut counts = [0_u32; 256];
        for &cell in &cells {
            counts[usize::from(cell)] += 1;
        }
        // Middle ranks, so that equal cells stay equal.
        let mut ranks = [0_u8; 256];
        let mut below = 0;
        for (rank, &count) in ranks.iter_mut().zip(&counts) {
            *rank = ((2 * below + count) * LEVELS / (2 * CELLS as u32)).min(LEVELS - 1) as u8;
            below += count;
        }
        let mut bytes = [0; BYTES];
        for (i, &cell) in cells.iter().enumerate() {
            let bit = i * BITS;
            bytes[bit / 8] |= ranks[usize::from(cell)] << (8 - BITS - bit % 8);
        }
        Self(bytes)
    }

    /// How alike the fine structure of two pictures is once one is laid over the other: 1 for the same fingerprint,
    /// about 0 for unrelated pictures, never below 0.
    ///
    /// Symmetric: the lesser fingerprint is always the one that stays in place.
    pub fn similarity(&self, other: &Self) -> f32 {
        if self == other {
            return 1.0;
        }
        let (fixed, moving) = if self < other { (self, other) } else { (other, self) };
        let (fixed, moving) = (fixed.plane(), moving.plane());
        let (coarse, coarse_moving) = (fixed.halved::<COARSE>(), moving.halved::<COARSE>());
        let (coarse_fine, coarse_moving_fine) = (coarse.fine(), coarse_moving.fine());
        let (mut best, mut map) = (-1.0, Map::scaled(1.0));
        for scale in STARTS {
            let mut start = Map::scaled(scale);
            start.register(&coarse, &coarse_moving, COARSE_STEPS);
            let correlation = start.correlation(&coarse_fine, &coarse_moving_fine);
            if correlation > best {
                (best, map) = (correlation, start);
            }
        }
        map.register(&fixed, &moving, FINE_STEPS);
        map.correlation(&fixed.fine(), &moving.fine()) as f32
    }

    /// What a quick comparison needs; keep it while many pairs are compared.
    pub fn outline(&self) -> Outline {
        let plane = self.plane();
        Outline {
            whole: plane.outline(0),
            centre: plane.outline(CENTRE_MARGIN),
        }
    }

    fn plane(&self) -> Plane<SIDE> {
        let mut plane = Plane([[0.0; SIDE]; SIDE]);
        for (i, cell) in plane.0.as_flattened_mut().iter_mut().enumerate() {
            let bit = i * BITS;
            let rank = (u32::from(self.0[bit / 8]) >> (8 - BITS - bit % 8)) & (LEVELS - 1);
            // About zero, so that sums of squares keep their precision.
            *cell = rank as f32 - (LEVELS - 1) as f32 / 2.0;
        }
        plane
    }
}

/// The coarse structure of a picture without its borders, and that of its middle: see [`Fingerprint::outline`].
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    whole: [f32; OUTLINE_SIDE * OUTLINE_SIDE],
    centre: [f32; OUTLINE_SIDE * OUTLINE_SIDE],
}

impl Outline {
    /// Pearson's correlation of the coarse structures, one upon the other as they are, or of either with the middle of
    /// the other, as one may be a crop: the greatest of the three, from -1 to 1.
    pub fn similarity(&self, other: &Self) -> f32 {
        dot(&self.whole, &other.whole)
            .max(dot(&self.whole, &other.centre))
            .max(dot(&self.centre, &other.whole))
            .clamp(-1.0, 1.0)
    }
}

fn dot(a: &[f32; OUTLINE_SIDE * OUTLINE_SIDE], b: &[f32; OUTLINE_SIDE * OUTLINE_SIDE]) -> f32 {
    // Sums side by side in a fixed order, for speed.
    let mut sums = [0.0; OUTLINE_SIDE];
    for (a, b) in a.chunks_exact(OUTLINE_SIDE).zip(b.chunks_exact(OUTLINE_SIDE)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

/// A raster to be averaged.
struct View<'a> {
    width: usize,
    height: usize,
    grey: &'a [u8],
}

/// Rows and columns, ends excluded.
#[derive(Clone, Copy)]
struct Area {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl View<'_> {
    /// The part of row `y` from `left` to `right` that there is.
    fn row(&self, y: usize, left: usize, right: usize) -> &[u8] {
        let start = (y * self.width).saturating_add(left).min(self.grey.len());
        let end = (y * self.width).saturating_add(right).min(self.grey.len());
        &self.grey[start..end]
    }

    fn without_border(&self) -> Area {
        let whole = Area {
            top: 0,
            bottom: self.height,
            left: 0,
            right: self.width,
        };
        let mut area = whole;
        // Twice: a column that ends in two borders is flat only without them.
        for _ in 0..2 {
            let width = area.right - area.left;
            let is_content = |&y: &usize| {
                let (mut sum, mut squares) = (0, 0);
                for &v in self.row(y, area.left, area.right) {
                    sum += u64::from(v);
                    squares += u64::from(v) * u64::from(v);
                }
                varies(width, sum, squares)
            };
            let (Some(top), Some(bottom)) = (
                (0..self.height).find(is_content),
                (0..self.height).rev().find(is_content),
            ) else {
                return whole;
            };
            (area.top, area.bottom) = (top, bottom + 1);
            let mut sums = vec![(0_u64, 0_u64); self.width];
            for y in area.top..area.bottom {
                for (sum, &v) in sums.iter_mut().zip(self.row(y, 0, self.width)) {
                    sum.0 += u64::from(v);
                    sum.1 += u64::from(v) * u64::from(v);
                }
            }
            let height = area.bottom - area.top;
            let is_content = |&(sum, squares): &(u64, u64)| varies(height, sum, squares);
            let (Some(left), Some(right)) = (sums.iter().position(is_content), sums.iter().rposition(is_content))
            else {
                return whole;
            };
            (area.left, area.right) = (left, right + 1);
        }
        if (area.bottom - area.top) * KEEP < self.height || (area.right - area.left) * KEEP < self.width {
            return whole;
        }
        area
    }

    /// Exact area averages, rounded to 8 bits.
    fn shrink(&self, area: Area) -> [u8; CELLS] {
        let (width, height) = (area.right - area.left, area.bottom - area.top);
        let mut cells = [0; CELLS];
        let mut sums = vec![0_u64; width];
        for (j, cells) in cells.chunks_exact_mut(SIDE).enumerate() {
            // In units of 1/SIDE pixel, a cell is `height` long and a pixel is SIDE.
            let (start, end) = (j * height, (j + 1) * height);
            sums.fill(0);
            for y in start / SIDE..end.div_ceil(SIDE) {
                let weight = ((y + 1) * SIDE).min(end) - (y * SIDE).max(start);
                for (sum, &v) in sums.iter_mut().zip(self.row(area.top + y, area.left, area.right)) {
                    *sum += weight as u64 * u64::from(v);
                }
            }
            for (i, cell) in cells.iter_mut().enumerate() {
                let (start, end) = (i * width, (i + 1) * width);
                let mut total = 0_u128;
                let first = start / SIDE;
                for (x, &sum) in (first..).zip(&sums[first..end.div_ceil(SIDE)]) {
                    let weight = ((x + 1) * SIDE).min(end) - (x * SIDE).max(start);
                    total += weight as u128 * u128::from(sum);
                }
                let weights = width as u128 * height as u128;
                *cell = ((2 * total + weights) / (2 * weights)) as u8;
            }
        }
        cells
    }
}

/// Whether a line of `count` values is more than border.
fn varies(count: usize, sum: u64, squares: u64) -> bool {
    let (count, sum, squares) = (count as u128, u128::from(sum), u128::from(squares));
    count * squares > sum * sum + BORDER_VARIANCE * count * count
}

/// A small picture.
struct Plane<const N: usize>([[f32; N]; N]);

impl Plane<SIDE> {
    /// Area averages of all but `margin` cells at every side, brought to mean 0 and norm 1.
    fn outline(&self, margin: usize) -> [f32; OUTLINE_SIDE * OUTLINE_SIDE] {
        let size = SIDE - 2 * margin;
        // In units of 1/OUTLINE_SIDE cell.
        let weight = |block: usize, cell: usize| {
            let end = ((block + 1) * size).min((cell + 1) * OUTLINE_SIDE);
            end.saturating_sub((block * size).max(cell * OUTLINE_SIDE)) as f32
        };
        let mut outline = [0.0; OUTLINE_SIDE * OUTLINE_SIDE];
        for (j, row) in outline.chunks_exact_mut(OUTLINE_SIDE).enumerate() {
            for (i, value) in row.iter_mut().enumerate() {
                for y in j * size / OUTLINE_SIDE..((j + 1) * size).div_ceil(OUTLINE_SIDE) {
                    for x in i * size / OUTLINE_SIDE..((i + 1) * size).div_ceil(OUTLINE_SIDE) {
                        *value += weight(j, y) * weight(i, x) * self.0[margin + y][margin + x];
                    }
                }
            }
        }
        let mean = outline.iter().sum::<f32>() / outline.len() as f32;
        outline.iter_mut().for_each(|value| *value -= mean);
        let norm = outline.iter().map(|value| value * value).sum::<f32>().sqrt();
        // A flat picture has no outline and is like no other.
        outline
            .iter_mut()
            .for_each(|value| *value = if norm > 1.0 { *value / norm } else { 0.0 });
        outline
    }
}

impl<const N: usize> Plane<N> {
    /// Averages of 2 × 2; `M` is half of `N`.
    fn halved<const M: usize>(&self) -> Plane<M> {
        let mut half = Plane([[0.0; M]; M]);
        for (row, pair) in half.0.iter_mut().zip(self.0.chunks_exact(2)) {
            for (x, cell) in row.iter_mut().enumerate() {
                *cell = (pair[0][2 * x] + pair[0][2 * x + 1] + pair[1][2 * x] + pair[1][2 * x + 1]) / 4.0;
            }
        }
        half
    }

    /// Each cell less the binomial mean of the 5 × 5 cells about it.
    fn fine(&self) -> Self {
        let kernel = |a: f32, b: f32, c: f32, d: f32, e: f32| ((a + e) + 4.0 * (b + d) + 6.0 * c) / 16.0;
        let mut across = Self([[0.0; N]; N]);
        for (to, row) in across.0.iter_mut().zip(&self.0) {
            let mut wide = [row[0]; 64];
            wide[2..N + 2].copy_from_slice(row);
            wide[N + 2] = row[N - 1];
            wide[N + 3] = row[N - 1];
            for (x, cell) in to.iter_mut().enumerate() {
                *cell = kernel(wide[x], wide[x + 1], wide[x + 2], wide[x + 3], wide[x + 4]);
            }
        }
        let mut fine = Self([[0.0; N]; N]);
        for y in 0..N {
            let row = |d: usize| &across.0[(y + d).saturating_sub(2).min(N - 1)];
            let (a, b, c, d, e) = (row(0), row(1), row(2), row(3), row(4));
            for x in 0..N {
                fine.0[y][x] = self.0[y][x] - kernel(a[x], b[x], c[x], d[x], e[x]);
            }
        }
        fine
    }

    /// Derivatives across and down, per half picture; none at the rim.
    fn gradients(&self) -> (Self, Self) {
        let (mut across, mut down) = (Self([[0.0; N]; N]), Self([[0.0; N]; N]));
        let scale = N as f32 / 4.0;
        for y in 0..N {
            for x in 1..N - 1 {
                across.0[y][x] = (self.0[y][x + 1] - self.0[y][x - 1]) * scale;
            }
        }
        for y in 1..N - 1 {
            for x in 0..N {
                down.0[y][x] = (self.0[y + 1][x] - self.0[y - 1][x]) * scale;
            }
        }
        (across, down)
    }
}

/// How the moving picture is sampled along one axis: cell `i` lies between cells `at[i].0` and `at[i].0 + 1` of it.
struct Axis<const N: usize> {
    at: [(usize, f32); N],
    /// The cells that fall inside, ends excluded.
    inside: (usize, usize),
}

impl<const N: usize> Axis<N> {
    fn new(scale: f64, shift: f64) -> Self {
        let mut at = [(0, 0.0); N];
        let mut inside = (N, 0);
        for (i, at) in at.iter_mut().enumerate() {
            let place = (scale * centre::<N>(i) + shift + 1.0) * N as f64 / 2.0 - 0.5;
            if place >= -0.5 && place <= N as f64 - 0.5 {
                inside = (inside.0.min(i), i + 1);
            }
            let place = place.clamp(0.0, (N - 1) as f64);
            let cell = (place as usize).min(N - 2);
            *at = (cell, (place - cell as f64) as f32);
        }
        Self {
            at,
            inside: (inside.0.min(inside.1), inside.1),
        }
    }
}

/// Centre of a cell, the picture reaching from -1 to 1.
fn centre<const N: usize>(i: usize) -> f64 {
    (2 * i + 1) as f64 / N as f64 - 1.0
}

/// Where a point of the fixed picture lies in the moving one.
struct Map {
    /// Scale and shift across, scale and shift down.
    parameters: [f64; 4],
}

/// The signals whose products registration sums: the fixed picture, the moving one, its change with each parameter.
const SIGNALS: usize = 6;

impl Map {
    fn scaled(scale: f64) -> Self {
        Self {
            parameters: [scale, 0.0, scale, 0.0],
        }
    }

    fn axes<const N: usize>(&self) -> (Axis<N>, Axis<N>) {
        let [scale_x, shift_x, scale_y, shift_y] = self.parameters;
        (Axis::new(scale_x, shift_x), Axis::new(scale_y, shift_y))
    }

    /// Gauss-Newton steps towards the least squares difference of the two pictures, each brought to mean 0 and norm 1.
    fn register<const N: usize>(&mut self, fixed: &Plane<N>, moving: &Plane<N>, steps: usize) {
        let (across, down) = moving.gradients();
        let mut places = [0.0; N];
        for (i, place) in places.iter_mut().enumerate() {
            *place = centre::<N>(i) as f32;
        }
        for _ in 0..steps {
            let (x_axis, y_axis) = self.axes::<N>();
            let (start, end) = x_axis.inside;
            let mut sums = [[0.0_f32; N]; SIGNALS];
            let mut products = [[0.0_f32; N]; SIGNALS * (SIGNALS + 1) / 2];
            let mut signals = [[0.0_f32; N]; SIGNALS];
            for y in y_axis.inside.0..y_axis.inside.1 {
                signals[0][start..end].copy_from_slice(&fixed.0[y][start..end]);
                sample(moving, &x_axis, y_axis.at[y], &mut signals[1]);
                sample(&across, &x_axis, y_axis.at[y], &mut signals[3]);
                sample(&down, &x_axis, y_axis.at[y], &mut signals[5]);
                for x in 0..N {
                    signals[2][x] = signals[3][x] * places[x];
                    signals[4][x] = signals[5][x] * places[y];
                }
                // Columns apart: independent sums in a fixed order, which the compiler may do side by side.
                let mut k = 0;
                for i in 0..SIGNALS {
                    for x in 0..N {
                        sums[i][x] += signals[i][x];
                    }
                    for j in 0..=i {
                        for x in 0..N {
                            products[k][x] += signals[i][x] * signals[j][x];
                        }
                        k += 1;
                    }
                }
            }
            let count = (end - start) * (y_axis.inside.1 - y_axis.inside.0);
            let Some(step) = step(&sums, &products, count) else {
                return;
            };
            for (parameter, step) in self.parameters.iter_mut().zip(step) {
                *parameter += step.clamp(-STEP_MAX, STEP_MAX);
            }
            for axis in [0, 2] {
                self.parameters[axis] = self.parameters[axis].clamp(1.0 / SCALE_MAX, SCALE_MAX);
                self.parameters[axis + 1] = self.parameters[axis + 1].clamp(-SHIFT_MAX, SHIFT_MAX);
            }
        }
    }

    /// Pearson's correlation where the pictures overlap; 0 where there is too little to tell, or it is negative.
    fn correlation<const N: usize>(&self, fixed: &Plane<N>, moving: &Plane<N>) -> f64 {
        let (x_axis, y_axis) = self.axes::<N>();
        let (start, end) = x_axis.inside;
        let count = (end - start) * (y_axis.inside.1 - y_axis.inside.0);
        if count * OVERLAP_DIVISOR < N * N {
            return 0.0;
        }
        let mut row = [0.0; N];
        let [mut a, mut b, mut aa, mut ab, mut bb] = [0.0_f64; 5];
        for y in y_axis.inside.0..y_axis.inside.1 {
            sample(moving, &x_axis, y_axis.at[y], &mut row);
            for (&f, &m) in fixed.0[y][start..end].iter().zip(&row[start..end]) {
                let (f, m) = (f64::from(f), f64::from(m));
                a += f;
                b += m;
                aa += f * f;
                ab += f * m;
                bb += m * m;
            }
        }
        let count = count as f64;
        let (aa, ab, bb) = (aa - a * a / count, ab - a * b / count, bb - b * b / count);
        // A flat picture has no structure to share.
        if aa < 1e-3 || bb < 1e-3 {
            0.0
        } else {
            (ab / (aa * bb).sqrt()).clamp(0.0, 1.0)
        }
    }
}

/// One row of a picture as the axes see it; 0 outside.
fn sample<const N: usize>(plane: &Plane<N>, x_axis: &Axis<N>, (y, part): (usize, f32), row: &mut [f32; N]) {
    let (above, below) = (&plane.0[y], &plane.0[y + 1]);
    let mut between = [0.0; N];
    for x in 0..N {
        between[x] = above[x] + (below[x] - above[x]) * part;
    }
    let (start, end) = x_axis.inside;
    for (to, &(cell, part)) in row[start..end].iter_mut().zip(&x_axis.at[start..end]) {
        *to = between[cell] + (between[cell + 1] - between[cell]) * part;
    }
    row[..start].fill(0.0);
    row[end..].fill(0.0);
}

/// The damped Gauss-Newton step from sums of signals and of their products; none without structure.
fn step<const N: usize>(sums: &[[f32; N]; SIGNALS], products: &[[f32; N]], count: usize) -> Option<[f64; 4]> {
    let total = |columns: &[f32; N]| columns.iter().fold(0.0, |sum, &v| sum + f64::from(v));
    if count == 0 {
        return None;
    }
    let covariance = |i: usize, j: usize| {
        let (i, j) = (i.max(j), i.min(j));
        total(&products[i * (i + 1) / 2 + j]) - total(&sums[i]) * total(&sums[j]) / count as f64
    };
    let (fixed, moving) = (covariance(0, 0), covariance(1, 1));
    if fixed < 1e-3 || moving < 1e-3 {
        return None;
    }
    let ratio = (moving / fixed).sqrt();
    // Normal equations, the right-hand side in the last column.
    let mut rows = [[0.0; 5]; 4];
    for (i, row) in rows.iter_mut().enumerate() {
        for (j, cell) in row[..4].iter_mut().enumerate() {
            *cell = covariance(i + 2, j + 2);
        }
        row[4] = covariance(i + 2, 0) * ratio - covariance(i + 2, 1);
    }
    let damping = DAMPING * (rows[0][0] + rows[1][1] + rows[2][2] + rows[3][3]) / 4.0 + 1e-9 * moving;
    for (i, row) in rows.iter_mut().enumerate() {
        row[i] += damping;
    }
    // Elimination without pivoting: the matrix is positive definite.
    for i in 0..4 {
        let pivot = rows[i];
        for row in &mut rows[i + 1..] {
            let factor = row[i] / pivot[i];
            for (cell, above) in row.iter_mut().zip(pivot) {
                *cell -= factor * above;
            }
        }
    }
    let mut step = [0.0; 4];
    for i in (0..4).rev() {
        let known: f64 = (i + 1..4).map(|j| rows[i][j] * step[j]).sum();
        step[i] = (rows[i][4] - known) / rows[i][i];
    }
    step.iter().all(|s| s.is_finite()).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A smooth picture with structure of all sizes, unlike for unlike seeds.
    fn picture(width: u32, height: u32, seed: u32, area: [f64; 4]) -> Vec<u8> {
        let [left, top, right, bottom] = area;
        let mut state = u64::from(seed) + 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        let waves: Vec<[f64; 4]> = (1..40)
            .map(|i| {
                let size = 1.0 + f64::from(i) / 4.0;
                [
                    size * (next() - 0.5) * 6.0,
                    size * (next() - 0.5) * 6.0,
                    next() * 6.3,
                    1.0 / size.sqrt(),
                ]
            })
            .collect();
        let mut grey = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let u = left + (right - left) * (f64::from(x) + 0.5) / f64::from(width);
                let v = top + (bottom - top) * (f64::from(y) + 0.5) / f64::from(height);
                let sum: f64 = waves
                    .iter()
                    .map(|[a, b, c, d]| (a * u * 3.0 + b * v * 3.0 + c).sin() * d)
                    .sum();
                grey.push((128.0 + 25.0 * sum).clamp(0.0, 255.0) as u8);
            }
        }
        grey
    }

    const WHOLE: [f64; 4] = [0.0, 0.0, 1.0, 1.0];

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), BYTES)
    }

    fn from_bytes(bytes: &[u8]) -> Fingerprint {
        Fingerprint(bytes.try_into().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_raster_has_a_fingerprint(width in 0_u32..70, height in 0_u32..70, grey in prop::collection::vec(any::<u8>(), 0..4900)) {
            let fingerprint = Fingerprint::of_grey(width, height, &grey);
            prop_assert_eq!(fingerprint.similarity(&fingerprint), 1.0);
        }

        #[test]
        fn thin_rasters_do(length in 1_u32..3000, value in any::<u8>(), wide in any::<bool>()) {
            let (width, height) = if wide { (length, 1) } else { (1, length) };
            let grey: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(value)).collect();
            let (a, b) = (Fingerprint::of_grey(width, height, &grey), Fingerprint::of_grey(1, 1, &[value]));
            prop_assert!((0.0..=1.0).contains(&a.similarity(&b)));
            prop_assert!((-1.0..=1.0).contains(&a.outline().similarity(&b.outline())));
        }

        #[test]
        fn similarity_is_symmetric_and_bounded(a in bytes(), b in bytes()) {
            let (a, b) = (from_bytes(&a), from_bytes(&b));
            prop_assert!((0.0..=1.0).contains(&a.similarity(&b)));
            prop_assert_eq!(a.similarity(&b), b.similarity(&a));
            let (a, b) = (a.outline(), b.outline());
            prop_assert!((-1.0..=1.0).contains(&a.similarity(&b)));
            prop_assert_eq!(a.similarity(&b), b.similarity(&a));
        }

        #[test]
        fn a_growing_curve_changes_nothing(seed in any::<u32>(), gamma in 0.7_f64..1.5) {
            let grey = picture(150, 120, seed, WHOLE);
            let curved: Vec<u8> = grey.iter().map(|&v| ((f64::from(v) / 255.0).powf(gamma) * 255.0).round() as u8).collect();
            let (a, b) = (Fingerprint::of_grey(150, 120, &grey), Fingerprint::of_grey(150, 120, &curved));
            prop_assert!(a.similarity(&b) >= NEAR_DUPLICATE, "{}", a.similarity(&b));
        }

        #[test]
        fn other_sizes_and_crops_are_found(seed in any::<u32>(), cut in prop::array::uniform4(0.0_f64..0.08)) {
            let a = Fingerprint::of_grey(200, 160, &picture(200, 160, seed, WHOLE));
            let b = Fingerprint::of_grey(130, 140, &picture(130, 140, seed, [cut[0], cut[1], 1.0 - cut[2], 1.0 - cut[3]]));
            prop_assert!(a.similarity(&b) >= NEAR_DUPLICATE, "{}", a.similarity(&b));
        }

        #[test]
        fn flat_borders_are_cut(seed in any::<u32>(), value in any::<u8>(), border in 1_usize..20) {
            let (width, height) = (90, 110);
            let grey = picture(width, height, seed, WHOLE);
            let inner = Fingerprint::of_grey(width, height, &grey);
            let wide = width as usize + 2 * border;
            let mut framed = vec![value; wide * (height as usize + 2 * border)];
            for (y, row) in grey.chunks_exact(width as usize).enumerate() {
                let start = (y + border) * wide + border;
                framed[start..start + row.len()].copy_from_slice(row);
            }
            let framed = Fingerprint::of_grey(wide as u32, (framed.len() / wide) as u32, &framed);
            prop_assert!(inner.similarity(&framed) >= NEAR_DUPLICATE);
            prop_assert!(inner.outline().similarity(&framed.outline()) >= OUTLINE_CANDIDATE);
        }

        #[test]
        fn other_pictures_are_not(seed in any::<u32>()) {
            let a = Fingerprint::of_grey(100, 100, &picture(100, 100, seed, WHOLE));
            let b = Fingerprint::of_grey(100, 100, &picture(100, 100, seed.wrapping_add(1), WHOLE));
            prop_assert!(a.similarity(&b) < NEAR_DUPLICATE);
        }
    }

    #[test]
    fn the_same_on_every_machine() {
        let sum = |text: String| {
            text.bytes()
                .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
        };
        let grey: Vec<u8> = (0..97_u32 * 61)
            .map(|i| ((i * i) >> 7) as u8 ^ (i / 97) as u8)
            .collect();
        let a = Fingerprint::of_grey(97, 61, &grey);
        let b = Fingerprint::of_grey(61, 97, &grey);
        assert_eq!(
            (sum(hex::encode(a.0)), a.similarity(&b).to_bits()),
            (SUM, SIMILARITY_BITS)
        );
    }

    const SUM: u64 = 5_800_802_515_163_128_962;
    const SIMILARITY_BITS: u32 = 992_054_581;
}
