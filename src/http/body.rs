//! The body of a request: it comes in time, and what an early answer leaves of it is not read for ever.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

/// Longest wait for the next bytes of a body.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Longest time that a body may take as a whole.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(120);
/// The same for a body that may be a whole study: thousands of slices over a slow line.
pub const STUDY_TIME_MAX: Duration = Duration::from_secs(3600);

/// The part of a request's body that nobody has read yet.
pub struct Unread {
    payload: Rc<RefCell<Payload>>,
    ended: Rc<Cell<bool>>,
}

impl Unread {
    /// Puts the time limits on the body of `request`; nothing for a request without one.
    pub fn of(request: &mut ServiceRequest, time_max: Duration) -> Option<Self> {
        let payload = request.take_payload();
        if matches!(payload, Payload::None) {
            return None;
        }
        let unread = Self {
            payload: Rc::new(RefCell::new(payload)),
            ended: Rc::new(Cell::new(false)),
        };
        let (payload, ended) = (Rc::clone(&unread.payload), Rc::clone(&unread.ended));
        let until = Instant::now() + time_max;
        let too_slow = move || too_slow(time_max);
        let chunks = stream::poll_fn(move |context| payload.borrow_mut().poll_next_unpin(context));
        let limited = stream::unfold(chunks, move |mut chunks| {
            let ended = Rc::clone(&ended);
            async move {
                if ended.get() {
                    return None;
                }
                let next = timeout_at(
                    until.min(Instant::now() + IDLE_MAX),
                    poll_fn(|context| chunks.poll_next_unpin(context)),
                );
                let chunk = next.await.unwrap_or_else(|_| Some(Err(too_slow())));
                ended.set(!matches!(chunk, Some(Ok(_))));
                Some((chunk?, chunks))
            }
        })
        .fuse();
        request.set_payload(Payload::Stream {
            payload: Box::pin(limited),
        });
        Some(unread)
    }

    /// An answer that leaves the body unread. While the answer holds it, the connection counts as having a sender who was not heard out: it is
    /// closed after [`super::LINGER`]. Dropped, a chunked body would be read and thrown away for as long as the sender likes.
    pub fn left_by(self, answer: BoxBody) -> BoxBody {
        if self.ended.get() {
            return answer;
        }
        BoxBody::new(Answer {
            body: answer,
            _unread: self,
        })
    }
}

struct Answer {
    body: BoxBody,
    _unread: Unread,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

fn too_slow(time_max: Duration) -> PayloadError {
    let message = format!(
        "the body came too slowly: at most `{}` s without a byte and `{}` s in all",
        IDLE_MAX.as_secs(),
        time_max.as_secs()
    );
    PayloadError::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}
