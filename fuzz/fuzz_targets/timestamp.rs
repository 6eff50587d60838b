#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (pol_hostile::target("timestamp").run)(bytes));
