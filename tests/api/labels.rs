//! Labels that images have when they arrive: by the tags of their file, by the labels file, and what somebody says afterwards.

use std::path::Path;
use std::process::{Command, Output};

use medsearch::archive::{Archive, LabelRules};
use medsearch::domain::Frames;
use serde_json::{Value, json};

use crate::archive::secret;
use crate::cluster::eventually;
use crate::dicom_web::{BEFORE, counted, instance, store, until_images};
use crate::files::Instance;
use crate::harness::{Part, TestApp, spawn_app, spawn_for};

const RULES: &str = r#"
[[rule]]
class = "Normal"
label_source = "report"
modality = ["CR"]
study_description = ["*no finding*"]

[[rule]]
class = "Pneumonia"
study_description = ["*pneumonia*"]
"#;

/// Runs `medsearch labels` on the archive of a server.
fn labels(app: &TestApp, arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medsearch"));
    command.arg("labels").arg("--archive").arg(app.archive_folder());
    command.arg("--secret-file").arg(app.secret_file()).args(arguments);
    command.output().unwrap()
}

/// The same, where it has to succeed: what it printed.
fn done(app: &TestApp, arguments: &[&Path]) -> String {
    let run = labels(app, arguments);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// Gives the archive rules, and waits until the server knows them.
async fn rule(app: &TestApp, rules: &str) {
    let folder = app.archive_folder();
    let file = folder.parent().unwrap().join("rules.toml");
    std::fs::write(&file, rules).unwrap();
    done(app, &[Path::new("--rules"), &file]);
    let archive = Archive::open(folder.to_str().unwrap(), secret()).await.unwrap();
    let version = archive.latest().await.unwrap().version;
    eventually("the rules are served", async || {
        let archive: Value = app.get("/v1/archive").await.json().await.unwrap();
        archive["version"].as_u64().unwrap() >= version
    })
    .await;
}

/// What is known of the image whose file this is.
async fn details(app: &TestApp, file: &[u8]) -> Value {
    let parts = [
        Part::Text("exclude", b"none"),
        Part::Text("k", b"1"),
        Part::File("image", file),
    ];
    let found = app.form("/v1/search", &parts).send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    let nearest = &found["neighbors"][0];
    assert!(nearest["similarity"].as_f64().unwrap() > 0.9999, "{found}");
    let id = nearest["id"].as_str().unwrap();
    app.get(&format!("/v1/images/{id}")).await.json().await.unwrap()
}

/// Class, how it was proven, and what gave it.
async fn label(app: &TestApp, file: &[u8]) -> Value {
    let details = details(app, file).await;
    json!([details["class"], details["label_source"], details["labelled_by"]])
}

fn described<'a>(sop_uid: &'a str, description: &'a str) -> Instance<'a> {
    Instance {
        description,
        ..instance(sop_uid)
    }
}

async fn relabel(app: &TestApp, file: &[u8], class: Value) {
    let id = details(app, file).await["id"].as_str().unwrap().to_owned();
    let patch = app.request("PATCH", &format!("/v1/images/{id}"));
    let patched = patch.json(&json!({"class": class})).send().await.unwrap();
    assert_eq!(patched.status(), 200);
    eventually("the label is served", async || {
        details(app, file).await["class"] == class
    })
    .await;
}

#[actix_web::test]
async fn tags_label_what_arrives_and_what_they_do_not_name_never_votes() {
    let app = spawn_app().await;
    rule(&app, RULES).await;
    let normal = described("1.2.3.1", "Thorax: NO FINDING").file(1);
    let pneumonia = described("1.2.3.2", "Pneumonia?").file(2);
    let other = described("1.2.3.3", "Thorax").file(3);
    let (status, _) = store(&app, &[normal.clone(), pneumonia.clone(), other.clone()]).await;
    assert_eq!(status, 200);
    until_images(&app, BEFORE + 3).await;
    assert_eq!(label(&app, &normal).await, json!(["Normal", "report", "tags"]));
    assert_eq!(label(&app, &pneumonia).await, json!(["Pneumonia", null, "tags"]));
    assert_eq!(label(&app, &other).await, json!([null, null, null]));
    let parts = [
        Part::Text("exclude", b"none"),
        Part::Text("k", b"1"),
        Part::File("image", &other),
    ];
    let found: Value = app
        .form("/v1/search", &parts)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(found["neighbors"][0]["class"], Value::Null);
    assert!(found["suggestion"]["votes"].as_object().unwrap().is_empty(), "{found}");
    let classes: Value = app.get("/v1/classes").await.json().await.unwrap();
    let names = classes["classes"].as_array().unwrap().iter();
    let images = names.map(|class| (class["name"].as_str().unwrap(), class["images"].as_u64().unwrap()));
    assert_eq!(
        images.collect::<Vec<_>>(),
        [("COVID", 8), ("Normal", 9), ("Pneumonia", 1), ("Viral Pneumonia", 8)]
    );

    // Rules are shown as they are given, and nothing of what they looked at is anywhere.
    let shown = done(&app, &[]);
    assert_eq!(LabelRules::parse(&shown).unwrap(), LabelRules::parse(RULES).unwrap());
    for entry in std::fs::read_dir(app.archive_folder().join("rows")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"Thorax"));
    }
    assert_eq!(done(&app, &[Path::new("--remove-rules")]), "rules: 0\n");
    assert_eq!(done(&app, &[]).trim(), "rule = []");
}

#[actix_web::test]
async fn what_somebody_says_survives_what_is_sent_again() {
    let app = spawn_app().await;
    rule(&app, RULES).await;
    let file = described("1.2.3.1", "Pneumonia").file(1);
    store(&app, std::slice::from_ref(&file)).await;
    until_images(&app, BEFORE + 1).await;
    for class in [json!("COVID"), Value::Null, json!("Normal")] {
        relabel(&app, &file, class.clone()).await;
        let (status, _) = store(&app, std::slice::from_ref(&file)).await;
        assert_eq!(status, 202, "it is known");
        // With other bytes, and so embedded again; and the same picture of another study.
        let mut again = described("1.2.3.1", "Pneumonia, corrected");
        again.view = if class.is_null() { "AP" } else { "LL" };
        let elsewhere = Instance {
            study_uid: "1.2.4",
            view: again.view,
            ..described("1.2.4.1", "Pneumonia")
        };
        let embedded = r#"medsearch_inbox_total{outcome="known"}"#;
        let before = counted(&app, embedded).await;
        let (status, _) = store(&app, &[again.file(1), elsewhere.file(1)]).await;
        assert!(status == 200 || status == 202, "{status}");
        if status == 200 {
            eventually("they are embedded", async || {
                counted(&app, embedded).await == before + 2
            })
            .await;
        }
        let details = details(&app, &file).await;
        assert_eq!((&details["class"], &details["label_conflict"]), (&class, &json!(false)));
        assert_eq!(details["labelled_by"], "api");
    }
    until_images(&app, BEFORE + 1).await;
}

#[actix_web::test]
async fn the_labels_file_wins_is_followed_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.csv");
    std::fs::write(
        &path,
        "study_uid,sop_uid,class,label_source\n1.2.3,,COVID,PCR\n,1.2.3.2,Normal,\n",
    )
    .unwrap();
    let app = spawn_for(Frames::First, Some(path.clone())).await;
    rule(&app, RULES).await;
    let file = |sop: &str, study: &str, seed| {
        let of_study = Instance {
            study_uid: study,
            ..described(sop, "pneumonia")
        };
        of_study.file(seed)
    };
    let (by_study, by_instance, by_tag) = (
        file("1.2.3.1", "1.2.3", 1),
        file("1.2.3.2", "1.2.3", 2),
        file("1.2.4.1", "1.2.4", 3),
    );
    store(&app, &[by_study.clone(), by_instance.clone(), by_tag.clone()]).await;
    until_images(&app, BEFORE + 3).await;
    assert_eq!(label(&app, &by_study).await, json!(["COVID", "PCR", "file"]));
    assert_eq!(label(&app, &by_instance).await, json!(["Normal", null, "file"]));
    assert_eq!(label(&app, &by_tag).await, json!(["Pneumonia", null, "tags"]));

    let broken = "medsearch_labels_file_broken";
    assert_eq!(counted(&app, broken).await, 0);
    std::fs::write(&path, "study_uid,class\n1.2.5,\n").unwrap();
    eventually("the file is found broken", async || counted(&app, broken).await == 1).await;
    let kept = file("1.2.3.9", "1.2.3", 4);
    store(&app, std::slice::from_ref(&kept)).await;
    until_images(&app, BEFORE + 4).await;
    assert_eq!(label(&app, &kept).await, json!(["COVID", "PCR", "file"]));

    std::fs::write(&path, "study_uid,class\n1.2.5,Other\n").unwrap();
    eventually("the file is taken over", async || counted(&app, broken).await == 0).await;
    let new = file("1.2.5.1", "1.2.5", 5);
    store(&app, std::slice::from_ref(&new)).await;
    until_images(&app, BEFORE + 5).await;
    assert_eq!(label(&app, &new).await, json!(["Other", null, "file"]));
}

#[actix_web::test]
async fn one_picture_that_is_said_to_show_two_things_is_in_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.csv");
    std::fs::write(&path, "study_uid,class\n1.2.3,COVID\n1.2.4,Normal\n").unwrap();
    let app = spawn_for(Frames::First, Some(path.clone())).await;
    let first = instance("1.2.3.1").file(1);
    store(&app, std::slice::from_ref(&first)).await;
    until_images(&app, BEFORE + 1).await;
    let other = Instance {
        study_uid: "1.2.4",
        ..instance("1.2.4.1")
    };
    store(&app, &[other.file(1)]).await;
    eventually("they meet", async || {
        details(&app, &first).await["label_conflict"] == true
    })
    .await;
    assert_eq!(label(&app, &first).await, json!(["COVID", null, "file"]));
    // The same file once more, on what is there, finds it as it says.
    let said = done(&app, &[Path::new("--apply"), &path]);
    assert_eq!(
        said,
        "1 images matched: 0 changed, 1 had that label, 0 keep what somebody gave them by the API; 0 of 2 UIDs name nothing here\n"
    );
}

#[actix_web::test]
async fn what_is_there_is_labelled_by_the_same_file() {
    let app = spawn_app().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.csv");
    let one = |number: u32| {
        let (study, sop) = (format!("1.2.{number}"), format!("1.2.{number}.1"));
        let one = Instance {
            study_uid: &study,
            ..instance(&sop)
        };
        one.file(number)
    };
    let files: Vec<Vec<u8>> = (1..=3).map(one).collect();
    store(&app, &files).await;
    // The second picture once more, in a study of its own.
    let copy = Instance {
        study_uid: "1.2.9",
        ..instance("1.2.9.1")
    };
    store(&app, &[copy.file(2)]).await;
    until_images(&app, BEFORE + 3).await;
    eventually("the copy is noted", async || {
        let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
            .await
            .unwrap();
        let key = archive.identity().sop_key("1.2.9.1").unwrap();
        let state = medsearch::archive::State::load(&archive).await.unwrap();
        state.by_sop_key(key).next().is_some()
    })
    .await;
    relabel(&app, &files[2], json!("Normal")).await;

    std::fs::write(
        &path,
        "study_uid,class,label_source\n1.2.1,COVID,PCR\n1.2.2,COVID,\n1.2.9,Normal,\n1.2.3,COVID,\n1.2.77,COVID,\n",
    )
    .unwrap();
    let dry = done(&app, &[Path::new("--apply"), &path, Path::new("--dry-run")]);
    let says = |would: &str| {
        format!(
            "3 images matched: 2 {would}changed, 0 had that label, 1 keep what somebody gave them by the API; 1 of 5 UIDs name nothing here\n"
        )
    };
    assert_eq!(dry, says("would be "));
    assert_eq!(label(&app, &files[0]).await, json!([null, null, null]));
    assert_eq!(done(&app, &[Path::new("--apply"), &path]), says(""));
    eventually("the labels are served", async || {
        details(&app, &files[0]).await["class"] == "COVID"
    })
    .await;
    assert_eq!(label(&app, &files[0]).await, json!(["COVID", "PCR", "file"]));
    assert_eq!(details(&app, &files[0]).await["history"].as_array().unwrap().len(), 1);
    assert_eq!(details(&app, &files[1]).await["label_conflict"], true);
    assert_eq!(label(&app, &files[2]).await, json!(["Normal", null, "api"]));
    // Once more changes nothing; when both studies are said to show the same, nothing is disputed.
    let again = done(&app, &[Path::new("--apply"), &path]);
    assert!(
        again.starts_with("3 images matched: 0 changed, 2 had that label, 1 keep"),
        "{again}"
    );
    std::fs::write(&path, "study_uid,class\n1.2.2,Normal\n1.2.9,Normal\n").unwrap();
    let agreed = done(&app, &[Path::new("--apply"), &path]);
    assert!(agreed.starts_with("1 images matched: 1 changed"), "{agreed}");
    eventually("nothing is disputed", async || {
        details(&app, &files[1]).await["label_conflict"] == false
    })
    .await;
    assert_eq!(details(&app, &files[1]).await["class"], "Normal");
}

#[actix_web::test]
async fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let app = spawn_app().await;
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: &str, option: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let run = labels(&app, &[Path::new(option), &path]);
        assert_eq!(run.status.code(), Some(1));
        String::from_utf8(run.stderr).unwrap()
    };
    let says = refused(
        "r.toml",
        "[[rule]]\nclass = \"A\"\n\n[[rule]]\nclas = \"B\"\n",
        "--rules",
    );
    assert!(
        says.contains("r.toml") && says.contains("line 5: unknown field `clas`"),
        "{says}"
    );
    let says = refused("l.csv", "study_uid,class\n1.2.99,\n", "--apply");
    assert!(
        says.contains("l.csv") && says.contains("line 2: class name") && !says.contains("1.2.99"),
        "{says}"
    );
    // A server does not begin with such a file.
    let serve = Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .args(["serve", "--listen", "127.0.0.1:0", "--archive"])
        .arg(app.archive_folder())
        .arg("--secret-file")
        .arg(app.secret_file())
        .arg("--labels-file")
        .arg(folder.path().join("l.csv"))
        .output()
        .unwrap();
    let says = String::from_utf8(serve.stderr).unwrap();
    assert!(
        !serve.status.success() && says.contains("line 2: class name") && !says.contains("1.2.99"),
        "{says}"
    );
}
