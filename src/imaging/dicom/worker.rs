//! The worker process: little memory, little time, no files, a frame of one DICOM file after the other.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rlimit::Resource;

use super::decode::decode;
use super::invalid;
use super::protocol::{READY, Settings, WORDS_BYTES_MAX, read_message, read_wanted, write_message, write_outcome};
use crate::error::{Error, ErrorKind, Result};

/// The nesting bound keeps recursion shallow; this leaves room all the same.
const STACK_BYTES: usize = 16 << 20;
/// What a process may open: its three pipes and what the runtime needs.
const FILES_MAX: u64 = 16;
/// CPU time that the start of the program may have taken.
const START_SECONDS: u64 = 5;

/// What the hidden subcommand `decode-worker` runs: reads files from the standard input and answers on the standard
/// output until the input ends. Nothing else may write to the standard output.
pub fn decode_worker_main() -> ExitCode {
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(|| serve(io::stdin().lock(), io::stdout().lock(), set_limits, allow_cpu));
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The worker without its process: `prepare` is called once with the settings, `begin` before each file with the time
/// that the files before it took.
///
/// # Errors
/// Those of the pipes and of `prepare`.
pub fn serve(
    mut input: impl Read,
    mut output: impl Write,
    prepare: impl FnOnce(&Settings) -> Result<()>,
    begin: impl Fn(&Settings, Duration),
) -> Result<()> {
    let broken = |error: io::Error| Error::with_source(ErrorKind::Unavailable, "the parent is gone", error);
    let Some(settings) = read_message(&mut input, WORDS_BYTES_MAX).map_err(broken)? else {
        return Ok(());
    };
    let settings: Settings = serde_json::from_slice(&settings)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "settings make no sense", error))?;
    prepare(&settings)?;
    write_message(&mut output, READY).map_err(broken)?;
    let mut busy = Duration::ZERO;
    while let Some((frame, file)) = read_wanted(&mut input, settings.limits.file_bytes_max).map_err(broken)? {
        begin(&settings, busy);
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| decode(&file, frame, &settings.limits)))
            .unwrap_or_else(|_| Err(invalid("it breaks its decoder")));
        drop(file);
        busy += started.elapsed();
        write_outcome(&mut output, outcome).map_err(broken)?;
    }
    Ok(())
}

/// Bounds for good. The address space is counted from what the program takes now: linked libraries alone may map half
/// a gigabyte.
fn set_limits(settings: &Settings) -> Result<()> {
    let refused = |error: io::Error| Error::with_source(ErrorKind::Internal, "a resource limit can't be set", error);
    if let Some(mapped) = mapped_bytes() {
        let bytes = mapped.saturating_add(settings.memory_bytes_max);
        Resource::AS.set(bytes, bytes).map_err(refused)?;
    }
    // A core file would hold what a patient's file says.
    Resource::CORE.set(0, 0).map_err(refused)?;
    Resource::FSIZE.set(0, 0).map_err(refused)?;
    Resource::NOFILE.set(FILES_MAX, FILES_MAX).map_err(refused)
}

/// Address space of this process; `None` where the system doesn't tell, and then there is no bound but time.
fn mapped_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The system counts CPU seconds of the process, not of a file: the bound moves on with every file. One thread works, so
/// it has used no more CPU time than wall time.
fn allow_cpu(settings: &Settings, busy: Duration) {
    // When it can't be set, the parent's clock still holds.
    let _ = Resource::CPU.set(busy.as_secs() + START_SECONDS + settings.seconds_max, rlimit::INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameNumber;
    use crate::imaging::dicom::protocol::{read_outcome, write_wanted};
    use crate::imaging::dicom::testing::{Dicom, nested};
    use crate::imaging::limits::Limits;
    use crate::imaging::raster::Samples;

    #[test]
    fn one_file_after_the_other() {
        let settings = Settings {
            limits: Limits::default(),
            memory_bytes_max: 1 << 30,
            seconds_max: 9,
        };
        let mut input = Vec::new();
        write_message(&mut input, &serde_json::to_vec(&settings).unwrap()).unwrap();
        let (first, second) = (FrameNumber::FIRST, FrameNumber::try_from(2).unwrap());
        let two = Dicom::gray8(2, 1, &[5, 6, 7, 8]).text((0x28, 0x08), b"IS", "2").file();
        for (frame, file) in [
            (first, Dicom::gray16(2, 1, &[3, 4]).file()),
            (first, Dicom::gray16(2, 1, &[3, 4]).extra(nested(5_000)).file()),
            (first, b"not DICOM".to_vec()),
            (second, Dicom::gray16(2, 1, &[3, 4]).file()),
            (second, two),
        ] {
            write_wanted(&mut input, frame, &file).unwrap();
        }
        let mut output = Vec::new();
        let mut prepared = None;
        let prepare = |settings: &Settings| {
            prepared = Some(*settings);
            Ok(())
        };
        serve(input.as_slice(), &mut output, prepare, |_, _| ()).unwrap();
        assert_eq!(prepared, Some(settings));

        let mut answers = output.as_slice();
        assert_eq!(read_message(&mut answers, 100).unwrap().unwrap(), READY);
        let mut next = |frame| read_outcome(&mut answers, frame, &Limits::default()).unwrap();
        assert_eq!(*next(first).unwrap().raster.samples(), Samples::Gray16(vec![3, 4]));
        assert_eq!(next(first).unwrap_err().kind(), ErrorKind::InvalidImage);
        assert_eq!(next(first).unwrap_err().kind(), ErrorKind::InvalidImage);
        assert_eq!(next(second).unwrap_err().kind(), ErrorKind::InvalidRequest);
        assert_eq!(*next(second).unwrap().raster.samples(), Samples::Gray8(vec![7, 8]));
    }

    #[test]
    fn a_failed_start_is_not_ready() {
        let mut input = Vec::new();
        write_message(&mut input, b"{}").unwrap();
        let mut output = Vec::new();
        assert!(serve(input.as_slice(), &mut output, |_| Ok(()), |_, _| ()).is_err());
        assert!(output.is_empty());
        assert!(serve([].as_slice(), &mut output, |_| Ok(()), |_, _| ()).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_programs_own_size_is_known() {
        assert!(mapped_bytes().unwrap() > 1 << 20);
    }
}
