//! The service as its users meet it: over HTTP, on a port of its own.

mod archive;
mod audit;
mod cards;
mod cluster;
mod copies;
mod dicom_web;
mod explanations;
mod fan_out;
mod feedback;
mod files;
mod frames;
mod guard;
mod harness;
mod headers;
mod issuer;
mod keys;
mod oidc;
mod openapi;
mod pages;
mod problems;
mod reference;
mod retrieval;
mod traces;
mod uploads;
mod wrong_inputs;
