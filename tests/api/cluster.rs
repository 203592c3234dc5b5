//! Three replicas over one archive, none of which holds all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::{Data, Json, JsonConfig, get, post};
use actix_web::{HttpResponse, HttpServer};
use medsearch::app::{App, Replica, Settings};
use medsearch::archive::{Archive, IdentityMode, NewArchive, NewImage, NewModel, Retention, RowsProvenance};
use medsearch::cluster::peer::ROUTED_FOR;
use medsearch::cluster::wire::{
    SEARCH_PATH, STATUS_PATH, ShardAnswer, ShardQuery, ShardRanking, Status, WIRE, WIRE_OLDEST,
};
use medsearch::cluster::{ClusterSettings, Discovery, Held};
use medsearch::domain::{ClassLabel, ImageId, Ranking, Record};
use medsearch::embed::{ModelCard, load_backend};
use medsearch::index::IndexSettings;
use medsearch::ingest::build::graph_builder;
use medsearch::metrics::Metrics;
use medsearch::search::{Holding, Served};
use medsearch::tls::{Identity, Port, TlsFiles, peer_client};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archive::secret;
use crate::certificates::Authority;
use crate::harness::problem;

const ROWS: u32 = 1200;
pub const SHARDS: u32 = 8;
const CLASSES: [&str; 4] = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"];
/// So few that every class of a shard has a graph.
const EXACT_ROWS_MAX: usize = 10;
pub const INNER_KEY: &str = "a-key-of-replicas-in-tests";
/// What a cluster needs to see that one of it is gone.
const PATIENCE: Duration = Duration::from_secs(40);

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Vectors in clouds by class, every seventh equal to an earlier one; patients with several images; pixels that two patients have, which lie in two shards.
fn images(archive: &Archive, dimension: usize) -> Vec<NewImage> {
    let identity = archive.identity();
    let mut dice = Dice(1);
    let mut vectors: Vec<Vec<f32>> = Vec::new();
    let mut images: Vec<NewImage> = Vec::new();
    for number in 0..ROWS {
        let class = (number % 4) as usize;
        let vector = match number % 7 {
            0 if number > 0 => vectors[dice.below(u64::from(number)) as usize].clone(),
            _ => (0..dimension)
                .map(|at| dice.unit() + if at % 4 == class { 0.4 } else { 0.0 })
                .collect(),
        };
        let digest = |number: u32| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            digest
        };
        let patient = identity.patient_key(None, &format!("patient {}", number / 2));
        let id = identity.image_id(patient, &digest(number));
        // Every eleventh shows what the one eleven before it does.
        let pixels = if number % 11 == 0 && number > 0 {
            number - 11
        } else {
            number
        };
        let record = Record {
            class: Some(ClassLabel::parse(CLASSES[class]).unwrap()),
            patient,
            pixel_key: Some(identity.pixel_key(&digest(pixels))),
            source: Some(format!("site {}", number % 3)),
            ..Record::bare(id, identity.file_key(&digest(number)), "2026-01-01T00:00:00Z")
        };
        vectors.push(vector.clone());
        images.push(NewImage {
            record,
            vector,
            space: ModelCard::thumbnail().space().id(),
            thumbnail: None,
            pixels: None,
            provenance: RowsProvenance {
                precision: "f32".into(),
                device: "cpu".into(),
                engine: "test".into(),
            },
        });
    }
    images
}

/// An archive of eight shards, and ids of its images.
pub async fn make() -> (TempDir, Vec<ImageId>) {
    let folder = tempfile::tempdir().unwrap();
    let backend = load_backend(None, "cpu").unwrap();
    let card = backend.card();
    let new = NewArchive {
        name: "cluster".into(),
        demo: false,
        synthetic: false,
        licence: None,
        identity: IdentityMode::Anonymous,
        retention: Retention::Thumbnail,
        scope: Default::default(),
        shown: Default::default(),
        space: card.space(),
        precisions: vec!["f32".into()],
        shards: SHARDS,
        model: Some(NewModel {
            card: serde_json::to_value(card).unwrap(),
            torchscript: None,
        }),
    };
    let url = folder.path().join("archive").display().to_string();
    let archive = Archive::create(&url, new, secret()).await.unwrap();
    let images = images(&archive, card.space().dimension);
    let ids = images.iter().map(|image| image.record.id).collect();
    let settings = IndexSettings::default().with_exact_rows_max(Some(EXACT_ROWS_MAX));
    archive.append(images, Some(graph_builder(settings))).await.unwrap();
    (folder, ids)
}

/// Memory of all shards, as replicas count it.
pub async fn index_bytes(folder: &TempDir) -> u64 {
    let url = folder.path().join("archive").display().to_string();
    let archive = Archive::open(&url, secret()).await.unwrap();
    let manifest = archive.latest().await.unwrap();
    let rows: u64 = manifest.rows.iter().map(|entry| entry.rows).sum();
    let graphs: u64 = manifest.graphs.iter().map(|entry| entry.bytes).sum();
    rows * manifest.space.dimension as u64 * 4 + graphs
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A replica, or a server that is alone.
pub struct Node {
    pub port: u16,
    pub client: Client,
    handle: ServerHandle,
}

impl Node {
    pub async fn start(folder: &TempDir, cluster: Option<Replica>) -> Self {
        let url = folder.path().join("archive").display().to_string();
        let settings = Settings {
            program: PathBuf::from(env!("CARGO_BIN_EXE_medsearch")),
            exact_rows_max: Some(EXACT_ROWS_MAX),
            cluster,
            ..Settings::local(url, secret())
        };
        let app = App::build(settings).await.unwrap();
        let (port, handle) = (app.address().port(), app.handle());
        actix_web::rt::spawn(app.run_until_stopped());
        let client = Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()
            .unwrap();
        Self { port, client, handle }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        self.client.post(url).json(body).send().await.unwrap()
    }

    async fn search(&self, body: &Value) -> Value {
        let response = self.post("/v1/search/by-id", body).await;
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Sum of a series over its labels.
    async fn counted(&self, series: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let values = text.lines().filter(|line| line.starts_with(series));
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Three replicas, each with memory for six of eight shards at most.
struct Cluster {
    folder: TempDir,
    ids: Vec<ImageId>,
    peers: String,
    bytes_max: u64,
    inner: Vec<u16>,
    tls: Option<TlsFiles>,
    nodes: Vec<Node>,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_by(None).await
    }

    /// One whose replicas ask each other by TLS, with these files.
    async fn start_by(tls: Option<TlsFiles>) -> Self {
        let (folder, ids) = make().await;
        let bytes_max = index_bytes(&folder).await * 65 / 80;
        let inner: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let addresses: Vec<String> = inner
            .iter()
            .map(|port| format!("{scheme}://127.0.0.1:{port}"))
            .collect();
        let mut cluster = Self {
            folder,
            ids,
            peers: addresses.join(","),
            bytes_max,
            inner,
            tls,
            nodes: vec![],
        };
        let nodes = (0..3).map(|at| cluster.node(at));
        cluster.nodes = futures_util::future::join_all(nodes).await;
        cluster.whole().await;
        cluster
    }

    async fn node(&self, at: usize) -> Node {
        let settings = ClusterSettings {
            discovery: self.peers.parse::<Discovery>().unwrap(),
            replica: format!("replica-{at}"),
            key: INNER_KEY.into(),
            replication_factor: 2,
            bytes_max: Some(self.bytes_max),
            tls: self.tls.clone(),
        };
        let inner_listen = ([127, 0, 0, 1], self.inner[at]).into();
        Node::start(&self.folder, Some(Replica { inner_listen, settings })).await
    }

    /// Waits until every replica knows of a holder of every shard.
    async fn whole(&self) {
        for node in &self.nodes {
            eventually("all shards are held", async || {
                let answer = node.post("/v1/search/by-id", &json!({"ids": [self.ids[0]]})).await;
                answer.status() == 200
            })
            .await;
        }
    }
}

pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        actix_web::rt::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The options of query `number`: filters, exclusions, all ways to show copies.
fn ask(number: u64, ids: &[ImageId], exact: bool) -> Value {
    let mut dice = Dice(number);
    let mut body = json!({
        "ids": [dice.one(ids)],
        "k": 1 + dice.below(30),
        "exact": exact,
        "vote": dice.one(&["majority", "distance", "prior"]),
        "near_identical": dice.one(&["collapse", "keep"]),
    });
    if dice.below(3) == 0 {
        body["classes"] = json!([dice.one(&CLASSES), dice.one(&CLASSES)]);
    }
    if dice.below(3) == 0 {
        body["sources"] = json!([format!("site {}", dice.below(3))]);
    }
    if dice.below(4) == 0 {
        body["exclude"] = json!([dice.one(&["patient", "study", "pixels"])]);
    }
    if dice.below(5) == 0 {
        body["liked"] = json!([dice.one(ids)]);
    }
    body
}

/// All that an answer says but how long it took.
fn said(mut answer: Value) -> String {
    answer.as_object_mut().unwrap().remove("timings_ms");
    answer.to_string()
}

#[actix_web::test]
async fn replicas_together_answer_as_one_machine_does_and_say_what_they_lack() {
    let mut cluster = Cluster::start().await;
    let alone = Node::start(&cluster.folder, None).await;

    // An image and a patient less, and a label more: fresh rows and dead ones in every shard's way.
    let writer = &cluster.nodes[1];
    let mut version = 0;
    for at in [3, 500, 801] {
        let url = format!("http://127.0.0.1:{}/v1/images/{}", writer.port, cluster.ids[at]);
        let deleted: Value = writer.client.delete(url).send().await.unwrap().json().await.unwrap();
        version = deleted["version"].as_u64().unwrap();
    }
    let url = format!("http://127.0.0.1:{}/v1/images/{}", writer.port, cluster.ids[42]);
    let relabelled = writer
        .client
        .patch(url)
        .json(&json!({"class": "Normal"}))
        .send()
        .await
        .unwrap();
    version = relabelled.json::<Value>().await.unwrap()["version"]
        .as_u64()
        .unwrap()
        .max(version);
    let gone: BTreeSet<ImageId> = [3, 500, 801].map(|at| cluster.ids[at]).into();
    let known: Vec<ImageId> = cluster.ids.iter().copied().filter(|id| !gone.contains(id)).collect();

    for number in 0..150 {
        let mut body = ask(number, &known, number % 3 != 0);
        body["min_version"] = json!(version);
        let wanted = alone.search(&body).await;
        let found = cluster.nodes[number as usize % 3].search(&body).await;
        // Also where graphs are walked: they are the same objects wherever they are loaded.
        assert_eq!(said(found), said(wanted), "query {number}: {body}");
    }
    for node in &cluster.nodes {
        assert!(
            node.counted("medsearch_shard_requests_total{outcome=\"answered\"")
                .await
                > 20.0
        );
        assert!(node.counted("medsearch_shards{state=\"held\"").await <= 6.0);
        assert!(node.counted("medsearch_shards{state=\"assigned\"").await >= 4.0);
    }

    // One gone: every shard still has a holder.
    let last = cluster.nodes.pop().unwrap();
    last.handle.stop(false).await;
    for number in 0..30 {
        let body = ask(number, &known, true);
        let found = cluster.nodes[number as usize % 2].search(&body).await;
        assert_eq!(said(found), said(alone.search(&body).await), "query {number}");
    }

    // Two gone, and no room for all: named, or left out when that is allowed.
    let second = cluster.nodes.pop().unwrap();
    second.handle.stop(false).await;
    let body = json!({"ids": [known[7]], "exact": true});
    let node = &cluster.nodes[0];
    eventually("it is seen that a shard is missing", async || {
        node.post("/v1/search/by-id", &body).await.status() == 503
    })
    .await;
    let (_, slug, refused) = problem(node.post("/v1/search/by-id", &body).await).await;
    assert_eq!(slug, "shards-missing");
    let mut partial = body.clone();
    partial["allow_partial"] = json!(true);
    let answer = node.search(&partial).await;
    let missing: Vec<String> = (answer["coverage"]["missing"].as_array().unwrap().iter())
        .map(Value::to_string)
        .collect();
    assert!(!missing.is_empty());
    assert!(
        refused.detail.contains(&format!("shards: {};", missing.join(", "))),
        "{}",
        refused.detail
    );
    assert_eq!(answer["coverage"]["answered"], json!(8 - missing.len()));
    assert_eq!(answer["suggestion"]["calibration"]["valid"], json!(false));
    let url = format!("http://127.0.0.1:{}/readyz", node.port);
    assert_eq!(
        node.client.get(url).send().await.unwrap().status(),
        200,
        "readiness does not depend on others"
    );

    // One comes back: whole again.
    cluster.nodes.push(cluster.node(1).await);
    let found = async |node: &Node| {
        let answer = node.post("/v1/search/by-id", &body).await;
        answer.status() == 200
    };
    for node in &cluster.nodes {
        eventually("the cluster is whole again", async || found(node).await).await;
        assert_eq!(said(node.search(&body).await), said(alone.search(&body).await));
    }
}

#[actix_web::test]
async fn what_a_replica_has_just_given_up_it_still_answers_for_while_others_may_not_know() {
    let (folder, _) = make().await;
    let url = folder.path().join("archive").display().to_string();
    let archive = Archive::open(&url, secret()).await.unwrap();
    let holding = |shards: &[u32]| Holding::Shards(shards.iter().copied().collect());
    let served = Served::open(archive, IndexSettings::default(), holding(&[0, 1]), None)
        .await
        .unwrap();
    let (number, commit) = {
        let version = served.current();
        (version.number(), version.state.manifest.commit.clone())
    };
    let answers_for = |shards: &[u32]| {
        let asked: BTreeSet<u32> = shards.iter().copied().collect();
        let version = served.that_holds(number, &commit, &asked);
        version.map(|version| version.held.intersection(&asked).copied().collect::<Vec<_>>())
    };
    served.hold(holding(&[1, 2])).await.unwrap();
    // That is what others hear, and believe some seconds later.
    let said: Vec<_> = (served.versions().iter())
        .map(|version| version.held.iter().copied().collect::<Vec<_>>())
        .collect();
    assert_eq!(said, [vec![1, 2]]);
    assert_eq!(answers_for(&[0]), Some(vec![0]));
    assert_eq!(answers_for(&[0, 1]), Some(vec![0, 1]));
    assert_eq!(answers_for(&[2, 3]), Some(vec![2]));
    assert_eq!(answers_for(&[3]), None);
    assert!(
        served
            .that_holds(number, "another commit", &BTreeSet::from([1]))
            .is_none()
    );
    assert_eq!(served.given_up(), BTreeSet::from([0]));
    // And not for long, whether the archive can be asked or not: its memory is wanted back.
    let began = Instant::now();
    eventually("it is let go", async || {
        served.forget_old();
        answers_for(&[0]).is_none()
    })
    .await;
    assert!(began.elapsed() > ROUTED_FOR, "sooner than others may have heard of it");
    assert!(served.given_up().is_empty());
    assert_eq!(answers_for(&[0, 1]), Some(vec![1]));
}

/// A replica that says what it is told to say, and answers nothing or with nothing.
struct Fake {
    name: &'static str,
    archive: String,
    bytes_max: u64,
    held: Mutex<Vec<Held>>,
    answers: bool,
    /// Versions that it was asked for.
    asked: Mutex<Vec<u64>>,
}

impl Fake {
    fn start(name: &'static str, archive: &str, bytes_max: u64, answers: bool) -> (String, Data<Self>) {
        let fake = Data::new(Self {
            name,
            archive: archive.to_owned(),
            bytes_max,
            held: Mutex::default(),
            answers,
            asked: Mutex::default(),
        });
        let shared = fake.clone();
        let app = move || {
            actix_web::App::new()
                .app_data(shared.clone())
                .app_data(JsonConfig::default().content_type_required(false))
                .route(STATUS_PATH, get().to(fake_status))
                .route(SEARCH_PATH, post().to(fake_search))
        };
        let server = HttpServer::new(app).workers(1).bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        (url, fake)
    }

    fn says(&self, version: u64, commit: &str) {
        *self.held.lock().unwrap() = vec![Held {
            version,
            commit: commit.to_owned(),
            shards: (0..SHARDS).collect(),
        }];
    }
}

async fn fake_status(fake: Data<Fake>) -> Json<Status> {
    Json(Status {
        wire: WIRE,
        wire_oldest: WIRE_OLDEST,
        instance: fake.name.into(),
        replica: fake.name.into(),
        archive: fake.archive.clone(),
        draining: false,
        bytes_max: Some(fake.bytes_max),
        held: fake.held.lock().unwrap().clone(),
    })
}

async fn fake_search(fake: Data<Fake>, question: Json<ShardQuery>) -> HttpResponse {
    fake.asked.lock().unwrap().push(question.version);
    if !fake.answers {
        return HttpResponse::InternalServerError().finish();
    }
    let nothing = |&shard: &u32| ShardRanking::new(shard, &Ranking::default());
    HttpResponse::Ok().json(ShardAnswer {
        rankings: question.shards.iter().map(nothing).collect(),
    })
}

/// A replica among `peers`, with room for so much.
async fn node_among(folder: &TempDir, mut peers: Vec<String>, bytes_max: u64) -> Node {
    let inner = free_port();
    peers.push(format!("http://127.0.0.1:{inner}"));
    let settings = ClusterSettings {
        discovery: peers.join(",").parse::<Discovery>().unwrap(),
        replica: "this".into(),
        key: INNER_KEY.into(),
        replication_factor: 2,
        bytes_max: Some(bytes_max),
        tls: None,
    };
    let inner_listen = ([127, 0, 0, 1], inner).into();
    Node::start(folder, Some(Replica { inner_listen, settings })).await
}

/// Images that the archive does not have, of nobody, each with its own pixels.
fn others(archive: &Archive, dimension: usize, count: usize) -> Vec<NewImage> {
    let identity = archive.identity();
    let mut images = images(archive, dimension);
    images.truncate(count);
    for (number, image) in images.iter_mut().enumerate() {
        let mut digest = [9; 32];
        digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
        image.record.patient = None;
        image.record.pixel_key = None;
        image.record.file_key = identity.file_key(&digest);
        image.record.id = identity.image_id(None, &digest);
    }
    images
}

#[actix_web::test]
async fn where_the_only_holder_of_a_version_fails_another_version_answers() {
    let (folder, ids) = make().await;
    let url = folder.path().join("archive").display().to_string();
    let archive = Archive::open(&url, secret()).await.unwrap();
    let first = archive.latest().await.unwrap();
    let (broken, breaks) = Fake::start("breaks", &first.archive.id, 1 << 40, false);
    let (sound, answers) = Fake::start("answers", &first.archive.id, 1 << 40, true);
    breaks.says(first.version, &first.commit);
    answers.says(first.version, &first.commit);
    let node = node_among(&folder, vec![broken, sound], index_bytes(&folder).await / 2).await;

    // One more version, which only the one that breaks has: the other goes from the one before to the one after.
    let new = others(&archive, first.space.dimension, 1);
    let second = archive.append(new, None).await.unwrap().version;
    breaks.says(second, &archive.latest().await.unwrap().commit);
    let was_asked = || breaks.asked.lock().unwrap().contains(&second);
    let began = Instant::now();
    while !was_asked() {
        assert!(began.elapsed() < PATIENCE, "nobody asked for the second version");
        let answer = node.search(&json!({"ids": [ids[0]], "k": 5})).await;
        assert_eq!(answer["archive"]["version"], first.version);
        assert_eq!(answer["coverage"]["missing"], json!([]));
        actix_web::rt::time::sleep(Duration::from_millis(50)).await;
    }
    // Unless that is older than what is asked for.
    let asked = json!({"ids": [ids[0]], "k": 5, "min_version": second});
    let refused = node.post("/v1/search/by-id", &asked).await;
    assert_eq!(problem(refused).await.1, "shards-missing");
}

#[actix_web::test]
async fn what_is_deleted_is_in_no_answer_of_an_older_version_either() {
    let (folder, ids) = make().await;
    let url = folder.path().join("archive").display().to_string();
    let archive = Archive::open(&url, secret()).await.unwrap();
    let first = archive.latest().await.unwrap();
    // Nobody has room for what the archive grows by, so that once it is cut into other shards no version of these is whole.
    let (nobody, _) = Fake::start("without room", &first.archive.id, 0, true);
    let node = node_among(&folder, vec![nobody], index_bytes(&folder).await).await;
    let more = others(&archive, first.space.dimension, ROWS as usize);
    let grown = archive.append(more, None).await.unwrap().version;
    let ask = json!({"ids": [ids[0]], "k": 20, "exact": true});
    eventually("it has grown", async || {
        node.search(&ask).await["archive"]["version"] == grown
    })
    .await;
    archive.reshard(2 * SHARDS, None).await.unwrap();

    let before = node.search(&ask).await;
    let image = before["neighbors"][3]["id"].as_str().unwrap().to_owned();
    let shows_it = |answer: &Value| {
        let neighbors = answer["neighbors"].as_array().unwrap();
        neighbors.iter().any(|neighbor| neighbor["id"] == image)
    };
    assert!(shows_it(&before));
    let path = format!("http://127.0.0.1:{}/v1/images/{image}", node.port);
    let deleted = node.client.delete(path).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    eventually("it is not shown any more", async || {
        let answer = node.search(&ask).await;
        assert_eq!(
            answer["archive"]["version"], grown,
            "of the old shards, all of which are here"
        );
        !shows_it(&answer)
    })
    .await;
}

#[actix_web::test]
async fn the_inner_port_answers_replicas_of_the_cluster_alone() {
    let cluster = Cluster::start().await;
    let client = Client::builder().no_proxy().build().unwrap();
    let base = format!("http://127.0.0.1:{}", cluster.inner[0]);
    let status = |key: Option<&'static str>| {
        let request = client.get(format!("{base}/inner/v1/status"));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        async move { request.send().await.unwrap() }
    };
    assert_eq!(status(None).await.status(), 401);
    assert_eq!(status(Some("a-key-of-somebody-else")).await.status(), 401);
    let known: Value = status(Some(INNER_KEY)).await.json().await.unwrap();
    assert_eq!((&known["wire"], &known["replica"]), (&json!(1), &json!("replica-0")));

    let post = |body: Value, key: &'static str| {
        let request = client
            .post(format!("{base}/inner/v1/search"))
            .bearer_auth(key)
            .json(&body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let held = &known["held"][0];
    let unit: Vec<u8> = (0..1024)
        .flat_map(|at| (if at == 0 { 1f32 } else { 0.0 }).to_le_bytes())
        .collect();
    let question = json!({
        "wire": 1, "archive": known["archive"], "version": held["version"], "commit": held["commit"],
        "shards": [held["shards"][0]], "deadline_ms": 5000,
        "embedding": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, unit),
        "patients": [], "studies": [], "same_pixels": [], "k": 5, "classes": null, "sources": null,
        "exclude_sources": [], "exclude": ["patient"], "one_per": "picture", "exact": true,
    });
    let changed = |field: &str, value: Value| {
        let mut body = question.clone();
        body[field] = value;
        body
    };
    assert_eq!(post(question.clone(), INNER_KEY).await, 200);
    assert_eq!(post(question.clone(), "a-key-of-somebody-else").await, 401);
    assert_eq!(post(changed("version", json!(99)), INNER_KEY).await, 412);
    assert_eq!(post(changed("shards", json!([99])), INNER_KEY).await, 412);
    // Of several shards those that are here are answered: who asks goes on with the others elsewhere.
    let some = changed("shards", json!([held["shards"][0], 99]));
    let answer = client
        .post(format!("{base}/inner/v1/search"))
        .bearer_auth(INNER_KEY)
        .json(&some);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let rankings = answer["rankings"].as_array().unwrap();
    assert_eq!(rankings.len(), 1);
    assert_eq!(rankings[0]["shard"], held["shards"][0]);
    assert_eq!(post(changed("archive", json!("another")), INNER_KEY).await, 400);
    assert_eq!(post(changed("wire", json!(99)), INNER_KEY).await, 400);
    assert_eq!(post(changed("embedding", json!("AACAPw==")), INNER_KEY).await, 400);
    assert_eq!(post(json!({}), INNER_KEY).await, 400);
    // Nothing of it on the public port.
    let public = format!("http://127.0.0.1:{}/inner/v1/status", cluster.nodes[0].port);
    assert_eq!(
        client.get(public).bearer_auth(INNER_KEY).send().await.unwrap().status(),
        404
    );
}

#[actix_web::test]
async fn replicas_that_know_each_other_by_an_authority_search_together_and_answer_nobody_else() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.write(folder.path(), true);
    let cluster = Cluster::start_by(Some(files.clone())).await;
    let remote: f64 = cluster.nodes[0]
        .counted("medsearch_shard_requests_total{outcome=\"answered\"}")
        .await;
    assert!(remote > 0.0, "others were asked, by TLS");

    let metrics = Metrics::new().unwrap();
    let by_name = |files: &TlsFiles, name: Option<&str>| {
        let identity = Identity::open(Port::Inner, files.clone(), &metrics).unwrap();
        Client::builder().tls_backend_preconfigured(peer_client(&identity, name).unwrap())
    };
    let by = |files: &TlsFiles| by_name(files, None);
    let asks = async |client: reqwest::ClientBuilder, scheme: &str| {
        let url = format!("{scheme}://127.0.0.1:{}{STATUS_PATH}", cluster.inner[0]);
        let asked = client.build().unwrap().get(url).bearer_auth(INNER_KEY).send();
        asked.await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(asks(by(&files), "https").await.unwrap(), 200);
    // As of replicas that DNS finds: asked by address, known by the name that was looked up.
    assert_eq!(asks(by_name(&files, Some("localhost")), "https").await.unwrap(), 200);
    assert!(
        asks(by_name(&files, Some("elsewhere.example")), "https").await.is_err(),
        "a certificate for another name"
    );
    // The credential is there, the certificate is not, or of another authority.
    let believing = || {
        let authority = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
        Client::builder().tls_certs_only([authority])
    };
    assert!(asks(believing(), "https").await.is_err(), "no certificate");
    assert!(asks(Client::builder(), "http").await.is_err(), "no TLS");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::new();
    let strange = other.write(elsewhere.path(), true);
    assert!(
        asks(by(&strange), "https").await.is_err(),
        "it does not believe the replica"
    );
    // One that believes the replica, and is not believed.
    std::fs::write(strange.ca.as_ref().unwrap(), &authority.pem).unwrap();
    assert!(asks(by(&strange), "https").await.is_err(), "it is of another authority");
    // With the certificate and without the credential.
    let url = format!("https://127.0.0.1:{}{STATUS_PATH}", cluster.inner[0]);
    let answer = by(&files).build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 401);

    // Another authority for all, first beside the one before, then alone: nobody is started again.
    let both = format!("{}{}", authority.pem, other.pem);
    std::fs::write(files.ca.as_ref().unwrap(), both).unwrap();
    eventually("the new authority is believed", async || {
        asks(by(&strange), "https").await.is_ok()
    })
    .await;
    let (chain, key) = other.certify();
    std::fs::write(&files.key, key).unwrap();
    std::fs::write(&files.chain, chain).unwrap();
    std::fs::write(files.ca.as_ref().unwrap(), &other.pem).unwrap();
    std::fs::write(strange.ca.as_ref().unwrap(), &other.pem).unwrap();
    eventually("the old authority is believed no more", async || {
        let old = tempfile::tempdir().unwrap();
        let old = authority.write(old.path(), true);
        std::fs::write(old.ca.as_ref().unwrap(), &other.pem).unwrap();
        asks(by(&strange), "https").await.is_ok() && asks(by(&old), "https").await.is_err()
    })
    .await;
    cluster.whole().await;
}
