//! Puts lines into files and on the disk, or leaves everything as it was. What it could not write it counts, and says so in the next line that it can.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;

use super::chain::{Head, Link, ProcessId, seal};
use super::event::Event;
use super::files::{audit_files, create, failed, name_of};
use crate::error::{Error, ErrorKind, Result};

/// Numbers of files that are tried when one is taken, by a file that could not be removed again.
const NUMBERS_TRIED: u32 = 3;

/// Where lines go and how many fit.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Most bytes of all files in it, also those of other processes.
    pub bytes_max: u64,
    /// A file of this size is followed by the next.
    pub file_bytes_max: u64,
    /// The server's name among its replicas.
    pub replica: String,
}

/// The end of one process's chain.
pub struct Writer {
    place: Place,
    process: ProcessId,
    started: Timestamp,
    file: Option<(File, PathBuf)>,
    number: u32,
    /// Bytes of whole lines in the file; what lies behind them is what a failure left.
    written: u64,
    /// Bytes in the folder.
    total: u64,
    link: Link,
    time: Timestamp,
    lost: u64,
}

impl Writer {
    /// A new chain. Nothing is written yet.
    ///
    /// # Errors
    /// As [`audit_files`].
    pub fn new(place: Place, process: ProcessId, started: Timestamp) -> Result<Self> {
        let mut writer = Self {
            place,
            process,
            started,
            file: None,
            number: 0,
            written: 0,
            total: 0,
            link: Link::START,
            time: started,
            lost: 0,
        };
        writer.measure()?;
        Ok(writer)
    }

    /// Where the chain stands on the disk.
    pub fn head(&self) -> Head {
        Head {
            process: self.process,
            replica: self.place.replica.clone(),
            seq: self.link.seq,
            hash: self.link.hash,
            time: self.time,
        }
    }

    /// Bytes of all files in the folder, as far as is known here.
    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// Events that have no line.
    pub fn lose(&mut self, events: u64) {
        self.lost += events;
    }

    /// Whether events without a line are to be told of.
    pub fn has_gap(&self) -> bool {
        self.lost > 0
    }

    /// Writes a line for each event, durably, behind one that says how many have none, if some have none. Gives their numbers. `bounded`: only if there is room.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`: then none of them is written, the chain stands where it stood, and nobody has counted them as lost yet.
    pub fn write(&mut self, events: &[Event], bounded: bool) -> Result<Vec<u64>> {
        let (mut text, mut link, mut time) = (String::new(), self.link, self.time);
        let mut seqs = Vec::with_capacity(events.len());
        let gap = (self.lost > 0).then(|| Event {
            lost: Some(self.lost),
            ..Event::of_server("gap")
        });
        for event in gap.iter().chain(events) {
            let object = event.object(link.seq + 1, self.process, &self.place.replica, link.hash);
            let object = object
                .map_err(|error| Error::with_source(ErrorKind::Internal, "an event can't be written as JSON", error))?;
            let (line, next) = seal(object, link);
            text.push_str(&line);
            link = next;
            time = event.time;
            seqs.push(link.seq);
        }
        if gap.is_some() {
            seqs.remove(0);
        }
        let bytes = text.len() as u64;
        if bounded {
            self.find_room(bytes)?;
        }
        self.append(text.as_bytes())?;
        self.written += bytes;
        self.total += bytes;
        (self.link, self.time, self.lost) = (link, time, 0);
        Ok(seqs)
    }

    /// What is full may have been emptied since.
    fn find_room(&mut self, bytes: u64) -> Result<()> {
        if self.total + bytes <= self.place.bytes_max {
            return Ok(());
        }
        self.measure()?;
        if self.total + bytes <= self.place.bytes_max {
            return Ok(());
        }
        let message = "the audit has no more room: move the files of processes that have ended elsewhere";
        Err(Error::new(ErrorKind::StorageFull, message))
    }

    fn measure(&mut self) -> Result<()> {
        self.total = audit_files(&self.place.folder)?.iter().map(|file| file.bytes).sum();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let begin_next = self.written > 0 && self.written + bytes.len() as u64 > self.place.file_bytes_max;
        if self.file.is_none() || begin_next {
            self.begin_file()?;
        }
        let written = self.written;
        let Some((file, path)) = &mut self.file else {
            return Err(Error::internal("the audit has no file"));
        };
        let mut put = || -> io::Result<()> {
            // Here lies what an earlier failure left, if it could not be taken away then.
            if file.metadata()?.len() != written {
                file.set_len(written)?;
            }
            file.write_all(bytes)?;
            file.sync_data()
        };
        put().map_err(|error| {
            // The next attempt looks again.
            let _ = file.set_len(written);
            failed(path, error)
        })
    }

    fn begin_file(&mut self) -> Result<()> {
        let folder = &self.place.folder;
        for tried in 1..=NUMBERS_TRIED {
            let name = name_of(self.started, self.process, self.number + 1);
            match create(folder, &name) {
                Ok(file) => {
                    self.file = Some((file, folder.join(name)));
                    (self.number, self.written) = (self.number + 1, 0);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NUMBERS_TRIED => self.number += 1,
                Err(error) => return Err(failed(&folder.join(name), error)),
            }
        }
        Err(Error::internal("no name for a file of the audit is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &tempfile::TempDir, bytes_max: u64, file_bytes_max: u64) -> Place {
        Place {
            folder: folder.path().to_owned(),
            bytes_max,
            file_bytes_max,
            replica: "r".to_owned(),
        }
    }

    fn writer(place: Place) -> Writer {
        Writer::new(place, ProcessId::random(), "2026-11-30T00:00:00Z".parse().unwrap()).unwrap()
    }

    fn events(count: usize) -> Vec<Event> {
        vec![Event::of_server("start"); count]
    }

    fn text(folder: &tempfile::TempDir) -> String {
        let files = audit_files(folder.path()).unwrap();
        files
            .iter()
            .map(|file| std::fs::read_to_string(&file.path).unwrap())
            .collect()
    }

    #[test]
    fn files_follow_one_another_and_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(place(&folder, u64::MAX, 1000));
        for at in 0..10 {
            assert_eq!(writer.write(&events(2), true).unwrap(), [2 * at + 1, 2 * at + 2]);
        }
        let files = audit_files(folder.path()).unwrap();
        assert!(files.len() >= 5, "{}", files.len());
        assert!(files.iter().all(|file| file.bytes <= 1000));
        assert_eq!(files.last().unwrap().number as usize, files.len());
        assert_eq!(writer.bytes(), files.iter().map(|file| file.bytes).sum::<u64>());
        let mode = std::fs::metadata(&files[0].path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(place(&folder, 2000, 1000));
        let mut fitted = 0;
        let full = loop {
            match writer.write(&events(1), true) {
                Ok(_) => fitted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(text(&folder).lines().count(), fitted);
        writer.lose(3);
        assert!(writer.write(&events(1), true).is_err());
        // The server's own end has room.
        let files = audit_files(folder.path()).unwrap();
        std::fs::remove_file(&files[0].path).unwrap();
        let head = writer.head().seq;
        assert_eq!(writer.write(&events(1), true).unwrap(), [head + 2]);
        let last: Vec<serde_json::Value> = (text(&folder).lines().rev().take(2))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!((&last[1]["what"], &last[1]["lost"]), (&"gap".into(), &3.into()));
        assert_eq!(last[0]["prev"], last[1]["hash"]);
        assert!(!writer.has_gap());
    }

    #[test]
    fn what_a_failure_left_is_taken_away_before_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(place(&folder, u64::MAX, u64::MAX));
        writer.write(&events(1), true).unwrap();
        let path = audit_files(folder.path()).unwrap()[0].path.clone();
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&before[..], b"{\"seq\":2,\"ti"].concat()).unwrap();
        writer.write(&events(1), true).unwrap();
        let after = text(&folder);
        assert_eq!(after.lines().count(), 2);
        assert!(after.as_bytes().starts_with(&before));
    }
}
