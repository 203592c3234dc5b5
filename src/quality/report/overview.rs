//! The first screen: what was evaluated, the figures that count, and what they have to beat.

use super::dots::{Dots, Row};
use super::page::{Section, table};
use super::text::{NONE, escape, interval, percent, plural, range, share, signed};
use crate::quality::evaluation::{Available, Evaluation, Floor, FloorFigures};

/// Everything above the contents.
pub fn first_screen(evaluation: &Evaluation) -> String {
    let protocol = &evaluation.protocol;
    let day: String = protocol.made_at.chars().take(10).collect();
    format!(
        "<header class=\"first\"><p class=\"kicker\">Evaluation · {}</p><h1>{}</h1>\n\
         <p class=\"lead\">{} asked about, {} to be found, {} in {}. Model: {}.</p>\n<p class=\"split\"><strong>Split.</strong> {}</p></header>\n\
         <section class=\"glance\" aria-labelledby=\"glance-h\"><h2 id=\"glance-h\">At a glance</h2>\n\
         <p class=\"how\">Dots are figures, whiskers their 95&nbsp;% intervals from {} by group. A figure means something as far as it is to the right \
         of the floors: methods that see no disease, or nothing at all.</p>\n{}{}</section>\n",
        escape(&day),
        escape(&protocol.what),
        plural(protocol.queries, "image"),
        plural(protocol.images, "image"),
        plural(protocol.groups, "group"),
        if protocol.classes.len() == 1 {
            "1 class".to_owned()
        } else {
            format!("{} classes", protocol.classes.len())
        },
        escape(&protocol.model),
        escape(&protocol.split),
        plural(protocol.resamples, "resample"),
        tiles(evaluation),
        against_floors(evaluation),
    )
}

fn tiles(evaluation: &Evaluation) -> String {
    let decisions = &evaluation.decisions;
    let first_ten = evaluation.retrieval.iter().find(|figure| figure.name == "P@10");
    let tiles = [
        (
            "Balanced accuracy",
            "mean sensitivity of the classes",
            decisions.balanced_accuracy,
        ),
        (
            "Accuracy",
            "share of right suggestions; none counts as wrong",
            decisions.accuracy,
        ),
        ("Macro F1", "mean F1 of the classes", decisions.macro_f1),
        (
            "Precision of the first ten",
            "neighbors of the same class, mean over images",
            first_ten.and_then(|figure| figure.micro),
        ),
    ];
    let tiles = tiles.map(|(name, means, figure)| {
        let figure = figure.filter(|figure| figure.value.is_finite());
        format!(
            "<div><dt>{name}</dt><dd><strong>{}</strong><span class=\"ci\">{}</span><span class=\"fine\">{means}</span></dd></div>",
            figure.map_or_else(|| NONE.to_owned(), |figure| share(figure.value)),
            figure.map(range).unwrap_or_default(),
        )
    });
    format!("<dl class=\"tiles\">{}</dl>\n", tiles.concat())
}

fn against_floors(evaluation: &Evaluation) -> String {
    let ours = evaluation.decisions.balanced_accuracy;
    let known: Vec<_> = evaluation
        .floors
        .iter()
        .filter_map(|floor| Some((floor, figures(floor)?)))
        .collect();
    let missing: String = evaluation.floors.iter().filter_map(missing).collect();
    let mut rows = vec![Row {
        head: "<strong>This evaluation</strong>".to_owned(),
        name: "This evaluation".to_owned(),
        dots: vec![ours],
        cells: vec![interval(ours), NONE.to_owned()],
        ours: true,
    }];
    rows.extend(known.iter().map(|(floor, figures)| Row {
        head: format!(
            "{}<span class=\"fine\">{}</span>",
            escape(&floor.name),
            escape(&floor.sees)
        ),
        name: floor.name.clone(),
        dots: vec![figures.balanced_accuracy],
        cells: vec![interval(figures.balanced_accuracy), gap(figures)],
        ours: false,
    }));
    let plot = Dots {
        caption: "Balanced accuracy beside the floors, on the same split. Dashed: this evaluation.".to_owned(),
        of: "Method",
        drawn: "Balanced accuracy",
        scale: (0.0, 1.0),
        lines: ours.map(|ours| ours.value).into_iter().collect(),
        columns: vec!["Figure (95 % interval)", "To this evaluation"],
        rows,
    };
    let missing = if missing.is_empty() {
        missing
    } else {
        format!("<ul class=\"missing\">{missing}</ul>\n")
    };
    format!(
        "<p class=\"finding\">{}</p>\n{}{missing}",
        escape(&finding(&known)),
        plot.html()
    )
}

fn figures(floor: &Floor) -> Option<&FloorFigures> {
    match &floor.figures {
        Available::Yes(figures) => Some(figures),
        Available::No { .. } => None,
    }
}

fn missing(floor: &Floor) -> Option<String> {
    match &floor.figures {
        Available::Yes(_) => None,
        Available::No { not_available } => Some(format!(
            "<li><strong>{}</strong> is not available: {}</li>",
            escape(&floor.name),
            escape(not_available)
        )),
    }
}

/// How far the floor is below, with its interval.
fn gap(figures: &FloorFigures) -> String {
    figures.below_ours.filter(|gap| gap.value.is_finite()).map_or_else(
        || NONE.to_owned(),
        |gap| format!("{} ({} to {})", signed(-gap.value), signed(-gap.high), signed(-gap.low)),
    )
}

/// The one comparison that matters, in a sentence.
fn finding(floors: &[(&Floor, &FloorFigures)]) -> String {
    let known = floors.iter().filter_map(|(floor, figures)| {
        let reached = figures.balanced_accuracy.filter(|figure| figure.value.is_finite())?;
        Some((floor, reached, figures.below_ours.filter(|gap| gap.value.is_finite())?))
    });
    let Some((floor, reached, gap)) = known.max_by(|a, b| a.1.value.total_cmp(&b.1.value)) else {
        return "There is no floor to compare with.".to_owned();
    };
    let reaches = format!("The best floor, {}, reaches {}", floor.name, share(reached.value));
    let between = share(gap.value.abs());
    if gap.value <= 0.0 {
        format!("{reaches}: it is not beaten.")
    } else if gap.low <= 0.0 {
        format!("{reaches}, {between} below this evaluation: with other patients it could be the other way round.")
    } else {
        format!("{reaches}, {between} below this evaluation, which is more than other patients would change.")
    }
}

/// All figures of the floors.
pub fn floors(evaluation: &Evaluation) -> Section {
    let decisions = &evaluation.decisions;
    let first_ten = evaluation
        .retrieval
        .iter()
        .find(|figure| figure.name == "P@10")
        .and_then(|figure| figure.micro);
    let ours = [
        decisions.accuracy,
        decisions.balanced_accuracy,
        decisions.macro_f1,
        first_ten,
    ];
    let ours = std::iter::once("<strong>This evaluation</strong>".to_owned())
        .chain(ours.map(interval))
        .collect();
    let floors = evaluation.floors.iter().chain(&evaluation.less_learned).map(|floor| {
        let figures = match &floor.figures {
            Available::Yes(of) => [of.accuracy, of.balanced_accuracy, of.macro_f1, of.precision_at_10].map(interval),
            Available::No { .. } => [NONE; 4].map(str::to_owned),
        };
        std::iter::once(escape(&floor.name)).chain(figures).collect()
    });
    let heads = [
        "Method",
        "Accuracy",
        "Balanced accuracy",
        "Macro F1",
        "Precision of the first ten",
    ];
    let undecided = if decisions.undecided.is_finite() {
        format!(
            "<p>{} of the queries got no suggestion; each counts as a wrong answer.</p>\n",
            percent(decisions.undecided)
        )
    } else {
        String::new()
    };
    Section {
        id: "floors",
        heading: "Floors",
        how: "What methods that know less reach on the same split. Where a floor comes close, the task is easy, or something other than disease tells the \
              classes apart.",
        body: table(
            "All figures of this evaluation, of the floors, and with less learned, with 95 % intervals",
            &heads,
            std::iter::once(ours).chain(floors),
        ) + &undecided,
    }
}
