//! The thread that owns the model, and the handle by which everyone else asks it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;
use tracing::field::Empty;

use super::batcher::{Batcher, Next};
use super::{Backend, Cells, ModelCard, check_sizes};
use crate::archive::RowsProvenance;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::ModelInput;
use crate::metrics::Metrics;
use crate::telemetry::SPANS;

/// How requests become batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Most images in one call of the model.
    pub batch_max: usize,
    /// Longest that a request waits for images that are being decoded, while the model is idle; while it is busy requests gather anyway. Half a
    /// millisecond lets several clients meet in one batch. A lone one does not wait.
    pub wait_us_max: u64,
    /// Most requests that wait; one more is refused.
    pub queue_max: usize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            batch_max: 32,
            wait_us_max: 500,
            queue_max: 256,
        }
    }
}

/// The answer to one request, and where its time went.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The model's output as it came, not normalised.
    pub raw: Vec<f32>,
    /// The cells that make it, where they were asked for and the network has them.
    pub cells: Option<Cells>,
    /// Time between asking and the start of the batch.
    pub queue: Duration,
    /// Time in the model, of the whole batch.
    pub model: Duration,
    /// Images in the batch.
    pub batch: usize,
}

/// A handle to the model thread. The thread ends with the last handle.
#[derive(Clone)]
pub struct Embedder {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    card: ModelCard,
    provenance: RowsProvenance,
    thread: Option<JoinHandle<()>>,
}

impl Embedder {
    /// Starts the thread that owns `backend` and waits until the model is warm.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no thread or the model panics; what [`Backend::warm_up`] says.
    pub fn spawn(mut backend: Box<dyn Backend>, settings: BatchSettings, metrics: Arc<Metrics>) -> Result<Self> {
        let card = backend.card().clone();
        let provenance = backend.provenance();
        let queue = Arc::new(Queue::new(settings, Arc::clone(&metrics)));
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let work = {
            let queue = Arc::clone(&queue);
            move || {
                let warm = backend.warm_up();
                let usable = warm.is_ok();
                // The starter listens until it has heard.
                let _ = ready.send(warm);
                while usable && let Some(batch) = queue.next_batch() {
                    metrics.batch(batch.len());
                    run_batch(backend.as_mut(), batch);
                }
            }
        };
        let failed = |error| Error::with_source(ErrorKind::Unavailable, "the model thread can't be started", error);
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(work)
            .map_err(failed)?;
        is_ready
            .recv()
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the model panicked at its start"))??;
        Ok(Self {
            inner: Arc::new(Inner {
                queue,
                card,
                provenance,
                thread: Some(thread),
            }),
        })
    }

    /// The model's card.
    pub fn card(&self) -> &ModelCard {
        &self.inner.card
    }

    /// How the vectors come about.
    pub fn provenance(&self) -> &RowsProvenance {
        &self.inner.provenance
    }

    /// Requests that wait for the model.
    pub fn queue_depth(&self) -> usize {
        self.inner.queue.lock().batcher.len()
    }

    /// Whether the thread is there to answer.
    pub fn is_alive(&self) -> bool {
        self.inner.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Says that an image is on its way: an idle model then waits for it a moment, so that it shares a batch with what is there.
    pub fn announce(&self) -> Announced {
        self.inner.queue.lock().coming += 1;
        Announced {
            embedder: self.clone(),
            arrived: false,
            within: Span::current(),
        }
    }
}

/// The place of an image that is being decoded. Dropped when there is nothing to embed after all.
pub struct Announced {
    embedder: Embedder,
    arrived: bool,
    /// What it is embedded for: it may arrive from another thread.
    within: Span,
}

impl Announced {
    /// Puts the image into the queue, for a batch with those of other callers.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full, `Deadline` when that is past, `Internal` for an input of another size than the card's.
    pub fn send(self, input: ModelInput, deadline: Instant) -> Result<Pending> {
        self.send_for(Want::Vector, input, deadline)
    }

    /// The same, asking for the cells along with the vector.
    ///
    /// # Errors
    /// As [`Announced::send`].
    pub fn send_for_cells(self, input: ModelInput, deadline: Instant) -> Result<Pending> {
        self.send_for(Want::Cells, input, deadline)
    }

    fn send_for(mut self, want: Want, input: ModelInput, deadline: Instant) -> Result<Pending> {
        check_sizes(self.embedder.card(), std::slice::from_ref(&input))?;
        let asked = Instant::now();
        if deadline <= asked {
            return Err(late());
        }
        let (reply, answer) = oneshot::channel();
        self.arrived = true;
        let span = tracing::debug_span!(
            target: SPANS,
            parent: &self.within,
            "embed",
            medsearch.queue_ms = Empty,
            medsearch.model_ms = Empty,
            medsearch.batch = Empty
        );
        self.embedder.inner.queue.push(Request {
            want,
            input,
            deadline,
            asked,
            reply,
        })?;
        Ok(Pending { answer, deadline, span })
    }
}

/// An image that waits for the model, or is in it. Dropped, it takes its request back: the model never sees it unless its batch has begun.
pub struct Pending {
    answer: oneshot::Receiver<Result<Embedded>>,
    deadline: Instant,
    span: Span,
}

impl Pending {
    /// What the model says.
    ///
    /// # Errors
    /// `Deadline` when the answer isn't there in time, `Unavailable` when the model failed.
    ///
    /// # Cancel safety
    /// As dropping it.
    pub async fn wait(self) -> Result<Embedded> {
        match tokio::time::timeout_at(self.deadline.into(), self.answer).await {
            Ok(Ok(result)) => {
                if let Ok(embedded) = &result {
                    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
                    self.span.record("medsearch.queue_ms", ms(embedded.queue));
                    self.span.record("medsearch.model_ms", ms(embedded.model));
                    self.span.record("medsearch.batch", embedded.batch as i64);
                }
                result
            }
            // The worker drops an expired request, which may be noticed before the timer fires.
            Ok(Err(_)) if self.deadline <= Instant::now() => Err(late()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Unavailable, "the model thread has ended")),
            Err(_) => Err(late()),
        }
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Deadline,
        "the time for this image ran out before the model answered",
    )
}

impl Drop for Announced {
    fn drop(&mut self) {
        if !self.arrived {
            self.embedder.inner.queue.withdraw();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // At most the batch that runs: libtorch must not be unloaded under it.
            let _ = thread.join();
        }
    }
}

/// What a request wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Vector,
    Cells,
}

struct Request {
    want: Want,
    input: ModelInput,
    deadline: Instant,
    asked: Instant,
    reply: oneshot::Sender<Result<Embedded>>,
}

impl Request {
    fn is_dead(&self, now: Instant) -> bool {
        self.deadline <= now || self.reply.is_closed()
    }
}

/// A bounded queue that knows which of its requests nobody waits for, so that these never fill it.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    queue_max: usize,
    metrics: Arc<Metrics>,
}

struct State {
    batcher: Batcher<Request>,
    /// Images announced that have neither arrived nor been given up.
    coming: usize,
    open: bool,
}

impl Queue {
    fn new(settings: BatchSettings, metrics: Arc<Metrics>) -> Self {
        let batcher = Batcher::new(settings.batch_max, Duration::from_micros(settings.wait_us_max));
        Self {
            state: Mutex::new(State {
                batcher,
                coming: 0,
                open: true,
            }),
            changed: Condvar::new(),
            queue_max: settings.queue_max.max(1),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an announced request.
    fn push(&self, request: Request) -> Result<()> {
        let mut state = self.lock();
        state.coming -= 1;
        if state.batcher.len() >= self.queue_max {
            self.metrics
                .dropped(state.batcher.purge(|waiting| waiting.is_dead(request.asked)));
        }
        if state.batcher.len() >= self.queue_max {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("the model is busy: {} images are waiting", self.queue_max),
            ));
        }
        let asked = request.asked;
        state.batcher.push(request, asked);
        // Not under the lock, for which the thread would wake only to wait.
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// An announced request does not come: nobody has to wait for it.
    fn withdraw(&self) {
        self.lock().coming -= 1;
        self.changed.notify_one();
    }

    /// Blocks until a batch is ready; none when the queue is closed.
    fn next_batch(&self) -> Option<Vec<Request>> {
        let mut state = self.lock();
        while state.open {
            let now = Instant::now();
            let coming = state.coming > 0;
            let (next, dropped) = state.batcher.next(now, coming, |request| request.is_dead(now));
            self.metrics.dropped(dropped);
            state = match next {
                Next::Batch(batch) => return Some(batch),
                Next::Idle => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Next::WaitUntil(at) => {
                    let wait = at.saturating_duration_since(now);
                    self.changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        None
    }

    fn close(&self) {
        self.lock().open = false;
        self.changed.notify_all();
    }
}

/// A batch: those that want vectors in one call of the model, then those that want cells too. Whatever it does, each request gets an answer and the
/// thread goes on.
fn run_batch(backend: &mut dyn Backend, batch: Vec<Request>) {
    let size = batch.len();
    let (vectors, cells): (Vec<_>, Vec<_>) = batch.into_iter().partition(|request| request.want == Want::Vector);
    run_alike(backend, vectors, size, embed_checked);
    let with_cells = backend.card().cells.is_some();
    run_alike(
        backend,
        cells,
        size,
        if with_cells { cells_checked } else { embed_checked },
    );
}

/// A vector for each input, with its cells if those were wanted.
type Outputs = Vec<(Vec<f32>, Option<Cells>)>;

fn run_alike(
    backend: &mut dyn Backend,
    requests: Vec<Request>,
    batch: usize,
    run: fn(&mut dyn Backend, &[ModelInput]) -> Result<Outputs>,
) {
    if requests.is_empty() {
        return;
    }
    let begun = Instant::now();
    let (inputs, replies): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .map(|request| (request.input, (request.asked, request.reply)))
        .unzip();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(backend, &inputs)))
        .unwrap_or_else(|_| Err(Error::internal("the model panicked")));
    let model = begun.elapsed();
    match outcome {
        Ok(outputs) => {
            for ((asked, reply), (raw, cells)) in replies.into_iter().zip(outputs) {
                let queue = begun.saturating_duration_since(asked);
                // A caller that has gone meanwhile needs no answer.
                let _ = reply.send(Ok(Embedded {
                    raw,
                    cells,
                    queue,
                    model,
                    batch,
                }));
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::error!(batch = inputs.len(), error = %error, cause, "the model failed");
            for (_, reply) in replies {
                let _ = reply.send(Err(Error::new(
                    ErrorKind::Unavailable,
                    "the model failed on this batch",
                )));
            }
        }
    }
}

/// [`Backend::embed`] with its promise checked: one vector of the card's dimension for each input.
fn embed_checked(backend: &mut dyn Backend, inputs: &[ModelInput]) -> Result<Outputs> {
    let vectors = backend.embed(inputs)?;
    checked(backend, inputs, vectors.into_iter().map(|raw| (raw, None)).collect())
}

/// [`Backend::cells`] with the same promise checked; cells are not made without being checked.
fn cells_checked(backend: &mut dyn Backend, inputs: &[ModelInput]) -> Result<Outputs> {
    let both = backend.cells(inputs)?;
    checked(
        backend,
        inputs,
        both.into_iter().map(|(raw, cells)| (raw, Some(cells))).collect(),
    )
}

fn checked(backend: &dyn Backend, inputs: &[ModelInput], outputs: Outputs) -> Result<Outputs> {
    let dimension = backend.card().dimension;
    if outputs.len() != inputs.len() || outputs.iter().any(|(raw, _)| raw.len() != dimension) {
        return Err(Error::internal(format!(
            "the model gave {} vectors, {} of {dimension} components were expected",
            outputs.len(),
            inputs.len()
        )));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::ThumbnailBackend;
    use std::sync::mpsc;

    /// The thumbnail embedder behind a gate: it notes each batch and waits for leave to run it. The first pixel of an image tells what to do.
    struct Gated {
        inner: ThumbnailBackend,
        begun: mpsc::Sender<usize>,
        go: mpsc::Receiver<()>,
    }

    const PANIC: u8 = 1;
    const FAIL: u8 = 2;
    const SHORT: u8 = 3;

    impl Backend for Gated {
        fn card(&self) -> &ModelCard {
            self.inner.card()
        }
        fn provenance(&self) -> RowsProvenance {
            self.inner.provenance()
        }
        fn embed(&mut self, inputs: &[ModelInput]) -> Result<Vec<Vec<f32>>> {
            self.begun.send(inputs.len()).unwrap();
            self.go.recv().unwrap();
            match inputs[0].pixels[0] {
                PANIC => panic!("a wrong index in a backend, say"),
                FAIL => Err(Error::internal("out of memory")),
                SHORT => Ok(vec![vec![0.0; 3]; inputs.len()]),
                _ => self.inner.embed(inputs),
            }
        }
    }

    struct Bench {
        embedder: Embedder,
        metrics: Arc<Metrics>,
        begun: mpsc::Receiver<usize>,
        go: mpsc::Sender<()>,
    }

    impl Bench {
        fn new(batch_max: usize, queue_max: usize) -> Self {
            let (begun_tx, begun) = mpsc::channel();
            let (go, go_rx) = mpsc::channel();
            let backend = Gated {
                inner: ThumbnailBackend::default(),
                begun: begun_tx,
                go: go_rx,
            };
            let settings = BatchSettings {
                batch_max,
                wait_us_max: 0,
                queue_max,
            };
            let metrics = Arc::new(Metrics::new().unwrap());
            Self {
                embedder: Embedder::spawn(Box::new(backend), settings, Arc::clone(&metrics)).unwrap(),
                metrics,
                begun,
                go,
            }
        }

        fn ask(&self, first: u8, within: Duration) -> tokio::task::JoinHandle<Result<Embedded>> {
            let embedder = self.embedder.clone();
            tokio::spawn(async move { embed(embedder.announce(), input(first), Instant::now() + within).await })
        }

        fn announce(&self) -> Announced {
            self.embedder.announce()
        }

        async fn waiting(&self, depth: usize) {
            while self.embedder.queue_depth() != depth {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }

        fn batch_begun(&self) -> usize {
            self.begun.recv_timeout(Duration::from_secs(10)).unwrap()
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn embed(coming: Announced, input: ModelInput, deadline: Instant) -> Result<Embedded> {
        coming.send(input, deadline)?.wait().await
    }

    fn input(first: u8) -> ModelInput {
        let mut pixels: Vec<u8> = (0..32 * 32 * 3).map(|i| (i % 251) as u8).collect();
        pixels[0] = first;
        ModelInput {
            width: 32,
            height: 32,
            pixels,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_refuses_at_once() {
        let bench = Bench::new(4, 3);
        let running = bench.ask(10, LONG);
        assert_eq!(bench.batch_begun(), 1);
        let waiting: Vec<_> = (11..14).map(|i| bench.ask(i, LONG)).collect();
        bench.waiting(3).await;
        let refused = bench.ask(14, LONG).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        bench.go.send(()).unwrap();
        bench.go.send(()).unwrap();
        assert_eq!(running.await.unwrap().unwrap().batch, 1);
        for task in waiting {
            assert_eq!(task.await.unwrap().unwrap().batch, 3);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_waits_for_never_reaches_the_model() {
        let bench = Bench::new(8, 4);
        let running = bench.ask(10, LONG);
        assert_eq!(bench.batch_begun(), 1);
        let gone: Vec<_> = (11..14).map(|i| bench.ask(i, LONG)).collect();
        let late = bench.ask(14, Duration::from_millis(50));
        bench.waiting(4).await;
        gone.iter().for_each(tokio::task::JoinHandle::abort);
        for task in gone {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert_eq!(late.await.unwrap().unwrap_err().kind(), ErrorKind::Deadline);
        // The dead fill the queue no more: this one finds a place.
        let kept = bench.ask(15, LONG);
        bench.waiting(1).await;
        bench.go.send(()).unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(bench.batch_begun(), 1);
        bench.go.send(()).unwrap();
        assert_eq!(kept.await.unwrap().unwrap().batch, 1);
        let text = bench.metrics.text().unwrap();
        assert!(text.contains("medsearch_queue_dropped_total 4"), "{text}");
        assert!(text.contains("medsearch_batch_size_count 2"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_or_an_error_costs_one_batch() {
        let bench = Bench::new(8, 8);
        for fault in [PANIC, FAIL, SHORT] {
            let task = bench.ask(fault, LONG);
            bench.batch_begun();
            bench.go.send(()).unwrap();
            assert_eq!(task.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let task = bench.ask(10, LONG);
        bench.batch_begun();
        bench.go.send(()).unwrap();
        let embedded = task.await.unwrap().unwrap();
        assert_eq!(
            embedded.raw,
            ThumbnailBackend::default().embed(&[input(10)]).unwrap()[0]
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_idle_model_waits_only_for_what_was_announced() {
        let settings = BatchSettings {
            batch_max: 8,
            wait_us_max: 60_000_000,
            queue_max: 8,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let embedder = Embedder::spawn(Box::new(ThumbnailBackend::default()), settings, metrics).unwrap();
        let lone = embed(embedder.announce(), input(1), Instant::now() + LONG).await;
        assert_eq!(lone.unwrap().batch, 1);

        let (first, second) = (embedder.announce(), embedder.announce());
        let broken = embedder.announce();
        let first = tokio::spawn(embed(first, input(1), Instant::now() + LONG));
        while embedder.queue_depth() != 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = tokio::spawn(embed(second, input(2), Instant::now() + LONG));
        while embedder.queue_depth() != 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(broken);
        for task in [first, second] {
            assert_eq!(task.await.unwrap().unwrap().batch, 2);
        }
    }

    #[tokio::test]
    async fn a_past_deadline_and_a_wrong_size_are_refused_before_the_queue() {
        let bench = Bench::new(8, 8);
        let late = embed(bench.announce(), input(10), Instant::now()).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Deadline);
        let small = ModelInput {
            width: 1,
            height: 1,
            pixels: vec![0; 3],
        };
        assert_eq!(
            embed(bench.announce(), small, Instant::now() + LONG)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );
        assert_eq!(bench.embedder.queue_depth(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_wants_cells_of_a_model_without_them_gets_the_vector() {
        let bench = Bench::new(8, 8);
        let running = bench.ask(10, LONG);
        bench.batch_begun();
        let plain = bench.ask(11, LONG);
        let cells = bench
            .announce()
            .send_for_cells(input(12), Instant::now() + LONG)
            .unwrap();
        bench.waiting(2).await;
        (0..3).for_each(|_| bench.go.send(()).unwrap());
        running.await.unwrap().unwrap();
        let embedded = cells.wait().await.unwrap();
        assert_eq!((embedded.cells, embedded.batch), (None, 2));
        assert_eq!(
            embedded.raw,
            ThumbnailBackend::default().embed(&[input(12)]).unwrap()[0]
        );
        assert_eq!(plain.await.unwrap().unwrap().batch, 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everyone_gets_their_own_vector() {
        let settings = BatchSettings {
            batch_max: 7,
            wait_us_max: 500,
            queue_max: 256,
        };
        let embedder = Embedder::spawn(
            Box::new(ThumbnailBackend::default()),
            settings,
            Arc::new(Metrics::new().unwrap()),
        )
        .unwrap();
        let tasks: Vec<_> = (0..200u8)
            .map(|i| {
                let embedder = embedder.clone();
                tokio::spawn(async move {
                    (
                        i,
                        embed(embedder.announce(), input(i), Instant::now() + LONG)
                            .await
                            .unwrap(),
                    )
                })
            })
            .collect();
        let mut alone = ThumbnailBackend::default();
        for task in tasks {
            let (i, embedded) = task.await.unwrap();
            assert!(embedded.batch <= 7);
            assert_eq!(embedded.raw, alone.embed(&[input(i)]).unwrap()[0]);
        }
    }
}
