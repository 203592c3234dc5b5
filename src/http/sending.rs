//! Large answers: their bytes hold memory that is counted for as long as they are here, go out in pieces, and are given up where nobody takes them, or too slowly. So
//! those who ask and do not read take no more than others, and not for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::body::SizedStream;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::{MEMORY_UNIT_BYTES, State};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a piece: what the connection copies, which it does before it knows whether anybody reads.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes a second that whoever takes an answer takes at least, in the mean over an answer; a slow modem does.
const RATE_MIN_BYTES_PER_S: f64 = (8 << 10) as f64;
/// Time between two looks whether anybody takes what is there.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Memory for an answer.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

impl Room {
    /// The same for fewer bytes; the rest is free again.
    pub fn shrink(mut self, bytes: usize) -> Self {
        let keep = units(bytes) as usize;
        match self.0.split(keep) {
            Some(less) => Self(less),
            None => self,
        }
    }
}

/// Bytes of an answer, with the memory that they take. Few need none.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    /// Held, not read: it is free again when the bytes are gone.
    _room: Option<Room>,
}

impl Held {
    /// Bytes that are large.
    pub fn new(bytes: Bytes, room: Room) -> Self {
        Self {
            bytes,
            _room: Some(room),
        }
    }

    /// Bytes that are few, such as a boundary.
    pub fn small(bytes: Bytes) -> Self {
        Self { bytes, _room: None }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / MEMORY_UNIT_BYTES + 1).unwrap_or(u32::MAX)
}

impl State {
    /// Memory for an answer that nobody has begun with.
    ///
    /// # Errors
    /// `TooLarge` for more than there ever is; `Overloaded` while others have it.
    pub fn room(&self, bytes: usize) -> Result<Room> {
        self.check_room(bytes)?;
        let permit = Arc::clone(&self.answer_memory).try_acquire_many_owned(units(bytes));
        permit.map(Room).map_err(|_| {
            let message = "too many large answers are on their way at the same time";
            Error::new(ErrorKind::Overloaded, message)
        })
    }

    /// The same for what follows in an answer that was begun: it waits a while for others to be done.
    ///
    /// # Errors
    /// As [`State::room`].
    pub async fn room_in_time(&self, bytes: usize) -> Result<Room> {
        self.check_room(bytes)?;
        let permit = Arc::clone(&self.answer_memory).acquire_many_owned(units(bytes));
        let late = |_| Error::new(ErrorKind::Overloaded, "large answers before this one are not taken");
        let permit = tokio::time::timeout(self.settings.answer_idle_max, permit)
            .await
            .map_err(late)?;
        permit
            .map(Room)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "nobody closes it", error))
    }

    fn check_room(&self, bytes: usize) -> Result<()> {
        match units(bytes) as usize > self.answer_units {
            true => Err(Error::new(
                ErrorKind::TooLarge,
                "the answer would be too large: ask for less",
            )),
            false => Ok(()),
        }
    }

    /// A whole body.
    ///
    /// # Errors
    /// As [`State::room`].
    pub fn whole(&self, mut answer: HttpResponseBuilder, bytes: impl Into<Bytes>) -> Result<HttpResponse> {
        let bytes = bytes.into();
        if bytes.len() <= PIECE_BYTES {
            return Ok(answer.body(bytes));
        }
        let room = self.room(bytes.len())?;
        Ok(self.one(answer, Held::new(bytes, room)))
    }

    /// A body of one part, whose length is said.
    pub fn one(&self, mut answer: HttpResponseBuilder, held: Held) -> HttpResponse {
        let bytes = held.len() as u64;
        let parts = stream::once(std::future::ready(Ok(held)));
        answer.body(SizedStream::new(bytes, self.pieces(parts)))
    }

    /// The pieces of parts, one part after the other.
    pub fn pieces(&self, parts: impl Stream<Item = Result<Held>> + 'static) -> Pieces {
        let slot = Arc::new(Mutex::new(Slot::default()));
        actix_web::rt::spawn(watch(Arc::downgrade(&slot), self.settings.answer_idle_max));
        Pieces {
            parts: parts.boxed_local(),
            slot,
        }
    }
}

/// What goes out at the moment.
#[derive(Debug, Default)]
struct Slot {
    held: Option<Held>,
    /// Since when the rest waits to be taken.
    waits_since: Option<Instant>,
    /// How long pieces before waited.
    waited: Duration,
    /// How many bytes these were.
    taken_bytes: usize,
    given_up: bool,
}

impl Slot {
    /// The next piece. With the last one the memory is free again.
    fn take(&mut self) -> Option<Bytes> {
        let held = self.held.as_mut()?;
        let piece = held.bytes.split_to(held.bytes.len().min(PIECE_BYTES));
        if held.bytes.is_empty() {
            self.held = None;
        } else {
            self.waits_since = Some(Instant::now());
        }
        self.taken_bytes += piece.len();
        Some(piece)
    }

    /// Whoever asks for more has taken what there was.
    fn taken(&mut self, now: Instant) {
        if let Some(since) = self.waits_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Whether a piece has waited too long, or all of them for what was taken. What is prepared here meanwhile is nobody's fault.
    fn is_late(&self, idle_max: Duration, now: Instant) -> bool {
        let Some(since) = self.waits_since else { return false };
        let waits = now.saturating_duration_since(since);
        let for_all = idle_max.as_secs_f64() + self.taken_bytes as f64 / RATE_MIN_BYTES_PER_S;
        waits >= idle_max || (self.waited + waits).as_secs_f64() >= for_all
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives up what nobody takes. The connection learns of it when it asks for more.
async fn watch(slot: Weak<Mutex<Slot>>, idle_max: Duration) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(slot) = slot.upgrade() else {
            return;
        };
        let mut slot = lock(&slot);
        if slot.is_late(idle_max, Instant::now()) {
            slot.held = None;
            slot.given_up = true;
            return;
        }
    }
}

/// A body in pieces.
pub struct Pieces {
    parts: Pin<Box<dyn Stream<Item = Result<Held>>>>,
    slot: Arc<Mutex<Slot>>,
}

impl Stream for Pieces {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            {
                let mut slot = lock(&self.slot);
                slot.taken(Instant::now());
                if slot.given_up {
                    let message = "nobody took the answer in time";
                    return Poll::Ready(Some(Err(Error::new(ErrorKind::Deadline, message))));
                }
                if let Some(piece) = slot.take() {
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
            match ready!(self.parts.poll_next_unpin(context)) {
                Some(Ok(held)) if held.bytes.is_empty() => {}
                Some(Ok(held)) => lock(&self.slot).held = Some(held),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was given up before all was taken, by somebody who takes a piece so many seconds after it was there.
    fn gives_up(pieces: usize, each_s: u64) -> bool {
        let idle_max = Duration::from_secs(30);
        let bytes = Bytes::from(vec![0; pieces * PIECE_BYTES + 1]);
        let mut slot = Slot {
            held: Some(Held::small(bytes)),
            ..Slot::default()
        };
        while slot.take().is_some() {
            let Some(since) = slot.waits_since else { break };
            let asked = since + Duration::from_secs(each_s);
            if slot.is_late(idle_max, asked) {
                return true;
            }
            slot.taken(asked);
        }
        false
    }

    #[test]
    fn who_takes_a_piece_now_and_then_is_given_up() {
        assert!(gives_up(1, 30), "a piece that nobody takes");
        assert!(gives_up(20, 29) && gives_up(20, 15), "too slow in the mean");
        assert!(!gives_up(2000, 7), "64 KiB in seven seconds are enough");
        assert!(!gives_up(1, 29), "one pause");
    }
}
