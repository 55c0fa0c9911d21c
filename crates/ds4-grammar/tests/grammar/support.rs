//! The vocabulary of DeepSeek V4, and walks through constraints.

use std::io::Read;
use std::sync::OnceLock;

use ds4_engine::{ConstraintState, TokenConstraint, TokenMask};
use ds4_grammar::{Format, GrammarError, GrammarFactory, GrammarLimits};
use ds4_tokenizer::{TokenId, Tokenizer};

pub(crate) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let packed =
            include_bytes!("../../../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz");
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_end(&mut json)
            .unwrap();
        Tokenizer::from_json(&json).unwrap()
    })
}

pub(crate) fn factory() -> &'static GrammarFactory {
    static FACTORY: OnceLock<GrammarFactory> = OnceLock::new();
    FACTORY.get_or_init(|| GrammarFactory::new(tokenizer(), GrammarLimits::default()).unwrap())
}

/// Why a text does not follow a format.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// The format itself was refused.
    Format(#[expect(dead_code, reason = "printed")] GrammarError),
    /// The tokens up to here fit, the next does not.
    #[expect(dead_code, reason = "printed")]
    Token { before: String },
    /// All tokens fit, but the text may not end.
    TooShort,
}

/// Whether `text`, its tokens taken one by one from masks, follows the format. Names of control tokens in
/// it are those tokens if `specials`.
pub(crate) fn follows(format: &Format, text: &str, specials: bool) -> Result<(), Rejection> {
    let grammar = factory().prepare(format).map_err(Rejection::Format)?;
    let mut constraint = grammar.constraint();
    let mut tokens = Vec::new();
    if specials {
        tokenizer().encode_with_specials(text, &mut tokens);
    } else {
        tokenizer().encode(text, &mut tokens);
    }
    let mut mask = TokenMask::new(tokenizer().vocabulary_size());
    for (at, &token) in tokens.iter().enumerate() {
        let before = || tokenizer().decode_lossy(&tokens[..at]);
        if constraint.mask(&mut mask).is_err() || !mask.allows(token) {
            return Err(Rejection::Token { before: before() });
        }
        if constraint.accept(token).is_err() {
            panic!(
                "the mask allowed what was not accepted, behind {:?}",
                before()
            );
        }
    }
    constraint.mask(&mut mask).unwrap();
    let end = tokenizer().eos().unwrap();
    if !mask.allows(end) {
        return Err(Rejection::TooShort);
    }
    assert_eq!(constraint.accept(end).unwrap(), ConstraintState::Finished);
    Ok(())
}

pub(crate) fn schema(schema: &serde_json::Value) -> Format {
    Format::JsonSchema(schema.to_string())
}

/// Random numbers with a seed (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Samples from masks until the text ends, without a model: mostly short tokens that make progress, now
/// and then any. `None` if it is longer than `limit` tokens.
pub(crate) fn generate(format: &Format, random: &mut Random, limit: usize) -> Option<Vec<TokenId>> {
    let grammar = factory().prepare(format).unwrap();
    let mut constraint = grammar.constraint();
    let mut mask = TokenMask::new(tokenizer().vocabulary_size());
    let end = tokenizer().eos().unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < limit {
        constraint.mask(&mut mask).unwrap();
        let token = choose(&mask, end, random, tokens.len() > limit / 2);
        match constraint.accept(token).unwrap() {
            ConstraintState::Finished => {
                if token != end {
                    tokens.push(token);
                }
                return Some(tokens);
            }
            _ => tokens.push(token),
        }
    }
    None
}

fn choose(mask: &TokenMask, end: TokenId, random: &mut Random, hurry: bool) -> TokenId {
    if mask.allows(end) && (hurry || random.below(3) == 0) {
        return end;
    }
    let allowed: Vec<TokenId> = (0..mask.vocabulary() as TokenId)
        .filter(|&id| mask.allows(id))
        .collect();
    let closing = |id: TokenId| {
        let bytes = tokenizer().token_bytes(id).unwrap();
        tokenizer().is_special(id)
            || bytes == b"</"
            || (bytes.iter().all(|byte| b"\"}],\n<>/".contains(byte)) && bytes.len() < 4)
    };
    if random.below(if hurry { 8 } else { 2 }) > 0 {
        let closing: Vec<TokenId> = allowed.iter().copied().filter(|&id| closing(id)).collect();
        if !closing.is_empty() {
            return closing[random.below(closing.len())];
        }
    }
    allowed[random.below(allowed.len())]
}
