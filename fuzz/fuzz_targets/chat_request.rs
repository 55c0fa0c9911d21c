//! Any bytes as the body of `POST /v1/chat/completions`: an error that says why, or a prompt.

#![no_main]

use ds4_fuzz::json_mutation::mutate;
use ds4_fuzz::requests::{Api, check};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| check(Api::Chat, data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
