//! The agents: where their settings lie, and what they must say.
//!
//! Sources: each agent's own documentation, and `docs/CLIENTS.md` for the versions that were tried.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{json_settings, toml_settings};
use crate::failure::{Hint, UsageError};

/// Longest answer that agents are told to ask for, in tokens.
const MAX_ANSWER: u64 = 32_768;
/// Agents demand a key even where the server does not.
const NO_KEY: &str = "local";
/// The name of the server in the agents' lists of providers.
const PROVIDER: &str = "ds4";

/// An agent that can be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// OpenAI's Codex CLI
    Codex,
    /// Anthropic's Claude Code
    Claude,
    /// opencode
    Opencode,
    /// pi
    Pi,
}

/// The server, as an agent must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    origin: String,
    model: String,
    api_key: Option<String>,
    context: u64,
}

impl Endpoint {
    /// Checks what the user gave.
    ///
    /// # Errors
    /// An address that is none, a model or key with characters that an agent would read as its own
    /// syntax.
    pub(crate) fn new(
        url: &str,
        model: &str,
        api_key: Option<&str>,
        context: u64,
    ) -> Result<Self, UsageError> {
        let wrong = |text: String| Err(UsageError(text));
        let origin = url.trim_end_matches('/');
        let origin = origin.strip_suffix("/v1").unwrap_or(origin);
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            .unwrap_or_default();
        let of_host = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
        if host.is_empty() || !host.chars().all(of_host) {
            return wrong(format!(
                "`{url}` is no address of a server, such as http://127.0.0.1:8000"
            ));
        }
        let of_model = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if model.is_empty() || !model.chars().all(of_model) {
            return wrong(format!(
                "`{model}` is no name of a model: letters, digits and `-._:` only"
            ));
        }
        // RFC 6750, b64token. Some agents run commands that stand in a key, or look variables up.
        let of_key = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        if api_key.is_some_and(|key| key.is_empty() || !key.chars().all(of_key)) {
            return wrong(
                "the API key may have letters, digits and `-._~+/=` only, as Bearer tokens do"
                    .to_owned(),
            );
        }
        Ok(Self {
            origin: origin.to_owned(),
            model: model.to_owned(),
            api_key: api_key.map(str::to_owned),
            context,
        })
    }

    fn key(&self) -> &str {
        self.api_key.as_deref().unwrap_or(NO_KEY)
    }

    fn v1(&self) -> String {
        format!("{}/v1", self.origin)
    }
}

impl Client {
    /// The file that holds the agent's settings. `variable` looks up the environment.
    ///
    /// # Errors
    /// No home directory.
    pub(crate) fn settings_file(
        self,
        variable: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> anyhow::Result<PathBuf> {
        let directory = |name: &str, below_home: &str| {
            variable(name)
                .filter(|path| path.is_absolute())
                .or_else(|| {
                    let home = variable("HOME").filter(|path| path.is_absolute());
                    home.map(|home| home.join(below_home))
                })
                .context("the user has no home directory")
                .hint(|| format!("set HOME or {name} to an absolute path"))
        };
        Ok(match self {
            Self::Codex => directory("CODEX_HOME", ".codex")?.join("config.toml"),
            Self::Claude => directory("CLAUDE_CONFIG_DIR", ".claude")?.join("settings.json"),
            Self::Opencode => {
                let directory = directory("XDG_CONFIG_HOME", ".config")?.join("opencode");
                first_that_exists(&directory, ["opencode.jsonc", "opencode.json"])
                    .unwrap_or_else(|| directory.join("opencode.json"))
            }
            Self::Pi => directory("PI_CODING_AGENT_DIR", ".pi/agent")?.join("models.json"),
        })
    }

    /// What the settings must say.
    fn wanted(self, endpoint: &Endpoint) -> Value {
        let model = endpoint.model.as_str();
        match self {
            Self::Codex => {
                let mut provider = json!({
                    "name": "DwarfStar",
                    "base_url": endpoint.v1(),
                    "wire_api": "responses",
                });
                if let Some(key) = &endpoint.api_key {
                    provider["experimental_bearer_token"] = Value::from(key.as_str());
                }
                json!({
                    "model": model,
                    "model_provider": PROVIDER,
                    "model_context_window": endpoint.context,
                    "model_providers": {PROVIDER: provider},
                })
            }
            Self::Claude => json!({"env": {
                "ANTHROPIC_BASE_URL": endpoint.origin,
                "ANTHROPIC_AUTH_TOKEN": endpoint.key(),
                "ANTHROPIC_MODEL": model,
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            }}),
            Self::Opencode => json!({
                "model": format!("{PROVIDER}/{model}"),
                "provider": {PROVIDER: {
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "DwarfStar",
                    "options": {"baseURL": endpoint.v1(), "apiKey": endpoint.key()},
                    "models": {model: {
                        "name": "DeepSeek V4",
                        "reasoning": true,
                        "tool_call": true,
                        "interleaved": {"field": "reasoning_content"},
                        "limit": {
                            "context": endpoint.context,
                            "output": MAX_ANSWER.min(endpoint.context),
                        },
                    }},
                }},
            }),
            Self::Pi => json!({"providers": {PROVIDER: {
                "baseUrl": endpoint.v1(),
                "api": "openai-completions",
                "apiKey": endpoint.key(),
                "models": [{
                    "id": model,
                    "name": "DeepSeek V4",
                    "reasoning": true,
                    "input": ["text"],
                    "contextWindow": endpoint.context,
                    "maxTokens": MAX_ANSWER.min(endpoint.context),
                    "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
                }],
            }}}),
        }
    }

    /// The settings in `text` with what they must say.
    ///
    /// # Errors
    /// A text that is not in the agent's format, or has something else where a table must be.
    pub(crate) fn edited(self, text: &str, endpoint: &Endpoint) -> anyhow::Result<String> {
        let wanted = self.wanted(endpoint);
        let Value::Object(wanted) = &wanted else {
            return Ok(text.to_owned());
        };
        match self {
            Self::Codex => toml_settings::edited(text, wanted),
            Self::Claude | Self::Opencode | Self::Pi => json_settings::edited(text, wanted),
        }
    }

    /// How the agent is started with the new settings.
    pub(crate) fn start_command(self, endpoint: &Endpoint) -> String {
        match self {
            Self::Codex => "codex".to_owned(),
            Self::Claude => "claude".to_owned(),
            Self::Opencode => "opencode".to_owned(),
            Self::Pi => format!("pi --provider {PROVIDER} --model {}", endpoint.model),
        }
    }
}

fn first_that_exists<const N: usize>(directory: &Path, names: [&str; N]) -> Option<PathBuf> {
    names
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_keys_are_checked() {
        let new = |url, model, key| Endpoint::new(url, model, key, 1000);
        let endpoint = new("http://localhost:8000/v1/", "default", None).unwrap();
        assert_eq!(endpoint.v1(), "http://localhost:8000/v1");
        assert!(new("https://host.example/ds4", "default", Some("a-b.c~9+/==")).is_ok());
        assert!(new("http://[::1]:8000", "default", None).is_ok());
        for url in [
            "",
            "localhost:8000",
            "http://",
            "ftp://x",
            "http://a\nb",
            "http://a\"b",
        ] {
            assert!(new(url, "default", None).is_err(), "{url}");
        }
        for key in ["", "!rm", "$HOME", "{env:X}", "a b", "a\"b"] {
            assert!(new("http://x", "default", Some(key)).is_err(), "{key}");
        }
        for model in ["", "a/b", "a b", "$x"] {
            assert!(new("http://x", model, None).is_err(), "{model}");
        }
    }

    #[test]
    fn each_agent_has_its_file() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/ann"));
        let file = |client: Client| client.settings_file(&home).unwrap();
        assert_eq!(
            file(Client::Codex),
            Path::new("/home/ann/.codex/config.toml")
        );
        assert_eq!(
            file(Client::Claude),
            Path::new("/home/ann/.claude/settings.json")
        );
        assert_eq!(
            file(Client::Opencode),
            Path::new("/home/ann/.config/opencode/opencode.json")
        );
        assert_eq!(
            file(Client::Pi),
            Path::new("/home/ann/.pi/agent/models.json")
        );
        let moved = |name: &str| (name == "CODEX_HOME").then(|| PathBuf::from("/c"));
        assert_eq!(
            Client::Codex.settings_file(&moved).unwrap(),
            Path::new("/c/config.toml")
        );
        assert!(Client::Pi.settings_file(&|_| None).is_err());
    }

    #[test]
    fn an_edit_done_twice_changes_nothing_more() {
        let endpoint = Endpoint::new("http://127.0.0.1:8000", "default", Some("k"), 1000).unwrap();
        for client in Client::value_variants() {
            let once = client.edited("", &endpoint).unwrap();
            assert_eq!(client.edited(&once, &endpoint).unwrap(), once, "{client:?}");
            assert!(once.contains("http://127.0.0.1:8000"), "{once}");
        }
    }
}
