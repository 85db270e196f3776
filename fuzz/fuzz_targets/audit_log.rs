#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bellwether_artifact::audit::fuzz_audit_log(data));
