//! Which rows may be returned to a query, and how each list of rows is gone through.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Bitmap;
use crate::domain::ClassLabel;

/// The rows of one class within one segment: what one decision is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The class; `None` for rows without a label.
    pub class: Option<ClassLabel>,
    /// The shard; `None` for fresh rows, of any shard.
    pub shard: Option<u32>,
    /// Rows of its graph, deleted ones included; 0: it has none.
    pub graph_rows: usize,
    /// Rows that may be returned.
    pub selected: usize,
    pub(super) segment: usize,
    pub(super) list: usize,
}

impl Leg {
    /// A leg by its sizes alone: what planning looks at.
    pub fn of(class: Option<ClassLabel>, graph_rows: usize, selected: usize) -> Self {
        Self {
            class,
            shard: None,
            graph_rows,
            selected,
            segment: 0,
            list: 0,
        }
    }
}

/// How a leg is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Score each row that may be returned.
    Exact,
    /// Walk the graph for this many rows, then drop those that may not be returned.
    Graph {
        /// Rows asked of the graph.
        ask: usize,
    },
    /// Walk the graph for this many rows that may be returned.
    GraphFiltered {
        /// Rows asked of the graph.
        ask: usize,
    },
}

/// Who may be returned to one query under its filters and exclusions.
#[derive(Debug)]
pub struct Scope {
    pub(super) legs: Vec<Leg>,
    /// Of each segment.
    pub(super) allowed: Arc<[Bitmap]>,
}

impl Scope {
    /// What is to be searched.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// The part of it that lies in one shard.
    pub fn of_shard(&self, shard: u32) -> Self {
        let legs = self.legs.iter().filter(|leg| leg.shard == Some(shard));
        Self {
            legs: legs.cloned().collect(),
            allowed: Arc::clone(&self.allowed),
        }
    }

    /// Images per class that may be returned; a class of which none may counts 0.
    pub fn eligible(&self) -> BTreeMap<ClassLabel, usize> {
        let mut eligible = BTreeMap::new();
        for leg in &self.legs {
            if let Some(class) = &leg.class {
                *eligible.entry(class.clone()).or_default() += leg.selected;
            }
        }
        eligible
    }
}
