//! Prompt pieces to token ids.

use anyhow::anyhow;
use ds4_chat::{ControlToken, Piece};
use ds4_tokenizer::{TokenId, Tokenizer};

/// The id of a control token.
///
/// # Errors
/// The vocabulary does not have it.
pub(crate) fn control_id(tokenizer: &Tokenizer, token: ControlToken) -> anyhow::Result<TokenId> {
    tokenizer.special(token.text()).ok_or_else(|| {
        anyhow!("the vocabulary has no control token `{token}`, which the prompt needs")
    })
}

/// Appends the tokens of one piece. Text never becomes a control token, whatever it spells.
pub(crate) fn push_piece(
    tokenizer: &Tokenizer,
    piece: &Piece,
    ids: &mut Vec<TokenId>,
) -> anyhow::Result<()> {
    match piece {
        Piece::Special(token) => ids.push(control_id(tokenizer, *token)?),
        Piece::Text(text) => tokenizer.encode(text, ids),
        Piece::Sampled { .. } => {
            return Err(anyhow!(
                "the prompt refers to a sampled answer that is not known here"
            ));
        }
    }
    Ok(())
}

/// The tokens of a whole prompt.
pub(crate) fn encode(tokenizer: &Tokenizer, pieces: &[Piece]) -> anyhow::Result<Vec<TokenId>> {
    let mut ids = Vec::new();
    for piece in pieces {
        push_piece(tokenizer, piece, &mut ids)?;
    }
    Ok(ids)
}
