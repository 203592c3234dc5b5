//! The trace of a request: taken up, begun, and told to the replicas that are asked.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use medsearch::app::Replica;
use medsearch::archive::Archive;
use medsearch::cluster::ClusterSettings;
use medsearch::cluster::wire::{SEARCH_PATH, STATUS_PATH};
use medsearch::telemetry::trace_parent::TraceParent;
use reqwest::Response;
use serde_json::json;
use tempfile::TempDir;

use crate::archive::secret;
use crate::cluster::{INNER_KEY, Node, SHARDS, eventually, free_port, index_bytes, make};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a question to another replica says about its trace: all headers `traceparent`, and all `tracestate`.
type Heard = [Vec<String>; 2];

/// A replica that says that it holds everything, keeps how it was asked, and has no answer.
struct Witness {
    address: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Witness {
    async fn start(folder: &TempDir) -> Self {
        let url = folder.path().join("archive").display().to_string();
        let manifest = Archive::open(&url, secret()).await.unwrap().latest().await.unwrap();
        let shards: Vec<u32> = (0..SHARDS).collect();
        let status = json!({
            "wire": 1, "wire_oldest": 1, "instance": "witness", "replica": "witness", "archive": manifest.archive.id,
            "draining": false, "bytes_max": null,
            "held": [{"version": manifest.version, "commit": manifest.commit, "shards": shards}],
        });
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let keeps = Arc::clone(&heard);
        let server = HttpServer::new(move || {
            let (status, keeps) = (status.clone(), Arc::clone(&keeps));
            let says = move || std::future::ready(HttpResponse::Ok().json(&status));
            let declines = move |request: HttpRequest, _: web::Bytes| {
                let all = |name: &str| {
                    let values = request.headers().get_all(name);
                    values.map(|value| value.to_str().unwrap().to_owned()).collect()
                };
                keeps.lock().unwrap().push([all("traceparent"), all("tracestate")]);
                std::future::ready(HttpResponse::PreconditionFailed().finish())
            };
            App::new()
                .route(STATUS_PATH, web::get().to(says))
                .route(SEARCH_PATH, web::post().to(declines))
        });
        actix_web::rt::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
        Self { address, heard }
    }

    /// The one question since the last time.
    fn heard(&self) -> (TraceParent, Vec<String>) {
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        assert_eq!(heard.len(), 1);
        let [parents, states] = heard.remove(0);
        assert_eq!(parents.len(), 1);
        (TraceParent::parse(parents[0].as_bytes()).unwrap(), states)
    }
}

/// The trace and the server's own span, as the answer says.
fn told(response: &Response) -> TraceParent {
    let timings = response.headers().get_all("server-timing").iter();
    let told: Vec<&str> = timings
        .filter_map(|timing| {
            timing
                .to_str()
                .unwrap()
                .strip_prefix("traceparent;desc=\"")?
                .strip_suffix('"')
        })
        .collect();
    assert_eq!(told.len(), 1);
    TraceParent::parse(told[0].as_bytes()).unwrap()
}

#[actix_web::test]
async fn replicas_that_are_asked_hear_the_trace_of_the_request() {
    let (folder, ids) = make().await;
    let witness = Witness::start(&folder).await;
    let inner = free_port();
    let settings = ClusterSettings {
        discovery: format!("{},http://127.0.0.1:{inner}", witness.address).parse().unwrap(),
        replica: "replica-0".into(),
        key: INNER_KEY.into(),
        replication_factor: 2,
        bytes_max: Some(index_bytes(&folder).await / 2),
        tls: None,
    };
    let inner_listen = ([127, 0, 0, 1], inner).into();
    let node = Node::start(&folder, Some(Replica { inner_listen, settings })).await;
    let body = json!({"ids": [ids[0]], "allow_partial": true});
    eventually("the other replica is asked", async || {
        node.post("/v1/search/by-id", &body).await;
        !witness.heard.lock().unwrap().is_empty()
    })
    .await;
    witness.heard.lock().unwrap().clear();

    let ask = async |headers: &[(&str, &str)]| {
        let url = format!("http://127.0.0.1:{}/v1/search/by-id", node.port);
        let request = node.client.post(url).json(&body);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let (heard, states) = witness.heard();
        (told(&response), heard, states)
    };

    let mut spans = vec![TraceParent::parse(PARENT.as_bytes()).unwrap().span_id()];
    for _ in 0..2 {
        let (told, heard, states) = ask(&[("traceparent", PARENT), ("tracestate", "a=1 , b=2")]).await;
        for parent in [told, heard] {
            assert_eq!(hex::encode(parent.trace_id()), TRACE);
            assert!(parent.is_sampled(), "the caller's choice is handed on");
            spans.push(parent.span_id());
        }
        assert_eq!(states, ["a=1 , b=2"], "unchanged");
    }
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 5, "each request and each call is a span of its own");

    let (_, heard, states) = ask(&[
        ("traceparent", &PARENT.replace("-01", "-00")),
        ("tracestate", &"a".repeat(513)),
    ])
    .await;
    assert_eq!(
        (hex::encode(heard.trace_id()).as_str(), heard.is_sampled()),
        (TRACE, false)
    );
    assert!(states.is_empty(), "too long");

    let upper = PARENT.to_uppercase();
    let mut begun = vec![];
    for headers in [
        &[("tracestate", "a=1")][..],
        &[("traceparent", upper.as_str()), ("tracestate", "a=1")],
        &[("traceparent", PARENT), ("traceparent", PARENT)],
    ] {
        let (told, heard, states) = ask(headers).await;
        assert_eq!(told.trace_id(), heard.trace_id());
        assert_ne!(hex::encode(heard.trace_id()), TRACE);
        assert!(
            !heard.is_sampled() && states.is_empty(),
            "nobody records it, and a state goes with a trace"
        );
        begun.push(heard.trace_id());
    }
    begun.dedup();
    assert_eq!(begun.len(), 3, "each begins its own");
}
