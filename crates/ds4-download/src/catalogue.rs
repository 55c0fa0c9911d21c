//! The published files that are known by a short name.

use crate::digest::Sha256Hash;
use crate::source::Source;

/// The repository of the reference engine's conversions.
const REPOSITORY: &str = "antirez/deepseek-v4-gguf";

/// The commit of 15 August 2026, which has the files of both releases.
const AUGUST: &str = "86bb38ce2ba7a98ab0e550359fec5f48859dc723";

/// A published file with a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The name, as in `deepseek-v4-flash`.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Release of the weights.
    pub release: &'static str,
    /// Whether it is a model of its own; otherwise it goes with one.
    pub is_model: bool,
    /// Types of the weights, in a few words.
    pub weights: &'static str,
    /// Name of the file, in the repository and on disk.
    pub file: &'static str,
    /// Size in bytes.
    pub length: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Hash,
    revision: &'static str,
}

impl Entry {
    /// Where the file is published.
    pub fn source(&self) -> Source {
        Source {
            repository: REPOSITORY.to_owned(),
            revision: self.revision.to_owned(),
            file: self.file.to_owned(),
            length: Some(self.length),
            sha256: Some(self.sha256),
        }
    }
}

/// Every file with a short name. Sizes and hashes are those of the hub's LFS records.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "deepseek-v4-flash",
        aliases: &["deepseek-v4-flash-0731", "deepseek-v4-flash-q2"],
        release: "0731",
        is_model: true,
        weights: "experts IQ2_XXS and Q2_K",
        file: "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-0731.gguf",
        length: 86_720_111_488,
        sha256: Sha256Hash::from_hex(
            "ca22ae2f838e14077c22bc1c1417b71b45b5e5a3687bd96c2ac6e17fdb6261c0",
        ),
        revision: AUGUST,
    },
    Entry {
        name: "deepseek-v4-flash-q2-q4",
        aliases: &[],
        release: "0731",
        is_model: true,
        weights: "as above, last six layers Q4_K",
        file: "DeepSeek-V4-Flash-Layers37-42Q4KExperts-OtherExpertLayersIQ2XXSGateUp-Q2KDown-\
               AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-fixed-0731.gguf",
        length: 97_591_747_456,
        sha256: Sha256Hash::from_hex(
            "659e22fbd01c9e13ea37a57c8d9c41e0a8819dffa3473d3c5286ee44b2d3398f",
        ),
        revision: AUGUST,
    },
    Entry {
        name: "deepseek-v4-flash-q4",
        aliases: &[],
        release: "0731",
        is_model: true,
        weights: "experts Q4_K",
        file: "DeepSeek-V4-Flash-Q4KExperts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-\
               chat-v2-imatrix-0731.gguf",
        length: 164_633_502_592,
        sha256: Sha256Hash::from_hex(
            "6bb77b5ddcbc2d974c687cfb63d644ecfb295581b4a53fa4c1d810aea538254a",
        ),
        revision: AUGUST,
    },
    Entry {
        name: "deepseek-v4-flash-mxfp4",
        aliases: &[],
        release: "0731",
        is_model: true,
        weights: "experts MXFP4, as released",
        file: "DeepSeek-V4-Flash-MXFP4Experts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-\
               Q8Out-chat-v2-mxfp4-0731.gguf",
        length: 155_976_458_848,
        sha256: Sha256Hash::from_hex(
            "0e3a161b670f686128ec5f92a601dfde616a37bf5e7e48999fa2d32471b57ec6",
        ),
        revision: AUGUST,
    },
    Entry {
        name: "deepseek-v4-flash-april",
        aliases: &["deepseek-v4-flash-preview"],
        release: "April",
        is_model: true,
        weights: "experts IQ2_XXS and Q2_K",
        file: "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix.gguf",
        length: 86_720_111_488,
        sha256: Sha256Hash::from_hex(
            "efc7ed607ff27076e3e501fc3fefefa33c0ed8cf1eff483a2b7fdc0c2e616668",
        ),
        revision: "main",
    },
    Entry {
        name: "deepseek-v4-flash-mtp",
        aliases: &["mtp"],
        release: "April",
        is_model: false,
        weights: "MTP block of the April release, Q4_K",
        file: "DeepSeek-V4-Flash-MTP-Q4K-Q8_0-F32.gguf",
        length: 3_807_602_400,
        sha256: Sha256Hash::from_hex(
            "afd481ee689dce9037f70f39085fcdae5a5b096d521cdad43b19fa52bf8f4083",
        ),
        revision: "9170bf42beb77f38006e016503ecace31f2bd9a0",
    },
    Entry {
        name: "deepseek-v4-pro",
        aliases: &["deepseek-v4-pro-0813", "deepseek-v4-pro-q2"],
        release: "0813",
        is_model: true,
        weights: "experts IQ2_XXS and Q2_K",
        file: "DeepSeek-V4-Pro-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-Instruct-imatrix-0813.gguf",
        length: 464_627_334_560,
        sha256: Sha256Hash::from_hex(
            "c4d997ab9894b6c78b759f7869fe1726b6314b6515f6ff82607df3797c5eb193",
        ),
        revision: AUGUST,
    },
];

/// The entry with this name or alias.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE
        .iter()
        .find(|entry| entry.name == name || entry.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_files_and_hashes_are_distinct_and_valid() {
        let mut names = BTreeSet::new();
        let mut files = BTreeSet::new();
        let mut hashes = BTreeSet::new();
        for entry in CATALOGUE {
            for name in entry.aliases.iter().chain([&entry.name]) {
                assert!(names.insert(*name), "{name} is there twice");
                assert_eq!(find(name), Some(entry));
            }
            assert!(files.insert(entry.file));
            assert!(hashes.insert(entry.sha256));
            let spelt = format!("{REPOSITORY}@{}:{}", entry.revision, entry.file);
            let parsed: Source = spelt.parse().unwrap();
            assert_eq!(parsed.file, entry.file);
            assert_eq!(entry.source().local_name(), entry.file);
        }
        assert_eq!(find("deepseek-v3"), None);
    }

    /// Names that the issue promises, with the sizes that the reference's documentation rounds.
    #[test]
    fn promised_names_have_the_published_sizes() {
        for (name, gib) in [
            ("deepseek-v4-flash", 80.76),
            ("deepseek-v4-flash-q4", 153.3),
            ("deepseek-v4-flash-mxfp4", 145.3),
            ("deepseek-v4-pro", 432.7),
            ("mtp", 3.55),
        ] {
            let length = find(name).unwrap().length as f64 / f64::from(1 << 30);
            assert!((length - gib).abs() < 0.06, "{name}: {length}");
        }
    }
}
