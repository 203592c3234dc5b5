//! The datasheet: the questions of Gebru et al. (Datasheets for Datasets, CACM 64(12), 2021), as far as an archive can answer them.

use super::document::{Document, Section};
use super::facts::Counts;
use super::{NOT_KNOWN, Subject, USE};
use crate::archive::{IdentityMode, Retention};

/// What is in the archive and where it comes from.
pub fn datasheet(subject: &Subject<'_>) -> Document {
    let manifest = subject.manifest;
    Document {
        title: format!("Datasheet of {}", manifest.archive.name),
        lead: format!(
            "What this archive holds, after Gebru et al. (2021), made by {} from version {}. {USE}",
            super::model::program(),
            manifest.version
        ),
        archive_version: manifest.version,
        sections: vec![
            motivation(subject),
            composition(subject),
            people(subject),
            collection(subject),
            preprocessing(subject),
            uses(subject),
            distribution(subject),
            maintenance(subject),
        ],
    }
}

fn motivation(subject: &Subject<'_>) -> Section {
    let archive = &subject.manifest.archive;
    let purpose = match (archive.synthetic, archive.demo) {
        (true, _) => "to show how the search works: its images were made by a program and show no patient",
        (false, true) => "to try the search out",
        (false, false) => NOT_KNOWN,
    };
    Section::new("motivation", "Motivation").facts([
        ("Made for", purpose),
        ("Made by", NOT_KNOWN),
        ("Paid for by", NOT_KNOWN),
        (
            "What it is used for here",
            "as known cases of a similarity search, which are shown beside a query and vote on its class",
        ),
    ])
}

fn composition(subject: &Subject<'_>) -> Section {
    let facts = subject.facts;
    let number = |count: usize| count.to_string();
    let mut section = Section::new("composition", "Composition").facts([
        ("An instance is", "one image, as a vector and a record; pictures as retention says".to_owned()),
        ("Images", number(facts.images)),
        ("With a class", number(facts.images - facts.unlabelled)),
        ("Without a class (found, never voting)", number(facts.unlabelled)),
        ("With labels in conflict (not voting)", number(facts.conflicts)),
        ("Images whose pixels another image has too", number(facts.equal_pixels)),
        ("Further files of the same image and patient, noted and not counted", number(facts.further_files)),
        (
            "Near duplicates",
            "not known here: medsearch duplicates compares every two pictures".to_owned(),
        ),
        ("A sample of a larger set", NOT_KNOWN.to_owned()),
        (
            "Labels",
            "one class an image; a label is what the data set says, which may be wrong and need not be visible in the image".to_owned(),
        ),
    ]);
    let classes = (facts.classes.iter())
        .map(|(class, images)| {
            let votes = facts.voting.get(class).copied().unwrap_or_default();
            vec![class.to_string(), images.to_string(), votes.to_string()]
        })
        .collect();
    section = section.table("Images by class", &["Class", "Images", "Of these voting"], classes);
    let by_source = (facts.by_source.iter())
        .map(|(class, source, images)| vec![class.clone(), source.clone(), images.to_string()])
        .collect();
    section = section.table(
        "Images by class and source: where a class has a source of its own, to know the source is to know the class",
        &["Class", "Source", "Images"],
        by_source,
    );
    if facts.by_source_left_out > 0 {
        let left_out = format!(
            "{} images, in the rarest combinations of class and source",
            facts.by_source_left_out
        );
        section = section.facts([("Not in this table", left_out)]);
    }
    for (caption, column, counts) in [
        ("How labels were proven", "Proof", &facts.label_sources),
        ("Images by view", "View", &facts.views),
        ("Images by modality", "Modality", &facts.modalities),
        ("Images by body part", "Body part", &facts.body_parts),
        ("Images by part of the data set", "Part", &facts.splits),
    ] {
        section = section.table(caption, &[column, "Images"], rows(counts));
    }
    let unknown: Vec<String> = [
        (facts.sources.is_empty(), "source"),
        (facts.label_sources.is_empty(), "how labels were proven"),
        (facts.views.is_empty(), "view"),
        (facts.modalities.is_empty(), "modality"),
        (facts.body_parts.is_empty(), "body part"),
    ]
    .into_iter()
    .filter(|(empty, _)| *empty)
    .map(|(_, what)| format!("Not known of any image: {what}."))
    .collect();
    section.list(unknown)
}

fn rows(counts: &Counts) -> Vec<Vec<String>> {
    counts
        .iter()
        .map(|(value, count)| vec![value.clone(), count.to_string()])
        .collect()
}

fn people(subject: &Subject<'_>) -> Section {
    let facts = subject.facts;
    let told = |people: &[(String, String)]| {
        people
            .iter()
            .map(|(value, count)| vec![value.clone(), count.clone()])
            .collect::<Vec<_>>()
    };
    let mut section = Section::new("people", "People in it")
        .facts([
            ("Images whose patient is known", facts.with_patient.to_string()),
            ("Different patients among these", facts.patients.to_string()),
            (
                "Images of nobody known (each taken for a person)",
                (facts.images - facts.with_patient).to_string(),
            ),
        ])
        .text(
            "Fewer than five people of an age or a sex are withheld, with as many other rows as it takes for them not to follow from the whole. Somebody who was \
             imaged at several ages counts in each.",
        )
        .table("People by age in years", &["Age", "People"], told(&facts.ages))
        .table("People by sex, as the data set gives it", &["Sex", "People"], told(&facts.sexes));
    let mut missing =
        vec!["Ethnicity, language, gender identity, disability and social circumstances: not known.".to_owned()];
    if facts.ages.is_empty() {
        missing.push("Age: not known of any image.".to_owned());
    }
    if facts.sexes.is_empty() {
        missing.push("Sex: not known of any image.".to_owned());
    }
    section = section.list(missing);
    let identity = match subject.manifest.archive.identity {
        IdentityMode::Anonymous => {
            "patients, studies and files are kept as keyed pseudonyms, which can't be turned back; the key lies outside the archive"
        }
        IdentityMode::Linked => {
            "patients, studies and files are kept as keyed pseudonyms; what came with an image is kept encrypted under a key outside the archive"
        }
    };
    section.facts([("Can people be identified", identity)])
}

fn collection(subject: &Subject<'_>) -> Section {
    let facts = subject.facts;
    let came = (facts.came.as_ref()).map_or(NOT_KNOWN.to_owned(), |(first, last)| format!("{first} to {last}"));
    let sources: Vec<&str> = facts.sources.iter().map(|(source, _)| source.as_str()).collect();
    let sources = if sources.is_empty() {
        NOT_KNOWN.to_owned()
    } else {
        sources.join(", ")
    };
    Section::new("collection", "Collection").facts([
        ("Sources, as the data set names them", sources),
        ("When the images were taken", NOT_KNOWN.to_owned()),
        ("When they came into this archive", came),
        ("By which devices and settings", NOT_KNOWN.to_owned()),
        ("Who chose the images, and how", NOT_KNOWN.to_owned()),
        ("Consent, ethical review", NOT_KNOWN.to_owned()),
    ])
}

fn preprocessing(subject: &Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let facts = subject.facts;
    Section::new("preprocessing", "Preprocessing").facts([
        (
            "From pixels to the model's input",
            format!(
                "{}; grey values of more than 8 bit are drawn between their 0.5 % and 99.5 % percentiles, for each image anew, unless the pipeline names a window",
                manifest.space.pixel_pipeline
            ),
        ),
        ("From input to vector", super::model::space_in_words(&manifest.space)),
        ("Names and ids", "replaced by keyed pseudonyms before anything is stored; ages above 89 are 90+".to_owned()),
        ("Text burned into pixels", "not looked for and not removed".to_owned()),
        ("Images whose label was changed here", facts.relabelled.to_string()),
        ("Images with a small picture", facts.with_thumbnail.to_string()),
        ("Images with a picture to read", facts.with_pixels.to_string()),
    ])
}

fn uses(_: &Subject<'_>) -> Section {
    Section::new("uses", "Uses").list(vec![
        "Similarity search for research and teaching: an image is shown beside its most similar known cases.".into(),
        "Not for diagnosis, triage or any decision about a patient.".into(),
        "Not as a sample of any population: classes are as frequent as somebody chose, not as in a hospital.".into(),
        "A class from one source teaches any network the source: read the table of classes and sources first.".into(),
    ])
}

fn distribution(subject: &Subject<'_>) -> Section {
    let licence = subject.manifest.archive.licence.as_deref().unwrap_or(NOT_KNOWN);
    Section::new("distribution", "Distribution").facts([
        ("Licence of the images", licence),
        (
            "Who may have it",
            "whoever runs the archive decides: the program publishes nothing",
        ),
        (
            "In which form it leaves",
            "medsearch export: vectors as .npy, records as .json",
        ),
    ])
}

fn maintenance(subject: &Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let retention = match manifest.archive.retention {
        Retention::Original => "all pixels, de-identified",
        Retention::View => "viewing copies without loss, long side at most 1536",
        Retention::Thumbnail => "small pictures only",
    };
    Section::new("maintenance", "Maintenance").facts([
        ("Kept by", NOT_KNOWN.to_owned()),
        ("Made", manifest.archive.created_at.clone()),
        ("Version", format!("{} of {}", manifest.version, manifest.created_at)),
        ("Pixels kept", retention.to_owned()),
        (
            "Erasure",
            "a deleted image or patient is in no answer from then on; a server that writes deletes its bytes within 24 hours; a learned metric, a calibration and a kept evaluation, which are figures of \
             all images and of each class together, stay until medsearch fit and evaluate --keep are run again".to_owned(),
        ),
        (
            "Wrong labels",
            "reported with POST /v1/feedback or on the page, listed by medsearch feedback, mended with PATCH /v1/images/{id}".to_owned(),
        ),
        ("Older versions", "kept for an hour after they were superseded".to_owned()),
        ("Updates", NOT_KNOWN.to_owned()),
    ])
}
