//! A session on disk: continues in another process without prefill.
//!
//! Little-endian. Lengths are checked against the file's size and the model
//! before anything is allocated for them; a file is loaded whole or refused.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `DS4SESS` and version 1 |
//! | 32 | fingerprint of the model |
//! | 8 | KV format: 0 F32, 1 F16, 2 FP8, 3 Q4 |
//! | 8 | tokens `n` |
//! | 8 | vocabulary `v` |
//! | 8 | layers `l` |
//! | 8 | attachment length `a` |
//! | 8 `l` | length of each layer's state |
//! | 4 `n` | token ids |
//! | 4 `v` | logits of the next token, F32 |
//! | `a` | attachment: the caller's own bytes, such as a conversation |
//! | … | state of each layer |
//! | 32 | BLAKE3 of everything before |

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ds4_model::{KvFormat, TokenId};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::fingerprint::ModelFingerprint;
use crate::session::Session;

const MAGIC: [u8; 8] = *b"DS4SESS\x01";
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = 8 + HASH_BYTES + 5 * 8;
/// Longest attachment accepted.
const MAX_ATTACHMENT: u64 = 1 << 30;

/// Writes `session` and `attachment` to `path`, replacing what was there.
///
/// The file appears whole or not at all: it is written beside `path`, synced
/// and renamed.
///
/// # Errors
/// A session without logits, or a failure of the disk or the backend.
pub fn save(
    path: &Path,
    engine: &mut Engine,
    session: &Session,
    attachment: &[u8],
) -> Result<(), EngineError> {
    if session.logits().is_empty() {
        return Err(EngineError::SessionLost {
            reason: "it holds no finished prompt",
        });
    }
    let layers = engine.save_state(session)?;
    let temporary = temporary_path(path);
    let written = write_file(&temporary, engine, session, attachment, &layers)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(path));
    written.map_err(|source| {
        // What is left of it would only take up space.
        let _ = fs::remove_file(&temporary);
        EngineError::Io {
            action: "write",
            path: path.display().to_string(),
            source,
        }
    })
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Makes the rename itself durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_file(
    path: &Path,
    engine: &Engine,
    session: &Session,
    attachment: &[u8],
    layers: &[Vec<u8>],
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A file of this process under this name is left over from a crash of its namesake.
    if path.exists() {
        fs::remove_file(path)?;
    }
    let mut writer = HashingWriter {
        inner: BufWriter::with_capacity(1 << 20, options.open(path)?),
        hasher: blake3::Hasher::new(),
    };
    writer.write(&MAGIC)?;
    writer.write(engine.fingerprint().as_bytes())?;
    let counts = [
        format_code(engine.kv_format()),
        session.tokens().len() as u64,
        session.logits().len() as u64,
        layers.len() as u64,
        attachment.len() as u64,
    ];
    for count in counts
        .into_iter()
        .chain(layers.iter().map(|layer| layer.len() as u64))
    {
        writer.write(&count.to_le_bytes())?;
    }
    writer.write(bytemuck::cast_slice(session.tokens()))?;
    writer.write(bytemuck::cast_slice(session.logits()))?;
    writer.write(attachment)?;
    for layer in layers {
        writer.write(layer)?;
    }
    let hash = writer.hasher.finalize();
    let mut file = writer.inner;
    file.write_all(hash.as_bytes())?;
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

struct HashingWriter {
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

/// Reads the session in `path` into `engine`; gives it back with its attachment.
///
/// # Errors
/// As [`from_bytes`], or a file that cannot be read.
pub fn load(path: &Path, engine: &mut Engine) -> Result<(Session, Vec<u8>), EngineError> {
    let bytes = read_file(path).map_err(|source| EngineError::Io {
        action: "read",
        path: path.display().to_string(),
        source,
    })?;
    from_bytes(&bytes, engine)
}

/// Puts the session of a file with these `bytes` into `engine`; gives it back
/// with its attachment.
///
/// # Errors
/// A session of another model or KV format, one that is damaged, one that does
/// not fit the context, or no free session.
pub fn from_bytes(bytes: &[u8], engine: &mut Engine) -> Result<(Session, Vec<u8>), EngineError> {
    let file = SessionBytes::parse(bytes)?;
    if file.fingerprint != engine.fingerprint() {
        return Err(EngineError::OtherModel {
            saved: file.fingerprint,
            loaded: engine.fingerprint(),
        });
    }
    if file.format != format_code(engine.kv_format()) {
        return Err(EngineError::OtherKvFormat {
            saved: format_name(file.format),
            loaded: engine.kv_format().name(),
        });
    }
    let vocabulary = engine.shape().vocabulary;
    if file.logits.len() != vocabulary {
        return Err(invalid(format!(
            "{} logits, expected {vocabulary}",
            file.logits.len()
        )));
    }
    if let Some(token) = file
        .tokens
        .iter()
        .find(|&&token| token as usize >= vocabulary)
    {
        return Err(invalid(format!(
            "token {token} is outside the vocabulary of {vocabulary}"
        )));
    }
    let expected = engine.layer_bytes(file.tokens.len())?;
    let found: Vec<usize> = file.layers.iter().map(|layer| layer.len()).collect();
    if found != expected {
        return Err(invalid(
            "its layers have other sizes than its tokens need".to_owned(),
        ));
    }
    let layers = file.layers.iter().map(|layer| layer.to_vec()).collect();
    let session = engine.restore_state(file.tokens, file.logits, layers)?;
    Ok((session, file.attachment.to_vec()))
}

/// Only a regular file is read: a FIFO would block, a device never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(metadata.len())
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct SessionBytes<'a> {
    fingerprint: ModelFingerprint,
    format: u64,
    tokens: Vec<TokenId>,
    logits: Vec<f32>,
    attachment: &'a [u8],
    layers: Vec<&'a [u8]>,
}

impl<'a> SessionBytes<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, EngineError> {
        let minimum = HEADER_BYTES + HASH_BYTES;
        if bytes.len() < minimum {
            let found = bytes.len();
            return Err(invalid(format!(
                "it has {found} bytes, a session has {minimum} or more"
            )));
        }
        if bytes[..7] != MAGIC[..7] {
            return Err(invalid("it does not begin as a session does".to_owned()));
        }
        if bytes[7] != MAGIC[7] {
            let found = bytes[7];
            return Err(invalid(format!(
                "it has format version {found}, expected {}",
                MAGIC[7]
            )));
        }
        let (content, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        if blake3::hash(content) != *<&[u8; HASH_BYTES]>::try_from(hash).unwrap_or(&[0; HASH_BYTES])
        {
            return Err(invalid(
                "its checksum is wrong: it is truncated or damaged".to_owned(),
            ));
        }
        let mut reader = Reader {
            rest: &content[MAGIC.len()..],
        };
        let mut fingerprint = [0; HASH_BYTES];
        fingerprint.copy_from_slice(reader.take(HASH_BYTES as u64, "fingerprint")?);
        let format = reader.count("KV format")?;
        let tokens = reader.count("token count")?;
        let vocabulary = reader.count("vocabulary size")?;
        let layers = reader.count("layer count")?;
        let attachment = reader.count("attachment length")?;
        if attachment > MAX_ATTACHMENT {
            return Err(invalid(format!("an attachment of {attachment} bytes")));
        }
        if layers > (reader.rest.len() / 8) as u64 {
            return Err(invalid(format!("{layers} layers in {} bytes", bytes.len())));
        }
        let lengths = (0..layers)
            .map(|_| reader.count("layer length"))
            .collect::<Result<Vec<_>, _>>()?;
        let tokens = reader
            .words(tokens, "tokens")?
            .map(u32::from_le_bytes)
            .collect();
        let logits = reader
            .words(vocabulary, "logits")?
            .map(f32::from_le_bytes)
            .collect();
        let attachment = reader.take(attachment, "attachment")?;
        let layers = lengths
            .into_iter()
            .map(|length| reader.take(length, "layer state"))
            .collect::<Result<Vec<_>, _>>()?;
        if !reader.rest.is_empty() {
            return Err(invalid(format!("{} bytes too many", reader.rest.len())));
        }
        Ok(Self {
            fingerprint: ModelFingerprint::from_bytes(fingerprint),
            format,
            tokens,
            logits,
            attachment,
            layers,
        })
    }
}

/// Takes pieces off the front; every length is checked before use.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8], EngineError> {
        let length = usize::try_from(length)
            .ok()
            .filter(|&length| length <= self.rest.len());
        let Some(length) = length else {
            return Err(invalid(format!("its {what} runs past the end of the file")));
        };
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn count(&mut self, what: &str) -> Result<u64, EngineError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8, what)?);
        Ok(u64::from_le_bytes(word))
    }

    fn words(
        &mut self,
        count: u64,
        what: &str,
    ) -> Result<impl Iterator<Item = [u8; 4]> + use<'a>, EngineError> {
        let bytes = count.saturating_mul(4);
        let taken = self.take(bytes, what)?;
        Ok(taken
            .chunks_exact(4)
            .map(|word| [word[0], word[1], word[2], word[3]]))
    }
}

fn invalid(reason: String) -> EngineError {
    EngineError::SessionFile(reason)
}

fn format_code(format: KvFormat) -> u64 {
    match format {
        KvFormat::F32 => 0,
        KvFormat::F16 => 1,
        KvFormat::Fp8 => 2,
        KvFormat::Q4 => 3,
    }
}

fn format_name(code: u64) -> String {
    let known = KvFormat::ALL.into_iter();
    known
        .filter(|format| format_code(*format) == code)
        .map(|format| format.name().to_owned())
        .next()
        .unwrap_or_else(|| format!("number {code}"))
}
