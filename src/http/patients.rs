//! `POST /v1/patients/delete`: all images of a patient. A POST, so that the id is in no URL.

use actix_web::web::{Data, Json};

use super::wire::{DeletedPatient, PatientToDelete};
use super::{State, audited, problem};
use crate::error::{Error, ErrorKind, Result};

/// Delete all images of a patient.
///
/// Without `issuer` those of this id, whoever issued it. With one those of that issuer, and those that came without any.
#[utoipa::path(
    post,
    path = "/v1/patients/delete",
    tag = "archive",
    operation_id = "deletePatient",
    request_body = PatientToDelete,
    responses((status = 200, description = "They are found no more", body = DeletedPatient), problem::DeletingPatient)
)]
pub async fn delete(state: Data<State>, patient: Json<PatientToDelete>) -> Result<Json<DeletedPatient>> {
    if patient.patient_id.trim().is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, "`patient_id` is empty"));
    }
    let identity = state.engine.parts().archive.identity();
    if let Some(keys) = identity.patient_keys(patient.issuer.as_deref(), &patient.patient_id) {
        audited::patient(identity.pseudonym(keys.patient));
        // Those that this server knows of; how many there were is said exactly.
        audited::images(state.engine.images_of(keys));
    }
    let (deleted, version) = state
        .writer()?
        .delete_patient(&patient.patient_id, patient.issuer.as_deref(), state.deadline())
        .await?;
    audited::count(deleted);
    audited::version(version);
    Ok(Json(DeletedPatient { deleted, version }))
}
