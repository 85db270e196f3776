#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bellwether_replay::fuzz::fuzz_episode_file(data));
