//! The parent's side: a few worker processes, replaced when they die, time out or have done enough.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use super::decode::DecodedFrame;
use super::invalid;
use super::protocol::{READY, Settings, WORDS_BYTES_MAX, read_message, read_outcome, write_message, write_wanted};
use crate::domain::FrameNumber;
use crate::error::{Error, ErrorKind, Result};

/// Files that a worker decodes before another takes its place: what it has leaked goes with it.
const FILES_MAX: u32 = 500;
/// A program that links a large library takes a while on a cold disk.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// All that a worker inherits of the environment: where its libraries are. It gets no secret.
const ENVIRONMENT: [&str; 3] = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SystemRoot"];

/// Worker processes, started when they are needed.
pub struct Pool {
    program: PathBuf,
    workers_max: usize,
    settings: Settings,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    busy: usize,
}

impl Pool {
    /// No process is started before the first file.
    pub fn new(program: PathBuf, workers_max: usize, settings: Settings) -> Self {
        let state = Mutex::new(State::default());
        Self {
            program,
            workers_max: workers_max.max(1),
            settings,
            state,
            returned: Condvar::new(),
        }
    }

    /// Decodes a frame of a file in a worker; waits while all are busy.
    ///
    /// # Errors
    /// The worker's; `InvalidImage` when the file killed it or took too long, `Unavailable` when none starts.
    pub fn decode(&self, bytes: &[u8], frame: FrameNumber) -> Result<DecodedFrame> {
        let mut seat = self.sit();
        let mut worker = match seat.worker.take() {
            Some(worker) => worker,
            None => Worker::start(&self.program, &self.settings)?,
        };
        let outcome = worker.decode(bytes, frame, &self.settings);
        if outcome.is_some() && worker.files < FILES_MAX {
            self.state().idle.push(worker);
        }
        outcome.unwrap_or_else(|| {
            let Settings {
                memory_bytes_max,
                seconds_max,
                ..
            } = self.settings;
            let (mib, seconds) = (memory_bytes_max >> 20, seconds_max);
            Err(invalid(format!(
                "it breaks its decoder or needs more than `{mib}` MiB or `{seconds}` s to decode"
            )))
        })
    }

    /// A seat among the busy ones, with a living idle worker if there is one.
    fn sit(&self) -> Seat<'_> {
        let mut state = self.state();
        while state.busy >= self.workers_max {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy += 1;
        let worker = std::iter::from_fn(|| state.idle.pop()).find_map(Worker::if_alive);
        Seat { pool: self, worker }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a list and a number: whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted as busy until it is dropped.
struct Seat<'a> {
    pool: &'a Pool,
    worker: Option<Worker>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.pool.state().busy -= 1;
        self.pool.returned.notify_one();
    }
}

/// A running process. Dropping it kills it.
struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    files: u32,
}

impl Worker {
    fn start(program: &std::path::Path, settings: &Settings) -> Result<Self> {
        let unavailable =
            |error: io::Error| Error::with_source(ErrorKind::Unavailable, "the decoder does not start", error);
        let mut process = Command::new(program)
            .arg("decode-worker")
            .env_clear()
            .envs(
                ENVIRONMENT
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a decoder prints may hold what a file says.
            .stderr(Stdio::null())
            .spawn()
            .map_err(unavailable)?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.expect("both were asked for as pipes");
        let mut worker = Self {
            process,
            input,
            output: BufReader::new(output),
            files: 0,
        };
        let ready = worker.within(START_TIME_MAX, |input, output| {
            write_message(input, &serde_json::to_vec(settings)?)?;
            read_message(output, WORDS_BYTES_MAX)
        });
        match ready {
            Some(Ok(Some(hello))) if hello == READY => Ok(worker),
            Some(Err(error)) => Err(unavailable(error)),
            _ => Err(unavailable(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// A worker that died while idle is not asked.
    fn if_alive(mut self) -> Option<Self> {
        matches!(self.process.try_wait(), Ok(None)).then_some(self)
    }

    /// What became of a file; `None` when it was the end of the worker.
    fn decode(&mut self, bytes: &[u8], frame: FrameNumber, settings: &Settings) -> Option<Result<DecodedFrame>> {
        self.files += 1;
        let limit = Duration::from_secs(settings.seconds_max);
        let outcome = self.within(limit, |input, output| {
            write_wanted(input, frame, bytes)?;
            read_outcome(output, frame, &settings.limits)
        });
        outcome?.ok()
    }

    /// Runs a conversation and kills the process when it takes too long, which ends the conversation: then `None`.
    fn within<T>(
        &mut self,
        limit: Duration,
        conversation: impl FnOnce(&mut ChildStdin, &mut BufReader<ChildStdout>) -> T,
    ) -> Option<T> {
        let Self {
            process, input, output, ..
        } = self;
        let (finished, waiting) = channel::<()>();
        thread::scope(|scope| {
            let watchdog = scope.spawn(move || {
                let late = waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
                if late {
                    // It can only fail when the process has ended by itself.
                    let _ = process.kill();
                }
                late
            });
            let result = conversation(input, output);
            drop(finished);
            let late = watchdog.join().unwrap_or(true);
            (!late).then_some(result)
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only when it has ended; waiting leaves no zombie.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::imaging::limits::Limits;

    const HELLO: &str = r"printf '\031\0\0\0medsearch decode worker 3'";
    const REFUSAL: &str = r#"printf '\067\0\0\0{"Refused":{"kind":"unsupported-media","message":"no"}}'"#;

    /// What programs that only play a worker make of a file: the kinds of two answers in a row.
    fn answers(folder: &std::path::Path, name: &str, script: &str) -> [ErrorKind; 2] {
        let program = folder.join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let settings = Settings {
            limits: Limits::default(),
            memory_bytes_max: 1 << 30,
            seconds_max: 1,
        };
        let pool = Pool::new(program, 1, settings);
        [(); 2].map(|()| pool.decode(b"a file", FrameNumber::FIRST).unwrap_err().kind())
    }

    #[test]
    fn workers_that_fail_cost_one_file_each() {
        use ErrorKind::{InvalidImage, Unavailable, UnsupportedMedia};
        let folder = tempfile::tempdir().unwrap();
        let check = |name, script: &str, expected| assert_eq!(answers(folder.path(), name, script), expected, "{name}");
        check("does-not-start", "exit 1", [Unavailable; 2]);
        check("says-something-else", r"printf '\002\0\0\0no'", [Unavailable; 2]);
        // It reads some of the settings first: a pipe nobody has read from breaks while they are written, which is not to start.
        let dies = format!("{HELLO}; exec /usr/bin/head -c 60 >/dev/null");
        check("dies", &dies, [InvalidImage; 2]);
        check("hangs", &format!("{HELLO}; exec /bin/sleep 60"), [InvalidImage; 2]);
        check(
            "talks-nonsense",
            &format!("{HELLO}; {HELLO}; exec /bin/sleep 60"),
            [InvalidImage; 2],
        );
        check(
            "answers-once",
            &format!("{HELLO}; {REFUSAL}; exec /bin/sleep 60"),
            [UnsupportedMedia, InvalidImage],
        );
    }
}
