//! Files of cases: one JSON object a line, compressed with gzip or not.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::case::Case;
use crate::error::{CaseError, CaseProblem};

/// Longest line in bytes: some hundred thousand tokens.
const LONGEST_LINE: usize = 8 << 20;

/// Most bytes of a file, decompressed.
const MOST_BYTES: u64 = 512 << 20;

/// Most cases of a file.
const MOST_CASES: usize = 100_000;

/// First bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The cases of a file.
#[derive(Debug, Clone)]
pub struct CaseFile {
    /// In the order of the file; ids are unique.
    pub cases: Vec<Case>,
}

impl CaseFile {
    /// Reads all cases. Blank lines are passed over.
    ///
    /// # Errors
    /// A line that is no case, no cases at all, or too many; the first problem counts.
    pub fn read(input: impl Read) -> Result<Self, CaseError> {
        let mut input = BufReader::new(input);
        let start = input
            .fill_buf()
            .map_err(|source| CaseError::Read { line: 0, source })?;
        if start.starts_with(&GZIP) {
            Self::read_lines(BufReader::new(MultiGzDecoder::new(input)))
        } else {
            Self::read_lines(input)
        }
    }

    fn read_lines(mut input: impl BufRead) -> Result<Self, CaseError> {
        let mut cases = Vec::new();
        let mut ids = HashSet::new();
        let mut bytes = Vec::new();
        let mut total = 0;
        for line in 1.. {
            bytes.clear();
            let read = (&mut input)
                .take(LONGEST_LINE as u64 + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| CaseError::Read {
                    line: line - 1,
                    source,
                })?;
            if read == 0 {
                break;
            }
            if read > LONGEST_LINE {
                return Err(CaseError::LongLine {
                    line,
                    limit: LONGEST_LINE,
                });
            }
            total += read as u64;
            if total > MOST_BYTES {
                return Err(CaseError::TooLarge { limit: MOST_BYTES });
            }
            let text = bytes.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if cases.len() == MOST_CASES {
                return Err(CaseError::TooManyCases { limit: MOST_CASES });
            }
            let case = parse(text).map_err(|problem| CaseError::Line { line, problem })?;
            if !ids.insert(case.id.clone()) {
                let problem = CaseProblem::DuplicateId { id: case.id };
                return Err(CaseError::Line { line, problem });
            }
            cases.push(case);
        }
        if cases.is_empty() {
            return Err(CaseError::Empty);
        }
        Ok(Self { cases })
    }
}

fn parse(line: &[u8]) -> Result<Case, CaseProblem> {
    let text = std::str::from_utf8(line).map_err(|error| CaseProblem::Encoding {
        byte: error.valid_up_to(),
    })?;
    Case::from_json(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn line(id: &str) -> String {
        format!(
            "{{\"id\": \"{id}\", \"category\": \"c\", \"max_tokens\": 5, \
             \"messages\": [{{\"role\": \"user\", \"content\": \"?\"}}], \
             \"check\": {{\"kind\": \"contains\", \"text\": \"x\"}}}}\n"
        )
    }

    fn refusal(file: &[u8]) -> String {
        CaseFile::read(file).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_compressed_files_hold_the_same_cases() {
        let text = format!("{}\n  \r\n{}", line("a"), line("b").trim_end());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        for file in [text.as_bytes(), &gzip] {
            let cases = CaseFile::read(file).unwrap().cases;
            let ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
            assert_eq!(ids, ["a", "b"]);
        }
        // A damaged archive is no shorter file.
        assert!(matches!(
            CaseFile::read(&gzip[..gzip.len() - 9]),
            Err(CaseError::Read { .. })
        ));
    }

    #[test]
    fn files_without_meaning_are_refused() {
        assert_eq!(refusal(b""), "the file holds no case");
        assert_eq!(refusal(b"\n \n"), "the file holds no case");
        let twice = [line("a"), line("a")].concat();
        assert_eq!(
            refusal(twice.as_bytes()),
            "line 2: the id `a` is there twice"
        );
        let mut latin = line("a").into_bytes();
        latin[8] = 0xe9;
        assert_eq!(refusal(&latin), "line 1: not UTF-8 from byte 8 on");
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        // A few kilobytes that decompress to more than a line may have.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..16 {
            gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
        let gzip = gzip.finish().unwrap();
        assert!(refusal(&gzip).starts_with("line 1 is longer than"));
    }
}
