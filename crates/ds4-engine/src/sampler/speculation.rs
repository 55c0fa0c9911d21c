//! Whether a drafted token stands.

use ds4_model::TokenId;

use super::distribution::Distribution;

/// What became of a drafted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands.
    Accepted,
    /// It does not, and this token takes its place; later drafts are void.
    Replaced(TokenId),
}

/// Judges `drafted`, which was drawn from `draft`, so that what results is distributed as `target`
/// (Leviathan, Kalman, Matias 2023): it stands with probability `min(1, p/q)`, otherwise a token is
/// drawn from `max(0, p - q)`, normalised. `uniforms` are two independent numbers in `[0, 1)`.
///
/// A greedy draft is [certain](Distribution::set_certain). With a greedy target the result is the
/// target's token whatever was drafted. A token that `draft` could not give is judged as certain.
/// `target` must not be empty.
pub fn verify_draft(
    target: &Distribution,
    draft: &Distribution,
    drafted: TokenId,
    uniforms: [f64; 2],
) -> Verdict {
    let p = target.probability(drafted);
    let (q, certain) = match draft.probability(drafted) {
        0.0 => (1.0, Some(drafted)),
        q => (q, None),
    };
    if uniforms[0] * q < p {
        return Verdict::Accepted;
    }
    let residual = || residual(target, draft, certain);
    let total: f64 = residual().map(|(_, rest)| rest).sum();
    let mut rest = uniforms[1] * total;
    let mut last = None;
    for (token, probability) in residual() {
        last = Some(token);
        rest -= probability;
        if rest < 0.0 {
            break;
        }
    }
    // Nothing is left where both are equal but for rounding; then the target itself is right.
    match last.or_else(|| target.draw(uniforms[1])) {
        Some(token) => Verdict::Replaced(token),
        None => Verdict::Accepted,
    }
}

/// What `target` has more than `draft`, or than the certain token. Both are in order of id, so one walk
/// suffices.
fn residual(
    target: &Distribution,
    draft: &Distribution,
    certain: Option<TokenId>,
) -> impl Iterator<Item = (TokenId, f64)> {
    let mut drafts = draft.iter().peekable();
    target.iter().filter_map(move |(token, p)| {
        while drafts.next_if(|&(drafted, _)| drafted < token).is_some() {}
        let q = match certain {
            Some(certain) if certain == token => 1.0,
            Some(_) => 0.0,
            None => drafts
                .next_if(|&(drafted, _)| drafted == token)
                .map_or(0.0, |(_, q)| q),
        };
        (p > q).then_some((token, p - q))
    })
}
