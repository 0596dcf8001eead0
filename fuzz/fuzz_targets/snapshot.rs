#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    flag_definitions_fuzz::manifest(bytes);
    flag_definitions_fuzz::page(bytes);
    flag_definitions_fuzz::bucket(bytes);
    flag_definitions_fuzz::record(bytes);
    flag_definitions_fuzz::change(bytes);
});
