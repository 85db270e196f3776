#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bellwether_trainer::fuzz::fuzz_checkpoint(data));
