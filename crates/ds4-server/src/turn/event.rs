//! What happens in a turn, in our own terms; every dialect writes it in its own events.

/// One step of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnEvent {
    /// The prompt is being processed.
    Prefill {
        /// Tokens of the prompt that are ready.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// More reasoning.
    Reasoning(String),
    /// More of the answer.
    Text(String),
    /// Log probabilities of the tokens of the reasoning or text just reported.
    Logprobs(Vec<TokenLogprob>),
    /// A tool call begins.
    CallStart {
        /// Place among the calls, from 0.
        index: usize,
        /// Id of the call; nobody can guess it.
        id: String,
        /// Name as in the prompt.
        name: String,
    },
    /// More of a call's arguments, a fragment of JSON.
    CallArguments {
        /// Place of the call.
        index: usize,
        /// The fragment.
        delta: String,
    },
    /// A call ended.
    CallEnd {
        /// Place of the call.
        index: usize,
        /// False if the answer ended inside it.
        complete: bool,
    },
    /// The turn is over.
    Finished(TurnEnd),
    /// The turn failed after it was accepted.
    Failed {
        /// What happened.
        message: String,
    },
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnEnd {
    /// Why.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

/// Why a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// A stop text came up.
    StopSequence(String),
    /// The longest answer allowed, or no more room in the context.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// Somebody cancelled it.
    Cancelled,
}

/// Tokens of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Of these, tokens whose state was there already.
    pub cached: usize,
    /// Tokens generated, reasoning included; the end-of-sentence token does not count.
    pub completion: usize,
    /// Of these, tokens of reasoning.
    pub reasoning: usize,
}

/// A sampled token and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TopLogprob,
    /// The likeliest tokens at this place, likeliest first.
    pub top: Vec<TopLogprob>,
    /// Whether the token belongs to the reasoning.
    pub reasoning: bool,
}

/// A token and its log probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TopLogprob {
    /// Bytes of the token; not always whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}
