#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    flag_definitions_fuzz::definitions(bytes);
});
