//! Which images a request is about: its endpoint names them, beside the task that answers, so that no endpoint has to carry anything for it. Without an audit
//! nothing happens.

use std::cell::RefCell;
use std::rc::Rc;

use crate::audit::{Audit, Digest, Event};
use crate::domain::ImageId;

tokio::task_local! {
    static CURRENT: Touched;
}

/// What the endpoint of one request names.
#[derive(Clone)]
pub struct Touched(Rc<Inner>);

struct Inner {
    audit: Audit,
    named: RefCell<Named>,
}

#[derive(Default)]
struct Named {
    asked: Vec<ImageId>,
    images: Vec<ImageId>,
    count: Option<u64>,
    query: Option<Digest>,
    pacs: Option<String>,
    reference: Option<Digest>,
    patient: Option<String>,
    version: Option<u64>,
}

/// What a query consists of: a vector is never the same query as a file of the same bytes.
#[derive(Debug, Clone, Copy)]
pub enum Query {
    /// Files.
    Image,
    /// A vector.
    Vector,
    /// Names of patients, studies, series and instances.
    Names,
}

impl Query {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Image => b"image",
            Self::Vector => b"vector",
            Self::Names => b"names",
        }
    }
}

impl Touched {
    /// Nothing yet.
    pub fn new(audit: Audit) -> Self {
        Self(Rc::new(Inner {
            audit,
            named: RefCell::default(),
        }))
    }

    /// What runs in it names its images here.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    fn digest(&self, query: Query, parts: &[&[u8]]) -> Digest {
        let parts: Vec<&[u8]> = std::iter::once(query.name()).chain(parts.iter().copied()).collect();
        self.0.audit.digest(&parts)
    }

    /// What was named, as part of an event.
    pub fn put_into(&self, event: &mut Event) {
        let named = self.0.named.take();
        event.asked = named.asked;
        event.images = named.images;
        event.count = named.count;
        event.query = named.query;
        event.pacs = named.pacs;
        event.reference = named.reference;
        event.patient = named.patient;
        event.version = named.version;
    }
}

fn name(what: impl FnOnce(&mut Named)) {
    // Without an audit there is none.
    let _ = CURRENT.try_with(|touched| what(&mut touched.0.named.borrow_mut()));
}

fn add(to: &mut Vec<ImageId>, ids: impl IntoIterator<Item = ImageId>) {
    for id in ids {
        if !to.contains(&id) {
            to.push(id);
        }
    }
}

/// Images that the request names.
pub fn asked_about(ids: impl IntoIterator<Item = ImageId>) {
    name(|named| add(&mut named.asked, ids));
}

/// Images that the answer names, or that are changed or looked at.
pub fn images(ids: impl IntoIterator<Item = ImageId>) {
    name(|named| add(&mut named.images, ids));
}

/// How many of what is not named.
pub fn count(count: usize) {
    name(|named| named.count = u64::try_from(count).ok());
}

/// The query. Its digest says whether two are equal, and nothing more.
pub fn query(query: Query, parts: &[&[u8]]) {
    let _ = CURRENT.try_with(|touched| {
        let digest = touched.digest(query, parts);
        touched.0.named.borrow_mut().query = Some(digest);
    });
}

/// What is fetched from a PACS for it.
pub fn reference(pacs: &str, parts: &[&[u8]]) {
    let _ = CURRENT.try_with(|touched| {
        let digest = touched.digest(Query::Names, parts);
        let mut named = touched.0.named.borrow_mut();
        (named.pacs, named.reference) = (Some(pacs.to_owned()), Some(digest));
    });
}

/// The pseudonym of the patient that it is about.
pub fn patient(pseudonym: String) {
    name(|named| named.patient = Some(pseudonym));
}

/// The version that answers, or that a change is in.
pub fn version(version: u64) {
    name(|named| named.version = Some(version));
}
