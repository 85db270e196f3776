#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bellwether_registry::fuzz::fuzz_run_records(data));
