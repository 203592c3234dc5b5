//! Which way each leg is gone through. Pure: sizes in, steps out.

use crate::index::{IndexSettings, Leg, Step};

/// Fewest rows asked of a graph: they are scored again, and a few more than k make up for its half floats.
pub const CANDIDATES_MIN: usize = 64;

/// One step a leg.
pub fn plan(legs: &[Leg], k: usize, exact: bool, settings: &IndexSettings) -> Vec<Step> {
    legs.iter()
        .map(|leg| if exact { Step::Exact } else { step(leg, k, settings) })
        .collect()
}

fn step(leg: &Leg, k: usize, settings: &IndexSettings) -> Step {
    if leg.graph_rows == 0 || leg.selected == 0 || leg.selected <= settings.exact_rows_max {
        return Step::Exact;
    }
    let candidates = k.saturating_mul(4).max(CANDIDATES_MIN);
    let dropped = leg.graph_rows.saturating_sub(leg.selected);
    if dropped <= candidates {
        return Step::Graph {
            ask: candidates + dropped,
        };
    }
    // A walk costs as much as a scan of `exact_rows_max` rows. One that may return every n-th row goes on until it has met n times as
    // many, so it costs n times that: worth it while the scan of the selected rows would cost more.
    let walk_cost = settings.exact_rows_max as u128 * leg.graph_rows as u128;
    if (leg.selected as u128).pow(2) > walk_cost {
        Step::GraphFiltered { ask: candidates }
    } else {
        Step::Exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(exact_rows_max: usize) -> IndexSettings {
        IndexSettings {
            exact_rows_max,
            ..IndexSettings::default()
        }
    }

    fn one(graph_rows: usize, selected: usize, k: usize, exact_rows_max: usize) -> Step {
        plan(
            &[Leg::of(None, graph_rows, selected)],
            k,
            false,
            &settings(exact_rows_max),
        )[0]
    }

    #[test]
    fn decides_by_size() {
        let check = |graph_rows, selected, wanted| assert_eq!(one(graph_rows, selected, 10, 8_000), wanted);
        check(0, 100_000, Step::Exact);
        check(8_000, 8_000, Step::Exact);
        check(8_001, 8_001, Step::Graph { ask: 64 });
        check(100_000, 100_000, Step::Graph { ask: 64 });
        check(100_000, 99_990, Step::Graph { ask: 74 });
        check(100_000, 90_000, Step::GraphFiltered { ask: 64 });
        check(100_000, 20_000, Step::Exact);
        check(100_000, 0, Step::Exact);
        assert_eq!(one(100_000, 100_000, 100, 8_000), Step::Graph { ask: 400 });
        // Forced: a graph is used whenever there is one.
        assert_eq!(one(10, 10, 10, 0), Step::Graph { ask: 64 });
        assert_eq!(one(1_000, 1, 10, 0), Step::GraphFiltered { ask: 64 });
    }

    proptest! {
        #[test]
        fn holds_its_promises(
            graph_rows in prop_oneof![Just(0usize), 1usize..1_000_000],
            share in 0.0f64..=1.0,
            k in 1usize..=100,
            exact_rows_max in 0usize..100_000,
        ) {
            let rows = if graph_rows == 0 { 50_000 } else { graph_rows };
            let selected = (rows as f64 * share) as usize;
            let leg = [Leg::of(None, graph_rows, selected)];
            prop_assert_eq!(plan(&leg, k, true, &settings(exact_rows_max)), vec![Step::Exact]);
            let step = one(graph_rows, selected, k, exact_rows_max);
            match step {
                Step::Exact => prop_assert!(exact_rows_max > 0 || graph_rows == 0 || selected == 0),
                // Whatever is dropped, k rows are left.
                Step::Graph { ask } => prop_assert!(ask >= k + (graph_rows - selected) && ask >= CANDIDATES_MIN),
                Step::GraphFiltered { ask } => prop_assert!(ask >= k && ask >= CANDIDATES_MIN),
            }
            if graph_rows == 0 || selected <= exact_rows_max {
                prop_assert_eq!(step, Step::Exact);
            }
            // A higher threshold never brings a graph in.
            if step == Step::Exact {
                prop_assert_eq!(one(graph_rows, selected, k, exact_rows_max * 2 + 1), Step::Exact);
            }
        }
    }
}
