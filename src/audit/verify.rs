//! Reads an audit back and names what is not as it was written. Which heads of chains the archive has is given; nothing here asks it.
//!
//! What can't be found: lines behind the last head of a process, cut off or written anew by somebody who can write to the folder, before the next start names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::BufRead;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::{Hash, Head, Link, ProcessId, read_hash};
use super::files::{AuditFile, Next, next_line, open};
use crate::error::{Error, ErrorKind, Result};

/// So long a process may write before it has a head in the archive, which gets one every ten seconds while it can be reached.
const HEADLESS_MAX: Duration = Duration::from_secs(60);
/// Findings that are kept one by one; of an audit with more the others are counted.
const FINDINGS_MAX: usize = 1000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file; none: it is about a process whose files are missing.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u64>,
    /// What kind: `edited`, `missing-lines`, `out-of-place`, `unchained`, `no-line`, `foreign`, `torn`, `missing-file`, `missing-process`, `cut`,
    /// `rewritten`, `after-stop`, `head-unread`, `unknown-process`.
    pub kind: &'static str,
    /// The same in words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.what),
            (Some(file), None) => write!(f, "{file}: {}", self.what),
            (None, _) => f.write_str(&self.what),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files read.
    pub files: usize,
    /// Lines read.
    pub lines: u64,
    /// Processes that have files.
    pub processes: usize,
    /// Heads of the archive, and of later starts, that were met.
    pub heads_met: usize,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more_findings: u64,
    /// What is as it was written, and should be known: processes that ended without a stop, events without a line, changes that were begun and not answered.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, file: Option<&str>, line: Option<u64>, kind: &'static str, what: impl Into<String>) {
        if self.findings.len() == FINDINGS_MAX {
            self.more_findings += 1;
            return;
        }
        self.findings.push(Finding {
            file: file.map(str::to_owned),
            line,
            kind,
            what: what.into(),
        });
    }
}

/// What a line says that matters here.
#[derive(Deserialize)]
struct Said {
    seq: u64,
    time: Timestamp,
    process: ProcessId,
    replica: String,
    prev: Hash,
    what: String,
    #[serde(default)]
    begun: bool,
    of: Option<u64>,
    lost: Option<u64>,
}

/// What the first line of a process says of others.
#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    heads: Vec<Head>,
}

/// One process, as far as it was read.
struct Chain {
    /// Number of the last file.
    number: u32,
    link: Link,
    /// What comes next can't be held against what came before, and that was said.
    unsure: bool,
    stopped: bool,
    /// Time of its first line, and of its last.
    lived: Option<(Timestamp, Timestamp)>,
    replica: String,
    /// Where it ends in the middle of a line.
    torn: Option<(String, u64)>,
    begun: BTreeSet<u64>,
    lost: u64,
    last_file: String,
}

/// Reads the files of one or more folders.
pub struct Verifier {
    /// By process and line, what the hash has to be, and since when.
    expected: BTreeMap<(ProcessId, u64), (Hash, Timestamp)>,
    met: BTreeSet<(ProcessId, u64)>,
    chains: BTreeMap<ProcessId, Chain>,
    since: Option<Timestamp>,
    /// Processes of which the archive has a head, where that is known, and the servers whose processes have one.
    vouched: Option<(BTreeSet<ProcessId>, Vec<String>)>,
    report: Report,
}

impl Verifier {
    /// A verifier that knows these heads. `since`: what was committed before may be elsewhere by now.
    pub fn new(heads: &[Head], since: Option<Timestamp>) -> Self {
        let mut verifier = Self {
            expected: BTreeMap::new(),
            met: BTreeSet::new(),
            chains: BTreeMap::new(),
            since,
            vouched: None,
            report: Report::default(),
        };
        heads.iter().for_each(|head| verifier.expect(head));
        verifier
    }

    /// These heads are all that the archive has: a process of one of these servers, or of any where none is named, that has none there was made up.
    #[must_use]
    pub fn vouched(mut self, heads: &[Head], replicas: &[String]) -> Self {
        let processes = heads.iter().map(|head| head.process).collect();
        self.vouched = Some((processes, replicas.to_vec()));
        self
    }

    fn expect(&mut self, head: &Head) {
        if head.seq > 0 {
            self.expected
                .entry((head.process, head.seq))
                .or_insert((head.hash, head.time));
        }
    }

    /// A head of the archive can't be read.
    pub fn unread_head(&mut self, name: &str) {
        let what = format!("the archive's `{name}` can't be read");
        self.report.find(None, None, "head-unread", what);
    }

    /// Reads files, in the order of their names.
    ///
    /// # Errors
    /// `Unavailable` when one can't be read.
    pub fn read(mut self, files: &[AuditFile]) -> Result<Report> {
        for file in files.iter().filter(|file| file.number == 1) {
            if let Ok(Next::Line(line)) = next_line(&mut open(&file.path)?)
                && let Ok(start) = serde_json::from_slice::<Start>(&line)
            {
                start.heads.iter().for_each(|head| self.expect(head));
            }
        }
        for file in files {
            let reader = open(&file.path)?;
            self.file(&file.name, file.process, file.number, reader)?;
        }
        Ok(self.finish())
    }

    fn file(&mut self, name: &str, process: ProcessId, number: u32, mut reader: impl BufRead) -> Result<()> {
        let mut chain = self.chains.remove(&process).unwrap_or_else(|| Chain {
            number: 0,
            link: Link::START,
            unsure: false,
            stopped: false,
            lived: None,
            replica: String::new(),
            torn: None,
            begun: BTreeSet::new(),
            lost: 0,
            last_file: String::new(),
        });
        self.report.files += 1;
        if let Some((file, line)) = chain.torn.take() {
            self.report.find(
                Some(&file),
                Some(line),
                "torn",
                "the file ends in the middle of a line, and goes on in the next",
            );
            chain.unsure = true;
        }
        self.follow_on(&mut chain, name, number);
        let mut at = 0;
        loop {
            at += 1;
            let next = next_line(&mut reader).map_err(|error| {
                Error::with_source(ErrorKind::Unavailable, format!("`{name}` can't be read"), error)
            })?;
            match next {
                Next::End => break,
                Next::Torn => {
                    chain.torn = Some((name.to_owned(), at));
                    break;
                }
                Next::TooLong => {
                    chain.unsure = true;
                    self.report.find(
                        Some(name),
                        Some(at),
                        "no-line",
                        "is longer than any line that is written",
                    );
                }
                Next::Line(line) => {
                    self.report.lines += 1;
                    self.line(&mut chain, process, name, at, &line);
                }
            }
        }
        self.chains.insert(process, chain);
        Ok(())
    }

    /// A file follows the one before by its number.
    fn follow_on(&mut self, chain: &mut Chain, name: &str, number: u32) {
        if number != chain.number + 1 {
            let missing = number.saturating_sub(chain.number + 1);
            chain.unsure = true;
            // The oldest may have been moved away, if that is said.
            if chain.number == 0 && self.since.is_some() {
                let note = format!("{name}: {missing} earlier files of this process are not here");
                self.report.notes.push(note);
            } else {
                let what = format!("{missing} files of this process are missing before it");
                self.report.find(Some(name), None, "missing-file", what);
            }
        }
        chain.number = number;
        name.clone_into(&mut chain.last_file);
    }

    fn line(&mut self, chain: &mut Chain, process: ProcessId, name: &str, at: u64, line: &[u8]) {
        let said: Option<Said> = serde_json::from_slice(line).ok();
        let read = said.as_ref().and_then(|said| read_hash(line, said.prev));
        let (Some(said), Some((hash, good))) = (said, read) else {
            chain.unsure = true;
            self.report
                .find(Some(name), Some(at), "no-line", "is no line of an audit");
            return;
        };
        if !good {
            chain.unsure = true;
            self.report.find(
                Some(name),
                Some(at),
                "edited",
                "was changed: its hash is not that of its text",
            );
            return;
        }
        if said.process != process {
            chain.unsure = true;
            self.report
                .find(Some(name), Some(at), "foreign", "is of another process");
            return;
        }
        let expected = chain.link.seq + 1;
        if !chain.unsure {
            let fault = if said.seq > expected {
                let missing = said.seq - expected;
                Some((
                    "missing-lines",
                    format!("{missing} lines are missing before it, from line {expected} of the process"),
                ))
            } else if said.seq < expected {
                Some((
                    "out-of-place",
                    format!("is line {} of the process, where {expected} should be", said.seq),
                ))
            } else if said.prev != chain.link.hash {
                Some((
                    "unchained",
                    "does not follow the line before it: that one was changed".to_owned(),
                ))
            } else if chain.stopped {
                Some(("after-stop", "stands behind the stop of its process".to_owned()))
            } else {
                None
            };
            if let Some((kind, what)) = fault {
                self.report.find(Some(name), Some(at), kind, what);
            }
        }
        chain.unsure = false;
        chain.lived = Some((chain.lived.map_or(said.time, |(first, _)| first), said.time));
        chain.replica = said.replica;
        chain.link = Link { seq: said.seq, hash };
        chain.stopped |= said.what == "stop";
        chain.lost += said.lost.unwrap_or(0);
        if said.begun {
            chain.begun.insert(said.seq);
        }
        if let Some(of) = said.of {
            chain.begun.remove(&of);
        }
        let key = (process, said.seq);
        if let Some((wanted, time)) = self.expected.get(&key)
            && self.met.insert(key)
            && *wanted != hash
        {
            let what = format!("is not the line whose hash was kept elsewhere at {time}: it was written anew");
            self.report.find(Some(name), Some(at), "rewritten", what);
        }
    }

    fn finish(mut self) -> Report {
        self.report.processes = self.chains.len();
        self.report.heads_met = self.met.len();
        self.unknown();
        self.unmet();
        for (process, chain) in &self.chains {
            let notes = &mut self.report.notes;
            if !chain.stopped {
                let torn = if chain.torn.is_some() {
                    ", in the middle of a line"
                } else {
                    ""
                };
                let last = chain.link.seq;
                notes.push(format!(
                    "process {process} has not ended, or was killed: {} ends at line {last}{torn}",
                    chain.last_file
                ));
            } else if let Some((file, line)) = &chain.torn {
                let what = "the file ends in the middle of a line, behind the stop of its process";
                self.report.find(Some(file), Some(*line), "torn", what);
            }
            let notes = &mut self.report.notes;
            if chain.lost > 0 {
                notes.push(format!(
                    "process {process}: {} events have no line, since the audit could not be written",
                    chain.lost
                ));
            }
            if !chain.begun.is_empty() {
                let first: Vec<String> = chain.begun.iter().take(10).map(ToString::to_string).collect();
                let (count, first) = (chain.begun.len(), first.join(", "));
                notes.push(format!("process {process}: {count} changes were begun and have no line of how they ended: lines {first} of the process"));
            }
        }
        self.report
    }

    /// Processes that are in the folder and have never had a head in the archive, though they had the time for it.
    fn unknown(&mut self) {
        let Some((known, replicas)) = &self.vouched else {
            return;
        };
        for (process, chain) in &self.chains {
            let ours = replicas.is_empty() || replicas.contains(&chain.replica);
            let lived = chain
                .lived
                .map(|(first, last)| Duration::try_from(last.duration_since(first)).unwrap_or_default());
            let had_time = chain.stopped || lived.is_some_and(|lived| lived >= HEADLESS_MAX);
            if ours && had_time && !known.contains(process) {
                let what = format!(
                    "the archive has no head of process {process}, which stopped in order, or had the time for one: it was made up, or is of another archive"
                );
                self.report.find(Some(&chain.last_file), None, "unknown-process", what);
            }
        }
    }

    /// Heads that no line met.
    fn unmet(&mut self) {
        let mut gone: BTreeSet<ProcessId> = BTreeSet::new();
        for (&(process, seq), &(_, time)) in &self.expected {
            if self.met.contains(&(process, seq)) {
                continue;
            }
            let is_old = self.since.is_some_and(|since| time < since);
            match self.chains.get(&process) {
                None if is_old => {}
                None if gone.insert(process) => {
                    let what = format!("all files of process {process} are missing: it had {seq} lines at {time}");
                    self.report.find(None, None, "missing-process", what);
                }
                None => {}
                Some(chain) if seq > chain.link.seq => {
                    let what = format!(
                        "ends at line {} of the process, which had {seq} lines at {time}",
                        chain.link.seq
                    );
                    self.report.find(Some(&chain.last_file), None, "cut", what);
                }
                Some(_) if is_old => {}
                Some(chain) => {
                    let what =
                        format!("line {seq} of the process, whose hash was kept elsewhere at {time}, is not there");
                    self.report.find(Some(&chain.last_file), None, "missing-lines", what);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
