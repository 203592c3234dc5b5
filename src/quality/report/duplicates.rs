//! Pictures that are one, side by side: whether they are is for a person to say.

use super::cases::picture;
use super::marks::Marks;
use super::page::{self, Section};
use super::text::{escape, plural, share};
use crate::quality::duplicates::{Cluster, Duplicates};

/// Groups of each kind on the page; the file with the figures has all.
const SHOWN_MAX: usize = 300;
/// Images of one of them.
const IMAGES_MAX: usize = 24;

/// The page.
pub fn html(duplicates: &Duplicates) -> String {
    let mut classes: Vec<&str> = (duplicates.clusters.iter())
        .flat_map(|cluster| cluster.images.iter().map(|image| image.class.as_str()))
        .collect();
    classes.sort_unstable();
    classes.dedup();
    let marks = Marks::in_order(classes.into_iter());
    let part = |id, heading, how, wanted: fn(&Cluster) -> bool| {
        let all = duplicates.clusters.iter().filter(|cluster| wanted(cluster));
        let more = all.clone().count().saturating_sub(SHOWN_MAX);
        let mut body: String = all.take(SHOWN_MAX).map(|one| cluster(one, &marks)).collect();
        if more > 0 {
            body += &format!("<p>and {} more</p>", plural(more, "group"));
        }
        Section {
            id,
            heading,
            how,
            body: if body.is_empty() {
                "<p>None was found.</p>".to_owned()
            } else {
                body
            },
        }
    };
    let sections = [
        part(
            "conflicts",
            "Under different classes",
            "One picture with two labels: at least one is wrong. Correct it, or delete one of the images.",
            |cluster| cluster.label_conflict,
        ),
        part(
            "equal",
            "Equal pixels",
            "The same pixels in several images, of different patients or of unknown ones.",
            |cluster| !cluster.label_conflict && cluster.equal_pixels,
        ),
        part(
            "near",
            "Near duplicates",
            "One picture but for encoding, size, borders, exposure or a small crop; or two exposures of one patient in the same frame. Look before you \
             delete.",
            |cluster| !cluster.label_conflict && !cluster.equal_pixels,
        ),
    ];
    let name = escape(&duplicates.archive);
    let first_screen = format!(
        "<header class=\"first\"><p class=\"kicker\">Duplicates</p><h1>{name}</h1>\n<p class=\"lead\">{}, {} in which pictures are one. {} more with \
         the pixels of an image, which are one image already. Pairs are at least {} alike; {} could not be compared.</p></header>\n",
        plural(duplicates.images, "image"),
        plural(duplicates.clusters.len(), "group"),
        plural(duplicates.further_files, "file"),
        share(f64::from(duplicates.similarity_min)),
        plural(duplicates.without_picture, "image"),
    );
    page::html(
        &format!("Duplicates in {}", duplicates.archive),
        &first_screen,
        &sections,
    )
}

fn cluster(cluster: &Cluster, marks: &Marks) -> String {
    let patients = if cluster.patient_conflict {
        " · different patients"
    } else {
        ""
    };
    let mut images = cluster.images.iter().enumerate().map(|(at, image)| {
        let number = format!("{}", at + 1);
        picture(image, &number, &share(f64::from(image.similarity)), marks)
    });
    let first = images.next().unwrap_or_default();
    let others: String = images
        .take(IMAGES_MAX - 1)
        .map(|image| format!("<li>{image}</li>"))
        .collect();
    let more = match cluster.images.len().saturating_sub(IMAGES_MAX) {
        0 => String::new(),
        more => format!("<p>and {} more</p>", plural(more, "image")),
    };
    format!(
        "<article class=\"case\"><h3>{}<span class=\"but\">{patients}</span></h3><div class=\"seen\">{first}<ol>{others}</ol></div>{more}</article>\n",
        plural(cluster.images.len(), "image"),
    )
}
