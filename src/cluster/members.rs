//! Who is there: discovery again and again, and each replica asked how it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::sync::watch;

use super::fan_out::HEDGES_FIRST;
use super::peer::{PLACED_FOR, Peer};
use super::placement::Place;
use super::wire::{STATUS_PATH, Status, WIRE, WIRE_OLDEST};
use super::{Discovery, Held};
use crate::bounded::{self, Unread};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::tls::{self, Identity, Port, TlsFiles};

/// Time between two looks at where replicas are.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time between two rounds of asking.
const EVERY: Duration = Duration::from_millis(500);
/// Longest time for a replica to say how it is.
pub const STATUS_MAX: Duration = Duration::from_secs(1);
/// A round does not wait longer for one that is slow to say: the others are asked again meanwhile.
const ROUND_MAX: Duration = Duration::from_millis(100);
/// Longest time to connect: replicas are near each other.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// At the start nobody is placed before the members have been the same for so long.
const SETTLED_FOR: Duration = Duration::from_secs(2);
/// Most bytes of a status: some hundred shards in some dozen versions.
const STATUS_BYTES_MAX: usize = 8 << 20;

/// What decides how a replica takes part.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// How replicas find each other.
    pub discovery: Discovery,
    /// This one's name in placement; the same again after a restart.
    pub replica: String,
    /// The cluster's credential.
    pub key: String,
    /// Replicas that hold each shard, at least.
    pub replication_factor: usize,
    /// Memory for shards; none: enough for everything.
    pub bytes_max: Option<u64>,
    /// By which certificate this replica is known, and by which authority it knows the others; none: they speak without TLS.
    pub tls: Option<TlsFiles>,
}

/// A replica and what it can hold, for placement.
pub type Member = Place;

/// This replica's view of its cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    settings: ClusterSettings,
    archive: String,
    instance: String,
    client: reqwest::Client,
    peers: ArcSwap<Vec<Arc<Peer>>>,
    /// Goes up with every round.
    rounds: watch::Sender<u64>,
    /// The members, and since when these.
    members: Mutex<(Vec<Member>, Instant)>,
    draining: AtomicBool,
    /// Hedges that may be made, in thousandths.
    hedges: AtomicI64,
    tls: Option<Arc<Identity>>,
    metrics: Arc<Metrics>,
}

impl Cluster {
    /// Takes part in the cluster of an archive from when [`Cluster::follow`] runs.
    ///
    /// # Errors
    /// `InvalidRequest` for a credential that can't be sent, addresses of others that do not fit the files of TLS, or files that hold no certificate;
    /// `Unavailable` for files that can't be read; `Internal` when no client can be made.
    pub fn new(settings: ClusterSettings, archive: String, metrics: Arc<Metrics>) -> Result<Self> {
        let unfit = |_| {
            Error::new(
                ErrorKind::InvalidRequest,
                "the cluster's credential can't be sent in a header",
            )
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", settings.key)).map_err(unfit)?;
        bearer.set_sensitive(true);
        settings.discovery.check_scheme(settings.tls.is_some())?;
        // The client is built with TLS for the sake of archives in buckets, and wants to know whose.
        tls::use_ring();
        let tls = settings.tls.clone();
        let tls = tls
            .map(|files| Identity::open(Port::Inner, files, &metrics))
            .transpose()?;
        let mut client = reqwest::Client::builder();
        if let Some(identity) = &tls {
            let config = tls::peer_client(identity, settings.discovery.name())?;
            client = client.tls_backend_preconfigured(config).https_only(true);
        }
        let client = client
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            // Between replicas there is no proxy, whatever the environment says.
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Error::with_source(ErrorKind::Internal, "no client for other replicas", error))?;
        Ok(Self(Arc::new(Inner {
            instance: uuid::Uuid::new_v4().to_string(),
            archive,
            client,
            peers: ArcSwap::default(),
            rounds: watch::channel(0).0,
            members: Mutex::new((vec![], Instant::now())),
            draining: AtomicBool::new(false),
            hedges: AtomicI64::new(HEDGES_FIRST),
            tls,
            metrics,
            settings,
        })))
    }

    /// Asks who is there and how they are, twice a second, for as long as the program runs.
    pub async fn follow(self) {
        let (found, addresses) = watch::channel(BTreeSet::new());
        tokio::spawn(look(self.0.settings.discovery.clone(), self.0.tls.is_some(), found));
        if let Some(identity) = &self.0.tls {
            tokio::spawn(Arc::clone(identity).follow(Arc::clone(&self.0.metrics)));
        }
        loop {
            let known = addresses.borrow().clone();
            self.round(&known).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn round(&self, addresses: &BTreeSet<String>) {
        let held: BTreeMap<String, Arc<Peer>> = (self.0.peers.load().iter())
            .map(|peer| (peer.address.clone(), Arc::clone(peer)))
            .collect();
        let of = |address: &String| match held.get(address) {
            Some(peer) => Arc::clone(peer),
            None => Arc::new(Peer::new(address.clone())),
        };
        let now = Instant::now();
        let mut peers: Vec<Arc<Peer>> = addresses.iter().map(of).collect();
        // Out of DNS, as when it is about to stop, but it still answers: it may hold what nobody else has.
        let leaving = held
            .values()
            .filter(|peer| !addresses.contains(&peer.address) && peer.routed(now).is_some());
        peers.extend(leaving.cloned());
        self.0.peers.store(Arc::new(peers.clone()));
        let asked = peers.into_iter().filter(|peer| peer.ask(now)).map(|peer| {
            let cluster = self.clone();
            tokio::spawn(async move {
                let has_said = cluster.ask(&peer).await;
                peer.was_asked(has_said, Instant::now());
            })
        });
        // Who is late is heard all the same.
        let _ = tokio::time::timeout(ROUND_MAX, join_all(asked)).await;
        self.count_members();
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Whether it said how it is.
    async fn ask(&self, peer: &Peer) -> bool {
        let said = self.status_of(&peer.address).await;
        let has_said = said.is_ok();
        match said {
            Ok(status) if status.archive == self.0.archive => peer.heard(status, Instant::now()),
            Ok(_) => tracing::debug!("a replica serves another archive and is no peer"),
            Err(error) => tracing::debug!(error = %error, "a replica does not say how it is"),
        }
        has_said
    }

    async fn status_of(&self, address: &str) -> Result<Status> {
        let failed = |error: reqwest::Error| {
            // The address of a replica is no secret, but its URL adds nothing.
            Error::with_source(ErrorKind::Unavailable, "no status", error.without_url())
        };
        let request = self.0.client.get(format!("{address}{STATUS_PATH}")).timeout(STATUS_MAX);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let body = bounded(answer.map_err(failed)?, STATUS_BYTES_MAX).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, "a status that can't be read", error))
    }

    fn count_members(&self) {
        let now = Instant::now();
        let mut members: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for status in self
            .0
            .peers
            .load()
            .iter()
            .filter_map(|peer| peer.status(PLACED_FOR, now))
        {
            if !status.draining && status.is_understood() {
                members.insert(status.replica.clone(), status.bytes_max);
            }
        }
        if !self.is_draining() {
            members.insert(self.0.settings.replica.clone(), self.0.settings.bytes_max);
        }
        let place = |(replica, bytes_max)| Place { replica, bytes_max };
        let members: Vec<Member> = members.into_iter().map(place).collect();
        let mut known = self.0.members.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != members {
            tracing::info!(replicas = members.len(), "the members of the cluster are others");
            *known = (members, now);
        }
        let peers = self.0.peers.load();
        let others = || peers.iter().filter(|peer| !self.is_self(peer, now));
        let alive = others().filter(|peer| peer.routed(now).is_some()).count();
        let ejected = others().filter(|peer| peer.is_ejected(now)).count();
        let slow = others().filter(|peer| peer.is_slow(now)).count();
        self.0.metrics.peers(others().count(), alive, ejected, slow);
    }

    /// The members, this replica among them, once they have been the same for a moment.
    pub fn members(&self) -> Option<Vec<Member>> {
        let known = self.0.members.lock().unwrap_or_else(PoisonError::into_inner);
        (!known.0.is_empty() && known.1.elapsed() >= SETTLED_FOR).then(|| known.0.clone())
    }

    /// Changes after every round of asking.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.0.rounds.subscribe()
    }

    /// What this replica says of itself, in these versions.
    pub fn status(&self, held: Vec<Held>) -> Status {
        Status {
            wire: WIRE,
            wire_oldest: WIRE_OLDEST,
            instance: self.0.instance.clone(),
            replica: self.0.settings.replica.clone(),
            archive: self.0.archive.clone(),
            draining: self.is_draining(),
            bytes_max: self.0.settings.bytes_max,
            held,
        }
    }

    /// From now on others are asked rather than this one, which still answers.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// How this replica takes part.
    pub fn settings(&self) -> &ClusterSettings {
        &self.0.settings
    }

    /// Id of the archive.
    pub fn archive(&self) -> &str {
        &self.0.archive
    }

    /// Where calls are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The other replicas that can be asked, with what they said.
    pub fn peers(&self) -> Vec<(Arc<Peer>, Arc<Status>)> {
        let now = Instant::now();
        let peers = self.0.peers.load();
        let others = peers
            .iter()
            .filter_map(|peer| Some((Arc::clone(peer), peer.routed(now)?)));
        others
            .filter(|(_, status)| status.instance != self.0.instance)
            .collect()
    }

    /// By which certificate this replica is known to others, if they speak by TLS.
    pub fn tls(&self) -> Option<&Arc<Identity>> {
        self.0.tls.as_ref()
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.0.client
    }

    pub(super) fn hedges(&self) -> &AtomicI64 {
        &self.0.hedges
    }

    /// Whether this replica is about to stop.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    fn is_self(&self, peer: &Peer, now: Instant) -> bool {
        peer.routed(now)
            .is_some_and(|status| status.instance == self.0.instance)
    }
}

/// Looks where replicas are, again and again: in a task of its own, so that a DNS that hangs does not keep anyone from asking those who are known. The last
/// good list stays.
async fn look(discovery: Discovery, by_tls: bool, found: watch::Sender<BTreeSet<String>>) {
    let mut failing = false;
    while !found.is_closed() {
        match discovery.addresses(by_tls).await {
            Ok(addresses) => {
                failing = false;
                if !addresses.is_empty() {
                    found.send_replace(addresses);
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = %error, "replicas can't be looked up; those known are asked");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A body of at most so many bytes.
pub(super) async fn bounded(answer: reqwest::Response, bytes_max: usize) -> Result<Bytes> {
    bounded::body(answer, bytes_max).await.map_err(|unread| match unread {
        Unread::TooLarge => Error::new(ErrorKind::Unavailable, "an answer that is too long"),
        Unread::Broken(error) => Error::with_source(ErrorKind::Unavailable, "an answer that breaks off", error),
    })
}
