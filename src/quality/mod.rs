//! How good the answers are, measured as an expert would: groups kept apart, floors beside every figure, intervals, what a shortcut explains.
//!
//! Reading order: [`cases`] (who is asked about), [`views`] over [`split`] (who may be found by whom), [`ask`] (the product's own vote on that),
//! then what is made of the answers: [`retrieval`], [`decisions`], [`calibration`], [`conformal`], [`separation`], each a definition of the
//! literature as a pure function; [`bootstrap`] puts an interval to them. [`evaluate`](mod@evaluate) runs it all into an [`evaluation::Evaluation`],
//! [`report`] draws that. [`duplicates`] finds what is there twice.

pub mod ask;
pub mod asked;
pub mod bootstrap;
pub mod calibration;
pub mod cases;
pub mod confidence;
pub mod conformal;
pub mod decisions;
pub mod duplicates;
pub mod evaluate;
pub mod evaluation;
pub mod figures;
pub mod floors;
pub mod learned;
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
