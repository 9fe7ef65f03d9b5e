//! TCr, Sr, SrCr and paired bootstrap intervals
#![forbid(unsafe_code)]
