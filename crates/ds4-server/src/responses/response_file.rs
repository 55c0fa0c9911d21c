//! A file of a stored response.
//!
//! In the [frame](crate::disk) of all files there is, with numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | owner |
//! | 2 | length of its id `i` |
//! | `i` | the id, in UTF-8 |
//! | 4 | length of the response `r` |
//! | `r` | the response as it was sent, JSON |
//! | 4 | length of the conversation `c` |
//! | `c` | the conversation up to and with it, without instructions: a JSON array of messages |

use std::sync::Arc;

use serde_json::value::RawValue;
use thiserror::Error;

use super::kept::KeptResponse;
use crate::disk::{FileKind, FrameError, Reader};
use crate::owner::Owner;

/// Most bytes of a file.
pub(super) const MAX_FILE_BYTES: usize = 16 << 20;
const KIND: FileKind = FileKind {
    magic: *b"DS4R",
    version: 1,
    max_bytes: MAX_FILE_BYTES,
};

/// Why bytes are no file of a stored response.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResponseFileError {
    /// It is damaged, or something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The checksum is right, but what it says cannot be.
    #[error("its {0} makes no sense")]
    Part(&'static str),
}

/// A stored response in the bytes of its file.
#[derive(Clone, Debug)]
pub struct ResponseFile(pub(super) Arc<KeptResponse>);

impl ResponseFile {
    /// The bytes of the file; `None` if it would be too long to be read again.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let kept = &self.0;
        let response = kept.response.get().as_bytes();
        let history = serde_json::to_vec(&kept.history).ok()?;
        let content = Owner::BYTES + 2 + kept.id.len() + 4 + response.len() + 4 + history.len();
        if FileKind::FRAME + content > MAX_FILE_BYTES {
            return None;
        }
        let mut out = KIND.begin(content);
        out.extend_from_slice(kept.owner.as_bytes());
        out.extend_from_slice(&u16::try_from(kept.id.len()).ok()?.to_le_bytes());
        out.extend_from_slice(kept.id.as_bytes());
        for part in [response, &history] {
            out.extend_from_slice(&u32::try_from(part.len()).ok()?.to_le_bytes());
            out.extend_from_slice(part);
        }
        Some(FileKind::end(out))
    }

    /// The file in `bytes`.
    ///
    /// # Errors
    /// Anything but a whole file as [`to_bytes`](Self::to_bytes) makes it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ResponseFileError> {
        let mut reader = KIND.open(bytes)?;
        let kept = read(&mut reader)?;
        if reader.left() > 0 {
            return Err(FrameError::Length.into());
        }
        Ok(Self(Arc::new(kept)))
    }
}

fn read(reader: &mut Reader<'_>) -> Result<KeptResponse, ResponseFileError> {
    let too_short = FrameError::Length;
    let owner = Owner::from_bytes(reader.array().ok_or(too_short)?);
    let length = reader.short_number().ok_or(too_short)?;
    let id = reader.text(length).ok_or(ResponseFileError::Part("id"))?;
    let length = reader.number().ok_or(too_short)? as usize;
    let response = reader
        .text(length)
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
        .ok_or(ResponseFileError::Part("response"))?;
    let length = reader.number().ok_or(too_short)? as usize;
    let history = reader
        .take(length)
        .and_then(|text| serde_json::from_slice(text).ok())
        .ok_or(ResponseFileError::Part("conversation"))?;
    Ok(KeptResponse {
        id: id.to_owned(),
        owner,
        response: response.to_owned(),
        history,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use ds4_chat::{Content, ContentBlock, FunctionCall, Message, Role, ToolCallMessage};

    use super::*;
    use crate::disk::with_right_checksum;

    pub(in crate::responses) fn response(id: &str, text: &str) -> Arc<KeptResponse> {
        let response = format!(r#"{{"id":"{id}","n": 1.50,"output":[]}}"#);
        let mut call = Message::new(Role::Assistant, text);
        call.reasoning_content = Some("hm \u{1f642}".to_owned());
        call.tool_calls = vec![ToolCallMessage {
            id: Some("call_1".to_owned()),
            function: FunctionCall::new("f", r#"{ "b" :  1e3, "a":"ü"}"#),
        }];
        let mut result = Message::new(Role::Tool, "");
        result.tool_call_id = Some("call_1".to_owned());
        result.content = Content::Blocks(vec![
            ContentBlock {
                kind: "text".to_owned(),
                text: "one".to_owned(),
            },
            ContentBlock {
                kind: "image".to_owned(),
                text: String::new(),
            },
        ]);
        let mut empty = Message::new(Role::Developer, "");
        empty.content = Content::Empty;
        Arc::new(KeptResponse {
            id: id.to_owned(),
            owner: Owner::of_key("key"),
            response: RawValue::from_string(response).unwrap(),
            history: vec![Message::new(Role::User, "Hi\n"), call, result, empty],
        })
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let kept = response("resp_1", "text");
        let bytes = ResponseFile(Arc::clone(&kept)).to_bytes().unwrap();
        let read = ResponseFile::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes().unwrap(), bytes);
        let read = read.0;
        assert_eq!((&read.id, read.owner), (&kept.id, kept.owner));
        assert_eq!(read.response.get(), kept.response.get());
        assert_eq!(read.history.len(), kept.history.len());
        for (read, kept) in read.history.iter().zip(&kept.history) {
            assert_eq!(format!("{read:?}"), format!("{kept:?}"));
        }
    }

    /// Cut anywhere, or with any bit turned, it is refused; with the checksum made right it is
    /// refused or read, but nothing worse.
    #[test]
    fn damage_is_seen() {
        let bytes = ResponseFile(response("r", "t")).to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(ResponseFile::from_bytes(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(ResponseFile::from_bytes(&damaged).is_err(), "{at} {bit}");
                if let Ok(read) = ResponseFile::from_bytes(&with_right_checksum(damaged)) {
                    assert!(read.to_bytes().is_some(), "{at} {bit}");
                }
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = ResponseFile(response("r", "t")).to_bytes().unwrap();
        // The id's, the response's.
        for (at, size) in [(24, 2), (27, 4)] {
            let mut lying = bytes.clone();
            lying[at..at + size].fill(0xff);
            let read = ResponseFile::from_bytes(&with_right_checksum(lying));
            assert!(matches!(read, Err(ResponseFileError::Part(_))), "{read:?}");
        }
        let long = response("r", &"x".repeat(MAX_FILE_BYTES));
        assert!(ResponseFile(long).to_bytes().is_none());
    }
}
