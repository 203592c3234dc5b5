//! `GET /v1/model/card`, `/v1/archive/datasheet`, each as JSON and, with `.md`, as Markdown: the archive's papers.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Json};
use tokio::sync::Mutex;

use super::wire::EvaluationInfo;
use super::{State, problem};
use crate::error::Result;
use crate::quality::card::{self, Document, Facts, Kept, Subject};
use crate::telemetry::run_blocking;

/// Papers of the version that is served. Made when they are asked for, once a version, by one request at a time: it takes a look at every record.
#[derive(Default)]
pub struct Cards(Mutex<Option<Arc<Papers>>>);

/// What an archive says of itself.
pub struct Papers {
    model_card: Document,
    datasheet: Document,
    /// The kept evaluation in short.
    pub evaluation: Option<EvaluationInfo>,
}

impl State {
    /// The papers of the version that is served.
    ///
    /// # Errors
    /// `Internal`; `Deadline` when the storage takes too long.
    pub(super) async fn papers(&self) -> Result<Arc<Papers>> {
        self.in_time(self.make_papers()).await
    }

    async fn make_papers(&self) -> Result<Arc<Papers>> {
        let parts = self.engine.parts();
        let mut made = self.cards.0.lock().await;
        let version = parts.served.current();
        let manifest = Arc::clone(&version.state.manifest);
        if let Some(papers) = made
            .as_ref()
            .filter(|papers| papers.datasheet.archive_version == manifest.version)
        {
            return Ok(Arc::clone(papers));
        }
        let kept = match &manifest.evaluation {
            Some(entry) => Kept::read(entry, parts.archive.read_evaluation(entry).await),
            None => Kept::No,
        };
        // What could not be read is tried again.
        let keeps = !matches!(kept, Kept::Unreadable);
        let model = version.model()?.embedder.card().clone();
        let papers = run_blocking(move || {
            let facts = Facts::of(&version);
            let subject = Subject {
                manifest: &manifest,
                facts: &facts,
                model: Some(&model),
                calibration: version.calibration().ok().map(|(_, calibration)| calibration),
                kept: &kept,
            };
            let evaluation = manifest.evaluation.as_ref().map(|entry| {
                let caveats = card::caveats(&entry.made, &manifest, &facts.voting);
                EvaluationInfo::new(entry, &kept, caveats)
            });
            Ok(Papers {
                model_card: card::model_card(&subject),
                datasheet: card::datasheet(&subject),
                evaluation,
            })
        });
        let papers = Arc::new(papers.await?);
        *made = keeps.then(|| Arc::clone(&papers));
        Ok(papers)
    }
}

/// What makes the answers, and how good they were found to be: a model card.
#[utoipa::path(
    get,
    path = "/v1/model/card",
    tag = "archive",
    operation_id = "getModelCard",
    responses((status = 200, description = "The model card, section by section", body = Document), problem::ReadingPapers)
)]
pub async fn model_card(state: Data<State>) -> Result<Json<Document>> {
    Ok(Json(state.papers().await?.model_card.clone()))
}

/// The model card as Markdown.
#[utoipa::path(
    get,
    path = "/v1/model/card.md",
    tag = "archive",
    operation_id = "getModelCardMarkdown",
    responses((status = 200, description = "MODEL_CARD.md", body = String, content_type = "text/markdown"), problem::ReadingPapers)
)]
pub async fn model_card_markdown(state: Data<State>) -> Result<HttpResponse> {
    Ok(markdown(&state.papers().await?.model_card))
}

/// What the archive holds and where it comes from: a datasheet.
///
/// Counts only; fewer than five people of an age or a sex are withheld.
#[utoipa::path(
    get,
    path = "/v1/archive/datasheet",
    tag = "archive",
    operation_id = "getDatasheet",
    responses((status = 200, description = "The datasheet, section by section", body = Document), problem::ReadingPapers)
)]
pub async fn datasheet(state: Data<State>) -> Result<Json<Document>> {
    Ok(Json(state.papers().await?.datasheet.clone()))
}

/// The datasheet as Markdown.
#[utoipa::path(
    get,
    path = "/v1/archive/datasheet.md",
    tag = "archive",
    operation_id = "getDatasheetMarkdown",
    responses((status = 200, description = "DATASHEET.md", body = String, content_type = "text/markdown"), problem::ReadingPapers)
)]
pub async fn datasheet_markdown(state: Data<State>) -> Result<HttpResponse> {
    Ok(markdown(&state.papers().await?.datasheet))
}

fn markdown(document: &Document) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/markdown; charset=utf-8"))
        .body(document.markdown())
}
