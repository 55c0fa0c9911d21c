//! A checkpoint folder: configuration, tokenizer files and the safetensors shards.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::config::Config;
use crate::error::{QuantizeError, io};
use crate::safetensors::{SafetensorsFile, StoredTensor};

const INDEX: &str = "model.safetensors.index.json";
/// Largest JSON file that is read; the official tokenizer has 8 MB.
const LARGEST_JSON: u64 = 1 << 30;

/// An official checkpoint: its configuration is checked, its shards are open, their headers are read.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: Config,
    shards: Vec<SafetensorsFile>,
    /// Shard and place of each tensor.
    tensors: HashMap<String, (usize, StoredTensor)>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`. With `model.safetensors.index.json` the shards are those that it
    /// lists, else all `*.safetensors` files.
    ///
    /// # Errors
    /// A file that is missing, malformed or contradicts the index.
    pub fn open(folder: &Path) -> Result<Self, QuantizeError> {
        let config = Config::from_json(&folder.join("config.json"))?;
        let index = folder.join(INDEX);
        let listed = match index.try_exists().map_err(io(&index, "look for"))? {
            true => Some(weight_map(&index)?),
            false => None,
        };
        let names = match &listed {
            Some(map) => map
                .values()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
            None => safetensors_in(folder)?,
        };
        let refuse = |path: &Path, problem: String| QuantizeError::Checkpoint {
            path: path.to_owned(),
            problem,
        };
        if names.is_empty() {
            let problem =
                format!("no `{INDEX}` and no `*.safetensors` file, expected a checkpoint");
            return Err(refuse(folder, problem));
        }
        let mut shards = Vec::new();
        let mut tensors = HashMap::new();
        for name in &names {
            let path = folder.join(name);
            if listed.is_some() && !path.exists() {
                let problem = format!("this shard is listed in `{INDEX}`, but it is missing");
                return Err(refuse(&path, problem));
            }
            let mut shard = SafetensorsFile::open(&path)?;
            for (tensor, stored) in std::mem::take(&mut shard.tensors) {
                let elsewhere = match &listed {
                    Some(map) => map.get(&tensor).is_some_and(|file| file != name),
                    None => tensors.contains_key(&tensor),
                };
                if elsewhere {
                    let problem = format!("tensor `{tensor}` belongs to another shard");
                    return Err(refuse(&path, problem));
                }
                tensors.insert(tensor, (shards.len(), stored));
            }
            shards.push(shard);
        }
        if let Some(map) = &listed {
            let mut missing: Vec<_> = map
                .keys()
                .filter(|name| !tensors.contains_key(*name))
                .collect();
            missing.sort_unstable();
            if let Some(name) = missing.first() {
                let problem = format!("tensor `{name}` is listed in `{INDEX}`, but is not in here");
                return Err(refuse(&folder.join(&map[*name]), problem));
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            config,
            shards,
            tensors,
        })
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name).map(|(_, stored)| stored)
    }

    /// Names of all tensors, in no order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shard and place of a tensor.
    pub(crate) fn locate(&self, name: &str) -> Option<&(usize, StoredTensor)> {
        self.tensors.get(name)
    }

    /// Fills `out` from byte `offset` of a shard on.
    pub(crate) fn read(
        &self,
        shard: usize,
        out: &mut [u8],
        offset: u64,
    ) -> Result<(), QuantizeError> {
        self.shards[shard].read(out, offset)
    }

    /// A JSON file of the folder; none when it is not there.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>, QuantizeError> {
        let path = self.folder.join(name);
        match path.try_exists().map_err(io(&path, "look for"))? {
            true => read_json(&path).map(Some),
            false => Ok(None),
        }
    }

    /// A text file of the folder; none when it is not there.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, QuantizeError> {
        let path = self.folder.join(name);
        match path.try_exists().map_err(io(&path, "look for"))? {
            true => fs::read_to_string(&path)
                .map(Some)
                .map_err(io(&path, "read")),
            false => Ok(None),
        }
    }

    /// Adds to `hasher` what tells these weights from others without reading them: names, sizes,
    /// headers and times of the shards.
    pub(crate) fn identify(&self, hasher: &mut blake3::Hasher) -> Result<(), QuantizeError> {
        for shard in &self.shards {
            let metadata = shard.file.metadata().map_err(io(&shard.path, "examine"))?;
            let time = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |time| time.as_nanos());
            let name = shard.path.file_name().unwrap_or_default();
            hasher.update(name.as_encoded_bytes());
            hasher.update(&[0]);
            hasher.update(&metadata.len().to_le_bytes());
            hasher.update(&time.to_le_bytes());
            hasher.update(shard.header_hash.as_bytes());
        }
        Ok(())
    }
}

/// Reads a JSON file of any kind.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, QuantizeError> {
    let size = fs::metadata(path).map_err(io(path, "examine"))?.len();
    if size > LARGEST_JSON {
        return Err(QuantizeError::Checkpoint {
            path: path.to_owned(),
            problem: format!("{size} bytes are too many for this file"),
        });
    }
    let bytes = fs::read(path).map_err(io(path, "read"))?;
    serde_json::from_slice(&bytes).map_err(|source| QuantizeError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Tensor to shard. A shard must be a plain file name: an index does not lead out of its folder.
fn weight_map(path: &Path) -> Result<HashMap<String, String>, QuantizeError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = read_json(path)?;
    let is_plain = |name: &str| {
        let mut components = Path::new(name).components();
        matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none()
    };
    if let Some(name) = index.weight_map.values().find(|name| !is_plain(name)) {
        return Err(QuantizeError::Checkpoint {
            path: path.to_owned(),
            problem: format!("shard `{name}` is not the name of a file in this folder"),
        });
    }
    Ok(index.weight_map)
}

fn safetensors_in(folder: &Path) -> Result<Vec<String>, QuantizeError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder, "list"))? {
        let entry = entry.map_err(io(folder, "list"))?;
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(".safetensors")
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
