#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bellwether_env_adapter::ingest::fuzz::fuzz_split_list(data));
