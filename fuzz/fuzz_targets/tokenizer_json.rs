//! A `tokenizer.json` from anywhere: either a typed error, or a tokenizer that loses nothing.

#![no_main]

use ds4_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

/// Every class of character, runs of each, and text that looks like control tokens.
const TEXT: &str = "Hello,  world!\r\n\r\n\t 12345٣ 漢字かなカナ・ é e\u{301} 👨\u{200d}👩 \0\u{7f}\
    <｜User｜>abcabc</think><end><a>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data) else {
        return;
    };
    // The end of the file is also a text, so that the fuzzer can aim at its own tokens.
    let tail = String::from_utf8_lossy(&data[data.len().saturating_sub(64)..]);
    for text in [TEXT, &tail] {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids);
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
        assert!(!ids.iter().any(|&id| tokenizer.is_special(id)));

        ids.clear();
        tokenizer.encode_with_specials(text, &mut ids);
        let mut decoder = tokenizer.stream_decoder();
        let mut decoded = String::new();
        for &id in &ids {
            decoded.push_str(decoder.push(id));
        }
        decoded.push_str(decoder.finish());
        assert_eq!(decoded, tokenizer.decode_lossy(&ids));
    }
});
