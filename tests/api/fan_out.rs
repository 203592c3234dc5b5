//! One query to replicas that are slow, silent, broken or wrong: what the others do about it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::{Data, Json};
use actix_web::{App, HttpResponse, HttpServer};
use medsearch::cluster::wire::{
    SEARCH_PATH, STATUS_PATH, ShardAnswer, ShardQuery, ShardRanking, Status, WIRE, WIRE_OLDEST,
};
use medsearch::cluster::{Cluster, ClusterSettings, Discovery, FannedOut, Held};
use medsearch::domain::{Ask, Embedding, Query, Ranking};
use medsearch::metrics::Metrics;

const ARCHIVE: &str = "archive";
const SHARD: u32 = 3;
/// Held by one replica alone, which is quick.
const OTHER_SHARD: u32 = 5;
/// Far more than a call on this machine takes, and far less than what is slow here.
const QUICK: Duration = Duration::from_millis(250);
const SLOW_MS: u64 = 800;
/// Calls before a test begins, and those of the test about hedges.
const CALLS_FIRST: usize = 100;
const CALLS: usize = 60;

/// What a fake replica does when it is asked.
#[derive(Clone, Copy, Default)]
enum Does {
    #[default]
    Answers,
    Fails,
    /// It has another version.
    Declines,
    /// Rankings of a shard that nobody asked for.
    AnswersAnother,
    /// Something that is no answer.
    Babbles,
    Hangs,
}

#[derive(Default)]
struct Fake {
    does: std::sync::Mutex<Does>,
    delay_ms: AtomicU64,
    /// Of its answer about itself.
    status_delay_ms: AtomicU64,
    /// It does not hold the version yet.
    is_behind: AtomicBool,
    asked: AtomicUsize,
    /// How often it said how it is.
    said: AtomicUsize,
    name: String,
    shard: u32,
}

impl Fake {
    fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn status(fake: Data<Fake>) -> Json<Status> {
    tokio::time::sleep(Duration::from_millis(fake.status_delay_ms.load(Ordering::SeqCst))).await;
    fake.said.fetch_add(1, Ordering::SeqCst);
    Json(Status {
        wire: WIRE,
        wire_oldest: WIRE_OLDEST,
        instance: fake.name.clone(),
        replica: fake.name.clone(),
        archive: ARCHIVE.into(),
        draining: false,
        bytes_max: None,
        held: vec![Held {
            version: u64::from(!fake.is_behind.load(Ordering::SeqCst)),
            commit: "commit".into(),
            shards: BTreeSet::from([fake.shard]),
        }],
    })
}

async fn search(fake: Data<Fake>, question: Json<ShardQuery>) -> HttpResponse {
    fake.asked.fetch_add(1, Ordering::SeqCst);
    let does = *fake.does.lock().unwrap();
    tokio::time::sleep(Duration::from_millis(fake.delay_ms.load(Ordering::SeqCst))).await;
    let of = |shard| {
        HttpResponse::Ok().json(ShardAnswer {
            rankings: vec![ShardRanking::new(shard, &Ranking::default())],
        })
    };
    assert!(question.shards.iter().eq([&fake.shard]));
    match does {
        Does::Answers => of(fake.shard),
        Does::AnswersAnother => of(fake.shard + 1),
        Does::Fails => HttpResponse::InternalServerError().finish(),
        Does::Declines => HttpResponse::Conflict().finish(),
        Does::Babbles => HttpResponse::Ok().body("{\"rankings\": 7}"),
        Does::Hangs => std::future::pending().await,
    }
}

/// A cluster of ours, two fakes that hold the shard, and one that holds another.
struct Stage {
    cluster: Cluster,
    fakes: [Data<Fake>; 2],
}

impl Stage {
    async fn new() -> Self {
        let mut addresses = Vec::new();
        let fakes = [("a", SHARD), ("b", SHARD), ("c", OTHER_SHARD)].map(|(name, shard)| {
            Data::new(Fake {
                name: name.into(),
                shard,
                ..Fake::default()
            })
        });
        for fake in &fakes {
            let fake = fake.clone();
            let app = move || {
                App::new()
                    .app_data(fake.clone())
                    .route(STATUS_PATH, actix_web::web::get().to(status))
                    .route(SEARCH_PATH, actix_web::web::post().to(search))
                    // What we send says no content type.
                    .app_data(actix_web::web::JsonConfig::default().content_type_required(false))
            };
            let server = HttpServer::new(app).workers(1).bind("127.0.0.1:0").unwrap();
            addresses.push(format!("http://{}", server.addrs()[0]));
            actix_web::rt::spawn(server.run());
        }
        let settings = ClusterSettings {
            discovery: addresses.join(",").parse::<Discovery>().unwrap(),
            replica: "self".into(),
            key: "a key of some length".into(),
            replication_factor: 2,
            bytes_max: None,
            tls: None,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let cluster = Cluster::new(settings, ARCHIVE.into(), metrics).unwrap();
        tokio::spawn(cluster.clone().follow());
        let began = Instant::now();
        while cluster.peers().len() < fakes.len() {
            assert!(began.elapsed() < Duration::from_secs(10), "the fakes are not heard of");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let [a, b, _] = fakes;
        let stage = Self { cluster, fakes: [a, b] };
        // What is usual is known after some.
        for _ in 0..CALLS_FIRST {
            let answer = stage.ask_for(OTHER_SHARD, Duration::from_secs(5)).await;
            assert!(answer.missing.is_empty());
        }
        stage
    }

    /// The answer, and how long it took.
    async fn ask(&self, time: Duration) -> (FannedOut, Duration) {
        let began = Instant::now();
        (self.ask_for(SHARD, time).await, began.elapsed())
    }

    async fn ask_for(&self, shard: u32, time: Duration) -> FannedOut {
        let query = Query::of(Embedding::from_raw(&[1.0, 0.0], 2).unwrap());
        let question = ShardQuery::new(ARCHIVE, 1, "commit", &query, &Ask::default());
        let deadline = Instant::now() + time;
        self.cluster
            .fan_out(&question, &BTreeSet::from([shard]), deadline)
            .await
    }

    /// Until a fake has said twice how it is: what it is now is known.
    async fn heard(&self, fake: usize) {
        let said = || self.fakes[fake].said.load(Ordering::SeqCst);
        let (before, began) = (said(), Instant::now());
        while said() < before + 2 {
            assert!(began.elapsed() < Duration::from_secs(10), "it is not asked how it is");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it costs to ask a fake now.
    fn cost(&self, fake: usize) -> f64 {
        let (peers, name) = (self.cluster.peers(), &self.fakes[fake].name);
        let (peer, _) = peers.iter().find(|(_, status)| status.replica == *name).unwrap();
        peer.cost(Instant::now())
    }

    /// Calls so far.
    fn asked(&self) -> usize {
        self.fakes.iter().map(|fake| fake.asked()).sum()
    }
}

#[actix_web::test]
async fn what_fails_is_asked_of_another_once() {
    let stage = Stage::new().await;
    for does in [Does::Fails, Does::Declines, Does::AnswersAnother, Does::Babbles] {
        // Whichever is asked first, each in turn.
        for broken in 0..2 {
            stage.fakes[broken].does(does);
            stage.fakes[1 - broken].does(Does::Answers);
            for _ in 0..4 {
                let (answer, _) = stage.ask(Duration::from_secs(5)).await;
                assert!(answer.missing.is_empty());
                assert_eq!(answer.rankings.len(), 1);
                assert_eq!(answer.rankings[0].shard, SHARD);
            }
        }
        // Both: the shard is missing, and nobody was asked twice.
        stage.fakes.iter().for_each(|fake| fake.does(does));
        let before = stage.asked();
        let (answer, took) = stage.ask(Duration::from_secs(5)).await;
        assert_eq!(answer.missing, BTreeSet::from([SHARD]));
        assert_eq!(stage.asked() - before, 2);
        assert!(took < Duration::from_secs(4), "it does not wait for the deadline");
        stage.fakes.iter().for_each(|fake| fake.does(Does::Answers));
        // Who was ejected is asked where nobody else is there.
        assert!(stage.ask(Duration::from_secs(5)).await.0.missing.is_empty());
    }
}

#[actix_web::test]
async fn who_says_a_moment_later_that_it_holds_a_shard_is_asked_then() {
    let stage = Stage::new().await;
    stage.fakes[1].is_behind.store(true, Ordering::SeqCst);
    stage.heard(1).await;
    // The only one that is known to hold the shard breaks, or hangs.
    for does in [Does::Fails, Does::Hangs] {
        stage.fakes[0].does(does);
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stage.fakes[1].is_behind.store(false, Ordering::SeqCst);
        };
        let ((answer, took), ()) = tokio::join!(stage.ask(Duration::from_secs(10)), late);
        assert!(answer.missing.is_empty());
        assert!(took < Duration::from_secs(4), "{took:?}");
        stage.fakes[1].is_behind.store(true, Ordering::SeqCst);
        stage.heard(1).await;
    }
    // Nobody comes: the shard is missing, after a moment.
    stage.fakes[0].does(Does::Fails);
    let (answer, took) = stage.ask(Duration::from_secs(10)).await;
    assert_eq!(answer.missing, BTreeSet::from([SHARD]));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[actix_web::test]
async fn one_that_is_slow_to_say_how_it_is_keeps_nobody_and_is_asked_where_nobody_else_is() {
    let stage = Stage::new().await;
    stage.fakes[0].status_delay_ms.store(900, Ordering::SeqCst);
    let before = stage.fakes[1].said.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let said = stage.fakes[1].said.load(Ordering::SeqCst) - before;
    assert!(said >= 5, "asked {said} times in four seconds, twice a second is usual");
    // It is heard, if late.
    assert_eq!(stage.cluster.peers().len(), 3);
    let before = stage.fakes[0].asked();
    for _ in 0..20 {
        assert!(stage.ask(Duration::from_secs(5)).await.0.missing.is_empty());
    }
    let asked = stage.fakes[0].asked() - before;
    assert!(asked <= 2, "asked {asked} times of 20, hedges alone may have been");
    stage.fakes[1].does(Does::Fails);
    assert!(stage.ask(Duration::from_secs(5)).await.0.missing.is_empty());
}

#[actix_web::test]
async fn a_slow_one_gets_company_and_is_then_left_alone() {
    let mut overtaken = 0;
    for _ in 0..2 {
        let stage = Stage::new().await;
        // What a busy machine takes for slow costs hedges, too.
        for _ in 0..2 * CALLS_FIRST {
            stage.ask_for(OTHER_SHARD, Duration::from_secs(5)).await;
        }
        // The one that is asked next, which a status may change in this very moment: it was the quicker one to say how it is.
        let slow = usize::from(stage.cost(1) < stage.cost(0));
        stage.fakes[slow].delay_ms.store(SLOW_MS, Ordering::SeqCst);
        let before = stage.fakes[slow].asked();
        for _ in 0..8 {
            let (answer, took) = stage.ask(Duration::from_secs(5)).await;
            assert!(answer.missing.is_empty());
            assert!(took < QUICK, "{took:?}");
        }
        assert!(
            stage.fakes[slow].asked() - before <= 2,
            "one that was slow is not asked next"
        );
        // What became of the call that a hedge overtook is known, too.
        tokio::time::sleep(Duration::from_millis(SLOW_MS)).await;
        if stage.fakes[slow].asked() > before {
            overtaken += 1;
            assert!(stage.cost(slow) > SLOW_MS as f64 / 2000.0);
        }
    }
    assert!(overtaken > 0, "the slow one was never asked");
}

#[actix_web::test]
async fn one_call_in_twenty_is_a_hedge_at_most() {
    let stage = Stage::new().await;
    let before = stage.asked();
    // Each of these would have a hedge, if that were free: both are far slower than the third.
    stage
        .fakes
        .iter()
        .for_each(|fake| fake.delay_ms.store(60, Ordering::SeqCst));
    for _ in 0..CALLS {
        assert!(stage.ask(Duration::from_secs(5)).await.0.missing.is_empty());
    }
    let hedges = stage.asked() - before - CALLS;
    // Five to begin with, and one for twenty calls.
    let most = 5 + (CALLS_FIRST + CALLS) / 20;
    assert!((5..=most).contains(&hedges), "{hedges} hedges, {most} at most");
}

#[actix_web::test]
async fn nobody_waits_longer_than_the_deadline() {
    let stage = Stage::new().await;
    stage.fakes.iter().for_each(|fake| fake.does(Does::Hangs));
    let (answer, took) = stage.ask(Duration::from_millis(700)).await;
    assert_eq!(answer.missing, BTreeSet::from([SHARD]));
    assert!(
        (Duration::from_millis(650)..Duration::from_millis(1500)).contains(&took),
        "{took:?}"
    );
    // One of them is back: it is asked, though both were silent.
    stage.fakes[1].does(Does::Answers);
    let (answer, _) = stage.ask(Duration::from_secs(5)).await;
    assert!(answer.missing.is_empty());
}
