#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sparq_fuzz::coded(data));
