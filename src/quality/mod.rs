//! How good the answers are, measured as an expert would: groups kept apart, floors beside every figure, intervals, what a shortcut explains.
//!
//! Reading order: [`cases`] (who is asked about), [`views`] over [`split`] (who may be found by whom), [`ask`] (the product's own vote on that),
//! then what is made of the answers: [`retrieval`], [`decisions`], [`calibration`], [`conformal`], [`separation`], each a definition of the
//! literature as a pure function; [`bootstrap`] puts an interval to them. [`evaluate`](mod@evaluate) runs it all into an [`evaluation::Evaluation`],
//! [`report`] draws that, [`card`] makes the archive's papers of it. [`explained`] measures heat maps, [`masked`] asks with a part of each
//! query blacked out.
//! [`duplicates`] finds what is there twice. [`calibrated`] and [`learned`] make what an archive is served with.

pub mod ask;
pub mod asked;
pub mod bootstrap;
pub mod calibrated;
pub mod calibration;
pub mod card;
pub mod cases;
pub mod confidence;
pub mod conformal;
pub mod decisions;
pub mod distribution;
pub mod duplicates;
pub mod evaluate;
pub mod evaluation;
pub mod explained;
pub mod figures;
pub mod floors;
pub mod learned;
pub mod masked;
pub mod metric;
pub mod random;
pub mod recall;
pub mod report;
pub mod retrieval;
pub mod separation;
pub mod shortcuts;
pub mod split;
pub mod subject;
pub mod views;
