//! Erasure of a patient.

use super::*;

#[tokio::test]
async fn nothing_of_a_patient_stays_because_of_who_issued_the_id() {
    for mode in [IdentityMode::Anonymous, IdentityMode::Linked] {
        let place = Place::new(mode).await;
        let archive = &place.archive;
        let identity = archive.identity();
        let of = |number: u32, issuer: Option<&str>, patient_id: &str| {
            let keys = identity.patient_keys(issuer, patient_id).unwrap();
            let mut image = image(archive, number, None);
            image.record.patient = Some(keys.patient);
            image.record.patient_id_key = keys.has_issuer().then_some(keys.id);
            image.record.id = identity.image_id(image.record.patient, &[number as u8; 32]);
            Change::Insert(Box::new(image))
        };
        let all = || {
            [
                of(1, Some("Klinikum X"), "4711"),
                of(2, Some("Klinikum Y"), "4711"),
                of(3, None, "4711"),
                of(4, None, "0815"),
            ]
        };
        let cases: [(Option<&str>, usize); 3] = [(None, 3), (Some("KLINIKUM x "), 2), (Some("elsewhere"), 1)];
        for (issuer, images) in cases {
            for first_on_disk in [true, false] {
                let writer = writer(archive).await;
                let patient = identity.patient_keys(issuer, " 4711").unwrap();
                let changes = all()
                    .into_iter()
                    .chain([Change::DeletePatient { patient, waited: false }]);
                let mut done = Vec::new();
                if first_on_disk {
                    for change in changes {
                        done.push(writer.write(change).await.unwrap());
                    }
                } else {
                    // Most of them in the commit that deletes them again.
                    done = futures_util::future::try_join_all(changes.map(|change| writer.write(change)))
                        .await
                        .unwrap();
                }
                assert_eq!(done[4].outcome, Outcome::Deleted { images }, "{issuer:?}");
                let rest = contents(&place.again().await).await;
                assert_eq!(rest.len(), 4 - images);
                for id in rest.into_keys() {
                    writer.write(Change::Delete { id }).await.unwrap();
                }
            }
        }
    }
}
