//! `.npy`: a matrix of floats, read from whatever NumPy wrote, written as float32 in C order.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{NpyHeader, Order, WriterBuilder};

use crate::error::{Error, ErrorKind, Result};

/// A header is a few dozen bytes; more is refused before it is parsed.
const HEADER_BYTES_MAX: usize = 4096;
/// Digits in a header that describes a matrix; more, and its numbers could overflow.
const HEADER_DIGITS_MAX: usize = 18;
/// Brackets in such a header; more, and the parser could run out of stack.
const HEADER_BRACKETS_MAX: usize = 8;

/// Rows of equal length.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows, at least 1.
    pub rows: usize,
    /// Components of a row, at least 1.
    pub dimension: usize,
    /// Row after row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.dimension..(row + 1) * self.dimension]
    }
}

/// Reads a matrix of float16, float32 or float64, C or Fortran order, either byte order, as float32.
///
/// # Errors
/// `NotFound`, `Unavailable` when the file can't be read; `InvalidRequest`, in a sentence that names the file, for anything that is not
/// such a matrix with at least one row and only finite numbers (within the range of float32).
pub fn read_npy(path: &Path) -> Result<Matrix> {
    let bytes = std::fs::read(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::Unavailable
        };
        Error::with_source(kind, format!("`{}` can't be read", path.display()), error)
    })?;
    parse(&bytes).map_err(|what| Error::new(ErrorKind::InvalidRequest, format!("`{}` {what}", path.display())))
}

fn parse(bytes: &[u8]) -> Result<Matrix, String> {
    let header_bytes = check_header(bytes)?;
    let (header, data) = bytes.split_at(header_bytes);
    let header = NpyHeader::from_reader(header).map_err(|error| format!("has a header that can't be read: {error}"))?;
    if header.uses_pickled_array() {
        return Err("holds pickled Python objects, not numbers".to_owned());
    }
    let &[rows, dimension] = header.shape() else {
        return Err(format!("has {} dimensions, a matrix has 2", header.shape().len()));
    };
    if rows == 0 || dimension == 0 {
        return Err(format!("is empty: {rows} rows of {dimension} components"));
    }
    let descr = header.dtype().descr();
    let descr = descr.trim_matches('\'');
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    let big_endian = match order {
        "<" => false,
        ">" => true,
        _ => return Err(not_floats(descr)),
    };
    let read: fn(&[u8], bool) -> f64 = match kind {
        "f2" => |bytes, big| f64::from(f16::from_bits(u16::from_be_bytes(ordered(bytes, big)))),
        "f4" => |bytes, big| f64::from(f32::from_be_bytes(ordered(bytes, big))),
        "f8" => |bytes, big| f64::from_be_bytes(ordered(bytes, big)),
        _ => return Err(not_floats(descr)),
    };
    let width = usize::from(kind.as_bytes()[1] - b'0');
    let too_large = || format!("is too large: {rows} rows of {dimension} components");
    let rows = usize::try_from(rows).map_err(|_| too_large())?;
    let dimension = usize::try_from(dimension).map_err(|_| too_large())?;
    let expected = rows
        .checked_mul(dimension)
        .and_then(|n| n.checked_mul(width))
        .ok_or_else(too_large)?;
    if data.len() != expected {
        let which = if data.len() < expected {
            "is cut off"
        } else {
            "goes on behind its end"
        };
        return Err(format!(
            "{which}: {rows} rows of {dimension} components are {expected} bytes, it has {}",
            data.len()
        ));
    }

    let mut values = Vec::with_capacity(rows * dimension);
    for row in 0..rows {
        for column in 0..dimension {
            let at = match header.order() {
                Order::C => row * dimension + column,
                Order::Fortran => column * rows + row,
            };
            let value = read(&data[at * width..(at + 1) * width], big_endian) as f32;
            if !value.is_finite() {
                return Err(format!("has a component that is not a finite float32, in row {row}"));
            }
            values.push(value);
        }
    }
    Ok(Matrix {
        rows,
        dimension,
        data: values,
    })
}

/// Bytes of a big-endian number.
fn ordered<const N: usize>(bytes: &[u8], big_endian: bool) -> [u8; N] {
    let mut number: [u8; N] = bytes.try_into().expect("cut to the width of its type");
    if !big_endian {
        number.reverse();
    }
    number
}

fn not_floats(descr: &str) -> String {
    format!("holds `{descr}`, not float16, float32 or float64")
}

/// Length of everything before the data. Refuses headers that the parser behind can't take: it recurses, and it multiplies without looking.
fn check_header(bytes: &[u8]) -> Result<usize, String> {
    const MAGIC: &[u8] = b"\x93NUMPY";
    let cut_off = || "is cut off within its header".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("is not an .npy file")?;
    let (start, length) = match rest {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        [0 | 4.., ..] => return Err("is of an .npy version that is not read here".to_owned()),
        _ => return Err(cut_off()),
    };
    if length > HEADER_BYTES_MAX {
        return Err("has a header too long for a matrix of floats".to_owned());
    }
    let text = bytes.get(start..start + length).ok_or_else(cut_off)?;
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let brackets = text.iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count();
    if digits > HEADER_DIGITS_MAX || brackets > HEADER_BRACKETS_MAX {
        return Err("is not a matrix of floats".to_owned());
    }
    Ok(start + length)
}

/// Writes a matrix row by row. The file takes its place when it is whole.
pub struct NpyWriter {
    writer: npyz::NpyWriter<f32, BufWriter<File>>,
    dimension: usize,
    staged: PathBuf,
    path: PathBuf,
}

impl NpyWriter {
    /// Begins a file of `rows` rows.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`.
    pub fn create(path: &Path, rows: usize, dimension: usize) -> Result<Self> {
        let staged = staged(path);
        let failed = |error| write_failed(path, error);
        let file = File::create(&staged).map_err(failed)?;
        let writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[rows as u64, dimension as u64])
            .writer(BufWriter::with_capacity(1 << 20, file))
            .begin_nd()
            .map_err(failed)?;
        Ok(Self {
            writer,
            dimension,
            staged,
            path: path.to_owned(),
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `WrongDimension` for another length; `StorageFull`, `Unavailable`.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.dimension {
            return Err(Error::new(
                ErrorKind::WrongDimension,
                format!("a row has {} components, the file has {}", row.len(), self.dimension),
            ));
        }
        self.writer
            .extend(row.iter().copied())
            .map_err(|error| write_failed(&self.path, error))
    }

    /// Ends the file and puts it in its place.
    ///
    /// # Errors
    /// `Internal` when rows are missing; `StorageFull`, `Unavailable`.
    pub fn finish(self) -> Result<()> {
        let Self {
            writer, staged, path, ..
        } = self;
        writer.finish().map_err(|error| write_failed(&path, error))?;
        put_in_place(&staged, &path)
    }
}

/// The name of a file that is not whole yet.
pub(super) fn staged(path: &Path) -> PathBuf {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".part");
    staged.into()
}

/// Syncs a file and gives it its name.
pub(super) fn put_in_place(staged: &Path, path: &Path) -> Result<()> {
    let placed = File::open(staged)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(staged, path));
    placed.map_err(|error| write_failed(path, error))
}

pub(super) fn write_failed(path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Unavailable,
    };
    Error::with_source(kind, format!("`{}` can't be written", path.display()), error)
}

/// Writes a whole small file the same way.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let staged = staged(path);
    let written = File::create(&staged).and_then(|file| {
        let mut writer = BufWriter::new(file);
        write(&mut writer)?;
        writer.flush()
    });
    written.map_err(|error| write_failed(path, error))?;
    put_in_place(&staged, path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `numpy.save` writes it: dictionary, spaces, newline, aligned to 64.
    fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let fortran = if fortran { "True" } else { "False" };
        let mut header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn bytes<const N: usize>(numbers: &[[u8; N]]) -> Vec<u8> {
        numbers.concat()
    }

    const NUMBERS: [f32; 6] = [0.0, 1.5, -2.0, 0.25, 1024.0, -0.125];

    #[test]
    fn every_float_of_numpy_is_read() {
        let expected = Matrix {
            rows: 2,
            dimension: 3,
            data: NUMBERS.to_vec(),
        };
        let columns = [0, 3, 1, 4, 2, 5].map(|at| NUMBERS[at]);
        let f16s = NUMBERS.map(f16::from_f32);
        let check = |descr: &str, fortran: bool, data: Vec<u8>| {
            let read = parse(&npy(descr, fortran, "(2, 3)", &data));
            assert_eq!(read.as_ref(), Ok(&expected), "{descr} {fortran}");
        };
        check("'<f4'", false, bytes(&NUMBERS.map(f32::to_le_bytes)));
        check("'>f4'", false, bytes(&NUMBERS.map(f32::to_be_bytes)));
        check("'<f4'", true, bytes(&columns.map(f32::to_le_bytes)));
        check("'<f8'", false, bytes(&NUMBERS.map(|x| f64::from(x).to_le_bytes())));
        check("'>f8'", true, bytes(&columns.map(|x| f64::from(x).to_be_bytes())));
        check("'<f2'", false, bytes(&f16s.map(f16::to_le_bytes)));
        check("'>f2'", false, bytes(&f16s.map(f16::to_be_bytes)));
    }

    #[test]
    fn what_is_not_such_a_matrix_is_refused_in_words() {
        let data = bytes(&NUMBERS.map(f32::to_le_bytes));
        let check = |file: Vec<u8>, expected: &str| {
            let error = parse(&file).unwrap_err();
            assert!(error.contains(expected), "`{error}` should say `{expected}`");
        };
        check(vec![], "not an .npy file");
        check(b"PK\x03\x04 an npz".to_vec(), "not an .npy file");
        check(b"\x93NUMPY".to_vec(), "cut off within its header");
        check(
            b"\x93NUMPY\x01\x00\x76\x00{'descr'".to_vec(),
            "cut off within its header",
        );
        check(b"\x93NUMPY\x09\x00\x00\x00\x00\x00".to_vec(), "version");
        check(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "too long");
        check(
            npy("'<f4'", false, "(2, 3)", &data[..23]),
            "cut off: 2 rows of 3 components are 24 bytes, it has 23",
        );
        check(
            npy("'<f4'", false, "(2, 3)", &[data.clone(), vec![0]].concat()),
            "goes on behind its end",
        );
        check(npy("'<f4'", false, "(6,)", &data), "1 dimensions");
        check(npy("'<f4'", false, "()", &data[..4]), "0 dimensions");
        check(npy("'<f4'", false, "(1, 2, 3)", &data), "3 dimensions");
        check(npy("'<f4'", false, "(0, 3)", &[]), "empty");
        check(npy("'<f4'", false, "(3, 0)", &[]), "empty");
        check(npy("'<i4'", false, "(2, 3)", &data), "holds `<i4`");
        check(npy("'<c8'", false, "(1, 3)", &data), "holds `<c8`");
        check(npy("'|b1'", false, "(4, 6)", &data), "holds `|b1`");
        check(npy("'|O'", false, "(2, 3)", b"\x80\x04\x95"), "pickled");
        check(npy("[('x', '<f4')]", false, "(2, 3)", &data), "holds");
        check(
            npy("'<f4'", false, "(9223372036854775807, 9223372036854775807)", &data),
            "not a matrix",
        );
        check(npy("'<f4'", false, "(999999999, 999999999)", &data), "not a matrix");
        check(npy("'<f4'", false, "(99999999, 99999999)", &data), "cut off");
        check(npy("'<f4'", false, "(-2, 3)", &data), "header");
        check(npy("'<f4'", false, &"(".repeat(1000), &data), "not a matrix");
        check(npy("'<f4'", false, "'no'", &data), "header");
        let with = |at: usize, value: f32| {
            let mut numbers = NUMBERS;
            numbers[at] = value;
            npy("'<f4'", false, "(2, 3)", &bytes(&numbers.map(f32::to_le_bytes)))
        };
        check(with(4, f32::NAN), "not a finite float32, in row 1");
        check(with(0, f32::INFINITY), "in row 0");
        check(
            npy("'<f8'", false, "(1, 1)", &1e300f64.to_le_bytes()),
            "not a finite float32",
        );
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Viral Pneumonia.npy");
        let mut writer = NpyWriter::create(&path, 2, 3).unwrap();
        writer.push(&NUMBERS[..3]).unwrap();
        assert_eq!(
            writer.push(&NUMBERS[..2]).unwrap_err().kind(),
            ErrorKind::WrongDimension
        );
        assert!(!path.exists());
        writer.push(&NUMBERS[3..]).unwrap();
        writer.finish().unwrap();
        assert_eq!(read_npy(&path).unwrap().data, NUMBERS);
        assert_eq!(read_npy(&path).unwrap().row(1), &NUMBERS[3..]);
        let raw = std::fs::read(&path).unwrap();
        assert_eq!(raw[..6], *b"\x93NUMPY");
        assert_eq!(raw.len() % 64, 24);

        let writer = NpyWriter::create(&path, 2, 3).unwrap();
        assert!(writer.finish().is_err(), "rows are missing");
        assert_eq!(read_npy(&path).unwrap().rows, 2);
        assert_eq!(
            read_npy(&dir.path().join("none.npy")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    proptest! {
        #[test]
        fn bits_come_back(rows in 1usize..6, dimension in 1usize..6, seed: u32) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("m.npy");
            let value = |at: usize| f32::from_bits((seed.wrapping_mul(2_654_435_761).wrapping_add(at as u32)) & 0x7f7f_ffff);
            let data: Vec<f32> = (0..rows * dimension).map(value).collect();
            let mut writer = NpyWriter::create(&path, rows, dimension).unwrap();
            data.chunks(dimension).for_each(|row| writer.push(row).unwrap());
            writer.finish().unwrap();
            let read = read_npy(&path).unwrap();
            prop_assert_eq!(read.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), data.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }

        #[test]
        fn any_header_never_panics(header in "[{}()\\[\\]',: a-z0-9<>-]{0,80}", data in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend((header.len() as u16).to_le_bytes());
            file.extend(header.as_bytes());
            file.extend(data);
            let _ = parse(&file);
        }
    }
}
