//! Compare compression configurations of one model: resumable sweeps, tables, reports
#![forbid(unsafe_code)]
